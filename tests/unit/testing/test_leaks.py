"""Fifty queues made, used hard and shut down leave nothing.

(The fixture in `tests/conftest.py` watches over every test; here the same is looked at over many queues, with a
warm-up before, since `multiprocessing` keeps a fork server and a tracker of its own for the life of the program.)
"""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, gatherResults

from asynqueue import NullQueue, ProcessQueue, TaskQueue, ThreadQueue, WorkerLost
from asynqueue.process import ProcessWorker
from tests.support import calls as kit
from tests.support.calls import failureOf, inLoop

QUEUES = 50


def holdings() -> dict[str, int]:
    """How many descriptors (shared memories too), threads, children, delayed calls and readers there are."""
    from twisted.internet import reactor

    clock: Any = reactor  # its type says nothing of what it holds
    gc.collect()
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "children": len(Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()),
        "delayed calls": len(clock.getDelayedCalls()),
        "readers": len(clock.getReaders()),
    }


def upTo(n: int) -> Iterator[int]:
    """The numbers below N."""
    yield from range(n)


async def use(queue: TaskQueue) -> None:
    """Have QUEUE return, raise, iterate, stop iterating, cancel and update."""
    results = [queue.call(kit.echo, n, niceness=n % 5, series="local" if n % 2 else None) for n in range(40)]
    assert await gatherResults(results) == list(range(40))
    assert isinstance(await failureOf(queue.call(kit.raiseThis, KeyError("x"))), KeyError)
    assert [item async for item in await queue.call(upTo, 30)] == list(range(30))
    begun = await queue.call(upTo, 10_000)
    await begun.__anext__()
    begun.stop()
    await queue.call(upTo, 10_000)  # let go of
    doomed = [queue.call(kit.echo, n) for n in range(20)]
    for d in doomed[10:]:
        d.cancel()
    assert await gatherResults(doomed[:10]) == list(range(10))
    for n, d in enumerate(doomed[10:], 10):  # to cancel one is to hear first what others have given already
        (result,) = await d.addBoth(lambda result: [result])
        assert result == n or result.check(CancelledError)
    await queue.update(kit.echo, 1)


async def lose(queue: TaskQueue) -> None:
    """Have QUEUE lose a process under a call, another while it idles, and a running call to a cancel."""
    assert isinstance(await failureOf(queue.call(kit.die)), WorkerLost)
    worker = queue.workers()[0]
    assert isinstance(worker, ProcessWorker)
    os.kill(worker.process.pid, signal.SIGKILL)
    assert await queue.call(kit.echo, 5) == 5
    assert isinstance(await failureOf(queue.call(kit.markAndHang, Path(os.devnull), timeout=0.01)), TimeoutError)


async def oneOf(make: Callable[[], TaskQueue]) -> None:
    async with make() as queue:
        await use(queue)
        if isinstance(queue, ProcessQueue):
            await lose(queue)


@pytest.mark.parametrize(
    ("make", "queues"),
    [(NullQueue, QUEUES), (lambda: ThreadQueue(workers=2), QUEUES), (lambda: ProcessQueue(1), QUEUES // 10)],
    ids=["main loop", "threads", "processes"],
)
@inLoop
async def test_queues_made_used_and_shut_down_leave_nothing(make: Callable[[], TaskQueue], queues: int) -> None:
    await oneOf(make)
    before = holdings()
    for _ in range(queues):
        await oneOf(make)
    assert holdings() == before


@inLoop
async def test_fifty_process_queues_leave_nothing() -> None:
    async with ProcessQueue(2) as queue:
        await queue.call(kit.echo, 0)
    before = holdings()
    for n in range(QUEUES):
        async with ProcessQueue(2) as queue:
            assert await queue.call(kit.echo, n) == n
    assert holdings() == before
