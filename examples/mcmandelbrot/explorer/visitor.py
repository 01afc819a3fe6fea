"""Who explores, from where, and what share of the queue each has.

A browser that opens the page is *greeted*: it has a token from then on, and is a visitor of its own. Whoever comes
without a token that we gave is the one visitor that its address is. So nobody is more visitors by making tokens up,
and an address has no more than `PER_ADDRESS` of them.

A visitor has a *seat*, and each seat is a series that every worker is qualified for. There are `SEATS` seats; when
all are taken, they are shared. An address has no more than `SEATS_PER_ADDRESS`, and the more it has, the nicer is what
its visitors have drawn, just so much that all of them together get what one alone would. So nobody has more of the
workers by coming often.

A visitor who has not been seen for `ABSENCE` seconds, and wants nothing, is forgotten when the next one comes.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv6Address, ip_address, ip_network
from math import sqrt
from secrets import token_urlsafe

from attrs import Factory, define, field

SEATS = 256
SEATS_PER_ADDRESS = 4
PER_ADDRESS = 16
MOST = 1000
"""How many visitors are known at once."""

ABSENCE = 600.0
"""Seconds after which one who wants nothing may be forgotten."""

RINGS = 5
"""How far from the centre of its view a tile may be said to be."""

RING_WEIGHTS = (1.0, 1.25, 2.0, 3.25, 5.0)
"""What a call costs its visitor, in shares of the workers, by the ring that its tile is in."""

NETWORK = 64
"""How many bits of an IPv6 address say whose it is; the rest, everybody chooses."""


def seat(number: int) -> str:
    """The series that seat NUMBER is."""
    return f"visitor {number}"


SERIES = tuple(seat(number) for number in range(SEATS))
"""What every worker has to be qualified for."""


def origin(host: str) -> str:
    """The address that HOST, which is one, counts as: of version 6, a whole network is one.

    >>> origin("192.0.2.1"), origin("::ffff:192.0.2.1"), origin("2001:db8::1:2:3:4")
    ('192.0.2.1', '192.0.2.1', '2001:db8::/64')
    """
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if not isinstance(address, IPv6Address):
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ip_network((int(address), NETWORK), strict=False))


def nicenessOf(ring: int, sharers: int) -> int:
    """The niceness of what is drawn in RING, from the centre of a view, for one of so many SHARERS.

    A queue's flow of niceness n has the weight 1 + ((n + 20) / 10)²; this is the other way round.

    >>> [nicenessOf(ring, 1) for ring in range(RINGS)], [nicenessOf(ring, 4) for ring in range(RINGS)]
    ([-20, -15, -10, -5, 0], [-3, 0, 6, 15, 20])
    """
    return min(20, round(10 * sqrt(RING_WEIGHTS[ring] * sharers - 1)) - 20)


@define(eq=False)
class Address:
    """Where VISITORS come from, by token; the one without a token is all from there who have none."""

    host: str
    visitors: dict[str | None, Visitor] = Factory(dict)

    @property
    def series(self) -> list[str]:
        """The seats that are taken from there."""
        return list(dict.fromkeys(visitor.series for visitor in self.visitors.values()))

    @property
    def streams(self) -> int:
        """How many streams of events go there."""
        return sum(visitor.streams for visitor in self.visitors.values())

    @property
    def pictures(self) -> int:
        """How many images go there."""
        return sum(visitor.pictures for visitor in self.visitors.values())


@define(eq=False)
class Visitor:
    """One who explores from ADDRESS, in a SERIES; without a TOKEN, all from there who have none.

    TILES, STREAMS and PICTURES are what is being answered now; DRAWN and CANCELLED count tiles.
    """

    token: str | None
    address: Address
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

    def niceness(self, ring: int) -> int:
        """The niceness of what is drawn for this visitor in RING, from the centre of a view."""
        return nicenessOf(ring, len(self.address.series))


class Visitors:
    """All who explore.

    >>> visitors = Visitors()
    >>> alice = visitors.greet("192.0.2.1", now=0.0)
    >>> visitors.find(alice.token, "192.0.2.1", now=1.0) is alice
    True
    """

    def __init__(self) -> None:
        self._visitors: dict[Visitor, None] = {}  # the last seen last
        self._addresses: dict[str, Address] = {}

    def __len__(self) -> int:
        return len(self._visitors)

    def __iter__(self) -> Iterator[Visitor]:
        return iter(self._visitors)

    def meet(self, token: str | None, host: str, now: float) -> Visitor:
        """The visitor from HOST who was given TOKEN; a new one, if nobody was."""
        if token is not None and token in self._known(host):
            return self.find(token, host, now)
        return self.greet(host, now)

    def greet(self, host: str, now: float) -> Visitor:
        """A new visitor from HOST; the one that its address is, when there are too many from there."""
        self._forget(now)
        known = [visitor for visitor in self._known(host).values() if visitor.token]
        if len(known) >= PER_ADDRESS:
            idle = [visitor for visitor in known if not visitor.busy]
            if not idle:
                return self.find(None, host, now)
            self._drop(min(idle, key=lambda visitor: visitor.seen))
        return self._seat(token_urlsafe(16), host, now)

    def find(self, token: str | None, host: str, now: float) -> Visitor:
        """The visitor from HOST who was given TOKEN; if nobody was, the one that its address is."""
        known = self._known(host)
        visitor = known.get(token) or known.get(None)
        if visitor is None:
            self._forget(now)
            return self._seat(None, host, now)
        visitor.seen = now
        del self._visitors[visitor]
        self._visitors[visitor] = None
        return visitor

    def _known(self, host: str) -> dict[str | None, Visitor]:
        address = self._addresses.get(origin(host))
        return {} if address is None else address.visitors

    def _seat(self, token: str | None, host: str, now: float) -> Visitor:
        name = origin(host)
        address = self._addresses.setdefault(name, Address(name))
        taken = dict.fromkeys(SERIES, 0)
        for each in self._visitors:
            taken[each.series] += 1
        own = address.series
        series = min(own if len(own) >= SEATS_PER_ADDRESS else SERIES, key=lambda series: taken[series])
        visitor = Visitor(token, address, series, now)
        address.visitors[token] = visitor
        self._visitors[visitor] = None
        return visitor

    def _forget(self, now: float) -> None:
        """Forget who is absent, and who was seen longest ago when there is no place for another."""
        idle = [visitor for visitor in self._visitors if not visitor.busy]
        surplus = len(self._visitors) - MOST + 1
        for number, visitor in enumerate(idle):
            if number < surplus or now - visitor.seen > ABSENCE:
                self._drop(visitor)

    def _drop(self, visitor: Visitor) -> None:
        address = visitor.address
        del self._visitors[visitor], address.visitors[visitor.token]
        if not address.visitors:
            del self._addresses[address.host]
