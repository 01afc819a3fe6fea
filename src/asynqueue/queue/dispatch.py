"""Hand assigned tasks to the workers, and their outcomes to the scheduler."""

from __future__ import annotations

from collections.abc import Sequence

from asynqueue.core.records import Interrupted, Iterating, Lost, Raised, Recalled, Returned, RunOutcome
from asynqueue.core.scheduling.commands import Arm, Assign, Interrupt
from asynqueue.core.scheduling.statistics import StatsCollector
from asynqueue.errors import ImplementationError
from asynqueue.interfaces import DelayedCall, ItemSource, Reporter, Worker
from asynqueue.queue.adapter import reporterOf
from asynqueue.queue.calls import Calls
from asynqueue.queue.driver import Driver
from asynqueue.queue.options import plainSeries


class Dispatcher:
    """The tasks, and their deadlines, that the workers of DRIVER's queue hold on behalf of CALLS."""

    def __init__(self, driver: Driver, statistics: StatsCollector, calls: Calls) -> None:
        self._driver = driver
        self._scheduler = driver.scheduler
        self._statistics = statistics
        self._pending = calls.pending
        self._reporters: dict[int, Reporter] = {}  # by worker
        self._timers: dict[int, tuple[int, DelayedCall]] = {}  # by ticket: the worker, and when the time is up

    def attach(self, workerID: int, worker: Worker) -> None:
        """Take the reports of a worker from now on."""
        reporter = self._reporters[workerID] = reporterOf(worker, self._driver.reactor)
        reporter.setReport(self._reported)

    def detach(self, workerID: int) -> None:
        """Forget a worker that is gone."""
        self._reporters.pop(workerID, None)
        self.forgetTimers(workerID)

    def forgetTimers(self, workerID: int) -> None:
        """Stop the timers of a worker that reports nothing more of what it holds."""
        for ticket in [ticket for ticket, (worker, _) in self._timers.items() if worker == workerID]:
            self._forgetTimer(ticket)

    def assign(self, command: Assign) -> None:
        """Give a worker a task, and those after it for the same worker."""
        workerID = command.worker
        batch = self._driver.following(command)
        reporter = self._reporters.get(workerID)
        if reporter is None:
            return  # it has gone since
        moment = self._driver.moment
        for each in batch:
            task = each.task
            pending = self._pending.get(task.id)
            if pending is not None:
                pending.run = workerID, max(moment, pending.submitted)  # it may be of the same turn, and a later time
                if task.attempt > pending.attempt:
                    pending.attempt = task.attempt
                    self._statistics.again(plainSeries(task.series), workerID)
        try:
            reporter.give([(each.ticket, each.task) for each in batch])
        except BaseException as error:  # SystemExit too: it ends the calls, not the reactor
            self._reported([(each.ticket, Raised(error)) for each in batch])

    def interrupt(self, command: Interrupt) -> None:
        """Interrupt a worker's call, if the worker is there."""
        reporter = self._reporters.get(command.worker)
        if reporter is not None:
            reporter.interrupt(command.ticket)

    def arm(self, command: Arm) -> None:
        """Report to the scheduler when the time of a call is up, unless the call has ended by then."""
        assigned = self._scheduler.assigned(command.ticket)
        if assigned is not None:  # it has not ended since
            timer = self._driver.clock().callLater(command.seconds, self._expired, command.ticket)
            self._timers[command.ticket] = assigned[0], timer

    def _reported(self, outcomes: Sequence[tuple[int, RunOutcome]]) -> None:
        outcomes = [
            ended if type(ended[1]) is Returned and not self._timers else self._ended(*ended) for ended in outcomes
        ]
        self._driver.happened(self._scheduler.reported(outcomes))

    def _ended(self, ticket: int, outcome: RunOutcome) -> tuple[int, RunOutcome]:
        """Return what is reported to the scheduler for an outcome of a worker, which may not be a valid one."""
        if self._timers:
            self._forgetTimer(ticket)
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

    def _forgetTimer(self, ticket: int) -> None:
        _, timer = self._timers.pop(ticket, (0, None))
        if timer is not None:
            timer.cancel()

    def _expired(self, ticket: int) -> None:
        del self._timers[ticket]
        self._driver.happened(self._scheduler.expired(ticket))
