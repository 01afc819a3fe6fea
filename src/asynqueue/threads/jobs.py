"""The calls that a thread is given, and whom each tells of its outcome."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred

from asynqueue.core.records import CallSpec, Interrupted, Iterating, Recalled, Returned, RunOutcome, Task
from asynqueue.iteration.deferator import Deferator
from asynqueue.reactor.checks import checkCallable
from asynqueue.reactor.failures import awaitableError, errorOf, failureOf
from asynqueue.threads.slot import ThreadSlot
from asynqueue.threads.thread import CallJob, WorkerThread

if TYPE_CHECKING:
    from asynqueue.bridges.base import IterationGetter as IterationGetter
    from asynqueue.bridges.consumerator import Consumerator as Consumerator
    from asynqueue.bridges.consumerator import Filerator as Filerator
    from asynqueue.bridges.ordered import OrderedItemProducer as OrderedItemProducer
    from asynqueue.bridges.threadpool import PoolUser as PoolUser


class _TaskJob(CallJob):
    """The call of a queue's task, and the Deferred of its outcome."""

    def __init__(self, task: Task, raw: bool, owner: ThreadSlot) -> None:
        super().__init__(task.call, raw, owner)
        self.task = task
        self.deferred: Deferred[RunOutcome] = Deferred(lambda _: owner.interrupt(self))

    def ended(self, outcome: RunOutcome) -> None:
        """Fire with OUTCOME."""
        self.deferred.callback(outcome)


class _TicketJob(CallJob):
    """The call of a queue's task, whose outcome is reported under TICKET, by ONENDED."""

    def __init__(
        self, task: Task, raw: bool, owner: ThreadSlot, ticket: int, onEnded: Callable[[int, RunOutcome], None]
    ) -> None:
        super().__init__(task.call, raw, owner)
        self.task = task
        self._ticket = ticket
        self._onEnded = onEnded

    def ended(self, outcome: RunOutcome) -> None:
        """Report OUTCOME."""
        self._onEnded(self._ticket, outcome)


class _DirectJob(CallJob):
    """A call of nobody but the caller, and the Deferred of its result."""

    movable = True

    def __init__(self, call: CallSpec[Any], raw: bool, owner: ThreadSlot, reactor: Any) -> None:
        checkCallable(call.f)
        super().__init__(call, raw, owner)
        self._deferred: Deferred[Any] = Deferred(self._cancel)  # of whatever the user's callable returns
        self._owner = owner
        self._reactor = reactor
        self._claim = threading.Lock()  # who has it decides: the thread that it starts, the loop that it never does
        self._wanted = True
        self._opening: Deferator[Any] | None = None

    def start(self, urgent: bool = False) -> Deferred[Any]:
        """Have it done."""
        self._owner.start(self, urgent)
        return self._deferred

    def do(self, lane: WorkerThread) -> None:
        """Make the call, unless it has been cancelled."""
        if self._claim.acquire(blocking=False):
            super().do(lane)

    def ended(self, outcome: RunOutcome) -> None:
        """Fire with what there is in OUTCOME."""
        if not self._wanted or isinstance(outcome, (Interrupted, Recalled)):
            if isinstance(outcome, Iterating):
                outcome.source.close()
            self._deferred.errback(self._cancelled())
        elif isinstance(outcome, Iterating):
            self._opening = Deferator(outcome.source, reactor=self._reactor)
            self._opening.whenKnown().addCallback(self._opened)
        elif not isinstance(outcome, Returned):
            self._deferred.errback(failureOf(errorOf(outcome, self.call)))
        elif isinstance(outcome.value, (Deferred, CoroutineType)):
            self._deferred.errback(awaitableError(outcome.value, self.call))
        else:
            self._deferred.callback(outcome.value)

    def _opened(self, deferator: Deferator[Any]) -> None:
        self._opening = None
        if not self._deferred.called:
            self._deferred.callback(deferator)

    def _cancel(self, deferred: Deferred[Any]) -> None:
        self._wanted = False
        if self._opening is not None:
            deferred.errback(self._cancelled())
            self._opening.stop()
        elif self._claim.acquire(blocking=False):
            self.end(Interrupted())
        else:
            self._owner.interrupt(self)

    def _cancelled(self) -> CancelledError:
        return CancelledError(f"{self.call} was cancelled")
