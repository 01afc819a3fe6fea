"""The explorer under a flood, and while somebody scrolls: `mcm serve` in a process of its own, over real sockets.

    python benchmarks/explorer.py [--workers 2] [--rounds 3] [--screens 10]

First, how long a visitor waits for the first view of the set, 20 tiles, five at once as a browser asks for them:
alone; while another visitor has as many tiles of a deep view drawn as it is let, again and again; and, for
comparison, while the same flood comes from the visitor's own browser, so that there is one line for both.

Then, what scrolling costs: a visitor moves from one screen to the next before any of them is drawn, and stays at the
last. What was computed is counted in calls, beside what the screens that were passed would have cost.
"""

from __future__ import annotations

import argparse
import json
import re
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

from mcmandelbrot.explorer.pages import TILES_AT_ONCE
from mcmandelbrot.explorer.tile import Tile

AT_ONCE = 5
"""How many tiles a browser asks for at once."""

DEEP = Tile(8, -48, -9, 50_000)
"""A tile at the edge of the set, of hundreds of calls."""

BREATH = 0.1
"""Seconds from one screen to the next."""


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
    """One who explores, at PORT, with a COOKIE."""

    reactor: Any
    port: int
    cookie: str

    @classmethod
    async def come(cls, reactor: Any, port: int) -> Visitor:
        """A new one."""
        newcomer = cls(reactor, port, "")
        page = await (await newcomer.ask("/")).done
        found = re.search(rb"Set-Cookie: (mcm=[^;]+)", page)
        assert found, page
        return cls(reactor, port, found[1].decode())

    async def ask(self, path: str) -> Fetch:
        """Ask for PATH."""
        fetch = Fetch(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nCookie: {self.cookie}\r\n\r\n")
        await connectProtocol(TCP4ClientEndpoint(self.reactor, "127.0.0.1", self.port), fetch)
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
    """As many tiles of a deep view as VISITOR may have at once but for SPARE, again and again until it is over."""

    visitor: Visitor
    spare: int = 0
    over: bool = field(default=False, init=False)

    def begin(self) -> Deferred[list[None]]:
        """Begin; fires when it is over."""
        return gatherResults([Deferred.fromCoroutine(self._again()) for _ in range(TILES_AT_ONCE - self.spare)])

    async def _again(self) -> None:
        while not self.over:
            await self.visitor.tile(DEEP)


async def first(reactor: Any, port: int, flooded: str) -> float:
    """The seconds to the first view, when it is FLOODED by another, by oneself, or not at all."""
    visitor = await Visitor.come(reactor, port)
    if flooded == "not":
        return await visitor.tiles(FIRST_VIEW)
    other = await Visitor.come(reactor, port)
    flood = Flood(other) if flooded == "by another" else Flood(visitor, spare=AT_ONCE)
    flowing = flood.begin()
    while (await other.reading())["unfinished"] < 500:
        await deferLater(reactor, 0.05)
    seconds = await visitor.tiles(FIRST_VIEW)
    flood.over = True
    await flowing
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
    ways = ("not", "by another", "by oneself")
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way in ways[:2]:
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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2, help="of the server (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="how often to measure each (default %(default)s)")
    parser.add_argument("--screens", type=int, default=10, help="how many to scroll over (default %(default)s)")
    arguments = parser.parse_args()
    command = [sys.executable, "-m", "mcmandelbrot", "serve", "--port", "0", "-w", str(arguments.workers)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        port = int(re.findall(r":(\d+)/", server.stdout.readline())[0])

        def run(reactor: object) -> Deferred[None]:
            return Deferred.fromCoroutine(main(reactor, port, arguments.rounds, arguments.screens))

        try:
            react(run)
        finally:
            server.terminate()
