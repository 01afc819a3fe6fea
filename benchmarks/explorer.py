"""The explorer under a flood, and while somebody scrolls: `mcm serve` in a process of its own, over real sockets.

    python benchmarks/explorer.py [--workers 2] [--rounds 3] [--screens 10] [--browser chromium]

First, how long a visitor waits for the first view of the set, 20 tiles, five at once as a browser asks for them:
alone; while another visitor has as many tiles of a deep view drawn as one is let, again and again; while all the
visitors that one other address may have do so, over all the connections that it may have, those for its streams of
events included; and, for comparison, while the first flood comes from the visitor's own browser, so that there is one
line for both.

Then, what scrolling costs: a visitor moves from one screen to the next before any of them is drawn, and stays at the
last. What was computed is counted in calls, beside what the screens that were passed would have cost.

With --browser, and nothing else then: how long a real one takes from its first request to the first view, whole and
drawn, in a window of 1280 × 800 pixels. It is driven by playwright, which has to be installed.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from statistics import median
from time import perf_counter
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater, react
from twisted.python.failure import Failure

from mcmandelbrot.explorer.site import PER_ADDRESS as CONNECTIONS
from mcmandelbrot.explorer.tile import Tile
from mcmandelbrot.explorer.visitor import PER_ADDRESS as VISITORS
from mcmandelbrot.explorer.visitor import STREAMS_PER_ADDRESS, TILES_AT_ONCE

AT_ONCE = 5
"""How many tiles a browser asks for at once."""

DEEP = Tile(8, -48, -9, 50_000)
"""A tile at the edge of the set, of hundreds of calls."""

BREATH = 0.1
"""Seconds from one screen to the next."""

HERE, THERE = "127.0.0.1", "127.0.0.2"
"""Where the visitors come from, and where the strangers do."""


WATCH = """
    globalThis.whole = new Promise((done) => {
        const look = (now) => {
            const set = document.getElementById("set");
            const isThere = set?.dataset.loaded > 0 && set.ariaBusy === "false";
            requestAnimationFrame(isThere ? () => done(performance.now()) : look);
        };
        requestAnimationFrame(look);
    });
"""
"""Has the page say when all that it shows is there and drawn, in milliseconds from when it was asked for."""


class Fetch(Protocol):
    """One request; DONE fires with all that came, when the connection is over."""

    def __init__(self, request: str) -> None:
        self._request = request
        self.received = b""
        self.done: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        """Ask."""
        assert self.transport is not None
        self.transport.write(self._request.encode())

    def dataReceived(self, data: bytes) -> None:
        """Keep DATA."""
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """That was all."""
        self.done.callback(self.received)

    def leave(self) -> None:
        """Want no more of it."""
        transport: Any = self.transport  # ITransport does not say all that a socket's transport can do
        transport.abortConnection()


@frozen
class Visitor:
    """One who explores, at PORT, with a COOKIE, from the address SOURCE."""

    reactor: Any
    port: int
    cookie: str
    source: str

    @classmethod
    async def come(cls, reactor: Any, port: int, source: str = HERE) -> Visitor:
        """A new one."""
        newcomer = cls(reactor, port, "", source)
        page = await (await newcomer.ask("/")).done
        found = re.search(rb"Set-Cookie: (mcm=[^;]+)", page)
        assert found, page
        return cls(reactor, port, found[1].decode(), source)

    async def ask(self, path: str) -> Fetch:
        """Ask for PATH."""
        fetch = Fetch(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nCookie: {self.cookie}\r\n\r\n")
        endpoint = TCP4ClientEndpoint(self.reactor, HERE, self.port, bindAddress=(self.source, 0))
        await connectProtocol(endpoint, fetch)
        return fetch

    async def tile(self, tile: Tile) -> None:
        """Get TILE."""
        answer = await (await self.ask(pathOf(tile))).done
        assert answer.startswith(b"HTTP/1.1 200"), answer[:200]

    async def tiles(self, tiles: Sequence[Tile]) -> float:
        """Get TILES as a browser does; the seconds that it took."""
        began = perf_counter()
        waiting = iter(tiles)

        async def one() -> None:
            for tile in waiting:
                await self.tile(tile)

        await gatherResults([Deferred.fromCoroutine(one()) for _ in range(AT_ONCE)])
        return perf_counter() - began

    async def reading(self) -> dict[str, Any]:
        """What the panel shows. (It is JSON: hence Any.)"""
        fetch = await self.ask("/events")
        while (found := re.search(rb"data: (.*)\n\n", fetch.received)) is None:
            await deferLater(self.reactor, 0.01)
        fetch.leave()
        await fetch.done
        reading: dict[str, Any] = json.loads(found[1])
        return reading


def pathOf(tile: Tile) -> str:
    """Where a TILE is."""
    return f"/tile/{tile.level}/{tile.column}/{tile.row}?limit={tile.limit}"


def nearestFirst(tiles: list[Tile], re: float, im: float) -> list[Tile]:
    """TILES as a browser asks for them whose view has that centre."""
    return sorted(tiles, key=lambda tile: abs(complex(tile.picture.view.re - re, tile.picture.view.im - im)))


FIRST_VIEW = nearestFirst([Tile(2, column, row, 500) for column in range(-3, 2) for row in range(-2, 2)], -0.65, 0.0)


@define
class Flood:
    """So many TILES of a deep view at once by each of VISITORS, again and again, and so many STREAMS in all."""

    visitors: Sequence[Visitor]
    tiles: int
    streams: int = 0
    over: bool = field(default=False, init=False)
    _under: set[Fetch] = field(factory=set, init=False)

    async def begin(self) -> None:
        """Begin."""
        for number in range(self.streams):
            await self._ask(self.visitors[number % len(self.visitors)], "/events")
        for visitor in self.visitors:
            for _ in range(self.tiles):
                Deferred.fromCoroutine(self._again(visitor))

    async def end(self) -> None:
        """Ask for no more, and leave what was asked for."""
        self.over = True
        under = list(self._under)
        for fetch in under:
            fetch.leave()
        await gatherResults([fetch.done for fetch in under])

    async def _again(self, visitor: Visitor) -> None:
        while not self.over:
            fetch = await self._ask(visitor, pathOf(DEEP))
            await fetch.done
            self._under.discard(fetch)

    async def _ask(self, visitor: Visitor, path: str) -> Fetch:
        fetch = await visitor.ask(path)
        self._under.add(fetch)
        return fetch


async def floodOf(reactor: Any, port: int, by: str, visitor: Visitor) -> Flood:
    """The flood BY another visitor, by another address, or by VISITOR."""
    if by == "by oneself":
        return Flood([visitor], TILES_AT_ONCE - AT_ONCE)
    if by == "by another visitor":
        return Flood([await Visitor.come(reactor, port, THERE)], TILES_AT_ONCE)
    visitors = [await Visitor.come(reactor, port, THERE) for _ in range(VISITORS)]
    return Flood(visitors, (CONNECTIONS - STREAMS_PER_ADDRESS) // VISITORS, STREAMS_PER_ADDRESS)


async def first(reactor: Any, port: int, flooded: str) -> float:
    """The seconds to the first view, when it is FLOODED in one of those ways, or not at all."""
    visitor = await Visitor.come(reactor, port)
    if flooded == "not":
        return await visitor.tiles(FIRST_VIEW)
    flood = await floodOf(reactor, port, flooded, visitor)
    await flood.begin()
    while (await visitor.reading())["unfinished"] < 0.9 * len(DEEP.bands()) * flood.tiles * len(flood.visitors):
        await deferLater(reactor, 0.05)
    seconds = await visitor.tiles(FIRST_VIEW)
    await flood.end()
    while (await visitor.reading())["unfinished"]:
        await deferLater(reactor, 0.05)
    return seconds


def screens(number: int) -> Iterator[list[Tile]]:
    """The tiles of so many screens of 1280 × 768 pixels, side by side, at the edge of the set."""
    for screen in range(number):
        yield [Tile(12, -1300 - 5 * screen + column, -120 + row, 5000) for row in range(3) for column in range(5)]


async def scroll(reactor: Any, port: int, number: int) -> tuple[int, int, int, int]:
    """Scroll over so many screens: the calls of all their tiles, of those that came, that were made, and cancelled."""
    visitor = await Visitor.come(reactor, port)
    before = await visitor.reading()
    passed = list(screens(number))
    came: list[Tile] = []
    for screen in passed[:-1]:
        waiting = iter(screen)
        under = {tile: await visitor.ask(pathOf(tile)) for tile, _ in zip(waiting, range(AT_ONCE), strict=False)}
        await deferLater(reactor, BREATH)
        for tile, fetch in under.items():
            if fetch.done.called:
                came.append(tile)
            else:
                fetch.leave()
                await fetch.done
    await visitor.tiles(passed[-1])
    came += passed[-1]
    after = await visitor.reading()
    whole = sum(len(tile.bands()) for screen in passed for tile in screen)
    wanted = sum(len(tile.bands()) for tile in came)
    return whole, wanted, after["calls"] - before["calls"], after["cancelled"] - before["cancelled"]


async def main(reactor: Any, port: int, rounds: int, number: int) -> None:
    """Measure, and print Markdown tables."""
    await first(reactor, port, "not")
    ways = ("not", "by another visitor", "by another address", "by oneself")
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way in ways[:3]:
            seconds[way].append(await first(reactor, port, way))
    seconds["by oneself"].append(await first(reactor, port, "by oneself"))  # once: it takes a minute
    print(f"The first view, {len(FIRST_VIEW)} tiles, median of {rounds}:\n")
    print("| flooded | seconds | times as long |\n|---|---|---|")
    for way in ways:
        print(f"| {way} | {median(seconds[way]):.2f} | {median(seconds[way]) / median(seconds['not']):.1f} |")
    whole, wanted, made, cancelled = await scroll(reactor, port, number)
    print(f"\nScrolling over {number} screens, {BREATH:g} s each, and staying at the last:\n")
    print("| calls that all tiles would take | of the tiles that came | made | tiles cancelled |\n|---|---|---|---|")
    print(f"| {whole:,} | {wanted:,} | {made:,} | {cancelled} |")


def inBrowser(chromium: str, port: int, rounds: int) -> None:
    """Measure with the browser at CHROMIUM, and print a line."""
    from playwright.sync_api import sync_playwright

    seconds: list[float] = []
    answered: list[float] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--headless", "--no-sandbox"])
        for _ in range(rounds + 1):
            context = browser.new_context(viewport={"width": 1280, "height": 800})  # which has nothing cached
            page = context.new_page()
            page.add_init_script(WATCH)
            page.goto(f"http://127.0.0.1:{port}/")
            seconds.append(page.evaluate("() => whole") / 1000)
            answered.append(page.evaluate("() => performance.getEntriesByName('first-paint')[0].startTime") / 1000)
            context.close()
        browser.close()
    whole = ", ".join(f"{each:.2f}" for each in seconds[1:])
    print(f"The first view, whole and drawn, in {chromium}: {median(seconds[1:]):.2f} s of median ({whole});")
    print(f"the page is there after {median(answered[1:]):.2f} s; the browser's first page took {seconds[0]:.2f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2, help="of the server (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="how often to measure each (default %(default)s)")
    parser.add_argument("--screens", type=int, default=10, help="how many to scroll over (default %(default)s)")
    parser.add_argument("--browser", metavar="CHROMIUM", help="measure the first view in that browser instead")
    arguments = parser.parse_args()
    command = [sys.executable, "-m", "mcmandelbrot", "serve", "--port", "0", "-w", str(arguments.workers)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        port = int(re.findall(r":(\d+)/", server.stdout.readline())[0])

        def run(reactor: object) -> Deferred[None]:
            return Deferred.fromCoroutine(main(reactor, port, arguments.rounds, arguments.screens))

        try:
            if arguments.browser:
                inBrowser(shutil.which(arguments.browser) or arguments.browser, port, arguments.rounds)
            else:
                react(run)
        finally:
            server.terminate()
