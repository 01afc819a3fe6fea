"""The queues that draw: with processes of this machine, or with other machines.

- `mcm worker` serves a `DrawingUniverse`, which passes its calls on to one process per core.
- `mcm -d` uses `Machines` instead of `Processes`.
- `mcm serve -d` uses a `Machine` instead of each process.

Both sides need the same key, or certificates.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from asynqueue import ProcessQueue, Task, TaskQueue
from asynqueue.core.records import RunOutcome
from asynqueue.errors import AsynQueueError, WorkerLost
from asynqueue.interfaces import Departed, Reconnected, Resignation, Resignator
from asynqueue.wire import Method, WireWorker, WireWorkerUniverse
from mcmandelbrot.fractal import worker
from mcmandelbrot.fractal.picture import Band
from mcmandelbrot.fractal.worker import Ready, Rows

CONCURRENT = 32
"""The number of bands that a machine gets at once. It is enough for as many cores."""


class DrawingUniverse(WireWorkerUniverse):
    """Has the functions of `mcmandelbrot.fractal.worker` as methods, which run in the processes of QUEUE."""

    def __init__(self, queue: TaskQueue) -> None:
        self._queue = queue

    def prepare(self) -> Deferred[list[Ready]]:
        """Make every process load what it needs."""
        return self._queue.update(worker.prepare, ephemeral=True)

    def drawRows(self, band: Band) -> Deferred[Rows]:
        """Draw the rows of BAND, of a picture."""
        return self._queue.call(worker.drawRows, band)

    def drawOn(self, band: Band) -> Deferred[Rows]:
        """Draw BAND, which continues a row."""
        return self._queue.call(worker.drawOn, band)

    def drawLevels(self, band: Band) -> Deferred[bytes]:
        """Return the levels of BAND, of a tile."""
        return self._queue.call(worker.drawLevels, band)

    def palettes(self) -> Deferred[dict[str, bytes]]:
        """Return every palette."""
        return self._queue.call(worker.palettes)


class Machine(WireWorker):
    """Calls the functions of `mcmandelbrot.fractal.worker` through the `DrawingUniverse` at DESCRIPTION.

    PROCESSES is how many calls run at once. SERIES, KEY, RECONNECT and PLAIN are as for `WireWorker`. ONLOST is
    called with the reason when the machine is lost for good.
    """

    def __init__(
        self,
        description: str,
        processes: int,
        series: Iterable[Hashable] = (),
        *,
        key: str | None,
        reconnect: bool,
        plain: bool = False,
        onLost: Callable[[BaseException], None] = lambda _: None,
    ) -> None:
        super().__init__(
            DrawingUniverse, description, series, N_concurrent=processes, key=key, reconnect=reconnect, plain=plain
        )
        self.processes: int = processes
        self.connected: bool = False
        self._onLost = onLost

    def setResignator(self, resign: Resignator) -> None:
        """Record whether there is a connection, besides calling RESIGN."""

        def resigned(why: Resignation = Departed()) -> None:  # noqa: B008  # it is frozen
            self.connected = isinstance(why, Reconnected)
            if isinstance(why, Departed) and why.error is not None:
                self._onLost(why.error)
            resign(why)

        super().setResignator(resigned)

    def give(self, runs: Sequence[tuple[int, Task]]) -> None:
        """Make the machine run RUNS."""
        super().give([(ticket, _asMethod(task)) for ticket, task in runs])

    def run(self, task: Task) -> Deferred[RunOutcome]:
        """Make the machine run TASK."""
        return super().run(_asMethod(task))


def _asMethod(task: Task) -> Task:
    """Return TASK, a call of a function, as a call of the method with the same name."""
    return attrs.evolve(task, call=attrs.evolve(task.call, f=Method(task.call.f.__name__)))


class Processes:
    """A queue with WORKERS processes of this machine. None is one per core."""

    def __init__(self, workers: int | None) -> None:
        self._queue = ProcessQueue(workers)

    def prepare(self) -> Deferred[list[Ready]]:
        """Prepare every process, and return their answers.

        A process that later replaces another prepares itself at its first band.
        """
        return self._queue.update(worker.prepare, ephemeral=True)

    def call(self, f: Callable[[Band], Rows], band: Band, /) -> Deferred[Rows]:
        """Draw BAND in one of the processes."""
        return self._queue.call(f, band)

    def shutdown(self) -> Deferred[None]:
        """Shut the queue down when all bands are drawn."""
        return self._queue.shutdown()


class _MachineQueue(TaskQueue):
    """A queue whose calls fail when its last worker is lost."""

    def workerLeft(self) -> None:
        """A worker was lost."""
        if not len(self):
            self.strand("no machine is left")


class Machines:
    """A queue whose workers are the machines at DESCRIPTIONS.

    KEY is their key file, or None for that of the environment. PLAIN is as for `WireWorker`. NOTE is called
    with a line when a machine is lost and others remain.
    """

    def __init__(
        self, descriptions: Sequence[str], key: str | None, note: Callable[[str], None], plain: bool = False
    ) -> None:
        self._queue = _MachineQueue()
        self._note = note
        self._gone: list[BaseException] = []
        self._machines = [
            Machine(description, CONCURRENT, key=key, reconnect=False, plain=plain, onLost=self._lost)
            for description in descriptions
        ]

    async def prepare(self) -> list[Ready]:
        """Connect to the machines and prepare them. Return the answers of all their processes.

        Machines that cannot be reached are reported. Fail with `asynqueue.errors.AuthenticationError` for a wrong key,
        and with `WorkerLost` if there is no machine.
        """
        for failure in await self._attach():
            if not failure.check(WorkerLost):
                failure.raiseException()
        while len(self._queue):
            try:
                return [one for processes in await self._prepare() for one in processes]
            except WorkerLost:  # a machine was lost meanwhile
                continue
        raise self._none()

    async def prepareEach(self) -> list[list[Ready]]:
        """Do the same per machine. Fail if one of them cannot be used."""
        for failure in await self._attach():
            failure.raiseException()
        return await self._prepare()

    def call(self, f: Callable[[Band], Rows], band: Band, /) -> Deferred[Rows]:
        """Draw BAND on one of the machines. Fail with `asynqueue.errors.WorkerLost` if there is none."""
        drawn = self._queue.call(f, band, retries=len(self._machines))  # once for each machine that may be lost
        return drawn.addErrback(self._explain)

    def shutdown(self) -> Deferred[None]:
        """Shut the queue down when all bands are drawn."""
        return self._queue.shutdown()

    async def _attach(self) -> list[Failure]:
        """Connect to every machine. Return the failures."""
        attaching = [self._queue.attachWorker(machine).addBoth(_kept) for machine in self._machines]
        results = [result for attached in attaching for result in await attached]
        return [result for result in results if isinstance(result, Failure)]

    async def _prepare(self) -> list[list[Ready]]:
        preparing: Deferred[Any] = self._queue.update(worker.prepare, ephemeral=True)
        ready: list[list[Ready]] = await preparing  # a list for each machine, from its `DrawingUniverse`
        return ready

    def _lost(self, reason: BaseException) -> None:
        self._gone.append(reason)
        left = len(self._machines) - len(self._gone)
        if left and isinstance(reason, WorkerLost):
            self._note(f"{reason}; {'another continues' if left == 1 else f'{left} others continue'}")

    def _explain(self, failure: Failure) -> Failure:
        isOver = len(self._gone) == len(self._machines) and failure.check(AsynQueueError)
        return Failure(self._none()) if isOver else failure

    def _none(self) -> WorkerLost:
        each = "; ".join(map(str, self._gone))
        return WorkerLost(each if len(self._gone) == 1 else f"no machine is left: {each}")


async def processesAt(descriptions: Sequence[str], key: str | None, plain: bool = False) -> list[int]:
    """Return the number of processes of each machine at DESCRIPTIONS. Fail as `Machines.prepareEach` does."""
    machines = Machines(descriptions, key, note=lambda _: None, plain=plain)
    try:
        return [len(ready) for ready in await machines.prepareEach()]
    finally:
        await machines.shutdown()


def _kept(result: int | Failure) -> list[int | Failure]:
    """Wrap RESULT in a list, so that a Failure is not an unhandled error."""
    return [result]
