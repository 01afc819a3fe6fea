"""Count what is outstanding, and decide which waits end when the count falls.

A *thing* is outstanding from its first `put` until it has been `passed` as often as it was put. Putting it again
postpones its end but does not count twice. `add` and `remove` count events without an identity. The *count* is the
number of both. When one ends, the count *falls*.

A *wait* is for a count below a limit of 1 or more, or for any fall. It ends in one of these ways:

- *Met* at once, if its condition holds at the beginning. (A wait for any fall: if the count is 0.)
- *Met* at the first fall after which its condition holds.
- *Unmet*, when it expires or `quit` is called.

Only a fall can make a condition true, so only falls check the waits. Expiring or withdrawing an unknown or ended wait
does nothing.

Things and waits are any hashable objects. Events are methods, which return `WaitEnded` records in the order in which
the waits began. Nothing is called back.

Cost: O(1) for `put`, `add` and the events of one wait. O(waits) for a fall.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

from attrs import frozen

W = TypeVar("W", bound=Hashable)


@frozen
class WaitEnded(Generic[W]):
    """A command: notify the owner of WAIT that it has ended, and whether its condition was MET."""

    wait: W
    met: bool


class Tracking(Generic[W]):
    """Counts what is outstanding and ends the waits for it.

    >>> tracking = Tracking[str]()
    >>> tracking.put("a"); tracking.put("b")
    >>> tracking.waitFewer("first", 2), tracking.waitFewer("all", 1)
    ((), ())
    >>> tracking.passed("a")
    (WaitEnded(wait='first', met=True),)
    """

    __slots__ = ("_anonymous", "_limits", "_things")

    def __init__(self) -> None:
        self._things: dict[Hashable, int] = {}
        self._anonymous = 0
        # The limit of each wait. None is a wait for any fall.
        self._limits: dict[W, int | None] = {}

    @property
    def count(self) -> int:
        """The number of outstanding things."""
        return len(self._things) + self._anonymous

    def __iter__(self) -> Iterator[W]:
        """Iterate over the waits in progress, in the order in which they began."""
        return iter(self._limits)

    def __len__(self) -> int:
        """Return the number of waits in progress."""
        return len(self._limits)

    def put(self, thing: Hashable) -> None:
        """Record that THING is outstanding until it is passed once more."""
        self._things[thing] = self._things.get(thing, 0) + 1

    def passed(self, thing: Hashable) -> tuple[WaitEnded[W], ...]:
        """Record one passing of THING. Raise `ValueError` if it is not outstanding."""
        if thing not in self._things:
            raise ValueError(f"{thing!r} is not outstanding: it was passed as often as it was put")
        self._things[thing] -= 1
        if self._things[thing]:
            return ()
        del self._things[thing]
        return self._fell()

    def add(self) -> None:
        """Count one more, without identity."""
        self._anonymous += 1

    def remove(self) -> tuple[WaitEnded[W], ...]:
        """Count one less, without identity. Raise `ValueError` if none is left."""
        if not self._anonymous:
            raise ValueError("nothing that was added is outstanding: it was removed as often as it was added")
        self._anonymous -= 1
        return self._fell()

    def waitFewer(self, wait: W, limit: int) -> tuple[WaitEnded[W], ...]:
        """Begin WAIT for fewer than LIMIT (1 or more, else `ValueError`) outstanding things."""
        if not isinstance(limit, (int, float)) or not limit >= 1:
            raise ValueError(f"the count is never below 0, so N must be 1 or more, got {limit!r}")
        return self._wait(wait, limit, met=self.count < limit)

    def waitAny(self, wait: W) -> tuple[WaitEnded[W], ...]:
        """Begin WAIT for any outstanding thing to end."""
        return self._wait(wait, None, met=not self.count)

    def expired(self, wait: W) -> tuple[WaitEnded[W], ...]:
        """End WAIT unmet, because its time is up."""
        if wait not in self._limits:
            return ()
        del self._limits[wait]
        return (WaitEnded(wait, False),)

    def withdraw(self, wait: W) -> None:
        """Forget WAIT."""
        self._limits.pop(wait, None)

    def quit(self) -> tuple[WaitEnded[W], ...]:
        """End every wait, unmet."""
        return self._end(list(self._limits), met=False)

    def validate(self) -> None:
        """Assert what holds between any two events."""
        assert self._anonymous >= 0
        assert all(puts > 0 for puts in self._things.values()), "a thing that is not outstanding is kept"
        assert self.count or not self._limits, "a wait goes on with nothing outstanding"
        for limit in self._limits.values():
            assert limit is None or self.count >= limit >= 1, "a wait goes on though its condition holds"

    def _wait(self, wait: W, limit: int | None, met: bool) -> tuple[WaitEnded[W], ...]:
        if wait in self._limits:
            raise ValueError(f"{wait!r} waits already")
        if met:
            return (WaitEnded(wait, True),)
        self._limits[wait] = limit
        return ()

    def _fell(self) -> tuple[WaitEnded[W], ...]:
        if not self._limits:
            return ()
        count = self.count
        return self._end([w for w, limit in self._limits.items() if limit is None or count < limit], met=True)

    def _end(self, waits: list[W], met: bool) -> tuple[WaitEnded[W], ...]:
        for wait in waits:
            del self._limits[wait]
        return tuple(WaitEnded(wait, met) for wait in waits)
