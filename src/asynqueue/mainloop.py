"""The worker of the main loop, and the other workers by name."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from typing_extensions import Unpack

from asynqueue.core.flow.iterators import isIterator
from asynqueue.core.records import Interrupted, Iterating, Raised, Recalled, Returned, RunOutcome, Task
from asynqueue.core.scheduling.window import Window
from asynqueue.interfaces import Clock, DelayedCall, Resignator
from asynqueue.iteration.sources import LocalSource
from asynqueue.queue.options import QueueOptions, seriesOf
from asynqueue.queue.taskqueue import TaskQueue
from asynqueue.reactor.calling import make
from asynqueue.reactor.lookup import installedReactor
from asynqueue.reactor.waiters import Waiters

__all__ = ["AsyncWorker", "NullQueue"]


class AsyncWorker:
    """Runs calls in the main loop, one after another.

    A call may return a Deferred or a coroutine; the next one starts when that has fired. It is qualified for the
    series ``async`` and ``local``, and those in SERIES. With RAW, an iterator is a result like any other.
    REACTOR is the installed one if it is not given.

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

    def setResignator(self, resign: Resignator) -> None:
        """The main loop never goes away: nothing to resign for."""

    def run(self, task: Task) -> Deferred[RunOutcome]:
        """Call what TASK says in the reactor's next turn."""
        raw = self._raw if task.raw is None else task.raw
        self._run = _Run(task, raw, installedReactor(self._reactor), self._ended, self._stopIfDone)
        return self._run.outcome

    def recall(self) -> None:
        """Give back the call whose turn has not come."""
        if self._run is not None and not self._run.started:
            self._run.outcome.cancel()

    def stop(self) -> Deferred[None]:
        """Fires when what runs has ended."""
        done = self._stopping.add()
        self._stopIfDone()
        return done

    def crash(self) -> Sequence[Task]:
        """Let go of what runs, and report nothing of it."""
        run = self._run
        if run is None:
            return []
        self._ended()
        run.letGo()
        self._stopIfDone()
        return [run.task]

    def _ended(self) -> None:
        """Nothing runs."""
        self._run = None

    def _stopIfDone(self) -> None:
        """The outcome of what ran is known: unless that has brought another call, fire what waits for the end."""
        if self._run is None:
            self._stopping.fire(None)


class _Run:
    """One call in the main loop, from the turn before it starts to its outcome.

    Just before it tells that, it calls ONENDED, and just after, ONTOLD.
    """

    def __init__(
        self,
        task: Task,
        raw: bool,
        reactor: Clock,
        onEnded: Callable[[], None],
        onTold: Callable[[], None],
    ) -> None:
        self.task = task
        self.outcome: Deferred[RunOutcome] = Deferred(self._interrupted)
        self._raw = raw
        self._reactor = reactor
        self._onEnded = onEnded
        self._onTold = onTold
        self._wanted = True
        self._started = 0.0
        self._result: Deferred[Any] | None = None  # the user's callable may return anything
        self._toStart: DelayedCall | None = reactor.callLater(0, self._start)

    @property
    def started(self) -> bool:
        """True from the turn in which the call is made."""
        return self._toStart is None

    def letGo(self) -> None:
        """Do not start the call; or, when it has started, cancel the Deferred it gave, or is about to give."""
        self._wanted = False
        if self._toStart is not None:
            self._toStart.cancel()
        elif self._result is not None:
            self._result.cancel()

    def _start(self) -> None:
        self._toStart = None
        call = self.task.call
        self._started = self._reactor.seconds()
        self._result = make(call.f, call.args, call.kw)
        self._result.addCallbacks(self._returned, self._raised)
        if not self._wanted:
            self._result.cancel()

    def _returned(self, value: Any) -> None:
        seconds = self._reactor.seconds() - self._started
        if not self._wanted:
            return
        if not self._raw and isIterator(value):
            self._end(Iterating(LocalSource(value, self._reactor), seconds))
        else:
            self._end(Returned(value, seconds))

    def _raised(self, reason: Failure) -> None:
        if self._wanted:
            self._end(Raised(reason.value or Exception("no error"), self._reactor.seconds() - self._started))

    def _interrupted(self, _: Deferred[RunOutcome]) -> None:
        self._end(Interrupted() if self.started else Recalled())
        self.letGo()

    def _end(self, outcome: RunOutcome) -> None:
        self._wanted = False
        self._onEnded()
        self.outcome.callback(outcome)
        self._onTold()


# A queue that works in the main loop.


class NullQueue(TaskQueue):
    """A queue with one `AsyncWorker`: one call after another in the main loop, in the queue's order.

    The keywords are those of `asynqueue.base.TaskQueue`.
    """

    def __init__(self, **kw: Unpack[QueueOptions]) -> None:
        super().__init__(**kw)
        self.attachOwn(AsyncWorker(reactor=kw.get("reactor")))
