"""What calls do in processes that run a reactor of their own.

Worker processes import this module; Twisted is imported where it is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.calls import mark, markedItems

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred


def later(seconds: float, value: int, path: Path | None = None) -> Deferred[int]:
    """VALUE in so many SECONDS of the reactor over there, marked in PATH when it is asked for."""
    from twisted.internet import reactor
    from twisted.internet.task import deferLater

    if path is not None:
        mark(path, f"{value}-begun")
    clock: Any = reactor

    def end() -> int:
        if path is not None:
            mark(path, f"{value}-ended")
        return value

    return deferLater(clock, seconds, end)


async def sumOf(*values: int) -> int:
    """The sum of VALUES, one after another."""
    return sum([await later(0.001, value) for value in values])


async def failLater(error: Exception) -> None:
    """Raise ERROR in a later turn."""
    await later(0, 1)
    raise error


async def itemsLater(path: Path, number: int) -> Iterator[int]:
    """Marked items, in a later turn."""
    await later(0, 1)
    return markedItems(path, number)


def hangOver(path: Path) -> Deferred[None]:
    """Mark that it has started, and never fire."""
    from twisted.internet.defer import Deferred

    mark(path)
    return Deferred()


def stopReactor() -> Deferred[None]:
    """Stop the reactor over there, and never fire."""
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred

    loop: Any = reactor
    loop.stop()
    return Deferred()


def beat(path: Path) -> None:
    """Leave something behind that goes on by itself."""
    from twisted.internet.task import LoopingCall

    LoopingCall(mark, path).start(0.002)
