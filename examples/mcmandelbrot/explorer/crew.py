"""The queue of the explorer, and the workers that it brings.

They differ in one thing from those that AsynQueue has. A call that is cancelled while it runs is let run, since it
is over sooner than a new process could be ready to draw.
"""

from __future__ import annotations

from asynqueue import ProcessWorker, TaskQueue
from mcmandelbrot.explorer.visitor import SERIES


class PatientWorker(ProcessWorker):
    """A process that goes on with what nobody wants any more, rather than being replaced for it."""

    def interrupt(self, ticket: int) -> None:
        """Take back what was given under TICKET, and all else that has not started; if it has, it goes on."""
        self.recall()


class TileQueue(TaskQueue):
    """A queue with so many WORKERS, each qualified for every visitor."""

    def __init__(self, workers: int) -> None:
        super().__init__(*(PatientWorker(SERIES) for _ in range(workers)))

    def workerLeft(self) -> None:
        """With its last worker gone by itself, nothing would ever be drawn: say so to all that wait."""
        if not len(self):
            self.strand("no worker process could be kept running")
