"""The seed document's example: log files read by processes, record by record, into consumers that may pause.

A reader lives in the main program and, once it has been updated, in each of three processes. Some addresses are known
to be bad; the update tells every process of them, and later calls heed it there. One consumer a file gets the records
of the others, in the order in which they stand in the file.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, DeferredSemaphore, inlineCallbacks
from twisted.internet.interfaces import IConsumer, IProducer, IPushProducer
from zope.interface import implementer

from asynqueue import ProcessQueue
from asynqueue.core.flow.iteration import AHEAD_LIMIT
from tests.support.calls import inLoop, mark, marks

BAD = [f"10.0.0.{n}" for n in range(3)]
FILES = 9
LINES = 1500


class ProcessReader:
    """Reads a log file: yields the records of whom it does not ignore."""

    def __init__(self) -> None:
        self.ignored: set[str] = set()

    def ignoreIPs(self, ips: list[str]) -> int:
        """Ignore IPS from now on; how many are ignored."""
        self.ignored.update(ips)
        return len(self.ignored)

    def __call__(self, path: Path, progress: Path | None = None) -> Iterator[tuple[str, int]]:
        """The records of the file at PATH: who, and the line's number."""
        with path.open() as log:
            for number, line in enumerate(log):
                if progress is not None:
                    mark(progress, number)
                ip = line.split()[0]
                if ip not in self.ignored:
                    yield ip, number


@implementer(IConsumer)
class RecordKeeper:
    """A consumer that pauses after every seventh record, and goes on in a later turn of the reactor."""

    def __init__(self) -> None:
        self.records: list[tuple[str, int]] = []
        self.writtenWhilePaused = 0
        self.unregistered = False
        self._producer: Any = None  # IPushProducer says nothing that a type checker could use
        self._paused = False

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        assert IPushProducer.providedBy(producer)
        assert streaming
        self._producer = producer

    def unregisterProducer(self) -> None:
        self.unregistered = True

    def write(self, data: Any) -> None:
        self.writtenWhilePaused += self._paused
        self.records.append(data)
        if len(self.records) % 7 == 0:
            self._paused = True
            self._producer.pauseProducing()
            later(self._resume)

    def _resume(self) -> None:
        self._paused = False
        self._producer.resumeProducing()


def later(call: Any) -> None:
    """Make CALL in the reactor's next turn."""
    from twisted.internet import reactor

    clock: Any = reactor  # its type says nothing of time
    clock.callLater(0, call)


def written(directory: Path) -> dict[Path, list[tuple[str, int]]]:
    """Log files in DIRECTORY, and of each the records that are to be accepted."""
    accepted: dict[Path, list[tuple[str, int]]] = {}
    for file in range(FILES):
        path = directory / f"access-{file}.log"
        ips = [f"10.0.0.{(7 * file + 5 * line) % 11}" for line in range(LINES)]
        path.write_text("".join(f'{ip} - - "GET /{line}"\n' for line, ip in enumerate(ips)))
        accepted[path] = [(ip, line) for line, ip in enumerate(ips) if ip not in BAD]
    return accepted


class Reader:
    """The main program of the example."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        self.reader = ProcessReader()
        self.keepers: dict[Path, RecordKeeper] = {}

    @inlineCallbacks
    def run(self) -> Generator[Deferred[Any], Any, None]:
        queue = ProcessQueue(3)
        semaphore = DeferredSemaphore(min(6, 2 * len(queue)))
        heeded = yield queue.update(self.reader.ignoreIPs, BAD)
        assert heeded == [len(BAD)] * 3
        reading = []
        for path in self.paths:
            yield semaphore.acquire()
            self.keepers[path] = RecordKeeper()
            d = queue.call(self.reader, path, consumer=self.keepers[path])
            d.addCallback(self._done, path, semaphore)
            reading.append(d)
        results = yield DeferredList(reading)
        assert all(success for success, _ in results)
        yield queue.shutdown()

    def _done(self, keeper: RecordKeeper, path: Path, semaphore: DeferredSemaphore) -> None:
        assert keeper is self.keepers[path]
        semaphore.release()


@inLoop
async def test_every_accepted_record_comes_to_its_consumer_in_order(tmp_path: Path) -> None:
    accepted = written(tmp_path)
    program = Reader(list(accepted))
    await program.run()
    for path, records in accepted.items():
        keeper = program.keepers[path]
        assert keeper.records == records
        assert keeper.unregistered
        assert keeper.writtenWhilePaused == 0
    assert program.reader.ignored == set(), "the object in the main program is not touched"


@inLoop
async def test_a_paused_consumer_holds_the_reader_back(tmp_path: Path) -> None:
    paused: Deferred[None] = Deferred()

    class Reluctant(RecordKeeper):
        def write(self, data: Any) -> None:
            self.records.append(data)
            if len(self.records) == 10:
                self._producer.pauseProducing()
                paused.callback(None)

        def goOn(self) -> None:
            self._producer.resumeProducing()

    path, progress = tmp_path / "long.log", tmp_path / "progress"
    path.write_text("10.0.0.9 -\n" * 5000)
    keeper = Reluctant()
    async with ProcessQueue(1) as queue:
        fed = queue.call(ProcessReader(), path, progress, consumer=keeper)
        await paused
        for _ in range(20):  # each comes after whatever the worker had to do before
            await queue.call(len, ())
        read = len(marks(progress))
        assert 10 <= read <= 10 + AHEAD_LIMIT
        assert len(keeper.records) == 10
        keeper.goOn()
        assert await fed is keeper
    assert [line for _, line in keeper.records] == list(range(5000))
