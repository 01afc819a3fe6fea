"""The explorer's queue with other machines for workers: real `mcm worker`s at UNIX sockets, one of which is killed."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import png
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults

from asynqueue import ProcessWorker
from asynqueue.errors import AuthenticationError, WorkerLost
from mcmandelbrot.explorer.server import Server
from mcmandelbrot.explorer.tile import Tile
from mcmandelbrot.explorer.tilequeue import TileQueue, WorkerStatus
from mcmandelbrot.explorer.visitor import SERIES
from mcmandelbrot.fractal.machines import processesAt
from mcmandelbrot.fractal.palette import paint
from mcmandelbrot.fractal.picture import Picture, View
from mcmandelbrot.fractal.worker import palettes, prepare
from tests.support.calls import failureOf, inLoop, until, waitAfterMark
from tests.support.explorer import CHEAP, DEEP, PICTURE, Site, levelsOf, readings

PATIENCE = 60


class Lender:
    """An `mcm worker` with one process, at the socket NAME in DIRECTORY."""

    def __init__(self, directory: Path, name: str, key: Path) -> None:
        self.description = f"unix:{directory / name}"
        self._command = [sys.executable, "-m", "mcmandelbrot", "worker", "-w", "1", "-k", str(key), self.description]
        self._environment = {**os.environ, "TMPDIR": str(directory)}  # who is killed leaves what it had there
        self._stack = ExitStack()
        self.start()

    def start(self) -> None:
        """Begin."""
        self._process = self._stack.enter_context(
            subprocess.Popen(self._command, stdout=subprocess.PIPE, env=self._environment)
        )

    def wait(self) -> None:
        """Wait until it is there."""
        assert self._process.stdout is not None
        assert select.select([self._process.stdout], [], [], PATIENCE)[0]
        assert self._process.stdout.readline().startswith(b"1 worker at unix:")

    def kill(self) -> None:
        """Have it gone, without a word."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(PATIENCE)

    def stop(self) -> None:
        """End it."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        self._stack.close()


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file with what both sides have."""
    path = tmp_path_factory.mktemp("key") / "wire.key"
    path.write_text("what the machines have")
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def lenders(key: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Lender]]:
    """Two machines."""
    directory = tmp_path_factory.mktemp("sockets")
    each = [Lender(directory, name, key) for name in ("one", "two")]
    for lender in each:
        lender.wait()
    yield each
    for lender in each:
        lender.stop()


@pytest.fixture
def mortal(key: Path, tmp_path: Path) -> Iterator[Lender]:
    """One that may be killed."""
    lender = Lender(tmp_path, "mortal", key)
    lender.wait()
    yield lender
    lender.stop()


@asynccontextmanager
async def drawnBy(key: Path, *lenders: Lender) -> AsyncIterator[Site]:
    """A site whose tiles LENDERS draw, with nothing to draw here."""
    queue = TileQueue()
    await queue.update(prepare)
    for lender in lenders:
        queue.addMachine(lender.description, 1, str(key))
    server = await Server.listen(queue, 0, "127.0.0.1", reactor)
    await until(lambda: all(status.connected for status in queue.workerStatuses()))
    try:
        yield Site(server, queue)
    finally:
        await server.close()
        await queue.shutdown()


@pytest.fixture
def site(lenders: list[Lender], key: Path) -> Iterator[Site]:
    """A site that both draw."""
    context = drawnBy(key, *lenders)
    yield pytest_twisted.blockon(Deferred.fromCoroutine(_begun(context)))
    pytest_twisted.blockon(Deferred.fromCoroutine(_ended(context)))


async def _begun(context: AbstractAsyncContextManager[Site]) -> Site:
    return await context.__aenter__()


async def _ended(context: AbstractAsyncContextManager[Site]) -> None:
    await context.__aexit__(None, None, None)


def levels(body: bytes) -> list[int]:
    """What a tile says."""
    decoded: list[int] = np.frombuffer(zlib.decompress(body, -zlib.MAX_WBITS), "<u2").tolist()
    return decoded


def expected(tile: Tile) -> list[int]:
    """What it should say."""
    drawn: list[int] = np.rint(np.concatenate(levelsOf(tile.picture)) * 65535).astype(int).tolist()
    return drawn


class TestDrawingElsewhere:
    @inLoop
    async def test_tiles_images_and_palettes_are_what_the_kernel_gives(self, site: Site) -> None:
        tile = Tile(9, -381, -68, 4000)
        answer, image = await gatherResults(
            [
                Deferred.fromCoroutine(site.get("/tile/9/-381/-68?limit=4000", await site.visitor())),
                Deferred.fromCoroutine(site.get(PICTURE.format(width=64), await site.visitor())),
            ]
        )
        assert levels(answer.body) == expected(tile)
        _, _, rows, _ = png.Reader(bytes=image.body).read()
        picture = Picture(View.around(64, -0.6, 0.1, 1.5, 1.25), 100)
        assert [bytes(row) for row in rows] == [paint(row) for row in levelsOf(picture)]
        assert (await site.get("/palette/ocean")).body == palettes()["ocean"]
        assert min(counts.done for counts in site.queue.stats().byWorker.values()) > 0

    @inLoop
    async def test_every_visitor_is_served_and_the_busy_shares_are_told(self, site: Site) -> None:
        for worker in site.queue.workers():
            assert worker.qualifications >= set(SERIES)  # type: ignore[operator]  # it is a set, of these workers
        flooding, looking = await site.visitor(), await site.visitor()
        events = await site.begin("/events", looking)
        await site.begin(DEEP, flooding)
        await until(lambda: site.queue.stats().queued > 100)
        assert (await site.get(CHEAP, looking)).status == 200
        await until(lambda: min(worker["share"] for worker in _workers(events)) > 0.5)
        assert [worker["name"] for worker in _workers(events)] == ["machine 1", "machine 2"]

    @inLoop
    async def test_a_cancelled_tile_never_starts_but_finishes_if_it_is_running(self, site: Site) -> None:
        queue = site.queue
        bands = len(Tile(8, -48, -9, 50_000).bands())
        processes = await queue.update(prepare, ephemeral=True)
        before = queue.stats()
        line = await site.begin(DEEP)
        await until(lambda: queue.stats().done > before.done)
        line.leave()
        await until(lambda: site.explorer.status.cancelled == 1)
        after = queue.stats()
        assert (after.queued, after.running) == (0, 0)
        assert after.cancelled - before.cancelled + after.done - before.done == bands
        assert await queue.update(prepare, ephemeral=True) == processes  # they were not replaced for it
        assert queue.stats().done == after.done


def _workers(events: Any) -> list[dict[str, Any]]:
    """What the last of some EVENTS says of the workers; it is JSON, hence Any."""
    workers: list[dict[str, Any]] = readings(events)[-1]["workers"] if readings(events) else [{"share": 0}]
    return workers


class TestFinding:
    @inLoop
    async def test_each_says_how_many_processes_it_has(self, lenders: list[Lender], key: Path) -> None:
        assert await processesAt([lender.description for lender in lenders], str(key)) == [1, 1]

    @inLoop
    async def test_one_that_is_not_there_or_has_another_key_is_an_error(
        self, lenders: list[Lender], key: Path, tmp_path: Path
    ) -> None:
        there = lenders[0].description
        nobody = f"unix:{tmp_path / 'nobody'}"
        error = await failureOf(Deferred.fromCoroutine(processesAt([there, nobody], str(key))))
        assert isinstance(error, WorkerLost)
        assert f"{nobody} cannot be reached" in str(error)
        other = tmp_path / "other.key"
        other.write_text("what the machines have not")
        other.chmod(0o600)
        error = await failureOf(Deferred.fromCoroutine(processesAt([there], str(other))))
        assert isinstance(error, AuthenticationError)


class TestCancelling:
    @inLoop
    async def test_a_running_call_goes_on_in_its_process_when_cancelled(self, tmp_path: Path) -> None:
        async with TileQueue(1) as queue:
            (worker,) = queue.workers()
            assert isinstance(worker, ProcessWorker)
            before = worker.process.pid
            call: Deferred[object] = queue.call(waitAfterMark, tmp_path / "marks", tmp_path / "go")
            await until((tmp_path / "marks").exists)
            call.cancel()
            assert isinstance(await failureOf(call), CancelledError)
            (tmp_path / "go").touch()
            assert await queue.call(os.getpid) == before


class TestLosing:
    @inLoop
    async def test_one_that_is_killed_is_shown_as_away_and_the_other_draws(
        self, lenders: list[Lender], mortal: Lender, key: Path
    ) -> None:
        async with drawnBy(key, mortal, lenders[0]) as site:
            queue, visitor = site.queue, await site.visitor()
            events = await site.begin("/events", visitor)
            line = await site.begin("/tile/8/-48/-9?limit=5000", visitor)
            await until(lambda: queue.stats().done and queue.stats().running >= 2)
            mortal.kill()
            await until(lambda: [worker.get("connected") for worker in _workers(events)] == [False, True])
            answer = (await line.lost).answer()
            assert (answer.status, levels(answer.body)) == (200, expected(Tile(8, -48, -9, 5000)))

    @inLoop
    async def test_with_the_only_one_gone_calls_wait_until_it_is_back(self, mortal: Lender, key: Path) -> None:
        async with drawnBy(key, mortal) as site:
            queue = site.queue
            line, unwanted = await site.begin(CHEAP), await site.begin(DEEP, await site.visitor())
            await until(lambda: queue.stats().running)
            mortal.kill()
            await until(lambda: queue.workerStatuses() == [WorkerStatus(1, "machine 1", 1, False)])
            assert (await site.get("/")).status == 200
            waiting = await site.begin("/tile/2/-2/0?limit=200")
            unwanted.leave()
            await until(lambda: site.explorer.status.cancelled == 1)
            mortal.start()
            for each in line, waiting:
                assert (await each.lost).answer().status == 200
            assert queue.workerStatuses() == [WorkerStatus(1, "machine 1", 1, True)]
