"""Collect how the updates of a queue end on its workers."""

from __future__ import annotations

from typing import Any

import attrs
from twisted.internet.defer import Deferred, FirstError, gatherResults, succeed
from twisted.logger import Logger

from asynqueue.core.records import Lost, Raised, Returned, Task
from asynqueue.core.results import isDeferred
from asynqueue.core.scheduling.commands import UpdateAbandoned, Updated
from asynqueue.queue.driver import Driver
from asynqueue.reactor.failures import errorIn, errorOf, failureOf, printable


@attrs.define(eq=False)
class _Update:
    """An update, the workers that were there when it was made, and how it has ended on some of them."""

    task: Task
    deferred: Deferred[list[Any]]  # of results of every type
    workers: list[int]
    ended: dict[int, Returned | Raised | Lost] = attrs.field(factory=dict)


class Updates:
    """The updates that have not ended, in the queue that DRIVER drives. Failures on later workers go to LOG."""

    def __init__(self, driver: Driver, log: Logger) -> None:
        self._driver = driver
        self._scheduler = driver.scheduler
        self._log = log
        self._open: dict[int, _Update] = {}  # by task

    def begin(self, task: Task, ephemeral: bool, sequential: bool) -> Deferred[list[Any]]:
        """Run TASK on every present worker that is qualified. Return a Deferred of the list of results."""
        update = self._open[task.id] = _Update(task, Deferred(), self._scheduler.workersFor(task))
        self._driver.happened(self._scheduler.update(task, update.workers, not ephemeral, sequential))
        if not update.workers:
            self._endIfDone(update)
        return update.deferred

    def ended(self, command: Updated) -> None:
        """Note that an update has ended on one worker."""
        update = self._open.get(command.update)
        if update is None or command.worker not in update.workers or command.worker in update.ended:
            if isinstance(command.outcome, Raised):  # on a worker that came later
                self._log.failure(
                    "an update failed on worker {worker}", printable(command.outcome.error), worker=command.worker
                )
            return
        update.ended[command.worker] = command.outcome
        self._endIfDone(update)

    def abandoned(self, command: UpdateAbandoned) -> None:
        """Log that a saved update runs on no later worker."""
        self._log.error(
            "the update {call} is abandoned: two workers in a row died while they ran it. Later workers do not run it.",
            call=str(command.update.call),
        )

    def _endIfDone(self, update: _Update) -> None:
        """Fire the Deferred of UPDATE if it has ended on every worker."""
        if len(update.ended) < len(update.workers):
            return
        del self._open[update.task.id]
        results: list[Any] = []
        for workerID in update.workers:
            outcome = update.ended[workerID]
            if not isinstance(outcome, Returned):
                update.deferred.errback(failureOf(errorOf(outcome, update.task.call)))
                return
            results.append(outcome.value)
        if any(isDeferred(result) for result in results):  # as a call in a thread may return
            Deferred.fromCoroutine(_awaited(results)).chainDeferred(update.deferred)
        else:
            update.deferred.callback(results)


async def _awaited(results: list[Any]) -> list[Any]:
    """Return RESULTS, and wait for the Deferreds among them. The first that fails is the error of all."""
    try:
        ready = [result if isDeferred(result) else succeed(result) for result in results]
        return await gatherResults(ready, consumeErrors=True)
    except FirstError as error:
        raise errorIn(error.subFailure) from None
