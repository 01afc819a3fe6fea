"""The queue of the explorer, and the workers that it has: processes here, which it brings, or other machines.

The processes differ in one thing from those that AsynQueue has. A call that is cancelled while it runs is let run,
if it is over sooner than a new process could be ready to draw. `mcm worker` has the same ones, so that this holds on
machines, too. There, to cancel a call is to have it cancelled in the queue over there.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

from attrs import frozen

from asynqueue import CallSpec, ProcessWorker, Task, TaskQueue
from asynqueue.core.records import RunOutcome
from asynqueue.interfaces import Report
from mcmandelbrot.explorer.visitor import SERIES
from mcmandelbrot.fractal.machines import Machine
from mcmandelbrot.fractal.picture import Band

BRIEF = 2**26
"""Iterations that a call may cost, in which a point counts once, to be brief: a fifth of a second, if they are all of
them needed. A new process takes three times as long until it can draw."""


class PatientWorker(ProcessWorker):
    """A process that goes on with what nobody wants any more, rather than being replaced for it, if it is brief."""

    def __init__(self, series: Iterable[Hashable] = ()) -> None:
        super().__init__(series)
        self._long: set[int] = set()  # the tickets of what is not brief

    def setReport(self, report: Report) -> None:
        """Know what has ended, too."""

        def told(outcomes: Sequence[tuple[int, RunOutcome]]) -> None:
            self._long.difference_update(ticket for ticket, _ in outcomes)
            report(outcomes)

        super().setReport(told)

    def give(self, runs: Sequence[tuple[int, Task]]) -> None:
        """Have the process make the calls of RUNS."""
        self._long.update(ticket for ticket, task in runs if not isBrief(task.call))
        super().give(runs)

    def interrupt(self, ticket: int) -> None:
        """Take back what was given under TICKET, and all else that has not started; if it has, a brief one goes on."""
        if ticket in self._long:
            super().interrupt(ticket)
        else:
            self.recall()


def isBrief(call: CallSpec[object]) -> bool:
    """Whether CALL, of a function of `mcmandelbrot.fractal.worker`, is over sooner than a new process would be
    ready."""
    return not any(isinstance(what, Band) and what.work > BRIEF for what in call.args)


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
        self._crew: list[PatientWorker | Machine] = [PatientWorker(SERIES) for _ in range(workers)]
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
