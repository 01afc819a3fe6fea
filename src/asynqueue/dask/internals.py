"""The parts of `distributed` that AsynQueue uses and that Dask does not document: all of them, and only here.

A release may change these without notice. `requireWorker`, `requireScheduler` and `requireClient` look for each part at
once, so that a release without one is refused with the name of the part, and not by a failure in the middle of a call.

The cluster imports this module, which imports neither Twisted nor attrs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import reduce
from importlib.metadata import version
from time import time
from typing import Any

from distributed.core import Comm
from distributed.threadpoolexecutor import thread_state, threads_lock

NEWEST = "2026.8.0"
"""The newest release of `distributed` with which AsynQueue was tested."""

SERVER = ("handlers", "stream_handlers")
WORKER = (*SERVER, "scheduler", "executor._threads", "executor._adjust_thread_count")
SCHEDULER = (*SERVER, "tasks", "workers", "proxy", "worker_send")
CLIENT = ("rpc.connect", "rpc.reuse", "scheduler.address", "loop.asyncio_loop", "direct_to_workers")


def requireWorker(worker: Any) -> None:
    """Raise RuntimeError if WORKER of a cluster lacks a part that is used here."""
    _require("its worker", worker, WORKER)


def requireScheduler(scheduler: Any) -> None:
    """Raise RuntimeError if SCHEDULER lacks a part that is used here."""
    _require("its scheduler", scheduler, SCHEDULER)


def requireClient(client: Any) -> None:
    """Raise RuntimeError if CLIENT lacks a part that is used here."""
    _require("its client", client, CLIENT)


def _require(what: str, whole: Any, parts: tuple[str, ...]) -> None:
    for part in parts:
        try:
            reduce(getattr, part.split("."), whole)
        except AttributeError:
            raise RuntimeError(
                f"AsynQueue cannot use distributed {version('distributed')}: {what} has no {part}. Install another "
                f"release, for example {NEWEST}, with which AsynQueue was tested"
            ) from None


# Of a scheduler and of workers.


def serves(server: Any, operation: str) -> bool:
    """Return whether SERVER answers to OPERATION."""
    return operation in server.handlers


def serve(server: Any, **handlers: Callable[..., Any]) -> None:
    """Have SERVER answer to the operations that name HANDLERS."""
    server.handlers.update(handlers)


def listen(server: Any, **handlers: Callable[..., Any]) -> None:
    """Have SERVER take the messages that name HANDLERS. They get no answer."""
    server.stream_handlers.update(handlers)


def workerOf(scheduler: Any, task: str) -> str | None:
    """Return the address of the worker that has a task in hand, as SCHEDULER knows, or None."""
    known = scheduler.tasks.get(task)
    place = None if known is None else known.processing_on
    return None if place is None else str(place.address)


# Of a worker's threads.


def enterCall(key: str | None) -> dict[str, Any]:
    """Note that this thread runs the task KEY, as `distributed.secede` needs. Return the state of the thread."""
    thread_state.start_time = time()
    thread_state.key = key
    return vars(thread_state)


def replaceThread(executor: Any, thread: threading.Thread, state: dict[str, Any]) -> None:
    """Put another thread in the place of THREAD of EXECUTOR, which ends with its call. STATE is that of `enterCall`."""
    state["proceed"] = False
    with threads_lock:
        executor._threads.discard(thread)
        executor._adjust_thread_count()


# Of a client.


async def connect(client: Any, address: str) -> Comm:
    """Return a connection of CLIENT's to the scheduler at ADDRESS. Nothing else uses it until `drop`."""
    comm: Comm = await client.rpc.connect(address)
    return comm


def drop(client: Any, address: str, connection: Comm) -> None:
    """Abort a CONNECTION of `connect`, and return it to CLIENT's pool, which forgets it."""
    connection.abort()
    client.rpc.reuse(address, connection)
