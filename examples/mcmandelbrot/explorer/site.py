"""Accept HTTP connections, and reject requests that the explorer's own page would never send.

- A connection answers one request after another. Each request must arrive within `PATIENCE` seconds, from its first
  byte to its last. Data during an answer closes the connection.
- `connectionlimits` decides how many connections there are, and which is closed for a new one. A rejected connection
  and an oversized request get an answer with the reason.
- Requests have no body. Their host must be a name of this server, so that no other domain can be pointed at it (DNS
  rebinding). Requests that another site's page makes are refused.
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

from mcmandelbrot.explorer.connectionlimits import Activity, ConnectionLimits, LimitReached
from mcmandelbrot.explorer.visitor import origin

PATIENCE = 30.0
MOST = 400
PER_ADDRESS = 100

REJECTING = 100
"""The number of rejected connections that get an answer. More are closed at once."""

LINGER = 2
"""The time before a rejected connection is closed, in seconds. Closed at once, it might not deliver the reason."""

HEAD = 16_384
"""The maximum size of a request, with all headers, in bytes."""

SEND_BUFFER = 2**17
"""The size of the system's send buffer of a connection, in bytes."""

WAITABLE = (429, 503)
"""The statuses after which a client may try again soon."""

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
"""The headers of every answer."""


def refuse(request: Request, status: int, why: str) -> bytes:
    """Answer REQUEST with STATUS and a line with the reason WHY."""
    request.setResponseCode(status, HTTPStatus(status).phrase.encode())
    request.setHeader("Content-Type", "text/plain; charset=utf-8")
    request.setHeader("Cache-Control", "no-store")
    if status in WAITABLE:
        request.setHeader("Retry-After", "1")
    return f"{why}\n".encode()


def markStreaming(request: Request) -> None:
    """Mark the answer to REQUEST as endless, so that it may be closed for others."""
    channel = request.channel
    if isinstance(channel, Channel):
        channel.site.setActivity(channel, Activity.STREAMING)


class GuardedRequest(Request):
    """A request without a body, answered with the headers of this site."""

    channel: Channel

    def gotLength(self, length: int | None) -> None:
        """Reject a body of LENGTH bytes, or of unknown length (None)."""
        Request.gotLength(self, 0)
        if length != 0:
            self.channel.reject(413, "requests to this server have no body")

    def handleContentChunk(self, data: bytes) -> None:
        """Ignore a part of a rejected body."""

    def process(self) -> None:
        """Answer the request."""
        self.channel.answering = True
        self.channel.site.setActivity(self.channel, Activity.ANSWERED)
        if _isAllowed(self, self.channel.site):
            Request.process(self)


def _isAllowed(request: Request, site: ExplorerSite) -> bool:
    """Add the headers to the answer to REQUEST. Return False if it was refused, which answers it."""
    for name, value in HEADERS.items():
        request.setHeader(name, value)
    host = request.getHeader("Host")
    if host is not None and not site.isOwnName(host):
        refusal = refuse(request, 421, "this server does not accept this host name: see mcm serve --host NAME")
    elif request.getHeader("Sec-Fetch-Site") == "cross-site" and request.getHeader("Sec-Fetch-Mode") != "navigate":
        refusal = refuse(request, 403, "pages of other sites may not use this server")
    else:
        return True
    request.write(refusal)
    request.finish()
    return False


class Channel(HTTPChannel):
    """An HTTP connection."""

    answering = False
    site: ExplorerSite
    totalHeadersSize = 2 * HEAD  # smaller requests are rejected here, with the reason
    transport: Any  # Any, because ITransport lacks methods of a socket's transport

    def __init__(self) -> None:
        HTTPChannel.__init__(self)
        self.refusal: LimitReached | None = None
        self._size = 0
        self._lingering: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Start."""
        if self.refusal is not None:
            self.timeOut = LINGER
        HTTPChannel.connectionMade(self)
        # By default the system would buffer megabytes for a client that reads nothing.
        self.transport.getHandle().setsockopt(SOL_SOCKET, SO_SNDBUF, SEND_BUFFER)

    def dataReceived(self, data: bytes) -> None:
        """Process DATA, unless the connection is being rejected."""
        if self.refusal is None:
            HTTPChannel.dataReceived(self, data)
        elif self._lingering is None:
            self.reject(self.refusal.status, str(self.refusal))

    def resetTimeout(self) -> None:
        """Do nothing: received data does not extend the time limit."""

    def lineReceived(self, line: bytes) -> None:
        """Process a line of a request."""
        self._size += len(line) + 2
        if self._size > HEAD:
            self.lineLengthExceeded(line)
        else:
            HTTPChannel.lineReceived(self, line)

    def lineLengthExceeded(self, line: bytes) -> None:
        """Reject a request that is too large."""
        if self.requests:
            self.reject(431, f"a request's headers may have at most {HEAD:,} bytes")
        else:
            self.reject(414, f"an address may have {HEAD:,} bytes")

    def rawDataReceived(self, data: bytes) -> None:
        """Process data after a request. Close the connection if its answer is not complete."""
        if self.answering:
            self.transport.abortConnection()
        else:
            HTTPChannel.rawDataReceived(self, data)

    def requestDone(self, request: Request) -> None:
        """Prepare for the next request after REQUEST was answered."""
        self.answering = False
        self._size = 0
        self.site.setActivity(self, Activity.WAITING)
        HTTPChannel.requestDone(self, request)

    def reject(self, status: int, why: str) -> None:
        """Answer with STATUS and WHY, read nothing more, and close the connection soon."""
        self.refusal = LimitReached(status, why)
        self.clearLineBuffer()  # type: ignore[no-untyped-call]  # Twisted has no type for it
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
        """Clean up."""
        if self._lingering is not None and self._lingering.active():
            self._lingering.cancel()
        HTTPChannel.connectionLost(self, reason)
        self.site.lost(self)


class ExplorerSite(Site):
    """Serves ROOT over at most MOST connections, PERADDRESS from one address, with PATIENCE seconds per request.

    It accepts the host names NAMES, this machine's, ``localhost``, and every address.
    """

    protocol = Channel  # type: ignore[assignment]  # Twisted's own may become HTTP/2, which the limits do not cover
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
        self._limits = ConnectionLimits[Channel](most, perAddress)
        self._channels: set[Channel] = set()  # with those that are being rejected
        self._rejected: set[Channel] = set()
        self._gone: list[Deferred[None]] = []

    def buildProtocol(self, addr: IAddress | None) -> Any:  # Any: a Channel, see `protocol`
        """Return the connection from ADDR, or None to close it."""
        channel: Channel = Site.buildProtocol(self, addr)
        try:
            leaving = self._limits.add(channel, origin(str(getattr(addr, "host", ""))))
        except LimitReached as full:
            if len(self._rejected) >= REJECTING:
                return None
            channel.refusal = full
            self._rejected.add(channel)
        else:
            if leaving is not None:
                leaving.transport.abortConnection()
        self._channels.add(channel)
        return channel

    def isOwnName(self, host: str) -> bool:
        """Return whether HOST, a name or an address with an optional port, is accepted."""
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

    def setActivity(self, channel: Channel, doing: Activity) -> None:
        """Set the activity of CHANNEL."""
        self._limits.setActivity(channel, doing)

    def lost(self, channel: Channel) -> None:
        """Remove CHANNEL."""
        self._limits.remove(channel)
        self._channels.discard(channel)
        self._rejected.discard(channel)
        self._fireIfEmpty()

    def closeConnections(self) -> Deferred[None]:
        """Close every connection. The Deferred fires when all are closed."""
        gone: Deferred[None] = Deferred()
        self._gone.append(gone)
        for channel in list(self._channels):
            channel.transport.abortConnection()
        self._fireIfEmpty()
        return gone

    def _fireIfEmpty(self) -> None:
        if not self._channels:
            gone, self._gone = self._gone, []
            for each in gone:
                each.callback(None)
