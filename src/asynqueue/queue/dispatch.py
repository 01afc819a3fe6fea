"""The runs of a queue: the tasks that its workers have been given, each until its worker reports the outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from asynqueue.core.records import Interrupted, Iterating, Lost, Raised, Recalled, Returned, RunOutcome
from asynqueue.core.scheduling.commands import Assign, Interrupt
from asynqueue.core.scheduling.statistics import StatsCollector
from asynqueue.errors import ImplementationError, WorkerError
from asynqueue.interfaces import DelayedCall, ItemSource, Reporter, Worker
from asynqueue.queue.calls import Calls
from asynqueue.queue.driver import Driver


@attrs.define(eq=False)
class _Run:
    """What is to be done with the run on WORKER when it is interrupted or has ended."""

    worker: int
    outcome: Deferred[RunOutcome] | None = None
    timer: DelayedCall | None = None


class Dispatcher:
    """The runs under way on WORKERS, for CALLS, in the queue that ENGINE drives.

    A worker that is a `Reporter` says itself which run has ended how. For any other, and for a run whose time is
    limited, something has to be kept here.
    """

    def __init__(self, engine: Driver, ledger: StatsCollector, calls: Calls, workers: Mapping[int, Worker]) -> None:
        self._engine = engine
        self._scheduler = engine.scheduler
        self._ledger = ledger
        self._pending = calls.pending
        self._workers = workers
        self._reporters: dict[int, Reporter] = {}
        self._runs: dict[int, _Run] = {}  # by ticket

    def expect(self, workerID: int, worker: Worker) -> None:
        """A worker is about to be taken."""
        if isinstance(worker, Reporter):
            self._reporters[workerID] = worker
            worker.setReport(self._reported)

    def assign(self, workerID: int, commands: Sequence[Assign]) -> None:
        """Give a worker the tasks of COMMANDS."""
        worker = self._workers.get(workerID)
        if worker is None:
            return  # it has gone since
        moment = self._engine.moment
        for command in commands:
            task = command.task
            pending = self._pending.get(task.id)
            if pending is not None:
                pending.run = workerID, max(moment, pending.submitted)  # it may be of the same turn, and a later time
                if task.attempt > pending.attempt:
                    pending.attempt = task.attempt
                    self._ledger.again(task.series, workerID)
        reporter = self._reporters.get(workerID)
        if reporter is None:
            for command in commands:
                self._run(worker, command)
            return
        try:
            reporter.give([(command.ticket, command.task) for command in commands])
        except BaseException as error:  # SystemExit too: it is the calls that end, not the reactor
            self._reported([(command.ticket, Raised(error)) for command in commands])

    def _run(self, worker: Worker, command: Assign) -> None:
        try:
            outcome = worker.run(command.task)
            if not isinstance(outcome, Deferred):
                raise ImplementationError(f"{type(worker).__name__}.run gave no Deferred but {outcome!r}")
        except BaseException as error:  # as above
            self._reported([(command.ticket, Raised(error))])
            return
        self._runs[command.ticket] = _Run(command.worker, outcome)
        outcome.addBoth(self._ran, command.ticket)

    def interrupt(self, command: Interrupt) -> None:
        """Have a worker let go of a run, if it has not ended since."""
        run = self._runs.get(command.ticket)
        if run is not None and run.outcome is not None:
            run.outcome.cancel()
        elif command.worker in self._reporters:
            self._reporters[command.worker].interrupt(command.ticket)

    def arm(self, ticket: int, seconds: float) -> None:
        """Tell the scheduler in SECONDS that the run's time is up, unless it has ended by then."""
        assigned = self._scheduler.assigned(ticket)
        if assigned is not None:  # it has not ended since
            run = self._runs.setdefault(ticket, _Run(assigned[0]))
            run.timer = self._engine.clock().callLater(seconds, self._expired, ticket)

    def forgetAllOf(self, workerID: int) -> None:
        """A worker is gone, and reports nothing more."""
        self._reporters.pop(workerID, None)
        for ticket in [ticket for ticket, run in self._runs.items() if run.worker == workerID]:
            self._forget(ticket)

    def _ran(self, outcome: RunOutcome | Failure, ticket: int) -> None:
        if isinstance(outcome, Failure):
            if outcome.check(CancelledError):
                outcome = Interrupted()
            else:
                outcome = Raised(outcome.value or WorkerError("the worker failed"))
        self._reported([(ticket, outcome)])

    def _reported(self, outcomes: Sequence[tuple[int, RunOutcome]]) -> None:
        outcomes = [
            ended if type(ended[1]) is Returned and not self._runs else self._ended(*ended) for ended in outcomes
        ]
        self._engine.happened(self._scheduler.reported(outcomes))

    def _ended(self, ticket: int, outcome: RunOutcome) -> tuple[int, RunOutcome]:
        """A run has ended, and is to be reported as what this gives."""
        if self._runs:
            self._forget(ticket)
        if isinstance(outcome, Returned):
            return ticket, outcome
        if isinstance(outcome, Recalled):
            assigned = self._scheduler.assigned(ticket)
            pending = None if assigned is None else self._pending.get(assigned[1].id)
            if pending is not None:
                pending.run = None
        elif isinstance(outcome, Iterating):
            if not isinstance(outcome.source, ItemSource):
                outcome = Raised(ImplementationError(f"a worker gave no source of items but {outcome.source!r}"))
        elif not isinstance(outcome, (Raised, Interrupted, Lost)):
            outcome = Raised(ImplementationError(f"a worker gave no outcome but {outcome!r}"))
        return ticket, outcome

    def _forget(self, ticket: int) -> None:
        run = self._runs.pop(ticket, None)
        if run is not None and run.timer is not None:
            run.timer.cancel()

    def _expired(self, ticket: int) -> None:
        self._runs[ticket].timer = None
        self._engine.happened(self._scheduler.expired(ticket))
