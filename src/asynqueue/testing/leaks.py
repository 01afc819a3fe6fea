"""Find what a test, or an example of the kit, leaves behind, by a comparison of before and after.

Threads, processes, file descriptors and temporary files come from ``/proc``. Without ``/proc``, only what Python knows
is compared. A live child process may keep shared memory for a while (see `asynqueue.core.protocol.bufferpool`). That is
not a leak.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from asynqueue.capabilities import proc
from asynqueue.core.protocol.bufferpool import MOST

Present: TypeAlias = dict[str, set[Any]]  # Any: threads, delayed calls, text

POOLS = ("PoolThread-twisted", "ThreadPoolExecutor", "pytest", "asyncio_")
"""The first parts of the names of threads that other packages keep until the interpreter ends."""

HELPERS = ("forkserver", "resource_tracker")
"""The processes that multiprocessing starts once and keeps."""


def left(before: Present, turn: Callable[[], object], grace: float) -> dict[str, list[Any]]:
    """Return what exists now and did not exist BEFORE.

    TURN is called for up to GRACE seconds while there is anything. Delayed calls have no grace: if one is due later, it
    was not cancelled.
    """
    deadline = time.monotonic() + grace
    while True:
        there = {what: sorted(now - before[what], key=str) for what, now in present().items()}
        there = {what: new for what, new in there.items() if new}
        if not there or "delayed calls" in there or time.monotonic() > deadline:
            return there
        turn()


def present() -> Present:
    """Return everything that a test can leave behind."""
    # The reactor if one is installed. This must not install one.
    reactor: Any = sys.modules.get("twisted.internet.reactor")
    calls = set() if reactor is None else {c for c in reactor.getDelayedCalls() if c.active()}
    calls = {call for call in calls if not _keepsMemory(call.func)}
    now = reactor.seconds() if reactor is not None and type(reactor).__name__.startswith("Asyncio") else 0.0
    fromThreads = {call for call in calls if call.getTime() <= now}
    return {
        "delayed calls": calls - fromThreads,
        "calls from threads": fromThreads,  # under asyncio these are delayed calls that are due
        "readers": set() if reactor is None else {*reactor.getReaders(), *reactor.getWriters()},
        "threads": {t for t in threading.enumerate() if not t.name.startswith(POOLS)},
        "processes": _children(),
        "file descriptors": _descriptors(),
        "temporary files": _temporaryFiles(),
    }


def _children() -> set[str]:
    """Return the child processes, without those that help this process until its end."""
    helpers = {number for number in _childrenOf("self") if any(name in _commandLine(number) for name in HELPERS)}
    below = [number for number in _childrenOf("self") if number not in helpers]
    for helper in helpers:
        below += _childrenOf(helper)  # the fork server starts child processes on our behalf
    return {f"{number} ({_commandLine(number)})" for number in below}


def _childrenOf(number: str) -> list[str]:
    found: list[str] = []
    try:
        for task in os.listdir(proc(f"{number}/task")):
            with open(proc(f"{number}/task/{task}/children")) as listing:
                found += listing.read().split()
    except OSError:
        pass  # the process has ended, or there is no /proc
    return found


def _commandLine(number: str) -> str:
    try:
        with open(proc(f"{number}/cmdline"), "rb") as line:
            return line.read().replace(b"\0", b" ").decode(errors="replace").strip() or "a zombie"
    except OSError:
        return "gone"


def _descriptors() -> set[str]:
    """Return the open file descriptors and what they are, without those of the helper processes."""
    there: set[str] = set()
    try:
        numbers = os.listdir(proc("self/fd"))
    except OSError:
        return there
    memories = 2 * MOST * len(_living())  # the number of buffers that may be kept
    for number in numbers:
        try:
            name = os.readlink(proc(f"self/fd/{number}"))
        except OSError:
            continue  # the descriptor of the listing itself
        if name.startswith("/memfd:asynqueue") and memories:
            memories -= 1
        else:
            there.add(f"{number} -> {name}")
    return there - {f"{fd} -> {name}" for fd, name in _helperDescriptors()}


def _living() -> set[Any]:
    """Return the child processes that are alive."""
    module: Any = sys.modules.get("asynqueue.process.childprocess")
    return set() if module is None else set(module._living)


def _keepsMemory(f: Any) -> bool:
    """Return whether F is the delayed call that frees the buffers kept for a child process."""
    return getattr(f, "__name__", None) == "_tidy" and getattr(f, "__self__", None) in _living()


def _helperDescriptors() -> Iterator[tuple[int, str]]:
    """Yield the descriptors that multiprocessing keeps for its helper processes."""
    internals: Any = sys.modules.get("asynqueue.process.internals")
    for fd in () if internals is None else (internals.serverDescriptor(), internals.trackerDescriptor()):
        if fd is not None:
            yield fd, os.readlink(proc(f"self/fd/{fd}"))


def _temporaryFiles() -> set[str]:
    """Return the names in the directory for temporary files, without the fork server's."""
    internals: Any = sys.modules.get("asynqueue.process.internals")
    kept = None if internals is None else internals.socketFolder()
    return set(os.listdir(tempfile.gettempdir())) - {os.path.basename(kept or "")}
