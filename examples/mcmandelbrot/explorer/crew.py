"""The queue of the explorer, and its workers: processes of this machine, or other machines.

A running call that is cancelled goes on to its end in its process (`killOnCancel=False`). All calls of the explorer
end sooner than a new process could be ready to draw. `mcm worker` has the same workers, so this holds on machines too.
"""

from __future__ import annotations

from attrs import frozen

from asynqueue import ProcessWorker, TaskQueue
from mcmandelbrot.explorer.visitor import SERIES
from mcmandelbrot.fractal.machines import Machine


@frozen
class Presence:
    """What there is to know of the worker of that NUMBER: its NAME, how many PROCESSES it is, and if it is THERE."""

    number: int
    name: str
    processes: int
    there: bool


class TileQueue(TaskQueue):
    """A queue with so many WORKERS, processes of this machine, each qualified for every visitor."""

    def __init__(self, workers: int = 0) -> None:
        self._crew: list[ProcessWorker | Machine] = [ProcessWorker(SERIES, killOnCancel=False) for _ in range(workers)]
        super().__init__(*self._crew)

    def enlist(self, description: str, processes: int, key: str | None) -> None:
        """Have the machine at DESCRIPTION draw, with so many PROCESSES, whenever it can be reached. It has KEY."""
        machine = Machine(description, processes, SERIES, key=key, reconnect=True)
        self._crew.append(machine)
        self.attachOwn(machine)

    def presences(self) -> list[Presence]:
        """The workers, those that are not there too. Where a machine is, visitors need not know: it has a number."""
        attached = self.workers()
        return [
            Presence(number, f"machine {number}", worker.processes, worker.there and worker in attached)
            if isinstance(worker, Machine)
            else Presence(number, f"worker {number}", 1, worker in attached)
            for number, worker in enumerate(self._crew, 1)
        ]

    def workerLeft(self) -> None:
        """With its last worker gone by itself, nothing would ever be drawn: say so to all that wait."""
        if not len(self):
            self.strand("no worker could be kept")
