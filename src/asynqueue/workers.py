"""The worker of the main loop, and the other workers by name."""

from __future__ import annotations

import inspect
from collections.abc import Hashable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from asynqueue.core.records import Interrupted, Iterating, Raised, Recalled, Returned, RunOutcome, Task
from asynqueue.core.window import Window
from asynqueue.delay import installedReactor
from asynqueue.interfaces import Resignator
from asynqueue.iteration import LocalSource
from asynqueue.universe import isIterator

if TYPE_CHECKING:
    from asynqueue.process import ProcessWorker as ProcessWorker
    from asynqueue.threads import ThreadWorker as ThreadWorker

__all__ = ["AsyncWorker", "ProcessWorker", "ThreadWorker"]


class AsyncWorker:
    """Runs calls in the main loop, one after another.

    A call may return a Deferred or a coroutine; the next one starts when that has fired. It is qualified for the
    series ``async`` and ``local``, and those in SERIES. With RAW, an iterator is a result like any other.
    """

    cQualified = ("async", "local")
    window = Window()

    def __init__(
        self, series: Iterable[Hashable] = (), raw: bool = False, *, reactor: IReactorTime | None = None
    ) -> None:
        self.qualifications = frozenset(self.cQualified) | frozenset(series)
        self._raw = raw
        self._reactor = reactor
        self._run: _Run | None = None

    def setResignator(self, resign: Resignator) -> None:
        """The main loop never goes away: nothing to resign for."""

    def run(self, task: Task) -> Deferred[RunOutcome]:
        """Call what TASK says in the reactor's next turn."""
        raw = self._raw if task.raw is None else task.raw
        self._run = _Run(task, raw, installedReactor(self._reactor))
        return self._run.deferred

    def stop(self) -> Deferred[None]:
        """Fires when what runs has ended."""
        if self._run is None:
            return succeed(None)
        done: Deferred[None] = Deferred()
        self._run.whenDone(lambda: done.callback(None))
        return done

    def crash(self) -> Sequence[Task]:
        """Let go of what runs."""
        if self._run is None or self._run.deferred.called:
            return []
        self._run.deferred.cancel()
        return [self._run.task]


class _Run:
    """One call in the main loop, from the turn before it starts to its outcome."""

    def __init__(self, task: Task, raw: bool, reactor: IReactorTime) -> None:
        self.task = task
        self.deferred: Deferred[RunOutcome] = Deferred(self._cancelled)
        self._raw = raw
        self._reactor = reactor
        self._started = 0.0
        self._result: Deferred[Any] | None = None  # the user's callable may return anything
        self._onDone: list[Any] = []
        self._call: IDelayedCall = reactor.callLater(0, self._start)

    def whenDone(self, callback: Any) -> None:
        """Call CALLBACK when there is an outcome."""
        if self.deferred.called:
            callback()
        else:
            self._onDone.append(callback)

    def _start(self) -> None:
        call = self.task.call
        self._started = self._reactor.seconds()
        self._result = maybeDeferred(_awaited, partial(call.f, *call.args, **call.kw))
        self._result.addCallbacks(self._returned, self._raised)

    def _returned(self, value: Any) -> None:
        seconds = self._reactor.seconds() - self._started
        if not self._raw and isIterator(value):
            self._end(Iterating(LocalSource(value, self._reactor), seconds))
        else:
            self._end(Returned(value, seconds))

    def _raised(self, reason: Failure) -> None:
        self._end(Raised(reason.value or Exception("no error"), self._reactor.seconds() - self._started))

    def _end(self, outcome: RunOutcome) -> None:
        if not self.deferred.called:
            self.deferred.callback(outcome)
        for callback in self._onDone:
            callback()
        self._onDone.clear()

    def _cancelled(self, _: Deferred[RunOutcome]) -> None:
        if self._result is None:
            self._call.cancel()
            self._end(Recalled())
        else:
            self._end(Interrupted())
            self._result.cancel()


def _awaited(f: partial[Any]) -> Any:
    """What F returns; of a coroutine, the Deferred that fires with what it returns."""
    result = f()
    return Deferred.fromCoroutine(result) if inspect.iscoroutine(result) else result


def __getattr__(name: str) -> Any:
    if name == "ThreadWorker":
        from asynqueue.threads import ThreadWorker

        return ThreadWorker
    if name == "ProcessWorker":
        from asynqueue.process import ProcessWorker

        return ProcessWorker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
