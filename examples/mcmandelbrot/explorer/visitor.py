"""The visitors of the explorer, and the share of the queue that each gets.

A browser that opens the page is *registered*: it gets a token, and is a visitor of its own. Requests without a valid
token belong to one visitor per address. So invented tokens make no visitors, and an address has at most `PER_ADDRESS`.

A visitor has a series, for which every worker is qualified. There are `SERIES_COUNT` of them, which visitors share when
all are taken. An address has at most `SERIES_PER_ADDRESS`. The more it has, the higher is the niceness of its visitors'
calls, so that together they get the share of a single visitor. So more visits do not give more of the workers.

A visitor that has been away for `ABSENCE` seconds, and has no open request, is forgotten when the next one comes.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv6Address, ip_address, ip_network
from math import sqrt
from secrets import token_urlsafe

from attrs import Factory, define, field

SERIES_COUNT = 256
SERIES_PER_ADDRESS = 4
PER_ADDRESS = 16
MOST = 1000
"""The maximum number of known visitors."""

TILES_AT_ONCE = 16
STREAMS_AT_ONCE = 4
PICTURES_AT_ONCE = 1
"""The maximum numbers of open requests of one visitor."""

STREAMS_PER_ADDRESS = 16
PICTURES_PER_ADDRESS = 2
"""The maximum numbers of open requests of all visitors from one address."""

ABSENCE = 600.0
"""The time after which a visitor without open requests may be forgotten, in seconds."""

RINGS = 5
"""The number of rings: the distances of a tile from the centre of its view."""

RING_WEIGHTS = (1.0, 1.25, 2.0, 3.25, 5.0)
"""The cost of a call for its visitor by the ring of its tile, relative to the centre."""

NETWORK = 64
"""The length of the prefix that identifies the owner of an IPv6 address, in bits."""


def seriesName(number: int) -> str:
    """Return the name of series NUMBER."""
    return f"visitor {number}"


SERIES = tuple(seriesName(number) for number in range(SERIES_COUNT))
"""The series for which every worker must be qualified."""


def origin(host: str) -> str:
    """Return the address as which HOST counts. An IPv6 network counts as one address.

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
    """Return the niceness of calls in RING, for a visitor whose address has SHARERS series.

    A flow with niceness n has the weight 1 + ((n + 20) / 10)². This is the inverse function.

    >>> [nicenessOf(ring, 1) for ring in range(RINGS)], [nicenessOf(ring, 4) for ring in range(RINGS)]
    ([-20, -15, -10, -5, 0], [-3, 0, 6, 15, 20])
    """
    return min(20, round(10 * sqrt(RING_WEIGHTS[ring] * sharers - 1)) - 20)


@define(eq=False)
class Address:
    """An address and its VISITORS, by token. The one without a token stands for all requests without a token."""

    host: str
    visitors: dict[str | None, Visitor] = Factory(dict)

    @property
    def series(self) -> list[str]:
        """The series of its visitors."""
        return list(dict.fromkeys(visitor.series for visitor in self.visitors.values()))

    @property
    def streams(self) -> int:
        """The number of event streams to this address."""
        return sum(visitor.streams for visitor in self.visitors.values())

    @property
    def pictures(self) -> int:
        """The number of images in progress for this address."""
        return sum(visitor.pictures for visitor in self.visitors.values())


@define(eq=False)
class Visitor:
    """A visitor from ADDRESS, with a SERIES. Without a TOKEN it stands for all from there without a token.

    TILES, STREAMS and PICTURES count the open requests. DRAWN and CANCELLED count tiles.
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
        """True while a request is open."""
        return bool(self.tiles or self.streams or self.pictures)

    def niceness(self, ring: int) -> int:
        """Return the niceness of this visitor's calls in RING."""
        return nicenessOf(ring, len(self.address.series))


class Visitors:
    """All visitors.

    >>> visitors = Visitors()
    >>> alice = visitors.register("192.0.2.1", now=0.0)
    >>> visitors.find(alice.token, "192.0.2.1", now=1.0) is alice
    True
    """

    def __init__(self) -> None:
        self._visitors: dict[Visitor, None] = {}  # ordered by the last request
        self._addresses: dict[str, Address] = {}

    def __len__(self) -> int:
        return len(self._visitors)

    def __iter__(self) -> Iterator[Visitor]:
        return iter(self._visitors)

    def identify(self, token: str | None, host: str, now: float) -> Visitor:
        """Return the visitor from HOST with TOKEN, or register a new one."""
        if token is not None and token in self._known(host):
            return self.find(token, host, now)
        return self.register(host, now)

    def register(self, host: str, now: float) -> Visitor:
        """Return a new visitor from HOST, or that of the address if it has too many."""
        self._forget(now)
        known = [visitor for visitor in self._known(host).values() if visitor.token]
        if len(known) >= PER_ADDRESS:
            idle = [visitor for visitor in known if not visitor.busy]
            if not idle:
                return self.find(None, host, now)
            self._drop(min(idle, key=lambda visitor: visitor.seen))
        return self._add(token_urlsafe(16), host, now)

    def find(self, token: str | None, host: str, now: float) -> Visitor:
        """Return the visitor from HOST with TOKEN, or that of the address."""
        known = self._known(host)
        visitor = known.get(token) or known.get(None)
        if visitor is None:
            self._forget(now)
            return self._add(None, host, now)
        visitor.seen = now
        del self._visitors[visitor]
        self._visitors[visitor] = None
        return visitor

    def _known(self, host: str) -> dict[str | None, Visitor]:
        address = self._addresses.get(origin(host))
        return {} if address is None else address.visitors

    def _add(self, token: str | None, host: str, now: float) -> Visitor:
        name = origin(host)
        address = self._addresses.setdefault(name, Address(name))
        taken = dict.fromkeys(SERIES, 0)
        for each in self._visitors:
            taken[each.series] += 1
        own = address.series
        series = min(own if len(own) >= SERIES_PER_ADDRESS else SERIES, key=lambda series: taken[series])
        visitor = Visitor(token, address, series, now)
        address.visitors[token] = visitor
        self._visitors[visitor] = None
        return visitor

    def _forget(self, now: float) -> None:
        """Forget absent visitors, and those seen longest ago if there are too many."""
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
