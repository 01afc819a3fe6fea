"""Who explores, and as which series of the queue.

A browser that opens the page is *greeted*: it has a token from then on, and is a visitor of its own. Whoever comes
without a token that we gave is the one visitor that its address is. So nobody is more visitors by making tokens up,
and an address has no more than `PER_ADDRESS` of them.

A visitor has a *seat*, and each seat is a series that every worker is qualified for. There are `SEATS` seats; when
all are taken, they are shared. A visitor who has not been seen for `ABSENCE` seconds, and wants nothing, is
forgotten when the next one comes.
"""

from __future__ import annotations

from collections.abc import Iterator
from secrets import token_urlsafe

from attrs import define, field

SEATS = 64
PER_ADDRESS = 16
MOST = 1000
"""How many visitors are known at once."""

ABSENCE = 600.0
"""Seconds after which one who wants nothing may be forgotten."""


def seat(number: int) -> str:
    """The series that seat NUMBER is."""
    return f"visitor {number}"


SERIES = tuple(seat(number) for number in range(SEATS))
"""What every worker has to be qualified for."""


@define(eq=False)
class Visitor:
    """One who explores from ADDRESS, in a SERIES; without a TOKEN, all from there who have none.

    TILES, STREAMS and PICTURES are what is being answered now; DRAWN and CANCELLED count tiles.
    """

    token: str | None
    address: str
    series: str
    seen: float
    tiles: int = field(default=0, init=False)
    streams: int = field(default=0, init=False)
    pictures: int = field(default=0, init=False)
    drawn: int = field(default=0, init=False)
    cancelled: int = field(default=0, init=False)

    @property
    def busy(self) -> bool:
        """True while something is being answered."""
        return bool(self.tiles or self.streams or self.pictures)


class Visitors:
    """All who explore.

    >>> visitors = Visitors()
    >>> alice = visitors.greet("192.0.2.1", now=0.0)
    >>> visitors.find(alice.token, "192.0.2.1", now=1.0) is alice
    True
    """

    def __init__(self) -> None:
        self._visitors: dict[tuple[str, str | None], Visitor] = {}  # by address and token, the last seen last

    def __len__(self) -> int:
        return len(self._visitors)

    def __iter__(self) -> Iterator[Visitor]:
        return iter(self._visitors.values())

    def meet(self, token: str | None, address: str, now: float) -> Visitor:
        """The visitor from ADDRESS who was given TOKEN; a new one, if nobody was."""
        if token is not None and (address, token) in self._visitors:
            return self.find(token, address, now)
        return self.greet(address, now)

    def greet(self, address: str, now: float) -> Visitor:
        """A new visitor from ADDRESS; the one that its address is, when there are too many from there."""
        self._forget(now)
        known = [visitor for visitor in self._visitors.values() if visitor.address == address and visitor.token]
        if len(known) >= PER_ADDRESS:
            idle = next((visitor for visitor in known if not visitor.busy), None)
            if idle is None:
                return self.find(None, address, now)
            del self._visitors[address, idle.token]
        return self._seat(token_urlsafe(16), address, now)

    def find(self, token: str | None, address: str, now: float) -> Visitor:
        """The visitor from ADDRESS who was given TOKEN; if nobody was, the one that its address is."""
        visitor = self._visitors.pop((address, token), None)
        if visitor is None:
            visitor = self._visitors.pop((address, None), None)
        if visitor is None:
            self._forget(now)
            return self._seat(None, address, now)
        visitor.seen = now
        self._visitors[address, visitor.token] = visitor
        return visitor

    def _seat(self, token: str | None, address: str, now: float) -> Visitor:
        taken = dict.fromkeys(SERIES, 0)
        for visitor in self._visitors.values():
            taken[visitor.series] += 1
        visitor = Visitor(token, address, min(SERIES, key=lambda series: taken[series]), now)
        self._visitors[address, token] = visitor
        return visitor

    def _forget(self, now: float) -> None:
        """Forget who is absent, and who was seen longest ago when there is no place for another."""
        idle = [visitor for visitor in self._visitors.values() if not visitor.busy]
        surplus = len(self._visitors) - MOST + 1
        for number, visitor in enumerate(idle):
            if number < surplus or now - visitor.seen > ABSENCE:
                del self._visitors[visitor.address, visitor.token]
