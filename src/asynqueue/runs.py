"""The runs of a queue: the tasks that its workers have been given, each until its worker reports the outcome."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from asynqueue.calls import Calls
from asynqueue.core.commands import Assign
from asynqueue.core.ledger import Ledger
from asynqueue.core.records import Interrupted, Iterating, Lost, Raised, Recalled, Returned, RunOutcome
from asynqueue.engine import Engine
from asynqueue.errors import ImplementationError, WorkerError
from asynqueue.interfaces import DelayedCall, ItemSource, Worker


@attrs.define(eq=False)
class Run:
    """A task that WORKER has been given, until it reports the outcome or is gone."""

    worker: int
    outcome: Deferred[RunOutcome]
    timer: DelayedCall | None = None


class Runs:
    """The runs under way on WORKERS, for CALLS, in the queue that ENGINE drives."""

    def __init__(self, engine: Engine, ledger: Ledger, calls: Calls, workers: Mapping[int, Worker]) -> None:
        self._engine = engine
        self._scheduler = engine.scheduler
        self._ledger = ledger
        self._pending = calls.pending
        self._workers = workers
        self._runs: dict[int, Run] = {}  # by ticket

    def assign(self, command: Assign) -> None:
        """Give a worker a task."""
        worker = self._workers.get(command.worker)
        if worker is None:
            return  # it has gone since
        try:
            outcome = worker.run(command.task)
            if not isinstance(outcome, Deferred):
                raise ImplementationError(f"{type(worker).__name__}.run gave no Deferred but {outcome!r}")
        except Exception as error:
            self._engine.happened(self._scheduler.finished(command.ticket, Raised(error)))
            return
        pending = self._pending.get(command.task.id)
        if pending is not None:
            if pending.started is not None:
                self._ledger.again(command.task.series, command.worker)
            pending.started = self._engine.clock().seconds()
            pending.worker = command.worker
        self._runs[command.ticket] = Run(command.worker, outcome)
        outcome.addBoth(self._ran, command)

    def get(self, ticket: int) -> Run | None:
        """The run under TICKET; None if it has ended."""
        return self._runs.get(ticket)

    def arm(self, ticket: int, seconds: float) -> None:
        """Tell the scheduler in SECONDS that the run's time is up, unless it has ended by then."""
        run = self._runs.get(ticket)
        if run is not None:
            run.timer = self._engine.clock().callLater(seconds, self._expired, ticket)

    def forgetAllOf(self, workerID: int) -> None:
        """A worker is gone, and reports nothing more."""
        for ticket in [ticket for ticket, run in self._runs.items() if run.worker == workerID]:
            self._forget(ticket)

    def _ran(self, outcome: RunOutcome | Failure, command: Assign) -> None:
        self._forget(command.ticket)
        if isinstance(outcome, Failure):
            if outcome.check(CancelledError):
                outcome = Interrupted()
            else:
                outcome = Raised(outcome.value or WorkerError("the worker failed"))
        elif not isinstance(outcome, (Returned, Raised, Iterating, Recalled, Interrupted, Lost)):
            outcome = Raised(ImplementationError(f"a worker gave no outcome but {outcome!r}"))
        elif isinstance(outcome, Iterating):
            if not isinstance(outcome.source, ItemSource):
                outcome = Raised(ImplementationError(f"a worker gave no source of items but {outcome.source!r}"))
        elif isinstance(outcome, Recalled) and command.task.id in self._pending:
            pending = self._pending[command.task.id]
            pending.started = pending.worker = None
        self._engine.happened(self._scheduler.finished(command.ticket, outcome))

    def _forget(self, ticket: int) -> None:
        run = self._runs.pop(ticket, None)
        if run is not None and run.timer is not None:
            run.timer.cancel()

    def _expired(self, ticket: int) -> None:
        self._runs[ticket].timer = None
        self._engine.happened(self._scheduler.expired(ticket))
