"""What a `Scheduler` owes, as a ledger that can be read in a few minutes; and workers that behave.

Theory of operation. A `Model` stands where `TaskQueue` and its workers stand: each of its methods is something
that happens, tells the scheduler, and obeys the commands one by one. It keeps a ledger of every task and every
worker from the *events*, never from the scheduler, and each command has to agree with the ledger at the moment
it is obeyed. After every event, `check` asks for what must hold between events.

A `Far` is a worker as seen from here. It runs what it holds in the order given, as many at once as its window
says, and reports when the test says so. `back` holds what it has already decided to report.

Nothing here draws anything at random: what happens, and when, is the test's to say.
"""

from __future__ import annotations

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
class Far:
    """A worker that behaves."""

    id: int
    qualifications: frozenset[Hashable]
    window: Window
    run: dict[int, Task] = attrs.field(factory=dict)  # by ticket: running, and not yet
    back: dict[int, RunOutcome] = attrs.field(factory=dict)  # by ticket: what it is about to report
    given: dict[int, Task] = attrs.field(factory=dict)  # by ticket: all that it has not reported on
    updates: set[int] = attrs.field(factory=set)  # still to be run
    iterations: set[int] = attrs.field(factory=set)
    away: bool = False
    stuck: bool = False  # it starts nothing
    joining: bool = True  # until it holds nothing and has no update to run
    hired: bool = False
    leaving: bool = False
    stopping: bool = False

    def mayRun(self, task: Task) -> bool:
        return not self.leaving and (task.series is None or task.series in self.qualifications)

    @property
    def running(self) -> list[int]:
        """The tickets of what it runs."""
        return [] if self.stuck else list(islice(self.run, self.window.running))

    @property
    def roomy(self) -> bool:
        """True when it has room, however small its window is."""
        return not (self.leaving or self.joining or self.away) and len(self.given) < self.window.running

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
    workers: dict[int, Far] = attrs.field(factory=dict)
    gone: set[int] = attrs.field(factory=set)
    saved: dict[int, Task] = attrs.field(factory=dict)
    deaths: dict[int, int] = attrs.field(factory=dict)  # of workers in a row, by update
    charged: dict[int, int] = attrs.field(factory=dict)  # by update, the last ticket when the last death was counted
    givenUp: set[int] = attrs.field(factory=set)  # updates
    abandoned: set[int] = attrs.field(factory=set)  # those of them that were saved, and that is yet to be said
    tickets: dict[int, int] = attrs.field(factory=dict)  # entry by open ticket, unless abandoned
    armed: dict[int, float] = attrs.field(factory=dict)
    past: list[int] = attrs.field(factory=list)  # tickets that are closed
    due: dict[int, type[Settlement]] = attrs.field(factory=dict)  # what this event has to settle
    owed: set[tuple[int, int]] = attrs.field(factory=set)  # an answer for each update and worker
    sources: set[int] = attrs.field(factory=set)  # iterators nobody has taken charge of
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
            self.due[task.id] = Refused
        self.obey(self.scheduler.submit(task))
        return task.id

    def cancel(self, taskID: int) -> None:
        entry = self.entries[taskID]
        if entry.settlement is None:
            self.due[taskID] = Cancelled
            if entry.ticket is not None:
                self.abandon(entry.ticket)
        self.obey(self.scheduler.cancel(entry.task))

    def cancelSeries(self, series: Hashable) -> None:
        self.due.update((t, Cancelled) for t, e in self.entries.items() if e.queued and e.task.series == series)
        self.obey(self.scheduler.cancelSeries(series))

    def cancelAll(self) -> None:
        self.due.update((t, Cancelled) for t, e in self.entries.items() if e.queued)
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

    def hire(
        self,
        qualifications: Iterable[Hashable] = (),
        window: Window = Window(),  # noqa: B008  # it is frozen
        workerID: int | None = None,
    ) -> int:
        """A new worker, or a lost one that is there again."""
        again = self.number() if workerID is None else workerID
        self.gone.discard(again)
        far = Far(again, frozenset(qualifications), window, updates=set(self.saved))
        self.workers[far.id] = far
        self._owe(far)
        self.obey(self.scheduler.hire(far.id, far.qualifications, window))
        return far.id

    def qualify(self, workerID: int, series: Hashable) -> None:
        far = self.workers.get(workerID)
        if far is not None and not far.leaving:
            far.qualifications |= {series}
        self.obey(self.scheduler.qualify(workerID, series))

    def update(self, workerIDs: Iterable[int], save: bool, retries: int = 1) -> int:
        update = Task(self.number(), CALL, retries=retries, update=True)
        ids = list(workerIDs)
        if save:
            self.saved[update.id] = update
        for workerID in ids:
            self.owed.add((update.id, workerID))
            far = self.workers.get(workerID)
            if far is not None and not far.leaving:
                far.updates.add(update.id)
                far.joining = True
        self.obey(self.scheduler.update(update, ids, save))
        return update.id

    def finish(self, ticket: int, outcome: RunOutcome) -> None:
        """A worker reports on a TICKET that it holds."""
        far = next(far for far in self.workers.values() if ticket in far.given)
        task = far.given.pop(ticket)
        far.run.pop(ticket, None)
        far.back.pop(ticket, None)
        self.past.append(ticket)
        self.armed.pop(ticket, None)
        if isinstance(outcome, Iterating):
            self.sources.add(outcome.source)
        if task.update:
            self._updateEnded(far, ticket, task, outcome)
        elif self.tickets.pop(ticket, None) is not None:
            entry = self.entries[task.id]
            entry.ticket = None
            if isinstance(outcome, ENDED):
                self.due[task.id] = type(outcome)
                if isinstance(outcome, Iterating):
                    far.iterations.add(task.id)
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
        far = self.workers[workerID]
        running = far.running[:ran]
        for ticket in far.run:
            far.back[ticket] = Lost() if ticket in running else Recalled()
        far.run.clear()
        if not far.leaving:
            held = {task.id for task in far.given.values()}
            far.updates |= set(self.saved) - held
            far.joining = True
            self._owe(far)
        self.obey(self.scheduler.restarted(workerID))
        for taskID in list(far.iterations):
            self.endIteration(workerID, taskID)

    def resize(self, workerID: int, window: Window | None) -> None:
        """A worker's window is another; without one, it is away."""
        far = self.workers[workerID]
        far.away = window is None
        far.window = window or far.window
        self.obey(self.scheduler.resized(workerID, window))

    def lose(self, workerID: int, reassign: bool = True) -> None:
        far = self.workers.pop(workerID)
        self.gone.add(workerID)
        running = list(far.given)[: far.window.running]
        for ticket, task in far.given.items():
            self.past.append(ticket)
            self.armed.pop(ticket, None)
            if task.update and ticket in running:
                self._died(task, ticket)
            if self.tickets.pop(ticket, None) is not None:
                entry = self.entries[task.id]
                entry.ticket = None
                if not reassign:
                    self.due[task.id] = Lost
                elif ticket in running:
                    self.charge(entry, Lost)
                else:
                    self.requeue(entry)
        self.obey(self.scheduler.lost(workerID, reassign))

    def stopped(self, workerID: int) -> None:
        assert self.workers.pop(workerID).stopping
        self.gone.add(workerID)
        self.obey(self.scheduler.stopped(workerID))

    def tick(self) -> None:
        self.ticking = 0
        self.obey(self.scheduler.tick())

    def look(self) -> None:
        self.obey(self.scheduler.look())

    def strand(self) -> None:
        self.stranded = True
        self.due.update((t, Refused) for t, e in self.entries.items() if e.queued)
        self.obey(self.scheduler.strand("nobody comes"))

    def shutdown(self) -> None:
        self.closing = True
        self.obey(self.scheduler.shutdown())

    def finishAll(self) -> None:
        """Let everything end that can, in the order in which it was begun."""
        while True:
            busy = False
            for far in list(self.workers.values()):
                far.stuck = False
                for ticket in list(far.back):
                    self.finish(ticket, far.back[ticket])
                    busy = True
                for ticket in far.running:
                    self.finish(ticket, Returned(None))
                    busy = True
                for taskID in list(far.iterations):
                    self.endIteration(far.id, taskID)
                    busy = True
                if far.stopping:
                    self.stopped(far.id)
                    busy = True
            if not busy:
                return

    # How commands are obeyed.

    def obey(self, commands: list[Command]) -> None:
        """Hold each command against the ledger, and do it."""
        for far in self.workers.values():
            far.joining = far.joining and bool(far.given or far.updates)
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
            far = self.workers[command.worker]
            assert not far.hired
            assert not far.updates, "a worker has run the saved updates when it is hired"
            assert not far.leaving
            far.hired = True
        elif isinstance(command, UpdateAbandoned):
            self.abandoned.remove(command.update.id)
        elif isinstance(command, Updated):
            self.owed.remove((command.update, command.worker))
        elif isinstance(command, Discard):
            self.sources.remove(command.source)
        elif isinstance(command, Stop):
            far = self.workers[command.worker]
            if self.closing and not self._unsettled():
                self._leave(far)
            assert far.leaving, "a worker is stopped because it leaves"
            assert not far.given, "a worker finishes what it holds"
            assert not far.iterations, "a worker keeps its iterators to their end"
            assert not far.stopping, "a worker is stopped once"
            far.stopping = True
        elif isinstance(command, Tick):
            assert 0 < command.budgets < (self.ticking or float("inf")), (
                "one tick at a time, unless it is to come sooner"
            )
            self.ticking = command.budgets
        else:
            assert isinstance(command, Closed)
            assert self.closing
            assert not self.closed
            assert not self.workers
            assert not self._unsettled()
            self.closed = True

    def _assigned(self, far: Far, ticket: int, task: Task) -> None:
        assert ticket > self.lastTicket, "a ticket is used once"
        self.lastTicket = ticket
        assert not far.leaving
        assert len(far.given) < far.window.most
        if task.update:
            assert not far.given, "an update runs alone"
            assert not far.away, "no update while it is away"
            assert task.id == min(far.updates), "updates run in the order in which they were made"
        else:
            entry = self.entries[task.id]
            assert far.hired, "no task before the saved updates"
            assert not far.away, "no task while it is away"
            assert not far.joining, "no task before an update, and none while it restarts"
            self._checkTurn(far, entry)
            assert task.attempt == entry.attempt <= task.retries
            if entry.rank[0] == FAIR:
                self.served.append(entry)
                entry.rank = (BEGUN, ticket)
            entry.ticket = ticket
            self.tickets[ticket] = task.id
        far.given[ticket] = far.run[ticket] = task

    def _checkTurn(self, far: Far, entry: Entry) -> None:
        """It is this worker's turn, and this task's."""
        assert self._waits(entry), "a task is in one place"
        assert far.mayRun(entry.task), "a worker is qualified for what it runs"
        for other in self.entries.values():
            if self._waits(other) and other is not entry and far.mayRun(other.task):
                assert entry.rank[0] <= other.rank[0], "doNext before all, doLast after all"
                if entry.rank[0] == other.rank[0] and (entry.rank[0] != FAIR or entry.flow == other.flow):
                    assert entry.rank < other.rank, "first in, first out"
        for rival in self.workers.values():
            if rival.roomy and len(rival.given) < len(far.given):
                assert not self._mayRunNow(rival), "the worker with the fewest unfinished tasks goes first"

    def _waits(self, entry: Entry) -> bool:
        """It is queued, and has not ended: of that, it is told last."""
        return entry.queued and entry.task.id not in self.due

    def _settled(self, entry: Entry, settlement: Settlement) -> None:
        assert entry.settlement is None, "a task is settled once"
        expected = self.due.pop(entry.task.id, None)
        if expected is None:
            assert isinstance(settlement, Refused)
            assert self.closing
            assert entry.queued
            assert not any(far.mayRun(entry.task) for far in self.workers.values()), "only the stranded are refused"
        else:
            assert isinstance(settlement, expected)
        if isinstance(settlement, Iterating):
            self.sources.remove(settlement.source)
        entry.settlement = settlement

    # What must hold between events.

    def check(self) -> None:
        self.scheduler.validate()
        assert not self.due, "what has ended is settled at once"
        assert not self.abandoned, "an update that is run no more is told of"
        self.checkWork()
        self.checkClocks()
        due = {(update, far.id) for far in self.workers.values() for update in far.updates}
        held = {(task.id, far.id) for far in self.workers.values() for task in far.given.values() if task.update}
        assert self.owed == due | held, "an update is answered when it has ended, or has no worker any more"
        for far in self.workers.values():
            mine = self.closing and not self._unsettled()
            state = self.scheduler.workerState(far.id)
            assert (state is WorkerState.LEAVING) == (far.leaving or (mine and not far.given and not far.updates))
            if state is WorkerState.LEAVING:
                self._leave(far)
                assert far.stopping == (not far.given and not far.iterations), "who has nothing left is stopped"
        if self.closing and not self.workers and not self._unsettled():
            assert self.closed, "a queue with nothing left is closed"
        assert self.scheduler.unfinished == len(self._unsettled())
        assert self.scheduler.queued == sum(e.queued for e in self.entries.values())
        assert not self.sources, "each iterator is taken charge of"

    def checkWork(self) -> None:
        """No worker with room idles beside what it may run."""
        for far in self.workers.values():
            if far.roomy or self.scheduler.workerState(far.id) is WorkerState.OPEN:
                assert not self._mayRunNow(far)
            if far.updates and not far.given:
                assert far.leaving or far.away, "an update begins as soon as it can"

    def checkClocks(self) -> None:
        """The time of what a worker can have started is running."""
        for far in self.workers.values():
            for ticket in list(far.given)[: far.window.running]:
                if ticket in self.tickets and far.given[ticket].timeout is not None:
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
            self.due[entry.task.id] = spent
        else:
            self.requeue(entry)

    def requeue(self, entry: Entry) -> None:
        """A task is queued again, unless there is nobody to come for it."""
        if self.stranded:
            self.due[entry.task.id] = Refused

    def _owe(self, far: Far) -> None:
        self.owed |= {(update, far.id) for update in far.updates}

    def _updateEnded(self, far: Far, ticket: int, update: Task, outcome: RunOutcome) -> None:
        if isinstance(outcome, ENDED):
            far.updates.discard(update.id)
            self.deaths[update.id] = self.charged[update.id] = 0
        elif not isinstance(outcome, Recalled):
            self._died(update, ticket)
        if update.id in self.givenUp:
            far.updates.discard(update.id)

    def _died(self, update: Task, ticket: int) -> None:
        if ticket <= self.charged.get(update.id, 0):
            return  # it was under way at the last death: it may have been the same that killed both
        self.charged[update.id] = self.lastTicket
        self.deaths[update.id] = self.deaths.get(update.id, 0) + 1
        if self.deaths[update.id] > update.retries:
            self.givenUp.add(update.id)
            if self.saved.pop(update.id, None) is not None:
                self.abandoned.add(update.id)
            for far in self.workers.values():
                if all(task.id != update.id for task in far.given.values()):
                    far.updates.discard(update.id)

    def _leave(self, far: Far) -> None:
        if not far.leaving:
            far.leaving = True
            far.updates.clear()

    def _mayRunNow(self, far: Far) -> bool:
        return any(self._waits(entry) and far.mayRun(entry.task) for entry in self.entries.values())

    def _unsettled(self) -> list[int]:
        return [taskID for taskID, entry in self.entries.items() if entry.settlement is None]
