"""The calls of a queue: the Deferred of each, and what it fires with.

A call is *pending* until the scheduler settles it. A call that returned an iterator is then *opening*, until the first
item, the end or an error of the iterator is known. A Deferred that a call returned, in a thread for example, is
*awaited*: its worker takes the next call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from asynqueue.core.records import CallSpec, Cancelled, Iterating, Returned, Settlement, Task
from asynqueue.core.results import PLAIN, Kind, isA, kindOf
from asynqueue.core.scheduling.commands import Settle
from asynqueue.core.scheduling.statistics import StatsCollector
from asynqueue.core.text import errorText, valueText
from asynqueue.interfaces import Consumer, ItemSource
from asynqueue.iteration.deferator import Deferator
from asynqueue.iteration.producers import IterationProducer
from asynqueue.queue.driver import Driver
from asynqueue.queue.options import plainSeries
from asynqueue.reactor.calling import whenFired
from asynqueue.reactor.failures import ERROR, awaitableError, errorIn, errorOf, failureOf, printable, undeliverable


class Pending(Deferred[Any]):  # calls of every type are pending in one queue
    """The Deferred of a call, with what the queue has to know until it fires.

    It is one object and not two, because a queue may hold a million of them.
    """

    consumer: Consumer | None = None
    returnFailure: bool = True
    attempt: int = 0
    """The attempt that was last counted as a retry."""
    run: tuple[int, float] | None = None
    """The worker that was given the call last, and when."""

    def __init__(self, cancel: Callable[[Deferred[Any]], None], task: Task, submitted: float) -> None:
        super().__init__(cancel)
        self.task: Task = task
        self.submitted: float = submitted

    def forget(self) -> None:
        """Drop the call: a Deferred that has fired must not keep its arguments."""
        self.task = _FORGOTTEN
        if self.consumer is not None:
            self.consumer = None


_FORGOTTEN = Task(0, CallSpec(len))
"""The task of a Deferred that has fired. (A deleted attribute would cost Python 3.10 the shared layout of the object.)
"""


def _layOut() -> None:
    """Create one `Pending` with every attribute that it may get, before there are many.

    CPython lays an object out for the attributes that it has seen. A `Pending` with others would get a dict of 400
    bytes.
    """
    pending = Pending(lambda _: None, _FORGOTTEN, 0.0)
    pending.run = 0, 0.0
    pending.addCallback(lambda result: result).callback(None)
    pending.forget()


_layOut()


class Calls:
    """The pending calls of the queue that DRIVER drives. STATISTICS counts them as they end.

    WARN, VERBOSE and SPEW are those of `TaskQueue`; they write to LOG.
    """

    def __init__(
        self, driver: Driver, statistics: StatsCollector, log: Logger, warn: bool, verbose: bool, spew: bool
    ) -> None:
        self._driver = driver
        self._scheduler = driver.scheduler
        self._statistics = statistics
        self._log = log
        self._warn = warn
        self._verbose = verbose
        self._spew = spew
        self.pending: dict[int, Pending] = {}  # by task
        self.awaited: dict[int, Deferred[Any]] = {}  # by task, the Deferreds that calls have returned
        self.onNoneAwaited: Callable[[], object] = lambda: None
        self._opening: dict[int, Deferator[Any] | IterationProducer[Any]] = {}  # by task
        self._handedOut: WeakSet[Deferator[Any]] = WeakSet()  # those that callers have

    @property
    def idle(self) -> list[Deferator[Any]]:
        """The iterations for which no item is awaited."""
        return [deferator for deferator in self._handedOut if deferator.idle]

    def cancel(self, pending: Deferred[Any]) -> None:
        """Cancel a call. (This is the canceller of its Deferred.)"""
        assert isinstance(pending, Pending)
        task = pending.task
        pending.errback(CancelledError(f"{task.call} was cancelled"))
        opening, awaited = self._opening.get(task.id), self.awaited.get(task.id)
        if awaited is not None:
            awaited.cancel()
        elif opening is None:
            self._driver.happened(self._scheduler.cancel(task))
        else:
            opening.stop()

    def settle(self, command: Settle) -> None:
        """Fire the Deferred of a call that has ended."""
        pending = self.pending.pop(command.task, None)
        if pending is None:
            return
        settlement = command.settlement
        try:
            self._enter(pending, settlement)
            if isinstance(settlement, Returned):
                self._returned(pending, settlement.value)
            elif isinstance(settlement, Iterating):
                self._iterate(pending, settlement.source)
            elif isinstance(settlement, Cancelled):
                if not pending.called:  # a cancelled call did not fail: there is nothing to warn of
                    pending.errback(errorOf(settlement, pending.task.call))
                pending.forget()
            else:
                self._fail(pending, errorOf(settlement, pending.task.call))
        except BaseException as error:  # Whatever it is, the call ends.
            self._fail(pending, error)

    def _returned(self, pending: Pending, value: Any) -> None:
        if id(type(value)) in PLAIN:
            self._succeed(pending, value)
            return
        kind = kindOf(value)
        if kind is Kind.DEFERRED:
            self.awaited[pending.task.id] = value
            whenFired(value, self._fired, pending, pending.task.id)
            if pending.called:  # it was cancelled
                value.cancel()
        elif kind is Kind.COROUTINE:
            self._fail(pending, awaitableError(value, pending.task.call))
        elif (refusal := undeliverable(value)) is not None:
            self._fail(pending, refusal)
        else:
            self._succeed(pending, value)

    def _fired(self, result: Any, pending: Pending, taskID: int) -> None:
        """End a call by the RESULT of the Deferred that it returned. Its worker was free meanwhile."""
        self.awaited.pop(taskID, None)
        if isA(result, Failure):
            self._fail(pending, errorIn(result))
        else:
            self._succeed(pending, result)
        if not self.awaited:
            self.onNoneAwaited()

    def _enter(self, pending: Pending, settlement: Settlement) -> None:
        """Count how a call has ended."""
        worker = wait = run = None
        if pending.run is not None:
            worker, started = pending.run
            wait = started - pending.submitted
            run = self._driver.moment - started
        series = pending.task.series
        self._statistics.ended(series if series is None else plainSeries(series), worker, settlement, wait, run)

    def _iterate(self, pending: Pending, source: ItemSource) -> None:
        """Open the iteration of a call that returned an iterator, whose items come from SOURCE."""
        taskID, run = pending.task.id, pending.run

        def over() -> None:  # it must not refer to `pending`: its Deferred may refer to the Deferator
            if run is not None:
                self._driver.happened(self._scheduler.iterationEnded(run[0], taskID))

        def known(deferator: Deferator[Any]) -> None:
            del self._opening[taskID]
            self._handedOut.add(deferator)
            self._succeed(pending, deferator)

        def fed(result: Consumer | Failure) -> None:
            del self._opening[taskID]
            if isinstance(result, Failure):
                self._fail(pending, errorIn(result))
            else:
                self._succeed(pending, result)

        deferator: Deferator[Any] = Deferator(source, onEnded=over, reactor=self._driver.reactor)
        if pending.consumer is None:
            self._opening[taskID] = deferator
            deferator.whenKnown().addCallback(known)
            return
        try:
            producer = self._opening[taskID] = IterationProducer(deferator, pending.consumer)
        except BaseException as error:  # the consumer raised, perhaps SystemExit
            deferator.stop()
            self._fail(pending, error)
        else:
            producer.run().addBoth(fed)

    def _succeed(self, pending: Pending, result: Any) -> None:
        if not pending.called:  # it has not been cancelled since
            if self._spew:
                self._log.info("{call} -> {result}", call=pending.task.call, result=valueText(result))
            pending.callback(result)
        pending.forget()

    def _fail(self, pending: Pending, error: BaseException) -> None:
        if not pending.called:
            self._failNow(pending, error)
        pending.forget()

    def _failNow(self, pending: Pending, error: BaseException) -> None:
        reason = failureOf(error)
        if self._warn or not pending.returnFailure:
            shown = printable(error)
            named = self._verbose or not pending.returnFailure
            values: dict[str, object] = {"call": pending.task.call} if named else {}
            # Not every format of a log has the source text of a failure: that of JSON has not.
            values["traceback"] = shown.getTraceback()
            self._log.failure("{call} failed" if named else "a call failed", shown, ERROR, **values)
        if self._spew:
            self._log.info("{call} failed: {error}", call=pending.task.call, error=errorText(error))
        pending.callback(reason if pending.returnFailure else None)
