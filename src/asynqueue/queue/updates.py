"""The updates of a queue: calls that run on every worker, past the queue."""

from __future__ import annotations

from collections import deque
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from asynqueue.core.records import Lost, Raised, Returned, Task
from asynqueue.core.scheduling.commands import UpdateAbandoned, Updated
from asynqueue.queue.driver import Driver
from asynqueue.reactor.failures import errorOf, failureOf


@attrs.define(eq=False)
class _Update:
    """An update under way: on which workers, which of them wait for their turn, and how it ended on the others."""

    task: Task
    deferred: Deferred[list[Any]]  # of results of every type
    workers: list[int]
    waiting: deque[int]
    ended: dict[int, Returned | Raised | Lost] = attrs.field(factory=dict)


class Updates:
    """The updates under way in the queue that ENGINE drives; what nobody waits for is told of in LOG."""

    def __init__(self, engine: Driver, log: Logger) -> None:
        self._engine = engine
        self._scheduler = engine.scheduler
        self._log = log
        self._underWay: dict[int, _Update] = {}  # by task

    def begin(self, task: Task, ephemeral: bool, sequential: bool) -> Deferred[list[Any]]:
        """Run TASK on every worker there is; fires with the list of results."""
        workers = self._scheduler.workers
        deferred: Deferred[list[Any]] = Deferred()
        first, rest = (workers[:1], workers[1:]) if sequential else (workers, [])
        update = self._underWay[task.id] = _Update(task, deferred, workers, deque(rest))
        self._engine.happened(self._scheduler.update(task, first, save=not ephemeral, waiting=rest))
        if not workers:
            self._endIfDone(update)
        return deferred

    def ended(self, command: Updated) -> None:
        """An update has ended on one worker."""
        update = self._underWay.get(command.update)
        if update is None or command.worker not in update.workers or command.worker in update.ended:
            if isinstance(command.outcome, Raised):  # on a worker that came later
                self._log.failure(
                    "an update failed on worker {worker}", failureOf(command.outcome.error), worker=command.worker
                )
            return
        update.ended[command.worker] = command.outcome
        if update.waiting:
            following = update.waiting.popleft()
            commands = self._scheduler.update(update.task, [following], save=False, waiting=update.waiting)
            self._engine.happened(commands)
        self._endIfDone(update)

    def givenUp(self, command: UpdateAbandoned) -> None:
        """An update that was saved will not be run any more."""
        self._log.error(
            "the update {call} is given up, since worker after worker died while it ran: those to come do without it",
            call=str(command.update.call),
        )

    def _endIfDone(self, update: _Update) -> None:
        """Fire the Deferred of UPDATE if it has ended everywhere."""
        if len(update.ended) < len(update.workers):
            return
        del self._underWay[update.task.id]
        results: list[Any] = []
        for workerID in update.workers:
            outcome = update.ended[workerID]
            if not isinstance(outcome, Returned):
                update.deferred.errback(failureOf(errorOf(outcome, update.task.call)))
                return
            results.append(outcome.value)
        update.deferred.callback(results)
