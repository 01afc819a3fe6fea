"""``python -m asynqueue``: which features this machine has, and whether workers of each kind work on it.

The exit status is 1 if a worker does not work.
"""

from __future__ import annotations

import platform
import secrets
import sys
import tempfile
from argparse import ArgumentParser
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from operator import add
from textwrap import fill
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from asynqueue import NullQueue, ProcessQueue, ThreadQueue, WireQueue, __version__
from asynqueue.capabilities import FEATURES, WITHOUT, has
from asynqueue.queue.taskqueue import TaskQueue
from asynqueue.wire import WireServer, WireWorkerUniverse

PATIENCE = 60.0
"""Seconds that one kind of worker has for its calls."""

LARGE = 1 << 22
"""The size in bytes of a large argument and result."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, run the self-test, and exit."""
    ArgumentParser(
        prog="python -m asynqueue",
        description="Print the features of this machine that AsynQueue uses, and test workers of each kind on it.",
        epilog=f"The environment variable {WITHOUT} takes features away: their names, separated by commas, or all.",
    ).parse_args(arguments)
    print(f"AsynQueue {__version__}, {platform.python_implementation()} {platform.python_version()}, {sys.platform}\n")
    print(table(), end="\n\n", flush=True)
    react(lambda reactor: Deferred.fromCoroutine(_test(reactor)))


def table() -> str:
    """Return the features: whether this machine has each, and what AsynQueue does with it, or without."""
    return "\n".join(
        fill(
            feature.use if has(name) else feature.without,
            width=100,
            initial_indent=f"{name:18}{'yes' if has(name) else 'no':5}",
            subsequent_indent=" " * 23,
        )
        for name, feature in FEATURES.items()
    )


async def _test(reactor: Any) -> None:
    """Call something on a worker of each kind, and print how that went. Raise SystemExit if one does not work."""
    failed = False
    for kind, check in CHECKS.items():
        if kind == "process" and not has("posix"):
            print(f"{kind:18}not on this system")
            continue
        try:
            await Deferred.fromCoroutine(check()).addTimeout(PATIENCE, reactor)
        except Exception as error:
            failed = True
            print(f"{kind:18}{type(error).__name__}: {error}", flush=True)
        else:
            print(f"{kind:18}OK", flush=True)
    if failed:
        raise SystemExit(1)


async def _calls(queue: TaskQueue, div: Any = divmod, join: Any = add, items: Any = iter) -> None:
    """Have QUEUE make a small and a large call, and an iteration. (Methods of a universe are called like functions.)"""
    async with queue:
        small = await queue.call(div, 17, 5)
        large = await queue.call(join, bytes(LARGE), b"end")
        iterated = [item async for item in await queue.call(items, range(100))]
    if (small, large, iterated) != ((3, 2), bytes(LARGE) + b"end", list(range(100))):
        raise ValueError("a call had another result than in this process")


class _Universe(WireWorkerUniverse):
    def div(self, a: int, b: int) -> tuple[int, int]:
        return divmod(a, b)

    def join(self, a: bytes, b: bytes) -> bytes:
        return a + b

    def items(self, items: Iterable[int]) -> Iterator[int]:
        return iter(items)


async def _process() -> None:
    await _calls(ProcessQueue(1))


async def _wire() -> None:
    key = secrets.token_bytes(32)
    with tempfile.TemporaryDirectory() as folder:
        place = f"unix:{folder}/socket" if has("AF_UNIX") else "tcp:0:interface=127.0.0.1"
        server = await WireServer(place, _Universe, key=key).start()
        try:
            address: Any = server.address  # Any: of one of two types
            place = place if has("AF_UNIX") else f"tcp:127.0.0.1:{address.port}"
            await _calls(WireQueue(place, _Universe, key=key), _Universe.div, _Universe.join, _Universe.items)
        finally:
            await server.stop()


CHECKS: Mapping[str, Callable[[], Coroutine[Deferred[Any], Any, None]]] = {
    "main loop": lambda: _calls(NullQueue()),
    "thread": lambda: _calls(ThreadQueue()),
    "process": _process,
    "wire": _wire,
}

if __name__ == "__main__":
    main()
