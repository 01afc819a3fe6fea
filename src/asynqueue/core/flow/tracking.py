"""What a tracker counts, and which waits end when the count falls.

Theory of operation. A *thing* is outstanding from its first `put` until it was `passed` as often as it was
put: putting it again moves its end, it does not count twice. What has no identity of its own is counted by
`add` and `remove`. The *count* is the number of things outstanding plus those. One that is over is a
*fall*.

A *wait* is for the count to be below a limit of 1 or more, or for any fall. It ends met at once when its
condition holds as it begins (a wait for any fall: when the count is 0, since nothing is there to fall),
else met at the first fall that brings its condition about, else unmet when it expires or is quit. Only a
fall can make a condition true, so nothing but a fall looks at the waits. A wait that was withdrawn, or that
has ended, is unknown: to expire or withdraw it again is nothing.

Things and waits are whatever hashable tokens the caller likes; nothing here looks into them. Events go in by
method, `WaitEnded` comes out, in the order in which the waits began, and nothing is called back.

Cost: O(1) for `put`, `add`, and a wait's own events; O(waits) for a fall.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

from attrs import frozen

W = TypeVar("W", bound=Hashable)


@frozen
class WaitEnded(Generic[W]):
    """A command: tell whoever began WAIT that it is over, and whether its condition was MET."""

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
        # The count that each wait must see fall below; None is a wait for any fall.
        self._limits: dict[W, int | None] = {}

    @property
    def count(self) -> int:
        """The number outstanding."""
        return len(self._things) + self._anonymous

    def __iter__(self) -> Iterator[W]:
        """The waits in progress, in the order in which they began."""
        return iter(self._limits)

    def __len__(self) -> int:
        """The number of waits in progress."""
        return len(self._limits)

    def put(self, thing: Hashable) -> None:
        """THING is outstanding, until it was passed once more."""
        self._things[thing] = self._things.get(thing, 0) + 1

    def passed(self, thing: Hashable) -> tuple[WaitEnded[W], ...]:
        """THING was passed, where it was put. Raises `ValueError` if it is not outstanding."""
        if thing not in self._things:
            raise ValueError(f"{thing!r} is not outstanding: it was passed as often as it was put")
        self._things[thing] -= 1
        if self._things[thing]:
            return ()
        del self._things[thing]
        return self._fell()

    def add(self) -> None:
        """One more is outstanding, of no identity."""
        self._anonymous += 1

    def remove(self) -> tuple[WaitEnded[W], ...]:
        """One that was added is over. Raises `ValueError` if none is left."""
        if not self._anonymous:
            raise ValueError("nothing that was added is outstanding: it was removed as often as it was added")
        self._anonymous -= 1
        return self._fell()

    def waitFewer(self, wait: W, limit: int) -> tuple[WaitEnded[W], ...]:
        """WAIT begins: until fewer than LIMIT (1 or more, else `ValueError`) are outstanding."""
        if not isinstance(limit, (int, float)) or not limit >= 1:
            raise ValueError(f"the count is never below 0, so N must be 1 or more, got {limit!r}")
        return self._wait(wait, limit, met=self.count < limit)

    def waitAny(self, wait: W) -> tuple[WaitEnded[W], ...]:
        """WAIT begins: until any one of what is outstanding is over."""
        return self._wait(wait, None, met=not self.count)

    def expired(self, wait: W) -> tuple[WaitEnded[W], ...]:
        """The time of WAIT is up."""
        if wait not in self._limits:
            return ()
        del self._limits[wait]
        return (WaitEnded(wait, False),)

    def withdraw(self, wait: W) -> None:
        """Nobody cares about WAIT any more."""
        self._limits.pop(wait, None)

    def quit(self) -> tuple[WaitEnded[W], ...]:
        """Every wait in progress ends, unmet."""
        return self._end(list(self._limits), met=False)

    def validate(self) -> None:
        """Assert what must hold between any two events."""
        assert self._anonymous >= 0
        assert all(puts > 0 for puts in self._things.values()), "a thing is kept that is not outstanding"
        assert self.count or not self._limits, "with nothing outstanding somebody still waits"
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
