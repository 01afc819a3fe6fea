"""What a `Scheduler` owes, as a ledger that can be read in a few minutes; and workers that behave.

Theory of operation. A `Model` stands where `TaskQueue` and its workers stand: each of its methods is something
that happens, tells the scheduler, and obeys the commands one by one. It keeps a ledger of every task and every
worker from the *events*, never from the scheduler, and each command has to agree with the ledger at the moment
it is obeyed. After every event, `check` asks for what must hold between events.

A `ModelWorker` is a worker as seen from here. It runs what it holds in the order given, as many at once as its window
says, and reports when the test says so. `back` holds what it has already decided to report.

Nothing here draws anything at random: what happens, and when, is the test's to say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from itertools import islice

import attrs

from asynqueue.core.records import (
    CallSpec,
    Cancelled,
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
    Unserved,
    UpdateAbandoned,
    Updated,
    WorkerReady,
)
from asynqueue.core.scheduling.scheduler import Scheduler
from asynqueue.core.scheduling.states import WorkerState
from asynqueue.core.scheduling.window import Window

CALL = CallSpec.of(print)
ENDED = (Returned, Raised, Iterating)

TIMED_OUT, NEXT, BEGUN, FAIR, LAST = range(5)
"""In which order tasks go; BEGUN are those which were given out in fair order and came back."""


@attrs.define(eq=False)
class Entry:
    """A task in the ledger. RANK is its band, and its order in every band but the fair one."""

    task: Task
    rank: tuple[int, int]
    attempt: int = 0
    ticket: int | None = None
    settlement: Settlement | None = None

    @property
    def queued(self) -> bool:
        return self.ticket is None and self.settlement is None

    @property
    def flow(self) -> tuple[Hashable, int]:
        return self.task.series, self.task.niceness


@attrs.define(eq=False)
class ModelWorker:
    """A worker that behaves."""

    id: int
    qualifications: frozenset[Hashable]
    window: Window
    run: dict[int, Task] = attrs.field(factory=dict)  # by ticket: running, and not yet
    back: dict[int, RunOutcome] = attrs.field(factory=dict)  # by ticket: what it is about to report
    given: dict[int, Task] = attrs.field(factory=dict)  # by ticket: all that it has not reported on
    updates: set[int] = attrs.field(factory=set)  # still to be run
    iterations: set[int] = attrs.field(factory=set)
    shut: bool = False  # its window is closed: it takes nothing
    away: bool = False  # it has no connection
    stuck: bool = False  # it starts nothing
    joining: bool = True  # until it holds nothing and has no update to run
    announced: bool = False
    leaving: bool = False
    stopping: bool = False

    def isQualified(self, task: Task) -> bool:
        return task.series is None or task.series in self.qualifications

    def mayRun(self, task: Task) -> bool:
        return not (self.leaving or self.away) and self.isQualified(task)

    @property
    def running(self) -> list[int]:
        """The tickets of what it runs."""
        return [] if self.stuck else list(islice(self.run, self.window.running))

    @property
    def roomy(self) -> bool:
        """True when it has room, however small its window is."""
        return not (self.leaving or self.joining or self.shut or self.away) and len(self.given) < self.window.running

    def recall(self) -> None:
        """Give back what is not running."""
        running = self.running
        for ticket in [ticket for ticket in self.run if ticket not in running]:
            del self.run[ticket]
            self.back[ticket] = Recalled()


@attrs.define(eq=False)
class Model:
    """The ledger, and what happens."""

    scheduler: Scheduler = attrs.field(factory=Scheduler)
    entries: dict[int, Entry] = attrs.field(factory=dict)
    workers: dict[int, ModelWorker] = attrs.field(factory=dict)
    gone: set[int] = attrs.field(factory=set)
    saved: dict[int, Task] = attrs.field(factory=dict)
    deaths: dict[int, int] = attrs.field(factory=dict)  # of workers in a row, by update
    charged: dict[int, int] = attrs.field(factory=dict)  # by update, the last ticket when the last death was counted
    givenUp: set[int] = attrs.field(factory=set)  # updates
    abandoned: set[int] = attrs.field(factory=set)  # those of them that were saved, and that is yet to be said
    tickets: dict[int, int] = attrs.field(factory=dict)  # entry by open ticket, unless abandoned
    armed: dict[int, float] = attrs.field(factory=dict)
    past: list[int] = attrs.field(factory=list)  # tickets that are closed
    ending: dict[int, type[Settlement]] = attrs.field(factory=dict)  # what this event has to settle
    turns: dict[int, list[int]] = attrs.field(
        factory=dict
    )  # by sequential update: the worker that runs it, and the rest
    owed: set[tuple[int, int]] = attrs.field(factory=set)  # an answer for each update and worker
    sources: set[int] = attrs.field(factory=set)  # iterators nobody has taken charge of
    reported: set[Hashable] = attrs.field(factory=set)  # series that had no worker
    unserved: dict[Hashable, int] = attrs.field(factory=dict)  # what this event has to report
    ticking: int = 0  # budgets until the next tick
    stranded: bool = False
    closing: bool = False
    closed: bool = False
    last: int = 0  # number used, of a task, an update, a worker or a source
    lastTicket: int = 0
    served: list[Entry] = attrs.field(factory=list)  # in fair order, by being given out the first time

    # What happens to tasks.

    def submit(
        self,
        series: Hashable = None,
        niceness: int = 0,
        doNext: bool = False,
        doLast: bool = False,
        timeout: float | None = None,
        retries: int = 1,
    ) -> int:
        task = Task(self.number(), CALL, series, niceness, doNext, doLast, timeout, retries)
        band = NEXT if doNext else LAST if doLast else FAIR
        self.entries[task.id] = Entry(task, (band, task.id))
        if self.closing or self.stranded:
            self.ending[task.id] = Refused
        self.obey(self.scheduler.submit(task))
        return task.id

    def cancel(self, taskID: int) -> None:
        entry = self.entries[taskID]
        if entry.settlement is None:
            self.ending[taskID] = Cancelled
            if entry.ticket is not None:
                self.abandon(entry.ticket)
        self.obey(self.scheduler.cancel(entry.task))

    def cancelSeries(self, series: Hashable) -> None:
        self.ending.update((t, Cancelled) for t, e in self.entries.items() if e.queued and e.task.series == series)
        self.obey(self.scheduler.cancelSeries(series))

    def cancelAll(self) -> None:
        self.ending.update((t, Cancelled) for t, e in self.entries.items() if e.queued)
        self.obey(self.scheduler.cancelAll())

    def expire(self, ticket: int) -> None:
        """The clock of an armed TICKET has run out; that of one which has ended may too."""
        self.armed.pop(ticket, None)
        taskID = self.tickets.get(ticket)
        if taskID is not None:
            entry = self.entries[taskID]
            self.abandon(ticket)
            entry.rank = (TIMED_OUT, ticket)
            self.charge(entry, TimedOut)
        self.obey(self.scheduler.expired(ticket))

    # What happens to workers.

    def attach(
        self,
        qualifications: Iterable[Hashable] = (),
        window: Window = Window(),  # noqa: B008  # it is frozen
    ) -> int:
        """A new worker."""
        worker = ModelWorker(self.number(), frozenset(qualifications), window)
        worker.updates = self.due(worker)
        self.workers[worker.id] = worker
        self._serve(worker)
        self._owe(worker)
        self.obey(self.scheduler.attach(worker.id, worker.qualifications, window))
        return worker.id

    def _serve(self, worker: ModelWorker) -> None:
        self.reported -= {None, *worker.qualifications}

    def qualify(self, workerID: int, series: Hashable) -> None:
        worker = self.workers.get(workerID)
        if worker is not None and not worker.leaving and series not in worker.qualifications:
            worker.qualifications |= {series}
            self._serve(worker)
            due = {n for n in self.due(worker) if self.saved[n].series == series}
            if not worker.away and due:
                worker.updates |= due
                worker.joining = True
                self.owed |= {(n, workerID) for n in due}
        self.obey(self.scheduler.qualify(workerID, series))

    def update(
        self,
        workerIDs: Iterable[int],
        save: bool,
        retries: int = 1,
        sequential: bool = False,
        series: Hashable = None,
    ) -> int:
        update = Task(self.number(), CALL, series, retries=retries, update=True)
        ids = [n for n in workerIDs if n not in self.workers or self.workers[n].isQualified(update)]
        if save:
            self.saved[update.id] = update
        if sequential and ids:
            self.turns[update.id] = ids
        for workerID in ids[:1] if sequential else ids:
            self._begin(update.id, workerID)
        self.obey(self.scheduler.update(update, ids, save, sequential))
        return update.id

    def _begin(self, updateID: int, workerID: int) -> None:
        self.owed.add((updateID, workerID))
        worker = self.workers.get(workerID)
        if worker is not None and not (worker.leaving or worker.away or updateID in self.givenUp):
            worker.updates.add(updateID)
            worker.joining = True

    def due(self, worker: ModelWorker) -> set[int]:
        """The saved updates for which a worker is qualified, but for those whose turn on it is yet to come."""
        return {
            update.id
            for update in self.saved.values()
            if worker.isQualified(update) and worker.id not in self.turns.get(update.id, [])[1:]
        }

    def finish(self, ticket: int, outcome: RunOutcome) -> None:
        """A worker reports on a TICKET that it holds."""
        worker = next(worker for worker in self.workers.values() if ticket in worker.given)
        task = worker.given.pop(ticket)
        worker.run.pop(ticket, None)
        worker.back.pop(ticket, None)
        self.past.append(ticket)
        self.armed.pop(ticket, None)
        if isinstance(outcome, Iterating):
            self.sources.add(outcome.source)
        if task.update:
            self._updateEnded(worker, ticket, task, outcome)
        elif self.tickets.pop(ticket, None) is not None:
            entry = self.entries[task.id]
            entry.ticket = None
            if isinstance(outcome, ENDED):
                self.ending[task.id] = type(outcome)
                if isinstance(outcome, Iterating):
                    worker.iterations.add(task.id)
            elif isinstance(outcome, Recalled):
                self.requeue(entry)
            else:
                self.charge(entry, Lost)
        self.obey(self.scheduler.finished(ticket, outcome))

    def finishAgain(self, ticket: int, outcome: RunOutcome) -> None:
        """A report on a TICKET that is closed comes late, or twice: nothing follows, but an iterator is closed."""
        if isinstance(outcome, Iterating):
            self.sources.add(outcome.source)
        commands = self.scheduler.finished(ticket, outcome)
        assert all(isinstance(command, Discard) for command in commands)
        self.obey(commands)

    def endIteration(self, workerID: int, taskID: int) -> None:
        if workerID in self.workers:
            self.workers[workerID].iterations.discard(taskID)
        self.obey(self.scheduler.iterationEnded(workerID, taskID))

    def detach(self, workerID: int, reassign: bool) -> None:
        if workerID in self.workers:
            self._leave(self.workers[workerID])
        self.obey(self.scheduler.detach(workerID, reassign))

    def restart(self, workerID: int, ran: int = 1) -> None:
        """A worker dies, and rises. Of what it was running it has begun RAN; all else it gives back."""
        worker = self.workers[workerID]
        running = worker.running[:ran]
        for ticket in worker.run:
            worker.back[ticket] = Lost() if ticket in running else Recalled()
        worker.run.clear()
        if not worker.leaving:
            held = {task.id for task in worker.given.values()}
            worker.updates |= self.due(worker) - held
            worker.joining = True
            self._owe(worker)
        self.obey(self.scheduler.restarted(workerID))
        for taskID in list(worker.iterations):
            self.endIteration(workerID, taskID)

    def resize(self, workerID: int, window: Window | None) -> None:
        """A worker's window is another; without one, it is away."""
        worker = self.workers[workerID]
        worker.shut = window is None
        worker.window = window or worker.window
        self.obey(self.scheduler.resized(workerID, window))

    def disconnect(self, workerID: int, reports: bool) -> None:
        """A worker loses its connection. If it reports at all, it reports what it has not started."""
        worker = self.workers[workerID]
        worker.away = True
        worker.announced = False
        worker.updates.clear()
        self.obey(self.scheduler.disconnected(workerID))
        if reports:
            worker.recall()
        for ticket in list(worker.back):
            self.finish(ticket, worker.back[ticket])
        self._writeOff(worker)
        worker.iterations.clear()
        worker.run.clear()
        worker.given.clear()
        self.obey(self.scheduler.unreported(workerID))

    def reconnect(self, workerID: int, window: Window) -> None:
        worker = self.workers[workerID]
        worker.away = worker.shut = False
        worker.window = window
        worker.updates = self.due(worker)
        worker.joining = True
        self._owe(worker)
        self.obey(self.scheduler.reconnected(workerID, window))

    def lose(self, workerID: int, reassign: bool = True) -> None:
        worker = self.workers.pop(workerID)
        self.gone.add(workerID)
        self._writeOff(worker, reassign)
        self.obey(self.scheduler.lost(workerID, reassign))

    def _writeOff(self, worker: ModelWorker, reassign: bool = True) -> None:
        running = list(worker.given)[: worker.window.running]
        for ticket, task in worker.given.items():
            self.past.append(ticket)
            self.armed.pop(ticket, None)
            if task.update and ticket in running:
                self._died(task, ticket)
            if self.tickets.pop(ticket, None) is not None:
                entry = self.entries[task.id]
                entry.ticket = None
                if not reassign:
                    self.ending[task.id] = Lost
                elif ticket in running:
                    self.charge(entry, Lost)
                else:
                    self.requeue(entry)

    def stopped(self, workerID: int) -> None:
        assert self.workers.pop(workerID).stopping
        self.gone.add(workerID)
        self.obey(self.scheduler.stopped(workerID))

    def tick(self) -> None:
        self.ticking = 0
        self.obey(self.scheduler.tick())

    def look(self) -> None:
        self.obey(self.scheduler.look())

    def reviewUnserved(self) -> None:
        present = [worker for worker in self.workers.values() if not worker.leaving]
        queued = [entry.task for entry in self.entries.values() if entry.queued]
        waiting = Counter(task.series for task in queued if not any(worker.isQualified(task) for worker in present))
        assert self.scheduler.unserved == waiting.total()
        self.unserved = {series: number for series, number in waiting.items() if series not in self.reported}
        assert self.scheduler.unreviewed or not self.unserved, "a review is wanted"
        self.reported.update(self.unserved)
        self.obey(self.scheduler.reviewUnserved())
        assert not self.unserved, "each series without a worker is reported"
        assert not self.scheduler.unreviewed

    def strand(self) -> None:
        self.stranded = True
        self.ending.update((t, Refused) for t, e in self.entries.items() if e.queued)
        self.obey(self.scheduler.strand("nobody comes"))

    def shutdown(self) -> None:
        self.closing = True
        for worker in self.workers.values():
            if worker.away:
                self._leave(worker)
        self.obey(self.scheduler.shutdown())

    def finishAll(self) -> None:
        """Let everything end that can, in the order in which it was begun."""
        while True:
            busy = False
            for worker in list(self.workers.values()):
                worker.stuck = False
                for ticket in list(worker.back):
                    self.finish(ticket, worker.back[ticket])
                    busy = True
                for ticket in worker.running:
                    self.finish(ticket, Returned(None))
                    busy = True
                for taskID in list(worker.iterations):
                    self.endIteration(worker.id, taskID)
                    busy = True
                if worker.stopping:
                    self.stopped(worker.id)
                    busy = True
            if not busy:
                return

    # How commands are obeyed.

    def obey(self, commands: list[Command]) -> None:
        """Hold each command against the ledger, and do it."""
        for worker in self.workers.values():
            worker.joining = worker.joining and bool(worker.given or worker.updates)
        settled = [isinstance(command, Settle) for command in commands]
        given = [isinstance(command, Assign) for command in commands]
        assert not any(given[settled.index(True) :] if any(settled) else ()), "no worker waits for what a caller does"
        for command in commands:
            self._obey(command)
        self.check()

    def _obey(self, command: Command) -> None:
        if isinstance(command, Assign):
            self._assigned(self.workers[command.worker], command.ticket, command.task)
        elif isinstance(command, Settle):
            self._settled(self.entries[command.task], command.settlement)
        elif isinstance(command, Arm):
            task = next(f.given[command.ticket] for f in self.workers.values() if command.ticket in f.given)
            assert task.timeout == command.seconds
            assert command.ticket in self.tickets
            assert command.ticket not in self.armed, "a clock is started once"
            self.armed[command.ticket] = command.seconds
        elif isinstance(command, Interrupt):
            assert command.ticket in self.workers[command.worker].given
            assert command.ticket not in self.tickets, "only what is not wanted is interrupted"
        elif isinstance(command, Recall):
            self.workers[command.worker].recall()
        elif isinstance(command, WorkerReady):
            worker = self.workers[command.worker]
            assert not worker.announced
            assert not worker.updates, "a worker has run the saved updates when it is hired"
            assert not worker.leaving
            worker.announced = True
        elif isinstance(command, UpdateAbandoned):
            self.abandoned.remove(command.update.id)
        elif isinstance(command, Updated):
            self.owed.remove((command.update, command.worker))
            turns = self.turns.get(command.update, [])
            if turns and turns[0] == command.worker:
                del turns[0]
                if turns:
                    self._begin(command.update, turns[0])
        elif isinstance(command, Discard):
            self.sources.remove(command.source)
        elif isinstance(command, Stop):
            worker = self.workers[command.worker]
            if self._isEmptied():
                self._leave(worker)
            assert worker.leaving, "a worker is stopped because it leaves"
            assert not worker.given, "a worker finishes what it holds"
            assert not worker.iterations, "a worker keeps its iterators to their end"
            assert not worker.stopping, "a worker is stopped once"
            worker.stopping = True
        elif isinstance(command, Tick):
            assert 0 < command.budgets < (self.ticking or float("inf")), (
                "one tick at a time, unless it is to come sooner"
            )
            self.ticking = command.budgets
        elif isinstance(command, Unserved):
            assert self.unserved.pop(command.series) == command.calls, "a series is reported once"
        else:
            assert isinstance(command, Closed)
            assert self.closing
            assert not self.closed
            assert not self.workers
            assert not self._unsettled()
            self.closed = True

    def _assigned(self, worker: ModelWorker, ticket: int, task: Task) -> None:
        assert ticket > self.lastTicket, "a ticket is used once"
        self.lastTicket = ticket
        assert not worker.leaving
        assert len(worker.given) < worker.window.most
        if task.update:
            assert not worker.given, "an update runs alone"
            assert not worker.shut, "no update while it is away"
            assert task.id == min(worker.updates), "updates run in the order in which they were made"
        else:
            entry = self.entries[task.id]
            assert worker.announced, "no task before the saved updates"
            assert not worker.shut, "no task while it is away"
            assert not worker.joining, "no task before an update, and none while it restarts"
            self._checkTurn(worker, entry)
            assert task.attempt == entry.attempt <= task.retries
            if entry.rank[0] == FAIR:
                self.served.append(entry)
                entry.rank = (BEGUN, ticket)
            entry.ticket = ticket
            self.tickets[ticket] = task.id
        worker.given[ticket] = worker.run[ticket] = task

    def _checkTurn(self, worker: ModelWorker, entry: Entry) -> None:
        """It is this worker's turn, and this task's."""
        assert self._waits(entry), "a task is in one place"
        assert worker.mayRun(entry.task), "a worker is qualified for what it runs"
        for other in self.entries.values():
            if self._waits(other) and other is not entry and worker.mayRun(other.task):
                assert entry.rank[0] <= other.rank[0], "doNext before all, doLast after all"
                if entry.rank[0] == other.rank[0] and (entry.rank[0] != FAIR or entry.flow == other.flow):
                    assert entry.rank < other.rank, "first in, first out"
        for rival in self.workers.values():
            if rival.roomy and len(rival.given) < len(worker.given):
                assert not self._mayRunNow(rival), "the worker with the fewest unfinished tasks goes first"

    def _waits(self, entry: Entry) -> bool:
        """It is queued, and has not ended: of that, it is told last."""
        return entry.queued and entry.task.id not in self.ending

    def _settled(self, entry: Entry, settlement: Settlement) -> None:
        assert entry.settlement is None, "a task is settled once"
        expected = self.ending.pop(entry.task.id, None)
        if expected is None:
            assert isinstance(settlement, Refused)
            assert self.closing
            assert entry.queued
            assert not any(worker.mayRun(entry.task) for worker in self.workers.values()), (
                "only the stranded are refused"
            )
        else:
            assert isinstance(settlement, expected)
        if isinstance(settlement, Iterating):
            self.sources.remove(settlement.source)
        entry.settlement = settlement

    # What must hold between events.

    def check(self) -> None:
        self.scheduler.validate()
        assert not self.ending, "what has ended is settled at once"
        assert not self.abandoned, "an update that is run no more is told of"
        self.checkWork()
        self.checkClocks()
        due = {(update, worker.id) for worker in self.workers.values() for update in worker.updates}
        held = {
            (task.id, worker.id) for worker in self.workers.values() for task in worker.given.values() if task.update
        }
        assert self.owed == due | held, "an update is answered when it has ended, or has no worker any more"
        for worker in self.workers.values():
            mine = self._isEmptied()
            state = self.scheduler.workerState(worker.id)
            assert (state is WorkerState.LEAVING) == (
                worker.leaving or (mine and not worker.given and not worker.updates)
            )
            if state is WorkerState.LEAVING:
                self._leave(worker)
                assert worker.stopping == (not worker.given and not worker.iterations), (
                    "who has nothing left is stopped"
                )
        if self.closing and not self.workers and not self._unsettled():
            assert self.closed, "a queue with nothing left is closed"
        assert self.scheduler.unfinished == len(self._unsettled())
        assert self.scheduler.queued == sum(e.queued for e in self.entries.values())
        assert not self.sources, "each iterator is taken charge of"

    def checkWork(self) -> None:
        """No worker with room idles beside what it may run."""
        for worker in self.workers.values():
            if worker.roomy or self.scheduler.workerState(worker.id) is WorkerState.OPEN:
                assert not self._mayRunNow(worker)
            if worker.updates and not worker.given:
                assert worker.leaving or worker.shut or worker.away, "an update begins as soon as it can"

    def checkClocks(self) -> None:
        """The time of what a worker can have started is running. One that is away starts nothing: it only reports."""
        for worker in self.workers.values():
            if worker.away:
                continue
            for ticket in list(worker.given)[: worker.window.running]:
                if ticket in self.tickets and worker.given[ticket].timeout is not None:
                    assert ticket in self.armed

    # The ledger's own business.

    def number(self) -> int:
        self.last += 1
        return self.last

    def abandon(self, ticket: int) -> None:
        self.entries[self.tickets.pop(ticket)].ticket = None

    def charge(self, entry: Entry, spent: type[Settlement]) -> None:
        """A start has come to nothing; if it was the last allowed, the task is settled."""
        entry.attempt += 1
        if entry.attempt > entry.task.retries:
            self.ending[entry.task.id] = spent
        else:
            self.requeue(entry)

    def requeue(self, entry: Entry) -> None:
        """A task is queued again, unless there is nobody to come for it."""
        if self.stranded:
            self.ending[entry.task.id] = Refused

    def _owe(self, worker: ModelWorker) -> None:
        self.owed |= {(update, worker.id) for update in worker.updates}

    def _updateEnded(self, worker: ModelWorker, ticket: int, update: Task, outcome: RunOutcome) -> None:
        if isinstance(outcome, ENDED):
            worker.updates.discard(update.id)
            self.deaths[update.id] = self.charged[update.id] = 0
        elif not isinstance(outcome, Recalled):
            self._died(update, ticket)
        if update.id in self.givenUp:
            worker.updates.discard(update.id)

    def _died(self, update: Task, ticket: int) -> None:
        if ticket <= self.charged.get(update.id, 0):
            return  # it was under way at the last death: it may have been the same that killed both
        self.charged[update.id] = self.lastTicket
        self.deaths[update.id] = self.deaths.get(update.id, 0) + 1
        if self.deaths[update.id] > update.retries:
            self.givenUp.add(update.id)
            if self.saved.pop(update.id, None) is not None:
                self.abandoned.add(update.id)
            for worker in self.workers.values():
                if all(task.id != update.id for task in worker.given.values()):
                    worker.updates.discard(update.id)

    def _leave(self, worker: ModelWorker) -> None:
        if not worker.leaving:
            worker.leaving = True
            worker.updates.clear()

    def _mayRunNow(self, worker: ModelWorker) -> bool:
        return any(self._waits(entry) and worker.mayRun(entry.task) for entry in self.entries.values())

    def _isEmptied(self) -> bool:
        """Whether a queue that shuts down has nothing left to do."""
        return self.closing and not self._unsettled() and not any(len(turns) > 1 for turns in self.turns.values())

    def _unsettled(self) -> list[int]:
        return [taskID for taskID, entry in self.entries.items() if entry.settlement is None]
