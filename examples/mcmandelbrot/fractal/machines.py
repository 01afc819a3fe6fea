"""Who draws: processes here, or other machines; what each of those serves, and the queue that has it done there.

`mcm worker` serves a `Painter`, which passes what it is asked for on to processes of its own, one for each core.
`mcm -d` has `Machines` in the place of `Processes`, and in the queue of `mcm serve -d` there is a `Machine` in the
place of each process. Both sides have to have the same key.
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
"""How many bands a machine has at once: enough for as many cores."""


class Painter(WireWorkerUniverse):
    """Does what `mcmandelbrot.fractal.worker` does, under the same names, with the processes of QUEUE."""

    def __init__(self, queue: TaskQueue) -> None:
        self._queue = queue

    def prepare(self) -> Deferred[list[Ready]]:
        """Have every process here load what it needs."""
        return self._queue.update(worker.prepare, ephemeral=True)

    def drawRows(self, band: Band) -> Deferred[Rows]:
        """The rows of BAND, of a picture."""
        return self._queue.call(worker.drawRows, band)

    def drawOn(self, band: Band) -> Deferred[Rows]:
        """The rest of a row, or some of it, that BAND is."""
        return self._queue.call(worker.drawOn, band)

    def drawLevels(self, band: Band) -> Deferred[bytes]:
        """The levels of BAND, of a tile."""
        return self._queue.call(worker.drawLevels, band)

    def palettes(self) -> Deferred[dict[str, bytes]]:
        """Every palette."""
        return self._queue.call(worker.palettes)


class Machine(WireWorker):
    """Has the functions of `mcmandelbrot.fractal.worker` called by the `Painter` at DESCRIPTION, so many at once.

    PROCESSES is how many that is. SERIES, KEY and RECONNECT are those of every `WireWorker`. ONGONE is called with the
    reason when it is gone for good.
    """

    def __init__(
        self,
        description: str,
        processes: int,
        series: Iterable[Hashable] = (),
        *,
        key: str | None,
        reconnect: bool,
        onGone: Callable[[BaseException], None] = lambda _: None,
    ) -> None:
        super().__init__(Painter, description, series, N_concurrent=processes, key=key, reconnect=reconnect)
        self.processes: int = processes
        self.there: bool = False
        self._onGone = onGone

    def setResignator(self, resign: Resignator) -> None:
        """Know whether there is a connection, too."""

        def resigned(why: Resignation = Departed()) -> None:  # noqa: B008  # it is frozen
            self.there = isinstance(why, Reconnected)
            if isinstance(why, Departed) and why.error is not None:
                self._onGone(why.error)
            resign(why)

        super().setResignator(resigned)

    def give(self, runs: Sequence[tuple[int, Task]]) -> None:
        """Have the machine make the calls of RUNS."""
        super().give([(ticket, _overThere(task)) for ticket, task in runs])

    def run(self, task: Task) -> Deferred[RunOutcome]:
        """Have the machine make the call of TASK."""
        return super().run(_overThere(task))


def _overThere(task: Task) -> Task:
    """TASK, a call of a function here, as one of the method that is named as it is."""
    return attrs.evolve(task, call=attrs.evolve(task.call, f=Method(task.call.f.__name__)))


class Processes:
    """A queue of so many WORKERS, processes of this machine; one for each core, if it is None."""

    def __init__(self, workers: int | None) -> None:
        self._queue = ProcessQueue(workers)

    def prepare(self) -> Deferred[list[Ready]]:
        """Have every process get ready; what it says.

        Only those that there are: one that comes later, for one that died, prepares itself when it gets its first band.
        """
        return self._queue.update(worker.prepare, ephemeral=True)

    def call(self, f: Callable[[Band], Rows], band: Band, /) -> Deferred[Rows]:
        """Have one of them draw BAND."""
        return self._queue.call(f, band)

    def shutdown(self) -> Deferred[None]:
        """Let them go when they have drawn what they were asked for."""
        return self._queue.shutdown()


class _Fleet(TaskQueue):
    """A queue that lets nothing wait for a worker when it has none left."""

    def workerLeft(self) -> None:
        """A worker has gone by itself."""
        if not len(self):
            self.strand("no machine is left")


class Machines:
    """A queue whose workers are the machines at DESCRIPTIONS, which have the key in the file KEY, or the
    environment's. NOTE is called with a line when one is gone while others draw."""

    def __init__(self, descriptions: Sequence[str], key: str | None, note: Callable[[str], None]) -> None:
        self._queue = _Fleet()
        self._note = note
        self._gone: list[BaseException] = []
        self._machines = [
            Machine(description, CONCURRENT, key=key, reconnect=False, onGone=self._lost)
            for description in descriptions
        ]

    async def prepare(self) -> list[Ready]:
        """Connect with the machines, and have them get ready; what they say of each of their processes.

        Those that cannot be reached are noted. Fails with `asynqueue.errors.AuthenticationError` when one has another
        key, and with `WorkerLost` when there is none.
        """
        for failure in await self._attach():
            if not failure.check(WorkerLost):
                failure.raiseException()
        while len(self._queue):
            try:
                return [one for processes in await self._prepare() for one in processes]
            except WorkerLost:  # one was lost meanwhile
                continue
        raise self._none()

    async def prepareEach(self) -> list[list[Ready]]:
        """The same, machine by machine; fails when one of them cannot be had."""
        for failure in await self._attach():
            failure.raiseException()
        return await self._prepare()

    def call(self, f: Callable[[Band], Rows], band: Band, /) -> Deferred[Rows]:
        """Have one of them draw BAND. Fails with `asynqueue.errors.WorkerLost` when there is none left."""
        drawn = self._queue.call(f, band, retries=len(self._machines))  # as often as one may be lost
        return drawn.addErrback(self._explain)

    def shutdown(self) -> Deferred[None]:
        """Let them go when they have drawn what they were asked for."""
        return self._queue.shutdown()

    async def _attach(self) -> list[Failure]:
        """Connect with every machine; why it could not be done, of those with which it could not."""
        attaching = [self._queue.attachWorker(machine).addBoth(_kept) for machine in self._machines]
        results = [result for attached in attaching for result in await attached]
        return [result for result in results if isinstance(result, Failure)]

    async def _prepare(self) -> list[list[Ready]]:
        preparing: Deferred[Any] = self._queue.update(worker.prepare, ephemeral=True)
        ready: list[list[Ready]] = await preparing  # not what the function gives, but a `Painter`'s list of that
        return ready

    def _lost(self, reason: BaseException) -> None:
        self._gone.append(reason)
        left = len(self._machines) - len(self._gone)
        if left and isinstance(reason, WorkerLost):
            self._note(f"{reason}; {'another draws' if left == 1 else f'{left} others draw'} on")

    def _explain(self, failure: Failure) -> Failure:
        isOver = len(self._gone) == len(self._machines) and failure.check(AsynQueueError)
        return Failure(self._none()) if isOver else failure

    def _none(self) -> WorkerLost:
        each = "; ".join(map(str, self._gone))
        return WorkerLost(each if len(self._gone) == 1 else f"no machine is left: {each}")


async def found(descriptions: Sequence[str], key: str | None) -> list[int]:
    """How many processes each of the machines at DESCRIPTIONS has ready. Fails as `Machines.prepare` does."""
    machines = Machines(descriptions, key, note=lambda _: None)
    try:
        return [len(ready) for ready in await machines.prepareEach()]
    finally:
        await machines.shutdown()


def _kept(result: int | Failure) -> list[int | Failure]:
    """RESULT as one that is nobody's unhandled error."""
    return [result]
