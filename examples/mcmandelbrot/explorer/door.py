"""What lets requests in, and keeps out what no browser of ours would send.

A connection answers one request after another. It has `PATIENCE` seconds to bring each, from the first byte to the
last; bytes that trickle in buy no time, and what comes during an answer ends it all. Of `MOST` connections, the
one that has been idle longest gives way to the next; when all are being answered, there is no next. Requests have
no body, and those that another site's page makes a browser send are refused.
"""

from __future__ import annotations

from socket import SO_SNDBUF, SOL_SOCKET
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.resource import IResource
from twisted.web.server import Request, Site

PATIENCE = 30.0
MOST = 400

SEND_BUFFER = 2**17
"""Bytes on their way that the system keeps for a connection."""

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
    request.setResponseCode(status)
    request.setHeader("Content-Type", "text/plain; charset=utf-8")
    request.setHeader("Cache-Control", "no-store")
    if status in (429, 503):
        request.setHeader("Retry-After", "1")
    return f"{why}\n".encode()


class GuardedRequest(Request):
    """A request without a body, answered with our headers."""

    channel: Channel

    def gotLength(self, length: int | None) -> None:
        """A body of LENGTH bytes is to follow, None if it will say how long it is."""
        Request.gotLength(self, 0)
        if length != 0:
            self.channel.turnAway(b"413 Content Too Large")

    def handleContentChunk(self, data: bytes) -> None:
        """A part of a body that was refused."""

    def process(self) -> None:
        """Answer."""
        self.channel.answering = True
        if _isWelcome(self):
            Request.process(self)


def _isWelcome(request: Request) -> bool:
    """Give the answer to REQUEST our headers; and False if it was refused, and that was the answer."""
    for name, value in HEADERS.items():
        request.setHeader(name, value)
    if request.getHeader("Sec-Fetch-Site") != "cross-site" or request.getHeader("Sec-Fetch-Mode") == "navigate":
        return True
    request.write(refuse(request, 403, "this is for pages of our own"))
    request.finish()
    return False


class Channel(HTTPChannel):
    """A connection."""

    answering = False
    site: Door
    transport: Any  # ITransport does not say all that a socket's transport can do

    def connectionMade(self) -> None:
        """It is there."""
        HTTPChannel.connectionMade(self)
        # Left to itself, the system would take megabytes for a reader who takes nothing.
        self.transport.getHandle().setsockopt(SOL_SOCKET, SO_SNDBUF, SEND_BUFFER)

    def resetTimeout(self) -> None:
        """Something came. It buys no time."""

    def rawDataReceived(self, data: bytes) -> None:
        """Something came after a request, before its answer."""
        if self.answering:
            self.transport.abortConnection()
        else:
            HTTPChannel.rawDataReceived(self, data)

    def requestDone(self, request: Request) -> None:
        """REQUEST has been answered."""
        self.answering = False
        self.site.answered(self)
        HTTPChannel.requestDone(self, request)

    def turnAway(self, status: bytes) -> None:
        """Answer a request that is not whole with STATUS, and end the connection."""
        self.transport.write(b"HTTP/1.1 %s\r\nConnection: close\r\nContent-Length: 0\r\n\r\n" % status)
        self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is gone."""
        HTTPChannel.connectionLost(self, reason)
        self.site.lost(self)


class Door(Site):
    """Lets requests for ROOT in, over at most MOST connections, each of which has PATIENCE."""

    protocol = Channel  # type: ignore[assignment]  # Twisted's own may turn into HTTP/2, which we do not speak
    displayTracebacks = False

    def __init__(self, root: IResource, reactor: Any, *, patience: float = PATIENCE, most: int = MOST) -> None:
        Site.__init__(self, root, GuardedRequest, timeout=patience, reactor=reactor)
        self._most = most
        self._channels: dict[Channel, None] = {}  # the one that has been idle longest comes first
        self._gone: list[Deferred[None]] = []

    def buildProtocol(self, addr: IAddress | None) -> Any:  # a Channel, for which see `protocol`
        """The connection from ADDR; None to refuse it."""
        if len(self._channels) >= self._most:
            idle = next((channel for channel in self._channels if not channel.answering), None)
            if idle is None:
                return None
            del self._channels[idle]
            idle.transport.abortConnection()
        channel: Channel = Site.buildProtocol(self, addr)
        self._channels[channel] = None
        return channel

    def answered(self, channel: Channel) -> None:
        """CHANNEL is idle from now on."""
        if self._channels.pop(channel, self) is not self:
            self._channels[channel] = None

    def lost(self, channel: Channel) -> None:
        """CHANNEL is gone."""
        self._channels.pop(channel, None)
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
