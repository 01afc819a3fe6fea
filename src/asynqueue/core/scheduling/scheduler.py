"""Decide which task goes to which worker, and when: every transition of a task and of a worker.

Theory of operation. Events are methods. Each returns the commands that follow from it, in order, and calls nothing
back. The caller (`asynqueue.queue.driver`) turns what happens into events, and commands into deeds. Commands to workers
come first and settlements last, so that a slow callback never idles a worker.

A *task* is queued, then assigned to a worker, then settled (table `TASK`). `asynqueue.core.scheduling.assignments` says
when an assigned task is queued again.

A *worker* is joining, open, full, away, leaving or gone. `asynqueue.core.scheduling.workerlifecycle` moves it (table
`WORKER`).

`asynqueue.core.scheduling.matching` knows which workers may run which tasks, and which task goes next.
`asynqueue.core.scheduling.stealing` knows what workers hold ahead, and what of that is recalled.

Cost: O(log n) an event with n tasks queued, and the same with many workers, but for `look`. No recursion. `validate`
asserts every invariant.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable

from asynqueue.core.records import (
    Cancelled,
    Iterating,
    Lost,
    Refused,
    RunOutcome,
    Task,
)
from asynqueue.core.scheduling.assignments import Assignments
from asynqueue.core.scheduling.commands import (
    Closed,
    Command,
    CommandBuffer,
    Discard,
    Recall,
)
from asynqueue.core.scheduling.fairness import NEXT
from asynqueue.core.scheduling.matching import Matcher, UnservedSeries, WorkerEntry
from asynqueue.core.scheduling.states import TaskState, WorkerState
from asynqueue.core.scheduling.stealing import Stealing
from asynqueue.core.scheduling.updates import Updates
from asynqueue.core.scheduling.window import Window
from asynqueue.core.scheduling.workerlifecycle import Lifecycle
from asynqueue.core.text import valueText


class Scheduler:
    """The state of a queue: events in, commands out.

    >>> from asynqueue.core.records import CallSpec
    >>> s = Scheduler()
    >>> s.attach(1, (), Window())
    [WorkerReady(worker=1)]
    >>> [type(c).__name__ for c in s.submit(Task(1, CallSpec.of(print)))]
    ['Assign']
    """

    def __init__(self) -> None:
        self._out = CommandBuffer()
        self._workers: dict[int, WorkerEntry] = {}
        self._matcher = Matcher()
        self._stealing = Stealing(self._matcher, self._out)
        self._assignments = Assignments(self._workers, self._matcher, self._stealing, self._out)
        self._updates = Updates(self._workers, self._assignments, self._out)
        self._lifecycle = Lifecycle(
            self._workers, self._matcher, self._stealing, self._assignments, self._updates, self._out
        )
        self._unserved = UnservedSeries(self._matcher, self._workers)
        self._closing = False
        self._closed = False

    # State.

    @property
    def unfinished(self) -> int:
        """The number of tasks that are queued or assigned."""
        return len(self._matcher) + len(self._assignments.byTask)

    @property
    def queued(self) -> int:
        """The number of tasks that are queued."""
        return len(self._matcher)

    @property
    def running(self) -> bool:
        """True until the shutdown begins."""
        return not self._closing

    @property
    def iterations(self) -> int:
        """The number of iterators, returned by calls, that have not ended."""
        return self._lifecycle.open

    @property
    def watching(self) -> bool:
        """True while `look` is wanted: a worker may have to run what another was assigned."""
        return bool(self._assignments.byTask) and len(self._workers) > 1

    @property
    def unreviewed(self) -> bool:
        """True while `reviewUnserved` is wanted: a queued task may have no worker that is qualified for it."""
        return self._matcher.unreviewed and self._matcher.isStranding()

    @property
    def unserved(self) -> int:
        """The number of queued tasks for which no worker is qualified. O(flows of these)."""
        return self._unserved.number

    @property
    def closed(self) -> bool:
        """True when the shutdown has ended."""
        return self._closed

    @property
    def workers(self) -> list[int]:
        """The workers that take tasks, now or after an update, in the order in which they came."""
        return [w.id for w in self._workers.values() if w.cls is not None]

    def workersFor(self, task: Task) -> list[int]:
        """Return those of `workers` that are qualified for a task."""
        return [w.id for w in self._workers.values() if w.cls is not None and w.mayRun(task)]

    def taskState(self, task: Task) -> TaskState:
        """Return the state of a task; SETTLED also for an unknown one."""
        if task.id in self._assignments.byTask:
            return TaskState.ASSIGNED
        return TaskState.QUEUED if task in self._matcher else TaskState.SETTLED

    def workerState(self, workerID: int) -> WorkerState:
        """Return the state of a worker; GONE also for an unknown one."""
        worker = self._workers.get(workerID)
        return WorkerState.GONE if worker is None else worker.state

    def held(self, workerID: int) -> list[Task]:
        """Return the unfinished tasks of a worker, in the order of assignment."""
        worker = self._workers.get(workerID)
        if worker is None:
            return []
        return [a.task for a in worker.held.values() if not a.abandoned and not a.task.update]

    def assigned(self, ticket: int) -> tuple[int, Task] | None:
        """Return the worker and the task of an open ticket, else None."""
        assignment = self._assignments.byTicket.get(ticket)
        return None if assignment is None else (assignment.worker.id, assignment.task)

    # Events of tasks.

    def submit(self, task: Task) -> list[Command]:
        """Take a new task. Its number is higher than all before."""
        if self._closing or self._assignments.stranded:
            self._assignments.settle(task.id, Refused(self._assignments.stranded or "the queue is not running"))
        else:
            self._matcher.add(task)
        commands = self._dispatch()
        if task.doNext and task in self._matcher:
            commands += self._stealing.makeWay(task)
        return commands

    def cancel(self, task: Task) -> list[Command]:
        """Cancel a task. A queued one never runs; the worker of an assigned one is interrupted."""
        self._assignments.cancel(task)
        return self._dispatch()

    def cancelSeries(self, series: Hashable) -> list[Command]:
        """Cancel the queued tasks of a series."""
        self._assignments.settleQueued(self._matcher.ofSeries(series), Cancelled())
        return self._dispatch()

    def cancelAll(self) -> list[Command]:
        """Cancel all queued tasks."""
        self._assignments.settleQueued(self._matcher, Cancelled())
        return self._dispatch()

    def expired(self, ticket: int) -> list[Command]:
        """Note that the time of an assignment has run out."""
        self._assignments.expire(ticket)
        return self._dispatch()

    def finished(self, ticket: int, outcome: RunOutcome) -> list[Command]:
        """Take a worker's report of the outcome of one assignment."""
        return self.reported([(ticket, outcome)])

    def reported(self, outcomes: Iterable[tuple[int, RunOutcome]]) -> list[Command]:
        """Take the reports of several outcomes, each with its ticket, as one event."""
        reporting: dict[int, WorkerEntry] = {}
        for ticket, outcome in outcomes:
            assignment = self._assignments.byTicket.pop(ticket, None)
            if assignment is not None:
                worker = assignment.worker
                reporting[worker.id] = worker
                del worker.held[ticket]
                worker.answered += 1
                self._lifecycle.ended(worker, assignment, outcome)
            elif isinstance(outcome, Iterating):
                self._out.deeds.append(Discard(outcome.source))
        for worker in reporting.values():
            self._lifecycle.review(worker)
        return self._dispatch()

    def iterationEnded(self, workerID: int, taskID: int) -> list[Command]:
        """Note that the iterator of a task is exhausted, stopped, failed or lost."""
        worker = self._workers.get(workerID)
        if worker is not None:
            self._lifecycle.iterationEnded(worker, taskID)
        return self._dispatch()

    # Events of workers.

    def attach(self, workerID: int, qualifications: Collection[Hashable], window: Window) -> list[Command]:
        """Take a new worker, of a number never used. It runs the saved updates first."""
        worker = WorkerEntry(workerID, frozenset(qualifications), window)
        self._workers[workerID] = worker
        self._unserved.served(worker)
        self._lifecycle.join(worker)
        return self._dispatch()

    def qualify(self, workerID: int, series: Hashable) -> list[Command]:
        """Let a worker run tasks of a series from now on."""
        worker = self._workers.get(workerID)
        if worker is None or worker.state is WorkerState.LEAVING or series in worker.qualifications:
            return self._dispatch()
        if worker.cls is None:
            worker.qualifications |= {series}
        else:
            self._matcher.unjoin(worker)
            worker.qualifications |= {series}
            self._matcher.join(worker)
            self._updates.qualified(worker, series)
            self._lifecycle.review(worker)
        self._unserved.served(worker)
        return self._dispatch()

    def update(self, update: Task, workerIDs: Collection[int], save: bool, sequential: bool = False) -> list[Command]:
        """Run an update on those of some workers that take tasks.

        With `save`, every later worker runs it too. With `sequential`, one worker ends it before the next begins, in
        the order given, and a shutdown waits for that. Each worker of `workerIDs` has an `Updated` in the end.
        """
        self._updates.begin(update, workerIDs, save, sequential)
        return self._dispatch()

    def detach(self, workerID: int, reassign: bool) -> list[Command]:
        """Have a worker leave when it has finished what it holds; with `reassign`, only what it has started."""
        worker = self._workers.get(workerID)
        if worker is not None:
            if worker.state is not WorkerState.LEAVING:
                self._lifecycle.leave(worker)
            if reassign and worker.held:
                self._out.deeds.append(Recall(workerID))
        return self._dispatch()

    def restarted(self, workerID: int) -> list[Command]:
        """Note that a fresh worker has taken a worker's place. It reports on all that the other held."""
        worker = self._workers.get(workerID)
        if worker is not None and worker.cls is not None:
            self._lifecycle.move(worker, "restart")
            self._updates.restart(worker)
            worker.window.stalled()
            self._lifecycle.review(worker)
        return self._dispatch()

    def disconnected(self, workerID: int) -> list[Command]:
        """Note that a worker has no connection. It gets nothing; what it still reports is taken, until `unreported`."""
        worker = self._workers.get(workerID)
        if worker is not None and worker.cls is not None:
            self._matcher.unjoin(worker)
            self._lifecycle.move(worker, "disconnect")
            self._updates.forget(worker, "the worker is away")
            worker.announced = False
        return self._dispatch()

    def unreported(self, workerID: int, reason: str = "the worker is away") -> list[Command]:
        """Note that a worker that is away reports nothing more of what it holds: see `lost`."""
        worker = self._workers.get(workerID)
        if worker is not None and worker.state is WorkerState.AWAY:
            self._lifecycle.writeOff(worker, True, Lost(reason))
        return self._dispatch()

    def reconnected(self, workerID: int, window: Window) -> list[Command]:
        """Note that a worker that was away is there again, with this window. It runs the saved updates first."""
        worker = self._workers.get(workerID)
        if worker is not None and worker.state is WorkerState.AWAY:
            self._lifecycle.move(worker, "reconnect")
            worker.renew(window)
            self._lifecycle.join(worker)
        return self._dispatch()

    def resized(self, workerID: int, limits: Window | None) -> list[Command]:
        """Change how many tasks a worker runs and holds; with None, it holds none."""
        worker = self._workers.get(workerID)
        if worker is not None:
            worker.window.resized(limits)
            if worker.ahead > 0:
                self._stealing.watch(worker)
            self._lifecycle.review(worker)
        return self._dispatch()

    def lost(self, workerID: int, reassign: bool = True, reason: str = "the worker died") -> list[Command]:
        """Note that a worker is gone and reports nothing more.

        Of what it held, as many tasks as it runs at once count as started, in the order of assignment: these are
        charged. Without `reassign`, everything it held settles as lost, for `reason`.
        """
        worker = self._workers.get(workerID)
        if worker is not None:
            if worker.cls is not None:
                self._matcher.unjoin(worker)
            self._lifecycle.move(worker, "lose")
            self._lifecycle.remove(worker, reassign, Lost(reason))
        return self._dispatch()

    def stopped(self, workerID: int) -> list[Command]:
        """Note that a worker has obeyed `Stop`."""
        worker = self._workers.get(workerID)
        if worker is not None:
            self._lifecycle.move(worker, "stopped")
            self._lifecycle.remove(worker, True, Lost("the worker stopped"))
        return self._dispatch()

    # Events of time, and of the queue.

    def tick(self) -> list[Command]:
        """Note that as many `window.BUDGET` as the last `Tick` said have passed since it was ordered, or more."""
        stalled, recalls = self._stealing.tick(self._lifecycle.iterating.values())
        for worker in stalled:
            self._lifecycle.review(worker)
        self._out.deeds += recalls
        return self._dispatch()

    def look(self) -> list[Command]:
        """Note that one `window.LOOK` has passed while it was `watching`. O(workers)."""
        self._out.deeds += self._stealing.look(self._workers.values())
        return self._dispatch()

    def reviewUnserved(self) -> list[Command]:
        """Note that `matching.UNSERVED` has passed while `unreviewed`. O(flows without a worker, times workers)."""
        self._out.deeds += self._unserved.review()
        return self._dispatch()

    def shutdown(self) -> list[Command]:
        """Take no more tasks, finish those there are, and have every worker leave."""
        self._closing = True
        for worker in list(self._workers.values()):
            if worker.state is WorkerState.AWAY:
                self._lifecycle.leave(worker)
        return self._dispatch()

    def strand(self, reason: str) -> list[Command]:
        """Refuse what is queued and all that comes: no worker will ever come again, for `reason`."""
        self._assignments.stranded = reason
        self._assignments.settleQueued(self._matcher, Refused(reason))
        return self._dispatch()

    # Consequences of events.

    def _dispatch(self) -> list[Command]:
        """Assign to every worker with room what it may run. Close if it is time. Return the commands so far."""
        if self._updates.turns or self._updates.changed:
            self._lifecycle.reviewChanged()
        stealing = self._stealing
        while (meeting := self._matcher.next()) is not None:
            worker, place, task = meeting
            if place.band == NEXT and worker.window.slow and worker.ahead >= 0:
                self._matcher.putBack(task, place)  # another may be there for it sooner
                self._lifecycle.move(worker, "fill")
                continue
            if stealing.givenBack:
                worker = stealing.preferred(worker, task)
            self._assignments.assign(worker, task, place)
            if task.timeout is not None:
                self._assignments.arm(worker)
            if len(worker.held) < worker.window.size:
                self._matcher.hasRoom(worker)
            else:
                self._lifecycle.move(worker, "fill")
        if stealing.ticking > 1:
            stealing.hasten()
        if self._closing:
            self._close()
        return self._out.take()

    def _close(self) -> None:
        for task in self._matcher.stranded():
            self._matcher.remove(task)
            self._assignments.settle(
                task.id, Refused(f"the queue shut down with no worker for series {valueText(task.series)}")
            )
        emptied, self._lifecycle.draining = (
            self._lifecycle.draining,
            not self.unfinished and not self._updates.sequential,
        )
        if self._lifecycle.draining and not emptied:
            for worker in list(self._workers.values()):
                if worker.state is not WorkerState.LEAVING:
                    self._lifecycle.review(worker)
        if self._lifecycle.draining and not self._workers and not self._closed:
            self._closed = True
            self._out.ends.append(Closed())

    def validate(self) -> None:
        """Assert every invariant. O(everything): for tests."""
        assert not self._out, "every command is handed out"
        self._matcher.validate()
        self._unserved.validate()
        self._assignments.validate()
        self._updates.validate()
        self._lifecycle.validate()
