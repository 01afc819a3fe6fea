"""What a test, or an example of the kit, can leave behind: looked for before and after.

Threads, processes, file descriptors and temporary files are looked up where the operating system tells of them, in
``/proc``; where there is none, only what Python knows is looked for. A worker process that is alive, which is then
one from before, may have memory that is kept for it for a while, as `asynqueue.core.protocol.bufferpool` tells: that
is not left behind.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from asynqueue.core.protocol.bufferpool import MOST

Present: TypeAlias = dict[str, set[Any]]  # threads, delayed calls, text: whatever can be left

POOLS = ("PoolThread-twisted", "ThreadPoolExecutor", "pytest", "asyncio_")
"""How the threads are named that others keep for as long as the interpreter runs."""

SERVANTS = ("forkserver", "resource_tracker")
"""The processes that multiprocessing starts once and keeps."""


def left(before: Present, turn: Callable[[], object], grace: float) -> dict[str, list[Any]]:
    """What there is now and was not BEFORE, after TURN was called for up to GRACE seconds while there is something.

    Delayed calls have no grace: what is due later was not cancelled.
    """
    deadline = time.monotonic() + grace
    while True:
        there = {what: sorted(now - before[what], key=str) for what, now in present().items()}
        there = {what: new for what, new in there.items() if new}
        if not there or "delayed calls" in there or time.monotonic() > deadline:
            return there
        turn()


def present() -> Present:
    """What a test can leave behind."""
    # The reactor, if one is installed: looking for it must not install one.
    reactor: Any = sys.modules.get("twisted.internet.reactor")
    calls = set() if reactor is None else {c for c in reactor.getDelayedCalls() if c.active()}
    calls = {call for call in calls if not _keepsMemory(call.func)}
    now = reactor.seconds() if reactor is not None and type(reactor).__name__.startswith("Asyncio") else 0.0
    fromThreads = {call for call in calls if call.getTime() <= now}
    return {
        "delayed calls": calls - fromThreads,
        "calls from threads": fromThreads,  # which are delayed calls under asyncio, and due
        "readers": set() if reactor is None else {*reactor.getReaders(), *reactor.getWriters()},
        "threads": {t for t in threading.enumerate() if not t.name.startswith(POOLS)},
        "processes": _children(),
        "file descriptors": _descriptors(),
        "temporary files": _temporaryFiles(),
    }


def _children() -> set[str]:
    """The processes below this one, but for those that serve it to its end."""
    servants = {number for number in _childrenOf("self") if any(name in _commandLine(number) for name in SERVANTS)}
    below = [number for number in _childrenOf("self") if number not in servants]
    for servant in servants:
        below += _childrenOf(servant)  # the fork server starts processes for us
    return {f"{number} ({_commandLine(number)})" for number in below}


def _childrenOf(number: str) -> list[str]:
    found: list[str] = []
    try:
        for task in os.listdir(f"/proc/{number}/task"):
            with open(f"/proc/{number}/task/{task}/children") as listing:
                found += listing.read().split()
    except OSError:
        pass  # it has gone, or there is no /proc here
    return found


def _commandLine(number: str) -> str:
    try:
        with open(f"/proc/{number}/cmdline", "rb") as line:
            return line.read().replace(b"\0", b" ").decode(errors="replace").strip() or "a zombie"
    except OSError:
        return "gone"


def _descriptors() -> set[str]:
    """The open file descriptors and what they are, but for those that serve this process to its end."""
    there: set[str] = set()
    try:
        numbers = os.listdir("/proc/self/fd")
    except OSError:
        return there
    memories = 2 * MOST * len(_living())  # that may be kept
    for number in numbers:
        try:
            name = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue  # the one that listed them
        if name.startswith("/memfd:asynqueue") and memories:
            memories -= 1
        else:
            there.add(f"{number} -> {name}")
    return there - {f"{fd} -> {name}" for fd, name in _servantDescriptors()}


def _living() -> set[Any]:
    """The worker processes that are alive."""
    module: Any = sys.modules.get("asynqueue.process.childprocess")
    return set() if module is None else set(module._living)


def _keepsMemory(f: Any) -> bool:
    """Whether F is what gives back the memory that is kept for a worker process, in its time."""
    return getattr(f, "__name__", None) == "_tidy" and getattr(f, "__self__", None) in _living()


def _servantDescriptors() -> Iterator[tuple[int, str]]:
    """What multiprocessing keeps open to its servants."""
    for module, holder, names in (
        ("multiprocessing.forkserver", "_forkserver", ("_forkserver_alive_fd",)),
        ("multiprocessing.resource_tracker", "_resource_tracker", ("_fd",)),
    ):
        servant = getattr(sys.modules.get(module), holder, None)
        for name in names:
            fd = getattr(servant, name, None)
            if isinstance(fd, int):
                yield fd, os.readlink(f"/proc/self/fd/{fd}")


def _temporaryFiles() -> set[str]:
    """What is in the directory for temporary files, but for the one where the fork server listens."""
    process: Any = sys.modules.get("multiprocessing.process")
    kept = process and process.current_process()._config.get("tempdir")
    return set(os.listdir(tempfile.gettempdir())) - {os.path.basename(kept or "")}
