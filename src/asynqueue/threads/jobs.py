"""The calls that a thread makes, by the way in which each delivers its outcome."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from asynqueue.core.records import CallSpec, Interrupted, Iterating, Recalled, Returned, RunOutcome, Task
from asynqueue.core.results import Kind, kindOf
from asynqueue.iteration.deferator import Deferator
from asynqueue.reactor.callercontext import callerContext
from asynqueue.reactor.calling import whenFired
from asynqueue.reactor.checks import checkCallable
from asynqueue.reactor.failures import awaitableError, errorOf, failureOf, undeliverable
from asynqueue.threads.slot import ThreadSlot
from asynqueue.threads.thread import CallJob, WorkerThread


class TaskJob(CallJob):
    """The call of a task. ONOUTCOME is called with a pair: TICKET and the outcome."""

    def __init__(
        self, task: Task, raw: bool, slot: ThreadSlot, ticket: int, onOutcome: Callable[[tuple[int, RunOutcome]], None]
    ) -> None:
        super().__init__(task.call, raw, slot.ended, task.context)
        self.task = task
        self.ticket = ticket
        self._onOutcome = onOutcome

    def deliver(self, outcome: RunOutcome) -> None:
        """Report OUTCOME."""
        self._onOutcome((self.ticket, outcome))


class DirectJob(CallJob):
    """A call without a queue. Its Deferred fires with the result, or fails with the error."""

    movable = True

    def __init__(self, call: CallSpec[Any], raw: bool, slot: ThreadSlot, reactor: Any) -> None:
        checkCallable(call.f)
        super().__init__(call, raw, slot.ended, callerContext())
        self._deferred: Deferred[Any] = Deferred(self._cancel)  # with the result of the user's callable
        self._slot = slot
        self._reactor = reactor
        # The thread acquires this to start the call, the reactor's thread to cancel it before it starts.
        self._claim = threading.Lock()
        self._wanted = True
        self._opening: Deferator[Any] | None = None
        self._awaited: Deferred[Any] | None = None  # what the call returned, until it fires

    def start(self, urgent: bool = False) -> Deferred[Any]:
        """Have the thread make the call. Return the Deferred of its result."""
        self._slot.start(self, urgent)
        return self._deferred

    def __call__(self, thread: WorkerThread) -> None:
        """Make the call in THREAD, unless it was cancelled."""
        if self._claim.acquire(blocking=False):
            super().__call__(thread)

    def deliver(self, outcome: RunOutcome) -> None:
        """Fire with the result in OUTCOME, or fail with its error."""
        if not self._wanted or isinstance(outcome, (Interrupted, Recalled)):
            if isinstance(outcome, Iterating):
                outcome.source.close()
            self._deferred.errback(self._cancelled())
        elif isinstance(outcome, Iterating):
            self._opening = Deferator(outcome.source, reactor=self._reactor)
            self._opening.whenKnown().addCallback(self._opened)
        elif not isinstance(outcome, Returned):
            self._deferred.errback(failureOf(errorOf(outcome, self.call)))
        elif kindOf(outcome.value) is Kind.DEFERRED:
            self._awaited = outcome.value
            whenFired(outcome.value, self._fired)
        elif kindOf(outcome.value) is Kind.COROUTINE:
            self._deferred.errback(awaitableError(outcome.value, self.call))
        elif (refusal := undeliverable(outcome.value)) is not None:
            self._deferred.errback(refusal)
        else:
            self._deferred.callback(outcome.value)

    def _fired(self, result: Any) -> None:
        self._awaited = None
        if not self._deferred.called:
            self._deferred.callback(result)

    def _opened(self, deferator: Deferator[Any]) -> None:
        self._opening = None
        if not self._deferred.called:
            self._deferred.callback(deferator)

    def _cancel(self, deferred: Deferred[Any]) -> None:
        self._wanted = False
        if self._awaited is not None:
            deferred.errback(self._cancelled())
            self._awaited.cancel()
        elif self._opening is not None:
            deferred.errback(self._cancelled())
            self._opening.stop()
        elif self._claim.acquire(blocking=False):
            self.end(Interrupted())
        else:
            self._slot.interrupt(self)

    def _cancelled(self) -> CancelledError:
        return CancelledError(f"{self.call} was cancelled")
