"""Who draws: processes here, or other machines; what each of those serves, and the queue that has it done there.

`mcm worker` serves a `Painter`, which passes what it is asked for on to processes of its own, one for each core.
`mcm -d` has `Machines` in the place of `Processes`. Both have to have the same key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from asynqueue import ProcessQueue, TaskQueue
from asynqueue.wire import WireWorker, WireWorkerUniverse
from mcmandelbrot import worker
from mcmandelbrot.picture import Picture
from mcmandelbrot.worker import Ready, Row

CONCURRENT = 32
"""How many rows a machine has at once: enough for as many cores."""


class Painter(WireWorkerUniverse):
    """Draws with the processes of QUEUE."""

    def __init__(self, queue: ProcessQueue) -> None:
        self._queue = queue

    def prepare(self) -> Deferred[list[Ready]]:
        """Have every process here load what it needs."""
        return self._queue.update(worker.prepare, ephemeral=True)

    def drawRow(self, picture: Picture, row: int) -> Deferred[Row]:
        """Draw row number ROW of PICTURE."""
        return self._queue.call(worker.drawRow, picture, row)


class Processes:
    """A queue of so many WORKERS, processes of this machine; one for each core, if it is None."""

    def __init__(self, workers: int | None) -> None:
        self._queue = ProcessQueue(workers)

    def prepare(self) -> Deferred[list[Ready]]:
        """Have every process get ready; what it says.

        Only those that there are: one that comes later, for one that died, prepares itself when it gets its first row.
        """
        return self._queue.update(worker.prepare, ephemeral=True)

    def call(self, f: Callable[[Picture, int], Row], picture: Picture, row: int, /) -> Deferred[Row]:
        """Have one of them draw a row."""
        return self._queue.call(f, picture, row)

    def shutdown(self) -> Deferred[None]:
        """Let them go when they have drawn what they were asked for."""
        return self._queue.shutdown()


class Machines:
    """A queue whose workers are the machines at DESCRIPTIONS, which have the key in the file KEY, or the
    environment's."""

    def __init__(self, descriptions: Sequence[str], key: str | None) -> None:
        self._queue = TaskQueue()
        self._machines = [
            WireWorker(Painter, description, N_concurrent=CONCURRENT, key=key, reconnect=False)
            for description in descriptions
        ]

    async def prepare(self) -> list[Ready]:
        """Connect with every machine, and have it get ready; what it says of each of its processes.

        Fails with `asynqueue.errors.AuthenticationError` or `WorkerLost` when one cannot be had.
        """
        for attached in [self._queue.attachWorker(machine).addBoth(_kept) for machine in self._machines]:
            (result,) = await attached
            if isinstance(result, Failure):
                result.raiseException()
        ready = await self._queue.update(Painter.prepare, ephemeral=True)
        return [one for processes in ready for one in processes]  # type: ignore[misc]  # waited for over there

    def call(self, f: Callable[[Picture, int], Row], picture: Picture, row: int, /) -> Deferred[Row]:
        """Have one of them draw a row. (F is `worker.drawRow`, which is what they draw with.)"""
        return self._queue.call(Painter.drawRow, picture, row)

    def shutdown(self) -> Deferred[None]:
        """Let them go when they have drawn what they were asked for."""
        return self._queue.shutdown()


def _kept(result: int | Failure) -> list[int | Failure]:
    """RESULT as one that is nobody's unhandled error."""
    return [result]
