"""Work in the main loop: `AsyncWorker`, and the queue that brings one."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from typing_extensions import Unpack
from zope.interface import implementer

from asynqueue.core.records import Interrupted, Iterating, Raised, Recalled, Returned, RunOutcome, Task
from asynqueue.core.results import Kind, isA, kindOf
from asynqueue.core.scheduling.window import Window
from asynqueue.interfaces import Clock, DelayedCall, IWorker, Resignator
from asynqueue.iteration.sources import LocalSource
from asynqueue.queue.options import Qualified, QueueOptions, seriesOf
from asynqueue.queue.taskqueue import TaskQueue
from asynqueue.reactor.callercontext import CallerContext, Runner
from asynqueue.reactor.calling import make, whenFired
from asynqueue.reactor.failures import errorIn
from asynqueue.reactor.lookup import installedReactor
from asynqueue.reactor.waiters import Waiters

__all__ = ["AsyncWorker", "NullQueue"]


@implementer(IWorker)
class AsyncWorker(Qualified):
    """Runs calls in the main loop, one after another.

    A call may return a Deferred or a coroutine. The next call starts when that has fired. The worker is qualified
    for the series ``async`` and ``local``.

    Args:
        series: Further series for which the worker is qualified.
        raw: With True, an iterator is a result like any other, for calls without a `raw` of their own.
        reactor: The installed reactor by default; a `twisted.internet.task.Clock` in tests.

    >>> from twisted.internet.task import Clock
    >>> from asynqueue import TaskQueue
    >>> clock = Clock()
    >>> queue = TaskQueue(AsyncWorker(series=["mail"], reactor=clock), reactor=clock)
    >>> d = queue.call(max, 3, 5, series="mail").addCallback(print)
    >>> clock.advance(0)
    5
    """

    cQualified: tuple[str, ...] = ("async", "local")
    window: Window = Window()

    def __init__(self, series: Iterable[Hashable] = (), raw: bool = False, *, reactor: Clock | None = None) -> None:
        self.qualifications: frozenset[Hashable] = seriesOf(self.cQualified, series)
        self._raw = raw
        self._reactor = reactor
        self._run: _Run | None = None
        self._stopping = Waiters[None]()

    def setResignator(self, callableObject: Resignator) -> None:
        """Ignore `callableObject`: the main loop never goes away."""

    def run(self, task: Task) -> Deferred[RunOutcome]:
        """Make the call of `task` in the reactor's next turn."""
        raw = self._raw if task.raw is None else task.raw
        self._run = _Run(task, raw, installedReactor(self._reactor), self._ended, self._stopIfDone)
        return self._run.outcome

    def recall(self) -> None:
        """Give back the call that has not started."""
        if self._run is not None and not self._run.started:
            self._run.outcome.cancel()

    def stop(self) -> Deferred[None]:
        """Return a Deferred that fires when the running call has ended."""
        done = self._stopping.add()
        self._stopIfDone()
        return done

    def crash(self) -> Sequence[Task]:
        """Drop the running call, and return its task."""
        run = self._run
        if run is None:
            return []
        self._ended()
        run.drop()
        self._stopIfDone()
        return [run.task]

    def _ended(self) -> None:
        """Note that no call is running."""
        self._run = None

    def _stopIfDone(self) -> None:
        """Fire the Deferreds of `stop`, unless the outcome of the last call has brought another call."""
        if self._run is None:
            self._stopping.fire(None)


class _Run:
    """One call in the main loop, from the turn before it starts to its outcome.

    ONENDED is called just before the outcome is delivered, ONDELIVERED just after.
    """

    def __init__(
        self,
        task: Task,
        raw: bool,
        reactor: Clock,
        onEnded: Callable[[], None],
        onDelivered: Callable[[], None],
    ) -> None:
        self.task = task
        self.outcome: Deferred[RunOutcome] = Deferred(self._interrupted)
        self._raw = raw
        self._reactor = reactor
        self._onEnded = onEnded
        self._onDelivered = onDelivered
        self._wanted = True
        self._started = 0.0
        self._context: Runner | None = None  # that of the caller
        self._result: Deferred[Any] | None = None  # Any: a user's callable may return anything
        self._toStart: DelayedCall | None = reactor.callLater(0, self._start)

    @property
    def started(self) -> bool:
        """True from the turn in which the call is made."""
        return self._toStart is None

    def drop(self) -> None:
        """Do not start the call. If it has started, cancel the Deferred that it returned or is about to return."""
        self._wanted = False
        if self._toStart is not None:
            self._toStart.cancel()
        elif self._result is not None:
            self._result.cancel()

    def _start(self) -> None:
        self._toStart = None
        call = self.task.call
        self._started = self._reactor.seconds()
        context: CallerContext | None = self.task.context
        self._context = None if context is None else context.inLoop()
        result: Deferred[Any]
        if self._context is None:
            result = make(call.f, call.args, call.kw)
        else:
            result = self._context(make, call.f, call.args, call.kw)
        self._result = result
        whenFired(result, self._fired)
        if not self._wanted:
            result.cancel()

    def _fired(self, result: Any) -> None:
        seconds = self._reactor.seconds() - self._started
        if not self._wanted:
            return
        if isA(result, Failure):
            self._end(Raised(errorIn(result), seconds))
        elif not self._raw and kindOf(result) is Kind.ITERATOR:
            self._end(Iterating(LocalSource(result, self._reactor, self._context), seconds))
        else:
            self._end(Returned(result, seconds))

    def _interrupted(self, _: Deferred[RunOutcome]) -> None:
        self._end(Interrupted() if self.started else Recalled())
        self.drop()

    def _end(self, outcome: RunOutcome) -> None:
        self._wanted = False
        self._onEnded()
        self.outcome.callback(outcome)
        self._onDelivered()


class NullQueue(TaskQueue):
    """A queue with one `AsyncWorker`: it makes one call after another in the main loop, in the queue's order.

    Args:
        **kw: The keywords of `asynqueue.base.TaskQueue`.
    """

    def __init__(self, **kw: Unpack[QueueOptions]) -> None:
        super().__init__(**kw)
        self.attachOwn(AsyncWorker(reactor=kw.get("reactor")))
