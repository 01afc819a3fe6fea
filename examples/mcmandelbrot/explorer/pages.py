"""What there is to ask for: the page and its files, tiles, images, and the readings of the queue.

| path | gives |
| --- | --- |
| `/` | the page, and a token for its visitor |
| `/static/NAME` | a file of the page; `about.js` says what the server can do |
| `/palette/NAME` | the colours of a palette, three bytes each |
| `/tile/LEVEL/COLUMN/ROW?limit=&ring=` | a tile's levels: two bytes each, deflated |
| `/picture.png?re=&im=&across=&down=&width=&limit=&palette=` | an image, as a file to save |
| `/picture?` with the same | nothing, if that image would be given now; else the refusal |
| `/events` | readings of the queue, as server-sent events |

What cannot be is answered with 400 and the reason, what is too much with 429, what nobody could do now with 503.
How much one visitor or one address may have is counted here. How much that makes in all follows from it, and from how
many connections there are: nobody is refused because somebody else asks for much.
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
from mcmandelbrot.explorer.crew import TileQueue
from mcmandelbrot.explorer.door import hasNoEnd, refuse
from mcmandelbrot.explorer.meter import Meter
from mcmandelbrot.explorer.outlet import STALL, Outlet
from mcmandelbrot.explorer.query import pictureOf, tileOf
from mcmandelbrot.explorer.strips import stream
from mcmandelbrot.explorer.visitor import RINGS, Visitor, Visitors
from mcmandelbrot.fractal.picture import PALETTES
from mcmandelbrot.fractal.worker import drawLevels

TOKEN = "mcm"
"""The cookie that has a visitor's token."""

TILES_AT_ONCE = 16
STREAMS_AT_ONCE = 4
PICTURES_AT_ONCE = 1
"""What one visitor may have answered at once."""

STREAMS_PER_ADDRESS = 16
PICTURES_PER_ADDRESS = 2
"""What all visitors from one address may have answered at once."""

PICTURES_IN_ALL = 16
"""How many images are drawn at once, each of which takes a thread."""

KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}

T = TypeVar("T")


class Refused(Exception):
    """What is asked for is not given; the message says why, and STATUS in the words of HTTP."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Page(Resource):
    """What can be asked for by GET or HEAD alone, and has nothing below it but what was put there."""

    def __init__(self) -> None:
        Resource.__init__(self)

    def render(self, request: Request) -> Any:  # bytes, or NOT_DONE_YET
        """The answer to REQUEST."""
        if request.method not in (b"GET", b"HEAD"):
            request.setHeader("Allow", "GET, HEAD")
            return refuse(request, 405, "this can be got, and nothing else")
        try:
            return Resource.render(self, request)
        except PictureError as error:
            return refuse(request, 400, str(error))
        except Refused as error:
            return refuse(request, error.status, str(error))
        except AsynQueueError:
            return refuse(request, 503, "this cannot be drawn now")

    def render_GET(self, request: Request) -> bytes | int:
        """That there is nothing."""
        raise Refused(404, "there is nothing here")

    def getChild(self, path: bytes, request: Request) -> Resource:
        """What is below, where nothing was put."""
        return Page()


class Explorer(Page):
    """All there is, over QUEUE, with PALETTES by name. STALL is how long a reader may read nothing, in seconds."""

    _log = Logger(namespace="mcmandelbrot")

    def __init__(self, queue: TileQueue, palettes: Mapping[str, bytes], reactor: Any, *, stall: float = STALL) -> None:
        super().__init__()
        self.queue = queue
        self.reactor = reactor
        self.stall = stall
        self.visitors = Visitors()
        self.meter = Meter(queue, self.visitors, reactor)
        self.putChild(b"", _Home(self, _asset("index.html")))
        self.putChild(b"static", _branch({**_assets(), "about.js": _File(_about(), ".js")}))
        self.putChild(b"palette", _branch({name: _File(colours, "") for name, colours in palettes.items()}))
        self.putChild(b"tile", _Tiles(self))
        self.putChild(b"picture", _Permission(self))
        self.putChild(b"picture.png", _Pictures(self))
        self.putChild(b"events", _Events(self))

    def visitorOf(self, request: Request) -> Visitor:
        """Who asks."""
        return self.visitors.find(_token(request), _address(request), self.reactor.seconds())

    def letDraw(self, visitor: Visitor) -> None:
        """Raise `Refused` if no image can be drawn for VISITOR now."""
        if visitor.pictures >= PICTURES_AT_ONCE or visitor.address.pictures >= PICTURES_PER_ADDRESS:
            raise Refused(429, "another image is being drawn; let it end first")
        if self.pictures >= PICTURES_IN_ALL or not self.queue.isRunning():
            raise Refused(503, "there is too much to do")

    @property
    def pictures(self) -> int:
        """How many images are being drawn."""
        return sum(visitor.pictures for visitor in self.visitors)

    def failed(self, reason: Failure, request: Request) -> None:
        """Answer REQUEST, of which nothing was written, after its calls failed for REASON."""
        if reason.check(AsynQueueError) is None:
            self._log.failure("{uri} could not be drawn", reason, uri=request.uri)
        request.write(refuse(request, 503, "this cannot be drawn now"))
        request.finish()


class _Home(Page):
    """The page."""

    def __init__(self, explorer: Explorer, page: bytes) -> None:
        super().__init__()
        self._explorer = explorer
        self._page = page

    def render_GET(self, request: Request) -> bytes:
        """The page; whoever has no token of ours gets one."""
        token = _token(request)
        explorer = self._explorer
        visitor = explorer.visitors.meet(token, _address(request), explorer.reactor.seconds())
        if visitor.token is not None and visitor.token != token:
            request.addCookie(TOKEN, visitor.token, path="/", httpOnly=True, sameSite="strict")
        request.setHeader("Content-Type", "text/html; charset=utf-8")
        request.setHeader("Cache-Control", "no-store")
        return self._page


class _File(Page):
    """CONTENT, whose kind is told by SUFFIX."""

    isLeaf = True

    def __init__(self, content: bytes, suffix: str) -> None:
        super().__init__()
        self._content = content
        self._tag = f'"{sha256(content).hexdigest()[:16]}"'.encode()
        kind = KINDS.get(suffix)
        self._type = "application/octet-stream" if kind is None else f"{kind}; charset=utf-8"

    def render_GET(self, request: Request) -> bytes:
        """The content, unless the browser has it."""
        if request.postpath:
            raise Refused(404, "there is nothing here")
        request.setHeader("Cache-Control", "no-cache")
        if request.setETag(self._tag) is CACHED:
            return b""
        request.setHeader("Content-Type", self._type)
        return self._content


class _Service(Page):
    """What EXPLORER does for who asks; all that is below it is its own."""

    isLeaf = True

    def __init__(self, explorer: Explorer) -> None:
        super().__init__()
        self._explorer = explorer


class _Tiles(_Service):
    """The tiles."""

    def render_GET(self, request: Request) -> bytes | int:
        """A tile, when it is drawn; if the browser leaves before, no more of it is."""
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
            explorer.meter.tileEnded(visitor, drawn=True)
            return
        reason = result.value.subFailure if isinstance(result.value, FirstError) else result
        if reason.check(CancelledError):
            explorer.meter.tileEnded(visitor, drawn=False)
        else:
            explorer.failed(reason, request)


class _Permission(_Service):
    """Whether there would be an image. A browser that is refused a file to save does not tell anybody why."""

    def render_GET(self, request: Request) -> bytes:
        """Nothing, or what the image would be refused with."""
        pictureOf(request)
        self._explorer.letDraw(self._explorer.visitorOf(request))
        request.setResponseCode(204)
        request.setHeader("Cache-Control", "no-store")
        return b""


class _Pictures(_Service):
    """Images to save."""

    def render_GET(self, request: Request) -> bytes | int:
        """An image, band by band as it is drawn."""
        explorer = self._explorer
        picture = pictureOf(request)
        visitor = explorer.visitorOf(request)
        explorer.letDraw(visitor)
        visitor.pictures += 1
        request.setHeader("Content-Type", "image/png")
        request.setHeader("Content-Disposition", 'attachment; filename="mandelbrot.png"')
        request.setHeader("Cache-Control", "no-store")
        outlet = Outlet(request, explorer.reactor, explorer.stall)
        streaming = Deferred.fromCoroutine(stream(picture, explorer.queue, visitor, outlet, explorer.reactor))
        request.notifyFinish().addErrback(lambda _: streaming.cancel())
        streaming.addCallbacks(lambda _: outlet.finish(), lambda _: outlet.abort())
        streaming.addBoth(self._ended, visitor)
        return NOT_DONE_YET

    def _ended(self, _: None, visitor: Visitor) -> None:
        visitor.pictures -= 1


class _Events(_Service):
    """The readings of the queue."""

    def render_GET(self, request: Request) -> bytes | int:
        """Readings, until the browser has enough."""
        visitor = self._explorer.visitorOf(request)
        if visitor.streams >= STREAMS_AT_ONCE:
            raise Refused(429, f"{STREAMS_AT_ONCE} streams of events at once are enough")
        if visitor.address.streams >= STREAMS_PER_ADDRESS:
            raise Refused(429, f"{STREAMS_PER_ADDRESS} streams of events to one address are enough")
        hasNoEnd(request)
        request.setHeader("Content-Type", "text/event-stream")
        request.setHeader("Cache-Control", "no-store")
        visitor.streams += 1
        outlet = Outlet(request, self._explorer.reactor, self._explorer.stall)
        self._explorer.meter.watch(outlet, visitor)
        request.notifyFinish().addBoth(self._ended, outlet, visitor)
        return NOT_DONE_YET

    def _ended(self, _: object, outlet: Outlet, visitor: Visitor) -> None:
        visitor.streams -= 1
        self._explorer.meter.unwatch(outlet)


# Who asks.


def _token(request: Request) -> str | None:
    token = request.getCookie(TOKEN.encode())
    return None if token is None else token.decode("latin-1")


def _address(request: Request) -> str:
    return str(getattr(request.getClientAddress(), "host", ""))


def _cancel(calls: list[Deferred[T]]) -> None:
    # The last first: a call that waits must not start because the one before it is gone.
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
    """A module that tells the page what the server can do."""
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
