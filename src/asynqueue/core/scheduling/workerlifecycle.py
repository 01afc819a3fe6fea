"""Move workers through their states (table `WORKER`), and keep count of their open iterations.

- *Joining*: the worker has an update to run (`asynqueue.core.scheduling.updates`). An update runs before any queued
  task, while the worker holds nothing else, and waits while the worker's window is closed.
- *Open* and *full*: the worker has room for a task, or has none.
- *Away*: the worker has no connection. It gets nothing. What it held and did not report is queued again or lost.
- *Leaving*: the worker finishes what it holds, is stopped, and is then gone.

A worker that restarts (its process was replaced) still reports on all that it held, and joins again.

A call that returned an iterator is settled, but its worker holds an open *iteration*. A worker that leaves waits for
those to end.
"""

from __future__ import annotations

from asynqueue.core.records import Iterating, Lost, Raised, Recalled, Returned, RunOutcome
from asynqueue.core.scheduling.assignments import Assignments
from asynqueue.core.scheduling.commands import CommandBuffer, Discard, Stop, WorkerReady
from asynqueue.core.scheduling.matching import Assignment, Matcher, WorkerEntry
from asynqueue.core.scheduling.states import WORKER, WorkerState
from asynqueue.core.scheduling.stealing import Stealing
from asynqueue.core.scheduling.updates import Updates


class Lifecycle:
    """The workers of a queue, by ID, and how each moves. Commands go to `out`."""

    def __init__(
        self,
        workers: dict[int, WorkerEntry],
        matcher: Matcher,
        stealing: Stealing,
        assignments: Assignments,
        updates: Updates,
        out: CommandBuffer,
    ) -> None:
        self.workers: dict[int, WorkerEntry] = workers
        self.iterating: dict[int, WorkerEntry] = {}  # the workers that have iterations
        self.open: int = 0  # iterations
        self.draining: bool = False  # the queue shuts down and has nothing left to do: idle workers leave
        self._matcher = matcher
        self._stealing = stealing
        self._assignments = assignments
        self._updates = updates
        self._out = out

    def move(self, worker: WorkerEntry, event: str) -> None:
        """Move a worker as the table says."""
        worker.state = WORKER[worker.state, event]

    def join(self, worker: WorkerEntry) -> None:
        """Have a worker run the saved updates, then take tasks."""
        self._updates.queue(worker, self._updates.dueOn(worker))
        self._matcher.join(worker)
        self.review(worker)

    def review(self, worker: WorkerEntry) -> None:
        """Bring a worker's state in line with what it holds. Begin its next update. Have it stop if it may."""
        if worker.state is WorkerState.AWAY:
            return
        self._assignments.arm(worker)
        if worker.state is WorkerState.LEAVING:
            if not worker.held and not worker.iterations and not worker.stopping:
                worker.stopping = True
                self._out.ends.append(Stop(worker.id))
            return
        if worker.updates:
            if worker.state is not WorkerState.JOINING:
                self.move(worker, "update")
            if not worker.held and worker.window.size:
                self._assignments.assign(worker, worker.updates.popleft(), None)
            return
        if worker.state is WorkerState.JOINING:
            if worker.held:
                return
            self.move(worker, "updated")
            if not worker.announced:
                worker.announced = True
                self._out.deeds.append(WorkerReady(worker.id))
        if worker.state is WorkerState.FULL and len(worker.held) < worker.window.size:
            self.move(worker, "free")
        elif worker.state is WorkerState.OPEN and len(worker.held) >= worker.window.size:
            self.move(worker, "fill")
        if worker.state is WorkerState.OPEN:
            self._matcher.hasRoom(worker)
            if self.open > len(worker.iterations) and not worker.held:
                self._stealing.orderTick()  # what another has not started, it may start
        if self.draining and not worker.held:
            self.leave(worker)

    def leave(self, worker: WorkerEntry) -> None:
        """Have a worker leave when it has finished what it holds."""
        if worker.cls is not None:
            self._matcher.unjoin(worker)
        self.move(worker, "leave")
        self._updates.forget(worker, "the worker left")
        self.review(worker)

    def remove(self, worker: WorkerEntry, reassign: bool, lost: Lost) -> None:
        """Forget a worker that is gone. What it held is queued again, or settles."""
        del self.workers[worker.id]
        self._matcher.gone()
        self.writeOff(worker, reassign, lost)
        self._updates.forget(worker, "the worker left")

    def writeOff(self, worker: WorkerEntry, reassign: bool, lost: Lost) -> None:
        """Close all that a worker holds: it reports nothing of it."""
        self._stealing.left(worker)
        self.iterating.pop(worker.id, None)
        self.open -= len(worker.iterations)
        worker.iterations.clear()
        held, worker.held = worker.held, {}
        for n, assignment in enumerate(held.values()):
            del self._assignments.byTicket[assignment.ticket]
            started = n < worker.window.limits.running
            if assignment.task.update:
                if started:
                    self._updates.charge(assignment)
                self._updates.answer(assignment.task, worker.id, lost)
            elif not assignment.abandoned:
                if reassign:
                    self._assignments.end(assignment, lost if started else Recalled())
                else:
                    self._assignments.drop(assignment, lost)

    def ended(self, worker: WorkerEntry, assignment: Assignment, outcome: RunOutcome) -> None:
        """Close an assignment with the outcome that its worker reports."""
        if isinstance(outcome, (Returned, Raised, Iterating)):
            worker.window.answered(outcome.seconds)
        if isinstance(outcome, Iterating):
            if assignment.abandoned or assignment.task.update:
                self._out.deeds.append(Discard(outcome.source))
            else:
                worker.iterations.add(assignment.task.id)
                self.iterating[worker.id] = worker
                self.open += 1
        if assignment.task.update:
            self._updates.ended(worker, assignment, outcome)
        elif not assignment.abandoned:
            self._assignments.end(assignment, outcome)

    def iterationEnded(self, worker: WorkerEntry, taskID: int) -> None:
        """Note that an iteration of a worker has ended."""
        if taskID in worker.iterations:
            worker.iterations.discard(taskID)
            if not worker.iterations:
                del self.iterating[worker.id]
            self.open -= 1
            self.review(worker)

    def reviewChanged(self) -> None:
        """Give sequential updates to the workers whose turn it is, and review each worker whose updates changed."""
        while self._updates.goOn():
            changed, self._updates.changed = self._updates.changed, []
            for worker in changed:
                self.review(worker)

    def validate(self) -> None:
        """Assert every invariant."""
        assert self.open == sum(len(worker.iterations) for worker in self.workers.values())
        assert self.iterating == {worker.id: worker for worker in self.workers.values() if worker.iterations}
        idle = [w for w in self.workers.values() if w.state is WorkerState.OPEN and not w.held]
        assert self._matcher.idle() == bool(idle), "the idle workers are known"
        for worker in self.workers.values():
            worker.validate()
