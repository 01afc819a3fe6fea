"""The queue of the explorer and its workers: processes of this machine, or other machines.

A running call that is cancelled continues to its end in its process (`killOnCancel=False`). Every call of the explorer
ends sooner than a new process could start to draw. `mcm worker` uses the same processes, so this is also true on other
machines.
"""

from __future__ import annotations

from attrs import frozen

from asynqueue import ProcessWorker, TaskQueue
from mcmandelbrot.explorer.visitor import SERIES
from mcmandelbrot.fractal.machines import Machine


@frozen
class WorkerStatus:
    """The worker with this NUMBER: its NAME, its number of PROCESSES, and whether it is CONNECTED."""

    number: int
    name: str
    processes: int
    connected: bool


class TileQueue(TaskQueue):
    """A queue with WORKERS processes of this machine, each qualified for every visitor."""

    def __init__(self, workers: int = 0) -> None:
        processes = [ProcessWorker(SERIES, killOnCancel=False) for _ in range(workers)]
        self._drawers: list[ProcessWorker | Machine] = [*processes]
        super().__init__(*processes)

    def addMachine(self, description: str, processes: int, key: str | None, plain: bool = False) -> None:
        """Add the machine at DESCRIPTION, with PROCESSES processes and KEY. It reconnects when it is lost."""
        machine = Machine(description, processes, SERIES, key=key, reconnect=True, plain=plain)
        self._drawers.append(machine)
        self.attachOwn(machine)

    def workerStatuses(self) -> list[WorkerStatus]:
        """Return the status of each worker. A machine has a number, so that visitors do not see its address."""
        attached = self.workers()
        return [
            WorkerStatus(number, f"machine {number}", worker.processes, worker.connected and worker in attached)
            if isinstance(worker, Machine)
            else WorkerStatus(number, f"worker {number}", 1, worker in attached)
            for number, worker in enumerate(self._drawers, 1)
        ]

    def workerLeft(self) -> None:
        """Fail all waiting calls when the last worker is lost, because they would never run."""
        if not len(self):
            self.strand("no worker could be kept")
