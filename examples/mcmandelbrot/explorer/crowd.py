"""Who is in, and who gives way to the next one: connections, by the address that each comes from.

A connection *waits* for a request, or is being *answered*, or *streams*: is being answered without an end. There are
at most MOST, and at most PER_ADDRESS from one address.

Where an address has as many as it may, one of its own gives way to the next from there: the one that has waited
longest, else the one that has streamed longest. Where all places are taken, the one that has waited longest gives
way, of those from the same address or from one that has more than it: for who has just come waits, too, and must not
have to go for the next one of many. If there is none such, one of the address that has most gives way, if that leaves
it no fewer than the newcomer has then: what has streamed longest there, else what was asked for last. If the places
are shared as evenly as they can be, what has streamed longest of all does. So what is being answered within its fair
share is never cut off.
"""

from __future__ import annotations

from collections import Counter
from enum import Enum
from typing import Generic, TypeVar

from attrs import frozen

C = TypeVar("C")


class Full(Exception):
    """Nobody gives way. The message says to whom, and STATUS in the words of HTTP."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Doing(Enum):
    """What a connection does."""

    WAITING = "waiting"
    ANSWERED = "answered"
    STREAMING = "streaming"


@frozen
class _Place:
    address: str
    doing: Doing


class Crowd(Generic[C]):
    """The connections that are in.

    >>> crowd = Crowd[str](most=2, perAddress=2)
    >>> crowd.enter("a", "192.0.2.1"), crowd.enter("b", "192.0.2.1"), crowd.enter("c", "192.0.2.2")
    (None, None, 'a')
    """

    def __init__(self, most: int, perAddress: int) -> None:
        self._most = most
        self._perAddress = perAddress
        self._places: dict[C, _Place] = {}  # who has done what it does for longest comes first

    def enter(self, newcomer: C, address: str) -> C | None:
        """Let NEWCOMER from ADDRESS in, to wait; who had to give way to it, if somebody had. Raises `Full`."""
        leaving = self._leaving(address)
        if leaving is not None:
            del self._places[leaving]
        self._places[newcomer] = _Place(address, Doing.WAITING)
        return leaving

    def now(self, one: C, doing: Doing) -> None:
        """ONE is DOING that, from now on."""
        place = self._places.pop(one, None)
        if place is not None:
            self._places[one] = _Place(place.address, doing)

    def leave(self, one: C) -> None:
        """ONE is gone."""
        self._places.pop(one, None)

    def _leaving(self, address: str) -> C | None:
        number = Counter(place.address for place in self._places.values())
        if number[address] >= self._perAddress:
            leaving = self._first(Doing.WAITING, address) or self._first(Doing.STREAMING, address)
            if leaving is None:
                raise Full(429, f"{self._perAddress} connections from one address are enough")
            return leaving
        if len(self._places) < self._most:
            return None
        leaving = self._firstWaiting(address, number)
        ((largest, most),) = number.most_common(1)
        if leaving is None and most > number[address] + 1:
            leaving = self._first(Doing.STREAMING, largest) or self._last(largest)
        leaving = leaving or self._first(Doing.STREAMING)
        if leaving is None:
            raise Full(503, "there are too many visitors")
        return leaving

    def _firstWaiting(self, address: str, number: Counter[str]) -> C | None:
        """Who has waited longest, of those that may have to go for one from ADDRESS, given the NUMBER of each."""
        for one, place in self._places.items():
            isLarger = number[place.address] > number[address]
            if place.doing is Doing.WAITING and (isLarger or place.address == address):
                return one
        return None

    def _first(self, doing: Doing, address: str | None = None) -> C | None:
        for one, place in self._places.items():
            if place.doing is doing and address in (None, place.address):
                return one
        return None

    def _last(self, address: str) -> C:
        return next(one for one, place in reversed(self._places.items()) if place.address == address)
