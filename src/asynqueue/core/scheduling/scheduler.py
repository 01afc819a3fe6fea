"""Which task goes to which worker, when; every transition of a task and of a worker.

Theory of operation. Events are methods; each returns the commands that follow from it, in order, and calls
nothing back. The caller (`asynqueue.base.TaskQueue`) turns what happens into events and commands into deeds. What
workers are to do comes first and what has ended comes last: nobody has to wait for what a caller does with a result.

A *task* is queued, then assigned to a worker, then settled (`TASK`). Each assignment has a number of its own, a
*ticket*, under which its worker reports exactly one outcome; a report on a ticket that is closed is ignored, so
a late or doubled report does no harm. A task goes back from assigned to queued when its worker gives it back
unstarted (it keeps its place), when its worker died while running it (the same place, and one attempt is
counted), or when its time ran out (to the front, and one attempt is counted). With its attempts spent it settles
as lost or timed out.

A *worker* is joining, open, full, leaving or gone (`WORKER`). It is joining while it has an update to run: those
saved from before its time, or a new one. An update runs before anything queued, while the worker holds nothing else,
and waits while its window is nothing. One under which two workers in a row have died, the one having begun it after
the other's death, is given up: a worker that lives through it, also if it fails there, clears it of the death before.
A worker that leaves finishes what it holds, is stopped, and is gone. One that restarts has died and risen (a process
that was replaced): it still reports on all it held, and joins again.

Which workers may run which tasks, and which task goes next, is `asynqueue.core.scheduling.matching`'s part.

What is assigned beyond what a worker runs at once is *ahead*. While anything is ahead a tick is asked for, for when a
worker will have answered nothing for longer than its calls take: one `window.BUDGET` later, or a few. Such a worker is
stalled, and so is one that answers nothing for a budget while another has nothing to do, when ticks come each budget:
its window falls to what it runs, and what it has not started is recalled. So is what a worker holds beyond its window,
when that has shrunk. A task that goes next is not put behind a slow call: it waits in the queue, since another worker
may be there for it sooner, and the slow ones are given nothing ahead meanwhile.

A worker may have started nothing of what it holds: it makes an item of an iterator that takes long, or was halted. So
when another that may run that has nothing to do, it is *asked*: what it has not started is recalled, and goes there. It
is asked at the next tick if it has an iterator, else at the next `look`; once for each task, for what it does not give
back then it has started; and a task that a worker gave back is not taken from another for that one's sake.

A call that returned an iterator is settled, but its worker holds an open *iteration*; a queue that shuts down,
and a worker that leaves, wait for those to end.

Rules: O(log n) an event with n tasks queued, and the same with many workers, but for `look`; no recursion; nothing is
decided elsewhere. `validate` asserts every invariant.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Hashable, Iterable
from itertools import islice
from operator import attrgetter

import attrs
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
from asynqueue.core.scheduling.commands import (
    Arm,
    Assign,
    Closed,
    Command,
    Discard,
    Interrupt,
    Recall,
    Settle,
    Stop,
    Tick,
    UpdateAbandoned,
    Updated,
    WorkerReady,
)
from asynqueue.core.scheduling.fairness import FAIR, FRONT, NEXT, RETURNED, Place
from asynqueue.core.scheduling.matching import Assignment, Matcher, WorkerEntry
from asynqueue.core.scheduling.states import WORKER, TaskState, WorkerState
from asynqueue.core.scheduling.window import Window


class Scheduler:
    """The state of a queue: events in, commands out.

    >>> from asynqueue.core.records import CallSpec
    >>> s = Scheduler()
    >>> s.hire(1, (), Window())
    [WorkerReady(worker=1)]
    >>> [type(c).__name__ for c in s.submit(Task(1, CallSpec.of(print)))]
    ['Assign']
    """

    def __init__(self) -> None:
        self._crew = Matcher()
        self._assigned: dict[int, Assignment] = {}  # by task
        self._tickets: dict[int, Assignment] = {}  # by ticket, the abandoned and the updates too
        self._workers: dict[int, WorkerEntry] = {}
        self._saved: dict[int, Task] = {}  # the updates for workers to come
        self._ahead: dict[int, WorkerEntry] = {}  # the workers that hold more than they run, and some that did
        self._iterating: dict[int, WorkerEntry] = {}  # those that have iterations
        self._open = 0  # iterations
        self._gaveBack: dict[int, set[int]] = {}  # by task, the workers that were asked for it and had not started it
        self._deaths: dict[int, _UpdateDeaths] = {}  # by update
        self._sequences: dict[int, Collection[int]] = {}  # by update, the workers that have it to run when others have
        self._lastTicket = 0
        self._ticking = 0  # budgets until the tick that was ordered; 0 if none was
        self._closing = False
        self._emptied = False  # closing, and nothing is left to be done
        self._closed = False
        self._stranded: str | None = None
        self._commands: list[Command] = []  # those that follow from what happens, but for these:
        self._clocks: list[Arm | Tick] = []
        self._ends: list[Settle | Stop | Closed] = []

    # What is known.

    @property
    def unfinished(self) -> int:
        """How many tasks are queued or assigned."""
        return len(self._crew) + len(self._assigned)

    @property
    def queued(self) -> int:
        """How many tasks are queued."""
        return len(self._crew)

    @property
    def running(self) -> bool:
        """True until the shutdown begins."""
        return not self._closing

    @property
    def iterations(self) -> int:
        """How many iterators, returned by calls, have not ended."""
        return self._open

    @property
    def watching(self) -> bool:
        """True while one worker may have to do what another was given."""
        return bool(self._assigned) and len(self._workers) > 1

    @property
    def closed(self) -> bool:
        """True when the shutdown has ended."""
        return self._closed

    @property
    def workers(self) -> list[int]:
        """The workers that take tasks, now or after an update, in the order in which they came."""
        return [w.id for w in self._workers.values() if w.state is not WorkerState.LEAVING]

    def taskState(self, task: Task) -> TaskState:
        """Where TASK is: SETTLED too for one that never was."""
        if task.id in self._assigned:
            return TaskState.ASSIGNED
        return TaskState.QUEUED if task in self._crew else TaskState.SETTLED

    def workerState(self, workerID: int) -> WorkerState:
        """Where a worker is: GONE too for one that never was."""
        worker = self._workers.get(workerID)
        return WorkerState.GONE if worker is None else worker.state

    def held(self, workerID: int) -> list[Task]:
        """The unfinished tasks of a worker, in the order in which it was given them."""
        worker = self._workers.get(workerID)
        if worker is None:
            return []
        return [a.task for a in worker.held.values() if not a.abandoned and not a.task.update]

    def assigned(self, ticket: int) -> tuple[int, Task] | None:
        """The worker that has a task under TICKET, and the task; None if the ticket is closed."""
        assignment = self._tickets.get(ticket)
        return None if assignment is None else (assignment.worker.id, assignment.task)

    # Events of tasks.

    def submit(self, task: Task) -> list[Command]:
        """A new TASK, of a number higher than all before."""
        if self._closing or self._stranded:
            self._settle(task.id, Refused(self._stranded or "the queue is not running"))
        else:
            self._crew.add(task)
        commands = self._dispatch()
        if task.doNext and task in self._crew:
            commands += self._wayFor(task)
        return commands

    def cancel(self, task: Task) -> list[Command]:
        """TASK is not wanted any more. Queued, it never runs; assigned, its worker is interrupted."""
        if task.id in self._assigned:
            self._abandon(self._assigned[task.id])
            self._settle(task.id, Cancelled())
        elif task in self._crew:
            self._crew.remove(task)
            self._settle(task.id, Cancelled())
        return self._dispatch()

    def cancelSeries(self, series: Hashable) -> list[Command]:
        """The queued tasks of SERIES are not wanted any more."""
        self._settleQueued(self._crew.ofSeries(series), Cancelled())
        return self._dispatch()

    def cancelAll(self) -> list[Command]:
        """No queued task is wanted any more."""
        self._settleQueued(self._crew, Cancelled())
        return self._dispatch()

    def expired(self, ticket: int) -> list[Command]:
        """The time of an assignment has run out."""
        assignment = self._tickets.get(ticket)
        if assignment is not None and not assignment.abandoned:
            self._abandon(assignment)
            task = assignment.task.again()
            if task.spent:
                self._settle(task.id, TimedOut(task.timeout or 0.0))
            else:
                self._putBack(task, Place(FRONT, ticket, task.id))
        return self._dispatch()

    def finished(self, ticket: int, outcome: RunOutcome) -> list[Command]:
        """A worker reports the OUTCOME of an assignment."""
        return self.reported([(ticket, outcome)])

    def reported(self, outcomes: Iterable[tuple[int, RunOutcome]]) -> list[Command]:
        """Workers report several outcomes, each with its ticket, which they do at one time."""
        reporting: dict[int, WorkerEntry] = {}
        for ticket, outcome in outcomes:
            assignment = self._tickets.pop(ticket, None)
            if assignment is not None:
                worker = assignment.worker
                reporting[worker.id] = worker
                del worker.held[ticket]
                worker.answered += 1
                self._ended(worker, assignment, outcome)
            elif isinstance(outcome, Iterating):
                self._commands.append(Discard(outcome.source))
        for worker in reporting.values():
            self._review(worker)
        return self._dispatch()

    def iterationEnded(self, workerID: int, taskID: int) -> list[Command]:
        """The iterator that a task returned is exhausted, stopped, failed or lost."""
        worker = self._workers.get(workerID)
        if worker is not None and taskID in worker.iterations:
            worker.iterations.discard(taskID)
            if not worker.iterations:
                del self._iterating[workerID]
            self._open -= 1
            self._review(worker)
        return self._dispatch()

    # Events of workers.

    def hire(self, workerID: int, qualifications: Collection[Hashable], window: Window) -> list[Command]:
        """A new worker, of a number never used or of one that was lost. It runs the saved updates first."""
        worker = WorkerEntry(workerID, frozenset(qualifications), window)
        worker.updates.extend(self._dueOn(workerID))
        self._workers[workerID] = worker
        self._crew.join(worker)
        self._review(worker)
        return self._dispatch()

    def qualify(self, workerID: int, series: Hashable) -> list[Command]:
        """A worker may run tasks of SERIES from now on."""
        worker = self._workers.get(workerID)
        if worker is not None and worker.cls is not None:
            self._crew.unjoin(worker)
            worker.qualifications |= {series}
            self._crew.join(worker)
            self._review(worker)
        return self._dispatch()

    def update(
        self, update: Task, workerIDs: Collection[int], save: bool, waiting: Collection[int] = ()
    ) -> list[Command]:
        """Run UPDATE on those of WORKERIDS that take tasks; with SAVE, on every worker that comes after.

        It is to be run on those WAITING when it has ended there: a shutdown waits for that.
        """
        if save:
            self._saved[update.id] = update
        if waiting:
            self._sequences[update.id] = frozenset(waiting)
        else:
            self._sequences.pop(update.id, None)
        for workerID in workerIDs:
            worker = self._workers.get(workerID)
            if worker is None or worker.cls is None:
                self._commands.append(Updated(update.id, workerID, Lost("the worker left")))
            else:
                worker.updates.append(update)
                self._review(worker)
        return self._dispatch()

    def detach(self, workerID: int, reassign: bool) -> list[Command]:
        """A worker is to leave when it has finished what it holds; with REASSIGN, what it is running."""
        worker = self._workers.get(workerID)
        if worker is not None:
            if worker.cls is not None:
                self._leave(worker)
            if reassign and worker.held:
                self._commands.append(Recall(workerID))
        return self._dispatch()

    def restarted(self, workerID: int) -> list[Command]:
        """A worker has died and risen. It reports on all it held, then runs the saved updates again."""
        worker = self._workers.get(workerID)
        if worker is not None and worker.cls is not None:
            self._move(worker, "restart")
            due = {update.id: update for update in (*self._dueOn(workerID), *worker.updates)}
            for assignment in worker.held.values():
                due.pop(assignment.task.id, None)  # it comes back with its report
            worker.updates = deque(due[updateID] for updateID in sorted(due))
            worker.window.stalled()
            self._review(worker)
        return self._dispatch()

    def resized(self, workerID: int, limits: Window | None) -> list[Command]:
        """A worker runs and holds another number of tasks from now on; with None, of none."""
        worker = self._workers.get(workerID)
        if worker is not None:
            worker.window.resized(limits)
            if worker.ahead > 0:
                self._ahead[workerID] = worker
            self._review(worker)
        return self._dispatch()

    def lost(self, workerID: int, reassign: bool = True, reason: str = "the worker died") -> list[Command]:
        """A worker is gone and will report nothing more.

        Of what it held, it is taken to have been running as many as it runs at once, in the order given: those
        are charged. Without REASSIGN, everything it held settles as lost, for REASON.
        """
        worker = self._workers.get(workerID)
        if worker is not None:
            if worker.cls is not None:
                self._crew.unjoin(worker)
            self._move(worker, "lose")
            self._bury(worker, reassign, Lost(reason))
        return self._dispatch()

    def stopped(self, workerID: int) -> list[Command]:
        """A worker that was told to stop has stopped."""
        worker = self._workers.get(workerID)
        if worker is not None:
            self._move(worker, "stopped")
            self._bury(worker, True, Lost("the worker stopped"))
        return self._dispatch()

    def tick(self) -> list[Command]:
        """So many `window.BUDGET` as the last `Tick` said have passed since it was ordered, or more."""
        passed, self._ticking = self._ticking, 0
        idle = self._crew.idle()
        recalled: list[WorkerEntry] = []
        soonest = 0
        for worker in self._waitingAhead():
            worker.silent = worker.silent + passed if worker.answered == worker.ticked else 0
            worker.ticked = worker.answered
            patience = 1 if idle else worker.window.patience
            if worker.silent >= patience:
                worker.window.stalled()
                recalled.append(worker)
                self._review(worker)
            else:
                if len(worker.held) > worker.window.size:
                    recalled.append(worker)
                left = patience - worker.silent
                soonest = min(soonest or left, left)
        recalled.sort(key=_foremost)  # or what comes back first would be given to who is there, and not what goes first
        self._commands += [Recall(worker.id) for worker in recalled]
        if soonest:
            self._wantTick(soonest)
        if idle:
            for worker in self._iterating.values():
                if worker.ahead <= 0:
                    self._askFor(worker)
        return self._dispatch()

    def look(self) -> list[Command]:
        """One `window.LOOK` has passed while it was `watching`. O(workers)."""
        if self._crew.idle():
            for worker in self._workers.values():
                self._askFor(worker)
        return self._dispatch()

    def shutdown(self) -> list[Command]:
        """Take nothing more, finish what was taken, let every worker leave."""
        self._closing = True
        return self._dispatch()

    def strand(self, reason: str) -> list[Command]:
        """No worker will ever come again, for REASON: refuse what is queued, and whatever comes."""
        self._stranded = reason
        self._settleQueued(self._crew, Refused(reason))
        return self._dispatch()

    # How tasks move.

    def _wayFor(self, task: Task) -> list[Command]:
        """Let TASK, for which there is no room, go before what has not started and is more than a budget of work."""
        return [
            Recall(worker.id)
            for worker in self._waitingAhead()
            if worker.window.slow and (task.series is None or task.series in worker.qualifications)
        ]

    def _waitingAhead(self) -> list[WorkerEntry]:
        """The workers that hold more than they run."""
        for worker in [worker for worker in self._ahead.values() if worker.ahead <= 0]:
            del self._ahead[worker.id]
        return list(self._ahead.values())

    def _askFor(self, worker: WorkerEntry) -> None:
        """Ask WORKER, unless it was, for what it has not started, if another that has nothing to do may run that."""
        if worker.held and next(reversed(worker.held)) > worker.asked:
            for ticket, assignment in worker.held.items():
                task = assignment.task
                if (
                    ticket > worker.asked
                    and not task.update
                    and self._crew.idleFor(task, self._gaveBack.get(task.id, ()))
                ):
                    worker.asked = self._lastTicket
                    self._commands.append(Recall(worker.id))
                    return

    def _putBack(self, task: Task, place: Place) -> None:
        if self._stranded:
            self._settle(task.id, Refused(self._stranded))
            return
        self._crew.putBack(task, place)

    def _settle(self, taskID: int, settlement: Settlement) -> None:
        if self._gaveBack:
            self._gaveBack.pop(taskID, None)
        self._ends.append(Settle(taskID, settlement))

    def _settleQueued(self, tasks: Iterable[Task], settlement: Settlement) -> None:
        """TASKS, which are queued, will not run: each is told so, in the order of submission."""
        for task in sorted(tasks, key=attrgetter("id")):
            self._crew.remove(task)
            self._settle(task.id, settlement)

    def _abandon(self, assignment: Assignment) -> None:
        """The task leaves its worker, which keeps the ticket until it reports."""
        del self._assigned[assignment.task.id]
        assignment.abandoned = True
        self._commands.append(Interrupt(assignment.worker.id, assignment.ticket))

    def _ended(self, worker: WorkerEntry, assignment: Assignment, outcome: RunOutcome) -> None:
        """WORKER has no more to do with an assignment."""
        if isinstance(outcome, (Returned, Raised, Iterating)):
            worker.window.answered(outcome.seconds)
        if isinstance(outcome, Iterating):
            if assignment.abandoned or assignment.task.update:
                self._commands.append(Discard(outcome.source))
            else:
                worker.iterations.add(assignment.task.id)
                self._iterating[worker.id] = worker
                self._open += 1
        if assignment.task.update:
            self._updateEnded(worker, assignment, outcome)
        elif not assignment.abandoned:
            self._runEnded(assignment, outcome)

    def _runEnded(self, assignment: Assignment, outcome: RunOutcome) -> None:
        task, place = assignment.task, assignment.place
        assert place is not None  # only an update has none
        del self._assigned[task.id]
        if isinstance(outcome, (Returned, Raised, Iterating)):
            self._settle(task.id, outcome)
            return
        if place.band == FAIR:  # back before all that never went, in the order in which they went
            place = Place(RETURNED, assignment.ticket, task.id)
        if isinstance(outcome, Recalled):
            if assignment.ticket <= assignment.worker.asked:
                self._gaveBack.setdefault(task.id, set()).add(assignment.worker.id)
            self._putBack(task, place)
        elif isinstance(outcome, (Lost, Interrupted)):
            task = task.again()
            if not task.spent:
                self._putBack(task, place)
            elif isinstance(outcome, Lost):
                self._settle(task.id, outcome)
            else:
                self._settle(task.id, Lost("the worker let go of the call"))
        else:
            assert_never(outcome)

    def _assign(self, worker: WorkerEntry, task: Task, place: Place | None) -> None:
        self._lastTicket += 1
        assignment = Assignment(self._lastTicket, worker, task, place)
        worker.held[assignment.ticket] = self._tickets[assignment.ticket] = assignment
        worker.granted = worker.window.limits.most
        self._commands.append(Assign(worker.id, assignment.ticket, task))
        if place is not None:
            self._assigned[task.id] = assignment
            if worker.ahead > 0:
                self._ahead[worker.id] = worker
                if self._ticking != 1:
                    self._wantTick(worker.window.patience)
            elif worker.iterations and len(self._workers) > 1:
                self._wantTick()

    def _wantTick(self, budgets: int = 1) -> None:
        """Have a tick in so many BUDGETS, or sooner."""
        if not self._ticking or budgets < self._ticking:
            self._ticking = budgets
            self._clocks.append(Tick(budgets))

    # How workers move.

    def _move(self, worker: WorkerEntry, event: str) -> None:
        worker.state = WORKER[worker.state, event]

    def _review(self, worker: WorkerEntry) -> None:
        """Bring WORKER's state in line with what it holds; begin its next update; let it go."""
        self._armRunning(worker)
        if worker.state is WorkerState.LEAVING:
            if not worker.held and not worker.iterations and not worker.stopping:
                worker.stopping = True
                self._ends.append(Stop(worker.id))
            return
        if worker.updates:
            if worker.state is not WorkerState.JOINING:
                self._move(worker, "update")
            if not worker.held and worker.window.size:
                self._assign(worker, worker.updates.popleft(), None)
            return
        if worker.state is WorkerState.JOINING:
            if worker.held:
                return
            self._move(worker, "updated")
            if not worker.hired:
                worker.hired = True
                self._commands.append(WorkerReady(worker.id))
        if worker.state is WorkerState.FULL and len(worker.held) < worker.window.size:
            self._move(worker, "free")
        elif worker.state is WorkerState.OPEN and len(worker.held) >= worker.window.size:
            self._move(worker, "fill")
        if worker.state is WorkerState.OPEN:
            self._crew.hasRoom(worker)
            if self._open > len(worker.iterations) and not worker.held:
                self._wantTick()  # what another has not started, it may start
        if self._emptied and not worker.held:
            self._leave(worker)

    def _armRunning(self, worker: WorkerEntry) -> None:
        """Start the clocks of what WORKER can have started."""
        for assignment in islice(worker.held.values(), worker.window.limits.running):
            task = assignment.task
            if task.timeout is not None and not (assignment.armed or assignment.abandoned or task.update):
                assignment.armed = True
                self._clocks.append(Arm(assignment.ticket, task.timeout))

    def _leave(self, worker: WorkerEntry) -> None:
        self._crew.unjoin(worker)
        self._move(worker, "leave")
        self._forgetUpdates(worker)
        self._review(worker)

    def _bury(self, worker: WorkerEntry, reassign: bool, lost: Lost) -> None:
        """WORKER is gone: what it held goes elsewhere, or settles."""
        del self._workers[worker.id]
        self._ahead.pop(worker.id, None)
        self._iterating.pop(worker.id, None)
        self._open -= len(worker.iterations)
        for n, assignment in enumerate(worker.held.values()):
            del self._tickets[assignment.ticket]
            started = n < worker.window.limits.running
            if assignment.task.update:
                if started:
                    self._charge(assignment)
                self._commands.append(Updated(assignment.task.id, worker.id, lost))
            elif not assignment.abandoned:
                if reassign:
                    self._runEnded(assignment, lost if started else Recalled())
                else:
                    del self._assigned[assignment.task.id]
                    self._settle(assignment.task.id, lost)
        self._forgetUpdates(worker)

    # How updates move.

    def _dueOn(self, workerID: int) -> list[Task]:
        """The saved updates, but for those whose turn on a worker is to come."""
        return [update for update in self._saved.values() if workerID not in self._sequences.get(update.id, ())]

    def _updateEnded(self, worker: WorkerEntry, assignment: Assignment, outcome: RunOutcome) -> None:
        update = assignment.task
        if isinstance(outcome, (Lost, Interrupted)):
            self._charge(assignment)
        elif not isinstance(outcome, Recalled) and not self._isGivenUp(update):
            self._deaths.pop(update.id, None)
        if isinstance(outcome, (Returned, Raised)):
            self._commands.append(Updated(update.id, worker.id, outcome))
        elif isinstance(outcome, Iterating):
            refusal = Raised(TypeError(f"an update cannot return an iterator, as {update.call} did"))
            self._commands.append(Updated(update.id, worker.id, refusal))
        elif worker.cls is None or self._isGivenUp(update):
            self._commands.append(Updated(update.id, worker.id, Lost("the worker died or left")))
        else:
            worker.updates = deque(sorted((update, *worker.updates), key=lambda u: u.id))

    def _charge(self, assignment: Assignment) -> None:
        """A worker died while it ran an update: one that kills the next as well is not given to any other.

        The next has begun it since: several may have died of one cause, and not of it.
        """
        update = assignment.task
        deaths = self._deaths.setdefault(update.id, _UpdateDeaths())
        if assignment.ticket > deaths.charged:
            deaths.number += 1
            deaths.charged = self._lastTicket
        if self._isGivenUp(update):
            if self._saved.pop(update.id, None) is not None:
                self._commands.append(UpdateAbandoned(update))
            for worker in self._workers.values():
                if update in worker.updates:
                    worker.updates.remove(update)
                    self._commands.append(Updated(update.id, worker.id, Lost("it killed two workers")))
                    self._review(worker)

    def _isGivenUp(self, update: Task) -> bool:
        deaths = self._deaths.get(update.id)
        return deaths is not None and deaths.number > update.retries

    def _forgetUpdates(self, worker: WorkerEntry) -> None:
        for update in worker.updates:
            self._commands.append(Updated(update.id, worker.id, Lost("the worker left")))
        worker.updates.clear()

    # What follows.

    def _dispatch(self) -> list[Command]:
        """Give every worker with room what it may run; then close, if it is time. The commands so far."""
        while (meeting := self._crew.next()) is not None:
            worker, place, task = meeting
            if place.band == NEXT and worker.window.slow and worker.ahead >= 0:
                self._crew.putBack(task, place)  # another may be there for it sooner
                self._move(worker, "fill")
                continue
            gave = self._gaveBack.get(task.id, ())
            if worker.id in gave:  # one that did not has its turn first, or it would go round among those that did
                worker = self._crew.idleFor(task, gave) or worker
            self._assign(worker, task, place)
            if task.timeout is not None:
                self._armRunning(worker)
            if len(worker.held) < worker.window.size:
                self._crew.hasRoom(worker)
            else:
                self._move(worker, "fill")
        if self._ticking > 1 and self._crew.idle():
            self._wantTick()  # what is ahead at another, who has nothing to do may do
        if self._closing:
            self._close()
        commands = self._commands
        self._commands = []
        if self._clocks:
            commands += self._clocks
            self._clocks.clear()
        if self._ends:
            commands += self._ends
            self._ends.clear()
        return commands

    def _close(self) -> None:
        for task in self._crew.stranded():
            self._crew.remove(task)
            self._settle(task.id, Refused(f"the queue shut down with no worker for series {task.series!r}"))
        emptied, self._emptied = self._emptied, not self.unfinished and not self._sequences
        if self._emptied and not emptied:
            for worker in list(self._workers.values()):
                if worker.state is not WorkerState.LEAVING:
                    self._review(worker)
        if self._emptied and not self._workers and not self._closed:
            self._closed = True
            self._ends.append(Closed())

    def validate(self) -> None:
        """Assert every invariant. O(everything): for tests."""
        assert not any((self._commands, self._clocks, self._ends)), "every command is handed out"
        queued = {task.id for task in self._crew}
        assert not self._assigned.keys() & queued, "a task is in one place"
        self._crew.validate()
        held = {t: a for w in self._workers.values() for t, a in w.held.items()}
        assert held == self._tickets, "a ticket is held by one worker"
        for taskID, assignment in self._assigned.items():
            assert assignment.task.id == taskID
            assert self._tickets[assignment.ticket] is assignment
            assert not assignment.abandoned
        assert self._gaveBack.keys() <= queued | self._assigned.keys(), "only of what is not settled"
        assert self._open == sum(len(worker.iterations) for worker in self._workers.values())
        assert self._iterating == {worker.id: worker for worker in self._workers.values() if worker.iterations}
        assert {worker.id for worker in self._workers.values() if worker.ahead > 0} <= self._ahead.keys()
        idle = [w for w in self._workers.values() if w.state is WorkerState.OPEN and not w.held]
        assert self._crew.idle() == bool(idle), "who has nothing to do is known"
        for worker in self._workers.values():
            worker.window.validate()
            self._validateWorker(worker)

    def _validateWorker(self, worker: WorkerEntry) -> None:
        assert (worker.cls is None) == (worker.state is WorkerState.LEAVING)
        assert worker.cls is None or worker.id in worker.cls.members
        for assignment in worker.held.values():
            task = assignment.task
            assert task.series is None or task.series in worker.qualifications, "a worker is qualified"
            assert task.attempt <= task.retries, "no task is started more often than it may be"
        assert len(worker.held) <= worker.granted, "a worker is given no more than its window"
        if worker.state is WorkerState.FULL:
            assert len(worker.held) >= worker.window.size or (worker.window.slow and worker.ahead >= 0)
        if worker.state is WorkerState.OPEN:
            assert len(worker.held) < worker.window.size
            assert not worker.updates, "an update goes before any task"
        if worker.state is WorkerState.JOINING:
            assert worker.held or worker.updates, "a worker without an update to run is open"
        if any(a.task.update for a in worker.held.values()):
            assert len(worker.held) == 1, "an update runs alone"


@attrs.define
class _UpdateDeaths:
    """NUMBER of deaths in a row under an update, and the last ticket when the last of them was CHARGED."""

    number: int = 0
    charged: int = 0


def _foremost(worker: WorkerEntry) -> int:
    """The lowest band of the tasks that WORKER holds; it holds some."""
    return min(assignment.place.band for assignment in worker.held.values() if assignment.place)
