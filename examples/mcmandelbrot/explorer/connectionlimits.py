"""Decide which connections are accepted, and which are closed for them, by address.

A connection *waits* for a request, is being *answered*, or *streams* (an answer without an end). At most MOST
connections are open, and at most PER_ADDRESS from one address.

If an address has PER_ADDRESS connections, one of its own is closed for a new one: the connection that has waited
longest, or else the one that has streamed longest.

If MOST connections are open, the first of these that exists is closed:

1. The connection that has waited longest, of those from the same address or from an address with more connections. (A
   new connection waits as well, so it is not closed for the next one from an address with many.)
2. A connection of the address with the most, if that address then still has at least as many as the new one's: the one
   that has streamed longest, or else the one whose request came last.
3. The connection that has streamed longest.

So a connection that is being answered, from an address with no more than its fair share, is never closed.
"""

from __future__ import annotations

from collections import Counter
from enum import Enum
from typing import Generic, TypeVar

from attrs import frozen

C = TypeVar("C")


class LimitReached(Exception):
    """No connection can be closed for a new one. The message has the reason, and STATUS is the HTTP status."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Activity(Enum):
    """The state of a connection."""

    WAITING = "waiting"
    ANSWERED = "answered"
    STREAMING = "streaming"


@frozen
class _Place:
    address: str
    doing: Activity


class ConnectionLimits(Generic[C]):
    """The open connections.

    >>> limits = ConnectionLimits[str](most=2, perAddress=2)
    >>> limits.add("a", "192.0.2.1"), limits.add("b", "192.0.2.1"), limits.add("c", "192.0.2.2")
    (None, None, 'a')
    """

    def __init__(self, most: int, perAddress: int) -> None:
        self._most = most
        self._perAddress = perAddress
        self._places: dict[C, _Place] = {}  # ordered by the last change of activity, the oldest first

    def add(self, newcomer: C, address: str) -> C | None:
        """Add NEWCOMER from ADDRESS, waiting. Return the connection to close for it, if any. Raise `LimitReached`."""
        leaving = self._leaving(address)
        if leaving is not None:
            del self._places[leaving]
        self._places[newcomer] = _Place(address, Activity.WAITING)
        return leaving

    def setActivity(self, one: C, doing: Activity) -> None:
        """Set the activity of ONE."""
        place = self._places.pop(one, None)
        if place is not None:
            self._places[one] = _Place(place.address, doing)

    def remove(self, one: C) -> None:
        """Remove ONE."""
        self._places.pop(one, None)

    def _leaving(self, address: str) -> C | None:
        number = Counter(place.address for place in self._places.values())
        if number[address] >= self._perAddress:
            leaving = self._first(Activity.WAITING, address) or self._first(Activity.STREAMING, address)
            if leaving is None:
                raise LimitReached(429, f"{self._perAddress} connections from one address are enough")
            return leaving
        if len(self._places) < self._most:
            return None
        leaving = self._firstWaiting(address, number)
        ((largest, most),) = number.most_common(1)
        if leaving is None and most > number[address] + 1:
            leaving = self._first(Activity.STREAMING, largest) or self._last(largest)
        leaving = leaving or self._first(Activity.STREAMING)
        if leaving is None:
            raise LimitReached(503, "there are too many visitors")
        return leaving

    def _firstWaiting(self, address: str, number: Counter[str]) -> C | None:
        """Return the longest waiting connection that may be closed for ADDRESS, given the NUMBER per address."""
        for one, place in self._places.items():
            isLarger = number[place.address] > number[address]
            if place.doing is Activity.WAITING and (isLarger or place.address == address):
                return one
        return None

    def _first(self, doing: Activity, address: str | None = None) -> C | None:
        for one, place in self._places.items():
            if place.doing is doing and address in (None, place.address):
                return one
        return None

    def _last(self, address: str) -> C:
        return next(one for one, place in reversed(self._places.items()) if place.address == address)
