"""What the tests of the explorer's server share: a site, and how to talk to it over real sockets."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from io import BytesIO
from typing import Any
from unittest.mock import patch

import numpy as np
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.interfaces import IReactorTCP
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from mcmandelbrot.explorer.server import Server
from mcmandelbrot.explorer.tilequeue import TileQueue
from mcmandelbrot.fractal.kernel import rowLevels
from mcmandelbrot.fractal.picture import Picture

HERE, THERE = "127.0.0.1", "127.0.0.2"
"""Two addresses of this machine: of two visitors who are strangers to one another."""

CHEAP = "/tile/2/-2/0?limit=100"
DEEP = "/tile/8/-48/-9?limit=50000"  # at the edge of the set: hundreds of bands, none of them cheap


class _Picture:
    """The address of an image, where all is well but what a test says."""

    def format(self, **said: object) -> str:
        values = {"re": -0.6, "im": 0.1, "across": 3.0, "down": 2.5, "width": 100, "limit": 100, "palette": "ember"}
        return "/picture.png?" + "&".join(f"{name}={value}" for name, value in {**values, **said}.items())


PICTURE = _Picture()


class Site:
    """A server, and how to talk to it."""

    def __init__(self, server: Server, queue: TileQueue) -> None:
        self.server = server
        self.explorer = server.explorer
        self.queue = queue
        self.port = int(re.findall(r"\d+", server.url)[-1])

    @property
    def tiles(self) -> int:
        """How many tiles are being answered."""
        return sum(visitor.tiles for visitor in self.explorer.visitors)

    async def connect(self, source: str = HERE) -> Line:
        """A connection from the address SOURCE."""
        assert IReactorTCP.providedBy(reactor)
        line = Line()
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port, bindAddress=(source, 0))
        await connectProtocol(endpoint, line)
        return line

    async def begin(self, path: str, *headers: str, method: str = "GET", source: str = HERE) -> Line:
        """Ask for PATH, and go on."""
        line = await self.connect(source)
        line.send(method + " " + path + " HTTP/1.1", "Host: localhost", "Connection: close", *headers, "", "")
        return line

    async def get(self, path: str, *headers: str, method: str = "GET", source: str = HERE) -> Answer:
        return (await (await self.begin(path, *headers, method=method, source=source)).lost).answer()

    async def visitor(self) -> str:
        """The header of a new visitor."""
        return "Cookie: " + (await self.get("/")).headers["set-cookie"].split(";")[0]

    def socket(self) -> socket.socket:
        """A connection that reads as little as it can."""
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", self.port))
        return client


@contextmanager
def callsMeanwhile(queue: TileQueue) -> Iterator[Callable[[], int]]:
    """Give the number of all calls that end between the first call of the block being queued and its last ending.

    The time that the request and the answer take on their way does not count.
    """
    counts: list[int] = []
    make = queue.call

    def watched(*args: Any, **kw: Any) -> Deferred[Any]:
        counts.append(queue.stats().done)
        return make(*args, **kw).addBoth(ended)

    def ended(result: Any) -> Any:
        counts.append(queue.stats().done)
        return result

    with patch.object(queue, "call", watched):
        yield lambda: counts[-1] - counts[0]


class Line(Protocol):
    """A connection, and all that came over it."""

    def __init__(self) -> None:
        self.received = b""
        self.lost: Deferred[Line] = Deferred()
        self.isOpen = True

    def send(self, *lines: str) -> None:
        assert self.transport is not None
        self.transport.write("\r\n".join(lines).encode())

    def leave(self) -> None:
        transport: Any = self.transport
        transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.isOpen = False
        self.lost.callback(self)

    def answer(self) -> Answer:
        return Answer(self.received)


class Answer:
    """A status, headers and a body, parsed by Python's own client."""

    def __init__(self, received: bytes) -> None:
        response = HTTPResponse(_Recorded(received))  # type: ignore[arg-type]  # it only wants to read it as a file
        response.begin()
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    @property
    def text(self) -> str:
        return self.body.decode().strip()


class _Recorded:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def makefile(self, mode: str) -> BytesIO:
        return BytesIO(self._content)


def readings(events: Line) -> list[dict[str, Any]]:
    """What came over a connection that listens to events. (Readings are JSON: hence Any.)"""
    return [json.loads(text) for text in re.findall(rb"data: (.*)\n\n", events.received)]


def levelsOf(picture: Picture) -> list[np.ndarray[Any, np.dtype[np.float64]]]:
    view = picture.view
    return [
        rowLevels(view.left, view.level(row), view.step, view.width, picture.limit, picture.steepness)
        for row in range(view.height)
    ]
