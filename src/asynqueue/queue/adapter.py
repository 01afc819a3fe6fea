"""The methods by which a queue hands tasks over, those of a `Reporter`, and `Worker.run`: each by the other.

- A `ReportingWorker` has `give`, and therefore `run`: our workers are of this kind.
- A `RunAdapter` is for a worker that has only `Worker.run`.
- A `Run09Adapter` is for a worker that was written for 0.9, and reports to its task.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from functools import partial
from itertools import count
from typing import Any, get_args

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from asynqueue import tasks
from asynqueue.core.records import Interrupted, Iterating, Raised, Returned, RunOutcome, Task
from asynqueue.core.results import isIterator
from asynqueue.errors import ImplementationError, TimeoutError, WorkerError
from asynqueue.interfaces import Clock, IWorker, Report, Reporter, Worker
from asynqueue.iteration.sources import FetchSource, LocalSource, fetchNext
from asynqueue.queue.options import Qualified
from asynqueue.reactor.failures import errorIn


class ReportingWorker(Qualified):
    """A worker with `give` and `interrupt`, and what follows from these."""

    def __init__(self) -> None:
        self._report: Report | None = None
        self._tickets = count(-1, -1)  # those of `run`; the tickets of a queue are above 0
        self._runs: dict[int, Deferred[RunOutcome]] = {}  # by those tickets, without an outcome

    def give(self, runs: Sequence[tuple[int, Task]]) -> None:
        """Run tasks in order, after those before them, and report each outcome under its ticket."""
        raise NotImplementedError

    def interrupt(self, ticket: int) -> None:
        """End the task of TICKET at once, if it has no outcome yet."""
        raise NotImplementedError

    def setReport(self, report: Report) -> None:
        """Call REPORT with the outcomes of the tasks that `give` gets."""
        self._report = report

    def run(self, task: Task) -> Deferred[RunOutcome]:
        """Run TASK after the tasks before it. Return a Deferred of its outcome. Cancel it to interrupt the task."""
        ticket = next(self._tickets)
        outcome = self._runs[ticket] = Deferred[RunOutcome](partial(self._cancelled, ticket))
        self.give([(ticket, task)])
        return outcome

    def reported(self, outcomes: Sequence[tuple[int, RunOutcome]]) -> None:
        """Report OUTCOMES, each with its ticket."""
        if self._runs:
            for ticket, outcome in outcomes:
                if ticket in self._runs:
                    _end(self._runs.pop(ticket), outcome)
            outcomes = [ended for ended in outcomes if ended[0] > 0]
        if outcomes and self._report is not None:
            self._report(outcomes)

    def _cancelled(self, ticket: int, outcome: Deferred[RunOutcome]) -> None:
        self.interrupt(ticket)
        _end(outcome, Interrupted())  # if the call goes on to its end, or its outcome is about to be reported


class RunAdapter:
    """Runs each task that it is given by the `run` of WORKER, and reports what the Deferred fires with."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._report: Report | None = None
        self._outcomes: dict[int, Deferred[RunOutcome]] = {}  # by ticket, those that have not fired

    def setReport(self, report: Report) -> None:
        """Report outcomes to REPORT from now on."""
        self._report = report

    def give(self, runs: Sequence[tuple[int, Task]]) -> None:
        """Run each task, in order."""
        for ticket, task in runs:
            try:
                outcome = self._worker.run(task)
                if not isinstance(outcome, Deferred):
                    raise ImplementationError(f"{type(self._worker).__name__}.run gave no Deferred but {outcome!r}")
            except BaseException as error:  # SystemExit too: it ends the call, not the reactor
                self._ended(Raised(error), ticket)
            else:
                self._outcomes[ticket] = outcome
                outcome.addBoth(self._ended, ticket)

    def interrupt(self, ticket: int) -> None:
        """Cancel the Deferred of a task, if it has not fired."""
        outcome = self._outcomes.get(ticket)
        if outcome is not None:
            outcome.cancel()

    def _ended(self, outcome: RunOutcome | Failure, ticket: int) -> None:
        self._outcomes.pop(ticket, None)
        if isinstance(outcome, Failure):
            if outcome.check(CancelledError):
                outcome = Interrupted()
            else:
                outcome = Raised(errorIn(outcome))
        if self._report is not None:
            self._report([(ticket, outcome)])


class Run09Adapter(RunAdapter):
    """Runs each task by the `run` of a worker of 0.9, with an `asynqueue.tasks.Task` to which the worker reports."""

    def __init__(self, worker: Worker, reactor: Clock | None) -> None:
        super().__init__(worker)
        self._reactor = reactor

    def give(self, runs: Sequence[tuple[int, Task]]) -> None:
        """Run each task, in order."""
        for ticket, task in runs:
            outcome = self._outcomes[ticket] = Deferred[RunOutcome]()
            outcome.addBoth(self._ended, ticket)
            end = partial(_end, outcome)
            given = tasks.Task.of(task)
            given.d.addCallback(_outcomeOf, self._reactor).addBoth(end)
            try:
                worker: Any = self._worker  # it is one of 0.9
                run = worker.run(given)
            except BaseException as error:  # as above
                end(Raised(error))
            else:
                if isinstance(run, Deferred):
                    run.addCallbacks(lambda result, end=end: isinstance(result, _OUTCOMES) and end(result), end)


_OUTCOMES = get_args(RunOutcome)


def _end(outcome: Deferred[RunOutcome], result: Any) -> None:
    """Fire OUTCOME with RESULT, an outcome or a Failure. If it has been interrupted, nobody wants an iterator."""
    if not outcome.called:
        outcome.callback(result)
    elif isinstance(result, Iterating):
        result.source.close()


def _outcomeOf(reported: Any, reactor: Clock | None) -> RunOutcome:
    """Return the outcome for what a worker of 0.9 has reported: a pair of a status and a result, or a result alone."""
    if not isinstance(reported, tuple) or len(reported) != 2 or reported[0] not in (*"reintc",):
        return Returned(reported)
    status, result = reported
    if status == "e":
        error = result.value if isinstance(result, Failure) else result
        return Raised(error if isinstance(error, BaseException) else WorkerError(str(error)))
    if status == "t":
        return Raised(TimeoutError("the worker reports that the time limit has passed"))
    if status == "n":
        return Returned(None)
    if status == "i" and isinstance(result, AsyncIterator):
        return Iterating(FetchSource(partial(fetchNext, result), getattr(result, "stop", None), reactor))
    if status == "i" and isIterator(result):
        return Iterating(LocalSource(result, reactor))
    return Returned(result)


def reporterOf(worker: Worker, reactor: Clock | None) -> Reporter:
    """Return WORKER itself if it is a `Reporter`, else an adapter for it, which uses REACTOR."""
    if isinstance(worker, Reporter):
        return worker
    isOld = IWorker.providedBy(worker) and not hasattr(worker, "qualifications")
    return Run09Adapter(worker, reactor) if isOld else RunAdapter(worker)
