"""Decide which calls a server runs, and how fast iterators may send items, for one wire.

A call passes through these states:

1. *Waiting*: the call has arrived. Calls wait in the order of arrival. Waiting calls can be recalled.
2. *Announced*: `Started` is queued for sending.
3. *Running*: `Started` has left for the network, so the call runs. (`asynqueue.core.protocol.runqueue` says why.)
4. *Ended*.

At most as many calls are announced or running as the client asked for. A client that exceeds its limits causes
`LimitExceeded`, and the connection has to end.

An iterator sends items against credit. Credit counts items, which may be large. An `ItemThrottle` therefore passes on
only enough credit for about a quarter of the allowed backlog, and none while the backlog is at its limit. So a client
that reads slowly costs the server no memory.
"""

from __future__ import annotations

from collections import deque

from asynqueue.core.protocol.serverlimits import LimitExceeded, Limits


class CallAdmission:
    """The calls of one client, which wants up to RUNNING of them to run at once."""

    __slots__ = ("_announced", "_held", "_limits", "_most", "_running", "_sizes", "_waiting")

    def __init__(self, running: int, limits: Limits) -> None:
        if not 1 <= running <= limits.running:
            raise LimitExceeded(f"from 1 to {limits.running} calls may run at once, not {running}")
        self._most = running
        self._limits = limits
        self._waiting: deque[int] = deque()
        self._announced: deque[int] = deque()
        self._running: set[int] = set()
        self._sizes: dict[int, int] = {}  # the bytes of each call that has not ended
        self._held = 0  # their sum

    @property
    def idle(self) -> bool:
        """True when there is no call."""
        return not (self._waiting or self._announced or self._running)

    def called(self, number: int, size: int) -> None:
        """Admit call NUMBER of SIZE bytes. Raise `LimitExceeded` if it is too much."""
        if number in self._sizes:
            raise LimitExceeded(f"there is a call {number} already")
        if len(self._sizes) >= self._limits.calls:
            raise LimitExceeded(f"no more than {self._limits.calls} calls may be unfinished")
        if self._held + size > self._limits.messages:
            raise LimitExceeded(f"unfinished calls may have no more than {self._limits.messages} bytes")
        self._sizes[number] = size
        self._held += size
        self._waiting.append(number)

    def next(self, backlog: int = 0, large: int = 0) -> int | None:
        """Return the next call to announce now, or None.

        BACKLOG bytes wait to be sent, besides LARGE answers. Each large answer counts as a running call until it is
        sent. So a client that reads slowly never has more large answers waiting than calls that may run.
        """
        if not self._waiting or backlog >= self._limits.backlog:
            return None
        if len(self._announced) + len(self._running) + large >= self._most:
            return None
        self._announced.append(self._waiting.popleft())
        return self._announced[-1]

    @property
    def announced(self) -> bool:
        """True if a call was announced that has not started."""
        return bool(self._announced)

    def flushed(self) -> int | None:
        """Return the next call to start, now that everything queued has been sent, or None. Call again until None."""
        if not self._announced:
            return None
        number = self._announced.popleft()
        self._running.add(number)
        return number

    def ended(self, number: int) -> None:
        """Record that call NUMBER, which ran, has ended."""
        self._running.discard(number)
        self._held -= self._sizes.pop(number, 0)

    def recalled(self) -> list[int]:
        """Remove and return the calls that have not been announced."""
        back = list(self._waiting)
        self._waiting.clear()
        for number in back:
            self._held -= self._sizes.pop(number)
        return back

    def cancelled(self, number: int) -> bool:
        """Remove call NUMBER. Return True if it is running and has to be cancelled."""
        if number not in self._sizes:
            return False
        self._held -= self._sizes.pop(number)
        if number in self._running:
            self._running.remove(number)
            return True
        (self._waiting if number in self._waiting else self._announced).remove(number)
        return False

    def validate(self) -> None:
        """Assert that the limits hold and that each call is in one state."""
        assert len(self._announced) + len(self._running) <= self._most
        assert len(self._sizes) <= self._limits.calls
        assert self._held == sum(self._sizes.values())
        assert self._held <= self._limits.messages
        calls = [*self._waiting, *self._announced, *self._running]
        assert sorted(calls) == sorted(self._sizes), "each call is in one state"


class ItemThrottle:
    """Decides how much of its credit one iterator may use while up to BACKLOG bytes may wait to be sent."""

    __slots__ = ("_asked", "_backlog", "_credit", "_size")

    def __init__(self, backlog: int) -> None:
        self._backlog = backlog
        self._credit = 0  # items granted and not requested yet
        self._asked = 0  # items requested from the iterator that have not come
        self._size = float(backlog)  # the estimated bytes of an item

    def granted(self, items: int) -> None:
        """Add credit for ITEMS items."""
        self._credit += items

    def arrived(self, items: int, size: int) -> None:
        """Record that the iterator produced ITEMS items, of SIZE bytes in all."""
        self._asked -= items
        if items:
            self._size = max(1.0, size / items)

    def draw(self, backlog: int) -> int:
        """Return how many items to request now, while BACKLOG bytes wait to be sent."""
        if self._asked or backlog >= self._backlog:
            return 0
        items = min(self._credit, max(1, int(self._backlog / 4 / self._size)))
        self._credit -= items
        self._asked = items
        return items

    def validate(self) -> None:
        """Assert that no more items are requested than were granted."""
        assert self._credit >= 0
        assert self._asked >= 0
