"""Which worker has which task, and under which ticket.

Each assignment has a number of its own, the *ticket*. Its worker reports exactly one outcome under the ticket. A
report on a closed ticket is ignored, so a late or doubled report does no harm. An assigned task is queued again in
three cases:

- The worker gives it back unstarted: it goes before all that never went, in the order in which they went.
- The worker died while it ran: the same, and one attempt is counted.
- Its time ran out: it goes to the front, and one attempt is counted.

When its attempts are spent, it settles as lost or timed out.

Cost: O(log n) for a task that is queued again, else O(1).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from operator import attrgetter

from typing_extensions import assert_never

from asynqueue.core.records import (
    Cancelled,
    Interrupted,
    Iterating,
    Lost,
    Raised,
    Recalled,
    Refused,
    Returned,
    RunOutcome,
    Settlement,
    Task,
    TimedOut,
)
from asynqueue.core.scheduling.commands import Arm, Assign, CommandBuffer, Interrupt, Settle
from asynqueue.core.scheduling.fairness import FAIR, FRONT, RETURNED, Place
from asynqueue.core.scheduling.matching import Assignment, Matcher, WorkerEntry
from asynqueue.core.scheduling.stealing import Stealing


class Assignments:
    """The open assignments of a queue. Commands go to `out`."""

    def __init__(
        self, workers: Mapping[int, WorkerEntry], matcher: Matcher, stealing: Stealing, out: CommandBuffer
    ) -> None:
        self.byTask: dict[int, Assignment] = {}
        self.byTicket: dict[int, Assignment] = {}  # the abandoned and the updates too
        self.lastTicket: int = 0
        self.stranded: str | None = None  # why no worker will ever come
        self._workers = workers
        self._matcher = matcher
        self._stealing = stealing
        self._out = out

    def putBack(self, task: Task, place: Place) -> None:
        """Queue a task again, at its place; refuse it if no worker will ever come."""
        if self.stranded:
            self.settle(task.id, Refused(self.stranded))
            return
        self._matcher.putBack(task, place)

    def settle(self, taskID: int, settlement: Settlement) -> None:
        """Settle a task, which is neither queued nor assigned any more."""
        if self._stealing.givenBack:
            self._stealing.settled(taskID)
        self._out.ends.append(Settle(taskID, settlement))

    def settleQueued(self, tasks: Iterable[Task], settlement: Settlement) -> None:
        """Settle tasks that are queued, in the order of submission."""
        for task in sorted(tasks, key=attrgetter("id")):
            self._matcher.remove(task)
            self.settle(task.id, settlement)

    def cancel(self, task: Task) -> None:
        """Cancel a task. A queued one never runs; the worker of an assigned one is interrupted."""
        if task.id in self.byTask:
            self._abandon(self.byTask[task.id])
            self.settle(task.id, Cancelled())
        elif task in self._matcher:
            self._matcher.remove(task)
            self.settle(task.id, Cancelled())

    def expire(self, ticket: int) -> None:
        """Note that the time of an assignment has run out: its task goes to the front, or settles as timed out."""
        assignment = self.byTicket.get(ticket)
        if assignment is None or assignment.abandoned:
            return
        self._abandon(assignment)
        task = assignment.task.again()
        if task.spent:
            self.settle(task.id, TimedOut(task.timeout or 0.0))
        else:
            self.putBack(task, Place(FRONT, ticket, task.id))

    def _abandon(self, assignment: Assignment) -> None:
        """Take the task from its worker, which keeps the ticket until it reports."""
        del self.byTask[assignment.task.id]
        assignment.abandoned = True
        self._out.deeds.append(Interrupt(assignment.worker.id, assignment.ticket))

    def end(self, assignment: Assignment, outcome: RunOutcome) -> None:
        """End an assignment: settle its task, or queue it again."""
        task, place = assignment.task, assignment.place
        assert place is not None  # only an update has none
        del self.byTask[task.id]
        if isinstance(outcome, (Returned, Raised, Iterating)):
            self.settle(task.id, outcome)
            return
        if place.band == FAIR:  # back before all that never went, in the order in which they went
            place = Place(RETURNED, assignment.ticket, task.id)
        if isinstance(outcome, Recalled):
            self._stealing.gaveBack(assignment.worker, assignment.ticket, task)
            self.putBack(task, place)
        elif isinstance(outcome, (Lost, Interrupted)):
            task = task.again()
            if not task.spent:
                self.putBack(task, place)
            elif isinstance(outcome, Lost):
                self.settle(task.id, outcome)
            else:
                self.settle(task.id, Lost("the worker ended the call without an outcome"))
        else:
            assert_never(outcome)

    def assign(self, worker: WorkerEntry, task: Task, place: Place | None) -> None:
        """Assign a task, which stood at `place`, or an update, which has no place, to a worker."""
        self.lastTicket += 1
        assignment = Assignment(self.lastTicket, worker, task, place)
        worker.held[assignment.ticket] = self.byTicket[assignment.ticket] = assignment
        worker.granted = worker.window.limits.most
        self._out.deeds.append(Assign(worker.id, assignment.ticket, task))
        if place is not None:
            self.byTask[task.id] = assignment
            if worker.ahead > 0:
                self._stealing.assignedAhead(worker)
            elif worker.iterations and len(self._workers) > 1:
                self._stealing.orderTick()

    def arm(self, worker: WorkerEntry) -> None:
        """Start the clocks of what a worker can have started."""
        for assignment in islice(worker.held.values(), worker.window.limits.running):
            task = assignment.task
            if task.timeout is not None and not (assignment.armed or assignment.abandoned or task.update):
                assignment.armed = True
                self._out.clocks.append(Arm(assignment.ticket, task.timeout))

    def drop(self, assignment: Assignment, lost: Lost) -> None:
        """Settle the task of an assignment as lost."""
        del self.byTask[assignment.task.id]
        self.settle(assignment.task.id, lost)

    def validate(self) -> None:
        """Assert every invariant."""
        queued = {task.id for task in self._matcher}
        assert not self.byTask.keys() & queued, "a task is in one place"
        held = {t: a for w in self._workers.values() for t, a in w.held.items()}
        assert held == self.byTicket, "a ticket is held by one worker"
        for taskID, assignment in self.byTask.items():
            assert assignment.task.id == taskID
            assert self.byTicket[assignment.ticket] is assignment
            assert not assignment.abandoned
        self._stealing.validate(self._workers.values(), queued | self.byTask.keys())
