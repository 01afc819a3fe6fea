"""What lets requests in, and keeps out what no browser of ours would send.

A connection answers one request after another. It has `PATIENCE` seconds to bring each, from the first byte to the
last; bytes that trickle in buy no time, and what comes during an answer ends it all. How many connections there are,
and which gives way to the next one, `crowd` decides; who is not let in is told so, as is who asks for more than can
be read. Requests have no body, are for a name that the server goes by, so that no other name can be made to lead a
browser here, and those that another site's page makes a browser send are refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from ipaddress import ip_address
from socket import SO_SNDBUF, SOL_SOCKET, gethostname
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.resource import IResource
from twisted.web.server import Request, Site

from mcmandelbrot.explorer.crowd import Crowd, Doing, Full
from mcmandelbrot.explorer.visitor import origin

PATIENCE = 30.0
MOST = 400
PER_ADDRESS = 100

OUTSIDE = 100
"""How many that are not let in are told so at once; the others are cut off."""

LINGER = 2
"""Seconds for which who is turned away may go on talking; cut off at once, he might not hear why."""

HEAD = 16_384
"""Bytes that a request may have, all its headers included."""

SEND_BUFFER = 2**17
"""Bytes on their way that the system keeps for a connection."""

WAITABLE = (429, 503)
"""What may be answered with something else a moment later."""

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""What every answer carries."""


def refuse(request: Request, status: int, why: str) -> bytes:
    """Answer REQUEST with STATUS and a line that says WHY."""
    request.setResponseCode(status, HTTPStatus(status).phrase.encode())
    request.setHeader("Content-Type", "text/plain; charset=utf-8")
    request.setHeader("Cache-Control", "no-store")
    if status in WAITABLE:
        request.setHeader("Retry-After", "1")
    return f"{why}\n".encode()


def hasNoEnd(request: Request) -> None:
    """The answer to REQUEST has no end: so it may have to end for others."""
    channel = request.channel
    if isinstance(channel, Channel):
        channel.site.now(channel, Doing.STREAMING)


class GuardedRequest(Request):
    """A request without a body, answered with our headers."""

    channel: Channel

    def gotLength(self, length: int | None) -> None:
        """A body of LENGTH bytes is to follow, None if it will say how long it is."""
        Request.gotLength(self, 0)
        if length != 0:
            self.channel.turnAway(413, "nothing here takes a body")

    def handleContentChunk(self, data: bytes) -> None:
        """A part of a body that was refused."""

    def process(self) -> None:
        """Answer."""
        self.channel.answering = True
        self.channel.site.now(self.channel, Doing.ANSWERED)
        if _isWelcome(self, self.channel.site):
            Request.process(self)


def _isWelcome(request: Request, site: Door) -> bool:
    """Give the answer to REQUEST our headers; and False if it was refused, and that was the answer."""
    for name, value in HEADERS.items():
        request.setHeader(name, value)
    host = request.getHeader("Host")
    if host is not None and not site.goesBy(host):
        refusal = refuse(request, 421, "this server does not go by that name; mcm serve --host NAME has it do so")
    elif request.getHeader("Sec-Fetch-Site") == "cross-site" and request.getHeader("Sec-Fetch-Mode") != "navigate":
        refusal = refuse(request, 403, "this is for pages of our own")
    else:
        return True
    request.write(refusal)
    request.finish()
    return False


class Channel(HTTPChannel):
    """A connection."""

    answering = False
    site: Door
    totalHeadersSize = 2 * HEAD  # less is refused here, and with the reason
    transport: Any  # ITransport does not say all that a socket's transport can do

    def __init__(self) -> None:
        HTTPChannel.__init__(self)
        self.evictionCandidate: Full | None = None
        self._size = 0
        self._lingering: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """It is there."""
        if self.evictionCandidate is not None:
            self.timeOut = LINGER
        HTTPChannel.connectionMade(self)
        # Left to itself, the system would take megabytes for a reader who takes nothing.
        self.transport.getHandle().setsockopt(SOL_SOCKET, SO_SNDBUF, SEND_BUFFER)

    def dataReceived(self, data: bytes) -> None:
        """DATA came: a request, unless nothing is heard any more."""
        if self.evictionCandidate is None:
            HTTPChannel.dataReceived(self, data)
        elif self._lingering is None:
            self.turnAway(self.evictionCandidate.status, str(self.evictionCandidate))

    def resetTimeout(self) -> None:
        """Something came. It buys no time."""

    def lineReceived(self, line: bytes) -> None:
        """A line of a request came."""
        self._size += len(line) + 2
        if self._size > HEAD:
            self.lineLengthExceeded(line)
        else:
            HTTPChannel.lineReceived(self, line)

    def lineLengthExceeded(self, line: bytes) -> None:
        """A line came, or a part of one, with which it is too much."""
        if self.requests:
            self.turnAway(431, f"a request's headers may have {HEAD:,} bytes in all")
        else:
            self.turnAway(414, f"an address may have {HEAD:,} bytes")

    def rawDataReceived(self, data: bytes) -> None:
        """Something came after a request, before its answer."""
        if self.answering:
            self.transport.abortConnection()
        else:
            HTTPChannel.rawDataReceived(self, data)

    def requestDone(self, request: Request) -> None:
        """REQUEST has been answered."""
        self.answering = False
        self._size = 0
        self.site.now(self, Doing.WAITING)
        HTTPChannel.requestDone(self, request)

    def turnAway(self, status: int, why: str) -> None:
        """Answer what is not to be read to its end with STATUS and WHY, listen to nothing more, and end soon."""
        self.evictionCandidate = Full(status, why)
        self.clearLineBuffer()  # type: ignore[no-untyped-call]  # Twisted gives it no type
        body = f"{why}\n".encode()
        head = [
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
            "Content-Type: text/plain; charset=utf-8",
            f"Content-Length: {len(body)}",
            "Connection: close",
            *(f"{name}: {value}" for name, value in HEADERS.items()),
        ]
        if status in WAITABLE:
            head.append("Retry-After: 1")
        self.transport.write("\r\n".join([*head, "", ""]).encode() + body)
        self.transport.loseWriteConnection()
        self._lingering = self.site.clock.callLater(LINGER, self.transport.abortConnection)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is gone."""
        if self._lingering is not None and self._lingering.active():
            self._lingering.cancel()
        HTTPChannel.connectionLost(self, reason)
        self.site.lost(self)


class Door(Site):
    """Lets requests for ROOT in, over at most MOST connections, PERADDRESS from one address; each has PATIENCE.

    It goes by NAMES, by this machine's, by ``localhost``, and by every address.
    """

    protocol = Channel  # type: ignore[assignment]  # Twisted's own may turn into HTTP/2, which we do not speak
    displayTracebacks = False

    def __init__(
        self,
        root: IResource,
        reactor: Any,
        *,
        patience: float = PATIENCE,
        most: int = MOST,
        perAddress: int = PER_ADDRESS,
        names: Iterable[str] = (),
    ) -> None:
        Site.__init__(self, root, GuardedRequest, timeout=patience, reactor=reactor)
        self.clock = reactor
        own = gethostname()
        self._names = {name.lower().rstrip(".") for name in (*names, "localhost", own, f"{own}.local")}
        self._crowd = Crowd[Channel](most, perAddress)
        self._channels: set[Channel] = set()  # those, too, that are being turned away
        self._outside: set[Channel] = set()
        self._gone: list[Deferred[None]] = []

    def buildProtocol(self, addr: IAddress | None) -> Any:  # a Channel, for which see `protocol`
        """The connection from ADDR; None to cut it off."""
        channel: Channel = Site.buildProtocol(self, addr)
        try:
            leaving = self._crowd.enter(channel, origin(str(getattr(addr, "host", ""))))
        except Full as full:
            if len(self._outside) >= OUTSIDE:
                return None
            channel.evictionCandidate = full
            self._outside.add(channel)
        else:
            if leaving is not None:
                leaving.transport.abortConnection()
        self._channels.add(channel)
        return channel

    def goesBy(self, host: str) -> bool:
        """Whether HOST, a name or an address and perhaps a port, is what this server may be asked for by."""
        name, _, port = host.rpartition(":")
        if not port.isdecimal():
            name = host
        name = name.lower().rstrip(".").removeprefix("[").removesuffix("]")
        if name in self._names or name.endswith(".localhost"):
            return True
        try:
            ip_address(name)
        except ValueError:
            return False
        return True

    def now(self, channel: Channel, doing: Doing) -> None:
        """CHANNEL is DOING that, from now on."""
        self._crowd.now(channel, doing)

    def lost(self, channel: Channel) -> None:
        """CHANNEL is gone."""
        self._crowd.leave(channel)
        self._channels.discard(channel)
        self._outside.discard(channel)
        self._tellIfEmpty()

    def hangUp(self) -> Deferred[None]:
        """End every connection; fires when all are gone."""
        gone: Deferred[None] = Deferred()
        self._gone.append(gone)
        for channel in list(self._channels):
            channel.transport.abortConnection()
        self._tellIfEmpty()
        return gone

    def _tellIfEmpty(self) -> None:
        if not self._channels:
            gone, self._gone = self._gone, []
            for each in gone:
                each.callback(None)
