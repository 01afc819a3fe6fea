"""Give a worker that has only `Worker.run` the methods by which a queue hands tasks over: those of a `Reporter`."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from asynqueue.core.records import Interrupted, Raised, RunOutcome, Task
from asynqueue.errors import ImplementationError, WorkerError
from asynqueue.interfaces import Report, Reporter, Worker


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
                outcome = Raised(outcome.value or WorkerError("the worker failed"))
        if self._report is not None:
            self._report([(ticket, outcome)])


def reporterOf(worker: Worker) -> Reporter:
    """Return WORKER itself if it is a `Reporter`, else an adapter for it."""
    return worker if isinstance(worker, Reporter) else RunAdapter(worker)
