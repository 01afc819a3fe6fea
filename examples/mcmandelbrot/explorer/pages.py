"""The resources of the explorer.

| path | answer |
| --- | --- |
| `/` | the page, and a token for its visitor |
| `/static/NAME` | a file of the page; `about.js` has the capabilities of the server |
| `/palette/NAME` | the colours of a palette, three bytes each |
| `/tile/LEVEL/COLUMN/ROW?limit=&ring=` | a tile's levels: two bytes each, deflated |
| `/picture.png?re=&im=&across=&down=&width=&limit=&palette=` | an image, as a file to save |
| `/picture?` with the same | nothing if that image would be accepted now, else the refusal |
| `/events` | the state of the queue, as server-sent events |

An impossible request is answered with 400 and the reason, too many requests with 429, and a server without capacity
with
503. This module limits the requests of one visitor and one address. With the number of connections, that limits the
     total:
no request is refused because of another visitor's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from importlib.resources import files
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, FirstError, gatherResults
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import CACHED
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from asynqueue.errors import AsynQueueError
from mcmandelbrot.errors import PictureError
from mcmandelbrot.explorer import tile as tiles
from mcmandelbrot.explorer.imagestream import stream
from mcmandelbrot.explorer.query import pictureOf, tileOf
from mcmandelbrot.explorer.responsestream import STALL, ResponseStream
from mcmandelbrot.explorer.site import markStreaming, refuse
from mcmandelbrot.explorer.statusstream import StatusStream
from mcmandelbrot.explorer.tilequeue import TileQueue
from mcmandelbrot.explorer.visitor import (
    PICTURES_AT_ONCE,
    PICTURES_PER_ADDRESS,
    RINGS,
    STREAMS_AT_ONCE,
    STREAMS_PER_ADDRESS,
    TILES_AT_ONCE,
    Visitor,
    Visitors,
)
from mcmandelbrot.fractal.picture import PALETTES
from mcmandelbrot.fractal.worker import drawLevels

TOKEN = "mcm"
"""The name of the cookie with a visitor's token."""

PICTURES_IN_ALL = 16
"""The maximum number of images in progress. Each needs a thread."""

KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}

T = TypeVar("T")


class Refused(Exception):
    """A request is refused. The message has the reason, and STATUS is the HTTP status."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Page(Resource):
    """A resource for GET and HEAD, with no children but those that were added."""

    def __init__(self) -> None:
        Resource.__init__(self)

    def render(self, request: Request) -> Any:  # Any: bytes, or NOT_DONE_YET
        """Answer REQUEST."""
        if request.method not in (b"GET", b"HEAD"):
            request.setHeader("Allow", "GET, HEAD")
            return refuse(request, 405, "only GET and HEAD are allowed here")
        try:
            return Resource.render(self, request)
        except PictureError as error:
            return refuse(request, 400, str(error))
        except Refused as error:
            return refuse(request, error.status, str(error))
        except AsynQueueError:
            return refuse(request, 503, "the server cannot draw this now: try again later")

    def render_GET(self, request: Request) -> bytes | int:
        """Refuse: there is nothing here."""
        raise Refused(404, "there is nothing here")

    def getChild(self, path: bytes, request: Request) -> Resource:
        """Return the resource for an unknown child."""
        return Page()


class Explorer(Page):
    """The root, with QUEUE and the PALETTES by name. STALL is as for `ResponseStream`."""

    _log = Logger(namespace="mcmandelbrot")

    def __init__(self, queue: TileQueue, palettes: Mapping[str, bytes], reactor: Any, *, stall: float = STALL) -> None:
        super().__init__()
        self.queue = queue
        self.reactor = reactor
        self.stall = stall
        self.visitors = Visitors()
        self.status = StatusStream(queue, self.visitors, reactor)
        self.putChild(b"", _Home(self, _asset("index.html")))
        self.putChild(b"static", _branch({**_assets(), "about.js": _File(_about(), ".js")}))
        self.putChild(b"palette", _branch({name: _File(colours, "") for name, colours in palettes.items()}))
        self.putChild(b"tile", _Tiles(self))
        self.putChild(b"picture", _Permission(self))
        self.putChild(b"picture.png", _Pictures(self))
        self.putChild(b"events", _Events(self))

    def visitorOf(self, request: Request) -> Visitor:
        """Return the visitor of REQUEST."""
        return self.visitors.find(_token(request), _address(request), self.reactor.seconds())

    def checkMayDraw(self, visitor: Visitor) -> None:
        """Raise `Refused` if no image can be drawn for VISITOR now."""
        if visitor.pictures >= PICTURES_AT_ONCE or visitor.address.pictures >= PICTURES_PER_ADDRESS:
            raise Refused(429, "another image is being drawn: wait for its end")
        if self.pictures >= PICTURES_IN_ALL or not self.queue.isRunning():
            raise Refused(503, "the server has too much to do: try again later")

    @property
    def pictures(self) -> int:
        """The number of images in progress."""
        return sum(visitor.pictures for visitor in self.visitors)

    def failed(self, reason: Failure, request: Request) -> None:
        """Answer REQUEST, whose calls failed with REASON."""
        if reason.check(AsynQueueError) is None:
            self._log.failure("{uri} could not be drawn", reason, uri=request.uri)
        request.write(refuse(request, 503, "the server cannot draw this now: try again later"))
        request.finish()


class _Home(Page):
    """The page."""

    def __init__(self, explorer: Explorer, page: bytes) -> None:
        super().__init__()
        self._explorer = explorer
        self._page = page

    def render_GET(self, request: Request) -> bytes:
        """Return the page. A browser without a valid token gets one."""
        token = _token(request)
        explorer = self._explorer
        visitor = explorer.visitors.identify(token, _address(request), explorer.reactor.seconds())
        if visitor.token is not None and visitor.token != token:
            request.addCookie(TOKEN, visitor.token, path="/", httpOnly=True, sameSite="strict")
        request.setHeader("Content-Type", "text/html; charset=utf-8")
        request.setHeader("Cache-Control", "no-store")
        return self._page


class _File(Page):
    """CONTENT, with the media type of SUFFIX."""

    isLeaf = True

    def __init__(self, content: bytes, suffix: str) -> None:
        super().__init__()
        self._content = content
        self._tag = f'"{sha256(content).hexdigest()[:16]}"'.encode()
        kind = KINDS.get(suffix)
        self._type = "application/octet-stream" if kind is None else f"{kind}; charset=utf-8"

    def render_GET(self, request: Request) -> bytes:
        """Return the content, unless the browser has it in its cache."""
        if request.postpath:
            raise Refused(404, "there is nothing here")
        request.setHeader("Cache-Control", "no-cache")
        if request.setETag(self._tag) is CACHED:
            return b""
        request.setHeader("Content-Type", self._type)
        return self._content


class _Service(Page):
    """A resource of EXPLORER that handles all paths below it."""

    isLeaf = True

    def __init__(self, explorer: Explorer) -> None:
        super().__init__()
        self._explorer = explorer


class _Tiles(_Service):
    """The tiles."""

    def render_GET(self, request: Request) -> bytes | int:
        """Answer with a tile when it is drawn. If the browser closes the request, cancel the drawing."""
        explorer = self._explorer
        tile, ring = tileOf(request)
        visitor = explorer.visitorOf(request)
        if visitor.tiles >= TILES_AT_ONCE:
            raise Refused(429, f"{TILES_AT_ONCE} tiles at once are enough")
        niceness = visitor.niceness(ring)
        calls = [
            explorer.queue.call(drawLevels, band, niceness=niceness, series=visitor.series) for band in tile.bands()
        ]
        visitor.tiles += 1
        request.notifyFinish().addErrback(lambda _: _cancel(calls))
        gatherResults(calls, consumeErrors=True).addBoth(self._drawn, request, visitor)
        return NOT_DONE_YET

    def _drawn(self, result: list[bytes] | Failure, request: Request, visitor: Visitor) -> None:
        explorer = self._explorer
        visitor.tiles -= 1
        if not isinstance(result, Failure):
            request.setHeader("Content-Type", "application/octet-stream")
            request.setHeader("Cache-Control", "private, max-age=3600")
            request.write(b"".join([*result, b"\x03\x00"]))  # an empty last block, which ends the stream
            request.finish()
            explorer.status.tileEnded(visitor, drawn=True)
            return
        reason = result.value.subFailure if isinstance(result.value, FirstError) else result
        if reason.check(CancelledError):
            explorer.status.tileEnded(visitor, drawn=False)
        else:
            explorer.failed(reason, request)


class _Permission(_Service):
    """Whether an image can be drawn. A browser shows no reason if a file to save is refused."""

    def render_GET(self, request: Request) -> bytes:
        """Return nothing, or refuse as the image would be refused."""
        pictureOf(request)
        self._explorer.checkMayDraw(self._explorer.visitorOf(request))
        request.setResponseCode(204)
        request.setHeader("Cache-Control", "no-store")
        return b""


class _Pictures(_Service):
    """Images to save."""

    def render_GET(self, request: Request) -> bytes | int:
        """Answer with an image, band by band as it is drawn."""
        explorer = self._explorer
        picture = pictureOf(request)
        visitor = explorer.visitorOf(request)
        explorer.checkMayDraw(visitor)
        visitor.pictures += 1
        request.setHeader("Content-Type", "image/png")
        request.setHeader("Content-Disposition", 'attachment; filename="mandelbrot.png"')
        request.setHeader("Cache-Control", "no-store")
        response = ResponseStream(request, explorer.reactor, explorer.stall)
        streaming = Deferred.fromCoroutine(stream(picture, explorer.queue, visitor, response, explorer.reactor))
        request.notifyFinish().addErrback(lambda _: streaming.cancel())
        streaming.addCallbacks(lambda _: response.finish(), lambda _: response.abort())
        streaming.addBoth(self._ended, visitor)
        return NOT_DONE_YET

    def _ended(self, _: None, visitor: Visitor) -> None:
        visitor.pictures -= 1


class _Events(_Service):
    """The state of the queue."""

    def render_GET(self, request: Request) -> bytes | int:
        """Send readings until the browser closes the connection."""
        visitor = self._explorer.visitorOf(request)
        if visitor.streams >= STREAMS_AT_ONCE:
            raise Refused(429, f"{STREAMS_AT_ONCE} streams of events at once are enough")
        if visitor.address.streams >= STREAMS_PER_ADDRESS:
            raise Refused(429, f"{STREAMS_PER_ADDRESS} streams of events to one address are enough")
        markStreaming(request)
        request.setHeader("Content-Type", "text/event-stream")
        request.setHeader("Cache-Control", "no-store")
        visitor.streams += 1
        response = ResponseStream(request, self._explorer.reactor, self._explorer.stall)
        self._explorer.status.watch(response, visitor)
        request.notifyFinish().addBoth(self._ended, response, visitor)
        return NOT_DONE_YET

    def _ended(self, _: object, response: ResponseStream, visitor: Visitor) -> None:
        visitor.streams -= 1
        self._explorer.status.unwatch(response)


# The client of a request.


def _token(request: Request) -> str | None:
    token = request.getCookie(TOKEN.encode())
    return None if token is None else token.decode("latin-1")


def _address(request: Request) -> str:
    return str(getattr(request.getClientAddress(), "host", ""))


def _cancel(calls: list[Deferred[T]]) -> None:
    # The last call first: a waiting call must not start because the call before it was cancelled.
    for call in reversed(calls):
        call.cancel()


# The files of the page.


def _asset(name: str) -> bytes:
    return (files("mcmandelbrot.explorer") / "static" / name).read_bytes()


def _assets() -> dict[str, _File]:
    folder = files("mcmandelbrot.explorer") / "static"
    return {
        file.name: _File(file.read_bytes(), file.name[file.name.rindex(".") :])
        for file in folder.iterdir()
        if file.name.endswith((".js", ".css", ".svg"))
    }


def _branch(children: Mapping[str, Resource]) -> Resource:
    branch = Page()
    for name, child in children.items():
        branch.putChild(name.encode(), child)
    return branch


def _about() -> bytes:
    """Return a JavaScript module with the capabilities of the server."""
    about = {
        "side": tiles.SIDE,
        "span": tiles.SPAN,
        "reach": tiles.REACH,
        "maxLevel": tiles.MAX_LEVEL,
        "minLimit": tiles.MIN_LIMIT,
        "maxLimit": tiles.MAX_LIMIT,
        "rings": RINGS,
        "palettes": PALETTES,
    }
    return f"export const about = {json.dumps(about)};\n".encode()
