"""The explorer's server over real sockets, with real workers: what it gives, what it refuses, and what it survives."""

from __future__ import annotations

import itertools
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from importlib.resources import files
from socket import gethostname
from threading import Event
from typing import Any, BinaryIO
from typing import Protocol as Typing

import numpy as np
import png
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IReactorTCP
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall

from asynqueue import ProcessWorker
from mcmandelbrot.explorer.query import MAX_PICTURE
from mcmandelbrot.explorer.server import Server
from mcmandelbrot.explorer.site import REJECTING
from mcmandelbrot.explorer.tile import Tile
from mcmandelbrot.explorer.tilequeue import TileQueue
from mcmandelbrot.explorer.visitor import (
    PER_ADDRESS,
    PICTURES_AT_ONCE,
    PICTURES_PER_ADDRESS,
    STREAMS_AT_ONCE,
    STREAMS_PER_ADDRESS,
    TILES_AT_ONCE,
)
from mcmandelbrot.fractal import rendering
from mcmandelbrot.fractal.palette import colourMap, paint
from mcmandelbrot.fractal.picture import PALETTES, Picture, View
from mcmandelbrot.fractal.png import Piece, writePicture
from mcmandelbrot.fractal.worker import prepare
from tests.support.calls import inLoop, until
from tests.support.explorer import CHEAP, DEEP, PICTURE, THERE, Line, Site, callsMeanwhile, levelsOf, readings


@pytest.fixture(scope="module")
def queue() -> Iterator[TileQueue]:
    """Two workers that are ready."""
    pytest_twisted.blockon(Deferred.fromCoroutine(_listenOnce()))
    queue = TileQueue(2)
    pytest_twisted.blockon(queue.update(prepare))
    yield queue
    pytest_twisted.blockon(queue.shutdown())


STATIC = files("mcmandelbrot.explorer") / "static"


async def _listenOnce() -> None:
    """Have Twisted open the descriptor that it has in reserve, and keeps, from the first port on."""
    assert IReactorTCP.providedBy(reactor)
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Factory.forProtocol(Line))
    await maybeDeferred(port.stopListening)


class Opening(Typing):
    """How a test opens a site of its own kind."""

    async def __call__(
        self,
        *,
        patience: float = ...,
        stall: float = ...,
        connections: int = ...,
        perAddress: int = ...,
        names: Iterable[str] = ...,
    ) -> Site: ...


@pytest.fixture
def opening(queue: TileQueue) -> Iterator[Opening]:
    """Opens a site, which is closed after the test."""
    servers: list[Server] = []
    clock: Any = reactor  # its type says nothing of time

    async def opened(
        *,
        patience: float = 30.0,
        stall: float = 20.0,
        connections: int = 100,
        perAddress: int = 100,
        names: Iterable[str] = (),
    ) -> Site:
        server = await Server.listen(
            queue,
            0,
            "127.0.0.1",
            reactor,
            patience=patience,
            stall=stall,
            connections=connections,
            perAddress=perAddress,
            names=names,
        )
        servers.append(server)
        return Site(server, queue)

    yield opened
    for server in servers:
        pytest_twisted.blockon(Deferred.fromCoroutine(server.close()))

    def over() -> bool:
        """Whether no image and no call is in progress, and the driver has no tick due."""
        drawing = any(server.explorer.pictures for server in servers)
        return not drawing and not queue.stats().running and "Driver" not in str(clock.getDelayedCalls())

    pytest_twisted.blockon(Deferred.fromCoroutine(until(over)))


@pytest.fixture
def site(opening: Opening) -> Site:
    """A site as `mcm serve` opens it."""
    return pytest_twisted.blockon(Deferred.fromCoroutine(opening()))


class TestThePage:
    @inLoop
    async def test_it_comes_with_a_token_and_lets_nothing_else_in(self, site: Site) -> None:
        answer = await site.get("/")
        assert answer.status == 200
        assert answer.body == (STATIC / "index.html").read_bytes()
        assert re.fullmatch(r"mcm=[\w-]{22}; Path=/; HttpOnly; SameSite=strict", answer.headers["set-cookie"])
        assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
        assert answer.headers["x-content-type-options"] == "nosniff"
        again = await site.get("/", "Cookie: " + answer.headers["set-cookie"].split(";")[0])
        assert "set-cookie" not in again.headers
        assert len(site.explorer.visitors) == 1

    def test_it_asks_nobody_else_for_anything(self) -> None:
        for file in STATIC.iterdir():
            text = file.read_text().replace('xmlns="http://www.w3.org/2000/svg"', "")
            assert not re.search(r"https?:|//\w+\.|url\(|@import", text), file.name

    @inLoop
    async def test_its_files_are_sent_once(self, site: Site) -> None:
        for name, kind in (("main.js", "text/javascript"), ("style.css", "text/css"), ("icon.svg", "image/svg+xml")):
            answer = await site.get(f"/static/{name}")
            assert answer.body == (STATIC / name).read_bytes()
            assert answer.headers["content-type"].startswith(kind)
            again = await site.get(f"/static/{name}", f"If-None-Match: {answer.headers['etag']}")
            assert (again.status, again.body) == (304, b"")

    @inLoop
    async def test_it_is_told_what_the_server_can_do(self, site: Site) -> None:
        about = json.loads((await site.get("/static/about.js")).text.removeprefix("export const about = ").rstrip(";"))
        assert about["maxLevel"] == 44
        assert about["palettes"] == list(PALETTES)
        for palette in about["palettes"]:
            assert (await site.get(f"/palette/{palette}")).body == colourMap(palette).tobytes()

    @pytest.mark.parametrize(
        "path", ["/nothing", "/static/../pages.py", "/static/%2e%2e/pages.py", "/static/", "/palette/x", "/static/a/b"]
    )
    @inLoop
    async def test_there_is_nothing_else(self, site: Site, path: str) -> None:
        answer = await site.get(path)
        assert answer.status == 404
        assert "content-security-policy" in answer.headers


class TestATile:
    @pytest.mark.parametrize("tile", [Tile(2, -2, 0, 100), Tile(9, -381, -68, 4000)], ids=["one call", "many"])
    @inLoop
    async def test_it_is_the_levels_that_the_kernel_gives(self, site: Site, tile: Tile) -> None:
        path = f"/tile/{tile.level}/{tile.column}/{tile.row}?limit={tile.limit}&ring=4"
        answer = await site.get(path)
        assert answer.status == 200
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        levels = np.frombuffer(inflate.decompress(answer.body), "<u2")
        assert inflate.eof
        assert levels.tolist() == np.rint(np.concatenate(levelsOf(tile.picture)) * 65535).tolist()

    @inLoop
    async def test_what_is_left_of_it_never_runs_when_the_browser_leaves(self, site: Site) -> None:
        bands = len(Tile(8, -48, -9, 50_000).bands())
        before = site.queue.stats()
        line = await site.begin(DEEP)
        await until(lambda: site.queue.stats().queued > bands / 2)
        line.leave()
        await until(lambda: site.explorer.status.cancelled == 1)
        stats = site.queue.stats()
        assert stats.queued == 0
        assert stats.cancelled - before.cancelled + stats.done - before.done == bands
        assert stats.cancelled - before.cancelled > bands / 4
        assert site.explorer.status.drawn == 0
        processes = [worker.process.pid for worker in site.queue.workers() if isinstance(worker, ProcessWorker)]
        assert (await site.get(CHEAP)).status == 200
        assert processes == [w.process.pid for w in site.queue.workers() if isinstance(w, ProcessWorker)]

    @inLoop
    async def test_two_visitors_share_the_workers(self, site: Site) -> None:
        flooding, looking = await site.visitor(), await site.visitor()
        flood = [await site.begin(DEEP, flooding) for _ in range(TILES_AT_ONCE)]
        await until(lambda: site.queue.stats().queued > 1000)
        assert (await site.get("/tile/2/-2/0?limit=500&ring=4", looking)).status == 200
        assert all(line.isOpen for line in flood)
        assert len({visitor.series for visitor in site.explorer.visitors}) == 2

    @inLoop
    async def test_one_address_cannot_make_another_wait_long_or_be_refused(self, site: Site) -> None:
        flooding = [await site.visitor() for _ in range(PER_ADDRESS)]
        flood = [await site.begin(DEEP, visitor) for visitor in flooding for _ in range(6)]
        await until(lambda: site.tiles == len(flood))
        with callsMeanwhile(site.queue) as done:
            assert (await site.get(CHEAP, source=THERE)).status == 200  # one call
        assert done() < 20
        with callsMeanwhile(site.queue) as done:
            answer = await site.get("/tile/9/-381/-68?limit=4000", source=THERE)
        bands = len(Tile(9, -381, -68, 4000).bands())
        assert answer.status == 200
        assert done() < 3 * bands + 10  # half of the workers, though it is 16 visitors to one
        assert all(line.isOpen for line in flood)

    @inLoop
    async def test_one_visitor_has_so_many_at_once_and_others_are_served(self, site: Site) -> None:
        flooding, looking = await site.visitor(), await site.visitor()
        flood = [await site.begin(DEEP, flooding) for _ in range(TILES_AT_ONCE)]
        await until(lambda: site.queue.stats().queued > 1000)
        refusal = await site.get(CHEAP, flooding)
        assert (refusal.status, refusal.text) == (429, "16 tiles at once are enough")
        assert refusal.headers["retry-after"] == "1"
        assert (await site.get(CHEAP, looking)).status == 200
        for line in flood:
            line.leave()
        await until(lambda: site.explorer.status.cancelled == TILES_AT_ONCE)
        assert (await site.get(CHEAP, flooding)).status == 200


class TestHostileInput:
    @pytest.mark.parametrize(
        ("path", "reason"),
        [
            ("/tile/0/0", "a tile is /tile/LEVEL/COLUMN/ROW"),
            ("/tile/0/0/0/0?limit=100", "a tile is /tile/LEVEL/COLUMN/ROW"),
            ("/tile/nan/0/0?limit=100", "LEVEL must be an integer, got 'nan'"),
            ("/tile/0/1e3/0?limit=100", "COLUMN must be an integer, got '1e3'"),
            ("/tile/0/0/%00?limit=100", "ROW must be an integer"),
            ("/tile/45/0/0?limit=100", "double precision cannot distinguish the pixels of level 45"),
            ("/tile/999999999999999999/0/0?limit=100", "double precision cannot distinguish"),
            ("/tile/-1/0/0?limit=100", "a level is from 0 to 44"),
            ("/tile/0/99999999999999999999999/0?limit=100", "COLUMN must be an integer"),
            ("/tile/0/7/0?limit=100", "a column of level 0 is from -1 to 0, got 7"),
            ("/tile/0/0/0", "limit must be given, once"),
            ("/tile/0/0/0?limit=100&limit=100", "limit must be given, once"),
            ("/tile/0/0/0?limit=1000000000", "limit must be from 10 to 50,000 iterations, got 1000000000"),
            ("/tile/0/0/0?limit=-5", "limit must be from 10 to 50,000"),
            ("/tile/0/0/0?limit=100&ring=-20", "ring must be from 0 to 4, got -20"),
            ("/picture.png", "re must be given, once"),
            (PICTURE.format(re="nan"), "re must be a number, got 'nan'"),
            (PICTURE.format(re="inf"), "re must be a number, got 'inf'"),
            (PICTURE.format(re="1_0"), "re must be a number, got '1_0'"),
            (PICTURE.format(re="%D9%A1"), "re must be a number"),
            (PICTURE.format(re="1" * 61), "re must be a number"),
            (PICTURE.format(re="x" * 5000), "re must be a number"),
            (PICTURE.format(across=0), "across and down must be more than 0"),
            (PICTURE.format(across=-1), "across and down must be more than 0"),
            (PICTURE.format(across=1e-300), "the image would be more than"),
            (PICTURE.format(across=1e-15, down=1e-15), "double precision cannot tell these pixels apart"),
            (PICTURE.format(down="1e300"), "re, im, across and down must be numbers within ±1,000,000"),
            (PICTURE.format(down=1000), "the image would be more than 16,384 pixels high"),
            (PICTURE.format(down="nan"), "down must be a number, got 'nan'"),
            (PICTURE.format(width=10**9), "width must be from 1 to 16,384 pixels"),
            (PICTURE.format(limit=10**9), "limit must be from 10 to 50,000 iterations"),
            (PICTURE.format(palette="mauve"), "the palette must be one of ember, ocean"),
        ],
    )
    @inLoop
    async def test_an_impossible_request_is_refused_with_the_reason(self, site: Site, path: str, reason: str) -> None:
        answer = await site.get(path)
        assert answer.status == 400
        assert reason in answer.text
        assert len(answer.text) < 200
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert site.queue.stats().queued == 0

    @inLoop
    async def test_other_methods_and_bodies_are_refused(self, site: Site) -> None:
        assert (await site.get(CHEAP, method="POST")).status == 405
        assert (await site.get("/", method="BREW")).status == 405
        for header in ("Content-Length: 1000000000000", "Transfer-Encoding: chunked"):
            line = await site.begin("/", header, method="POST")
            line.send("x" * 100_000)
            assert (await line.lost).answer().status == 413

    @inLoop
    async def test_what_another_site_makes_a_browser_ask_for_is_refused(self, site: Site) -> None:
        crossing = "Sec-Fetch-Site: cross-site"
        assert (await site.get(CHEAP, crossing, "Sec-Fetch-Mode: no-cors")).status == 403
        assert (await site.get("/", crossing, "Sec-Fetch-Mode: navigate")).status == 200

    @inLoop
    async def test_headers_without_end_are_cut_short(self, site: Site) -> None:
        for headers in [f"X: {'x' * 5_000_000}"], [f"X-{n}: {'x' * 1000}" for n in range(30)]:
            answer = (await (await site.begin("/", *headers)).lost).answer()
            assert (answer.status, answer.text) == (431, "a request's headers may have at most 16,384 bytes")
        assert (await site.get("/", *(f"X-{n}: x" for n in range(600)))).status == 400

    @inLoop
    async def test_an_address_without_end_is_cut_short(self, site: Site) -> None:
        for length in 20_000, 200_000:
            answer = await site.get("/" + "x" * length)
            assert (answer.status, answer.text) == (414, "an address may have 16,384 bytes")
            assert answer.headers["x-content-type-options"] == "nosniff"
        line = await site.connect()
        for _ in range(2):  # what is short of that is read to its end, as often as it comes
            line.send(f"GET /{'x' * 16_000} HTTP/1.1", "Host: localhost", "", "")
            await until(lambda: line.received.endswith(b"there is nothing here\n"))
            line.received = b""

    @inLoop
    async def test_who_is_turned_away_and_talks_on_is_cut_off(self, site: Site) -> None:
        with site.socket() as client:

            def isCutOff() -> bool:
                try:
                    client.send(b"x" * 1000)
                except OSError:
                    return True
                return False

            client.sendall(b"GET /" + b"x" * 20_000)
            await until(isCutOff)

    @pytest.mark.parametrize(
        ("host", "status"),
        [
            ("localhost", 200),
            ("LOCALHOST:8080", 200),
            ("me.localhost", 200),
            ("127.0.0.1:1", 200),
            ("192.0.2.1", 200),
            ("[::1]:8080", 200),
            (gethostname(), 200),
            ("fractals.example:8080", 200),
            ("fractals.example.", 200),
            ("rebound.example", 421),
            ("127.0.0.1.rebound.example", 421),
            ("localhost.rebound.example:80", 421),
            ("", 421),
        ],
    )
    @inLoop
    async def test_it_goes_by_its_names_and_no_other(self, opening: Opening, host: str, status: int) -> None:
        site = await opening(names=["Fractals.example"])
        line = await site.connect()
        line.send("GET /static/icon.svg HTTP/1.1", f"Host: {host}", "Connection: close", "", "")
        answer = (await line.lost).answer()
        assert answer.status == status
        assert status == 200 or "does not accept this host name" in answer.text

    @inLoop
    async def test_bytes_that_trickle_in_buy_no_time(self, opening: Opening) -> None:
        site = await opening(patience=1.0)
        line = await site.connect()
        trickling = LoopingCall(line.send, "x")
        trickling.start(0.02)
        await line.lost
        trickling.stop()

    @inLoop
    async def test_requests_sent_ahead_of_an_answer_end_the_connection(self, site: Site) -> None:
        line = await site.connect()
        line.send(*[f"GET {CHEAP} HTTP/1.1", "Host: localhost", ""] * 500, "")
        received = (await line.lost).received
        assert received.count(b"HTTP/1.1 200 OK") <= 1

    @inLoop
    async def test_an_idle_connection_gives_way_and_a_busy_one_does_not(self, opening: Opening) -> None:
        site = await opening(connections=3)
        idle = await site.connect()
        busy = [await site.begin(DEEP, await site.visitor()) for _ in range(2)]
        await until(lambda: site.queue.stats().running >= 2)
        assert (await site.get(CHEAP)).status == 200
        assert not idle.isOpen
        busy.append(await site.begin(DEEP))
        await until(lambda: site.tiles == 3)
        refusal = await site.get(CHEAP)
        assert (refusal.status, refusal.text) == (503, "there are too many visitors")
        assert refusal.headers["retry-after"] == "1"
        assert all(line.isOpen for line in busy)

    @inLoop
    async def test_an_address_with_fewer_connections_replaces_streams_then_answers(self, opening: Opening) -> None:
        site = await opening(connections=4)
        stream = await site.begin("/events")
        busy = [await site.begin(DEEP, await site.visitor()) for _ in range(3)]
        await until(lambda: readings(stream) and site.tiles == 3)
        for kept in (3, 2):
            busy.append(await site.begin(DEEP, source=THERE))
            await until(lambda: site.tiles == len([line for line in busy if line.isOpen]))
            assert not stream.isOpen
            assert len([line for line in busy[:3] if line.isOpen]) == kept
        refusal = await site.get(CHEAP, source=THERE)  # which has its half now
        assert refusal.status == 503

    @inLoop
    async def test_an_address_has_so_many_connections_and_others_are_let_in(self, opening: Opening) -> None:
        site = await opening(perAddress=2)
        busy = [await site.begin(DEEP) for _ in range(2)]
        await until(lambda: site.tiles == 2)
        refusal = await site.get(CHEAP)
        assert (refusal.status, refusal.text) == (429, "2 connections from one address are enough")
        assert (await site.get(CHEAP, source=THERE)).status == 200
        assert all(line.isOpen for line in busy)

    @inLoop
    async def test_of_those_who_are_turned_away_only_so_many_are_told(self, opening: Opening) -> None:
        site = await opening(perAddress=1)
        busy = await site.begin(DEEP)
        await until(lambda: site.tiles == 1)
        outside = [await site.connect() for _ in range(REJECTING + 5)]
        await until(lambda: len([line for line in outside if line.isOpen]) == REJECTING)
        outside[0].send("GET / HTTP/1.1", "", "")
        assert (await outside[0].lost).answer().status == 429
        assert busy.isOpen
        await gatherResults([line.lost for line in outside])  # however long they say nothing

    @inLoop
    async def test_a_reader_who_reads_nothing_is_hung_up_on_and_nothing_piles_up(self, opening: Opening) -> None:
        site = await opening(stall=0.5)
        explorer = site.explorer
        before = site.queue.stats().done
        with site.socket() as client:
            busy = PICTURE.format(re=-0.7436, im=0.1318, across=0.01, down=0.01, width=MAX_PICTURE, limit=300)
            client.sendall(f"GET {busy} HTTP/1.1\r\n\r\n".encode())
            await until(lambda: explorer.pictures == 1)
            assert (await site.get(CHEAP)).status == 200
            await until(lambda: explorer.pictures == 0)
            await until(lambda: site.queue.stats().queued == 0)
        assert site.queue.stats().done - before < MAX_PICTURE / 2


class TestAPicture:
    @inLoop
    async def test_it_is_the_view_as_the_palette_has_it(self, site: Site) -> None:
        answer = await site.get(PICTURE.format(width=200, palette="dusk"))
        assert answer.status == 200
        assert answer.headers["content-type"] == "image/png"
        assert answer.headers["content-disposition"] == 'attachment; filename="mandelbrot.png"'
        picture = Picture(View.around(200, -0.6, 0.1, 1.5, 1.25), 100)
        _, _, rows, _ = png.Reader(bytes=answer.body).read()
        assert [bytes(row) for row in rows] == [paint(levels, "dusk") for levels in levelsOf(picture)]

    @inLoop
    async def test_a_row_in_strips_is_the_row(self, site: Site) -> None:
        answer = await site.get(PICTURE.format(width=1500, down=0.01, limit=20_000))
        width, height, rows, _ = png.Reader(bytes=answer.body).read()
        drawn = np.array([list(row) for row in rows])
        picture = Picture(View.around(1500, -0.6, 0.1, 1.5, 0.005), 20_000)
        whole = np.array([list(paint(levels)) for levels in levelsOf(picture)])
        assert (width, height) == (1500, 5)
        assert np.mean(drawn != whole) < 0.01  # where strips identify, a pixel has one neighbour less

    @inLoop
    async def test_who_asks_whether_there_would_be_one_has_none_drawn(self, site: Site) -> None:
        before = site.queue.stats().done
        answer = await site.get(PICTURE.format(width=MAX_PICTURE).replace(".png", ""))
        assert (answer.status, answer.body) == (204, b"")
        answer = await site.get(PICTURE.format(width=0).replace(".png", ""))
        assert (answer.status, answer.text) == (400, "width must be from 1 to 16,384 pixels, got 0")
        assert site.explorer.pictures == 0
        assert site.queue.stats().done == before

    @inLoop
    async def test_it_comes_row_by_row(self, site: Site) -> None:
        line = await site.begin(PICTURE.format(width=4096, limit=200))
        await until(lambda: b"IDAT" in line.received)
        assert site.explorer.pictures == 1
        line.leave()
        await until(lambda: site.explorer.pictures == 0)

    @inLoop
    async def test_one_visitor_has_one_at_once(self, site: Site) -> None:
        visitor, other = await site.visitor(), await site.visitor()
        lines = [await site.begin(PICTURE.format(width=MAX_PICTURE), visitor) for _ in range(PICTURES_AT_ONCE)]
        await until(lambda: site.explorer.pictures == PICTURES_AT_ONCE)
        refusal = await site.get(PICTURE.format(width=64), visitor)
        assert (refusal.status, refusal.text) == (429, "another image is being drawn: wait for its end")
        asked = await site.get(PICTURE.format(width=64).replace(".png", ""), visitor)
        assert (asked.status, asked.text) == (refusal.status, refusal.text)
        assert (await site.get(PICTURE.format(width=64), other)).status == 200
        for line in lines:
            line.leave()
        await until(lambda: site.explorer.pictures == 0)

    @inLoop
    async def test_an_address_has_so_many_and_another_is_served(self, site: Site) -> None:
        large = PICTURE.format(width=MAX_PICTURE)
        lines = [await site.begin(large, await site.visitor()) for _ in range(PICTURES_PER_ADDRESS)]
        await until(lambda: site.explorer.pictures == PICTURES_PER_ADDRESS and all(line.received for line in lines))
        assert (await site.get(PICTURE.format(width=64), await site.visitor())).status == 429
        assert (await site.get(PICTURE.format(width=64), source=THERE)).status == 200
        for line in lines:
            line.leave()
        await until(lambda: site.explorer.pictures == 0)

    @inLoop
    async def test_it_stops_when_the_browser_leaves(self, site: Site) -> None:
        line = await site.begin(PICTURE.format(width=MAX_PICTURE))
        await until(lambda: line.received)
        line.leave()
        await until(lambda: site.explorer.pictures == 0 and site.queue.stats().queued == 0)

    @inLoop
    async def test_it_counts_until_the_thread_that_writes_it_has_ended(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        closed, mayEnd = Event(), Event()

        def writeAndWait(bands: Iterator[Piece], view: View, file: BinaryIO) -> None:
            try:
                writePicture(bands, view, file)
            finally:
                closed.set()
                mayEnd.wait(5)

        monkeypatch.setattr(rendering, "writePicture", writeAndWait)
        line = await site.begin(PICTURE.format(width=MAX_PICTURE))
        await until(lambda: line.received)
        line.leave()
        await until(closed.is_set)
        assert site.explorer.pictures == 1
        mayEnd.set()
        await until(lambda: site.explorer.pictures == 0)


class TestTheReadings:
    @inLoop
    async def test_they_tell_of_the_queue_at_work(self, site: Site) -> None:
        visitor = await site.visitor()
        events = await site.begin("/events", visitor)
        await until(lambda: readings(events))
        assert readings(events)[0]["unfinished"] == 0
        tiles = [await site.begin(DEEP, visitor) for _ in range(TILES_AT_ONCE)]
        await until(lambda: site.tiles == TILES_AT_ONCE)  # or one that is left would never have been asked for
        await until(lambda: readings(events)[-1]["unfinished"] > 1000)
        await until(
            lambda: (
                readings(events)[-1]["rate"] > 0
                and min(worker["share"] for worker in readings(events)[-1]["workers"]) > 0.5
            )
        )
        assert [(w["name"], w["connected"]) for w in readings(events)[-1]["workers"]] == [
            ("worker 1", True),
            ("worker 2", True),
        ]
        for tile in tiles:
            tile.leave()
        await until(lambda: sum(readings(events)[-1]["yours"].values()) == TILES_AT_ONCE)
        drawn = readings(events)[-1]["yours"]["drawn"]  # before it was left: one or two, where machines are fast
        assert readings(events)[-1]["cancelled"] == TILES_AT_ONCE - drawn > TILES_AT_ONCE - 4
        assert (await site.get(CHEAP, visitor)).status == 200
        await until(lambda: readings(events)[-1]["yours"]["drawn"] == drawn + 1)
        assert readings(events)[-1]["yours"]["cancelled"] == TILES_AT_ONCE - drawn
        await until(lambda: readings(events)[-1]["unfinished"] == 0)

    @inLoop
    async def test_what_is_the_same_is_not_said_twice(self, site: Site) -> None:
        events = await site.begin("/events")
        assert (await site.get(CHEAP)).status == 200
        await until(lambda: readings(events)[-1:] and readings(events)[-1]["rate"] > 0)
        await until(lambda: readings(events)[-1]["rate"] == 0)
        texts = [json.dumps(reading) for reading in readings(events)]
        assert all(text != following for text, following in itertools.pairwise(texts))

    @inLoop
    async def test_one_visitor_has_so_many_streams(self, site: Site) -> None:
        streams = [await site.begin("/events") for _ in range(STREAMS_AT_ONCE)]
        await until(lambda: all(readings(stream) for stream in streams))
        assert (await site.get("/events")).status == 429
        streams[0].leave()
        await until(lambda: sum(visitor.streams for visitor in site.explorer.visitors) == STREAMS_AT_ONCE - 1)
        again = await site.begin("/events")
        await until(lambda: readings(again))

    @inLoop
    async def test_an_address_has_so_many_streams_and_another_is_served(self, site: Site) -> None:
        visitors = [await site.visitor() for _ in range(STREAMS_PER_ADDRESS + 1)][-STREAMS_PER_ADDRESS // 4 :]
        streams = [await site.begin("/events", visitor) for visitor in visitors * STREAMS_AT_ONCE]
        await until(lambda: all(readings(stream) for stream in streams))
        assert len(streams) == STREAMS_PER_ADDRESS
        assert (await site.get("/events", await site.visitor())).status == 429
        remote = await site.begin("/events", source=THERE)
        await until(lambda: readings(remote))

    @inLoop
    async def test_who_does_not_read_them_misses_some_and_holds_up_nobody(self, opening: Opening) -> None:
        site = await opening(stall=0.2)
        status = site.explorer.status
        with site.socket() as client:
            client.sendall(b"GET /events HTTP/1.1\r\n\r\n")
            await until(lambda: any(visitor.streams for visitor in site.explorer.visitors))
            (outlet,) = status.watchers
            stuffing = LoopingCall(outlet.write, b": \n" * 10_000)
            stuffing.start(0)
            await until(lambda: not status.watchers)
            stuffing.stop()
        assert not any(visitor.streams for visitor in site.explorer.visitors)


class TestTheEnd:
    @inLoop
    async def test_everything_is_let_go_in_the_middle_of_everything(self, opening: Opening, queue: TileQueue) -> None:
        site = await opening()
        lines = [await site.begin(path) for path in (DEEP, DEEP, PICTURE.format(width=MAX_PICTURE), "/events")]
        await until(lambda: lines[2].received and lines[3].received)
        await site.server.close()
        await gatherResults([line.lost for line in lines])
        await until(lambda: queue.stats().queued == 0)
