"""Work in threads: one dedicated thread a worker, or a thread alone.

A `ThreadQueue` has workers, each with a thread of its own; a `ThreadLooper` is such a thread without a queue, and
`deferToThread` one that is there for whoever calls. A call cannot be ended from outside in Python. So when one is to
end, its thread is *abandoned*, and a fresh one takes its place at once. `asynqueue.lanes` is about the threads.

The bridges of `asynqueue.bridges` are here by name.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, overload

from twisted.internet.defer import CancelledError, Deferred, succeed
from typing_extensions import Unpack

from asynqueue.base import TaskQueue
from asynqueue.core.records import (
    CallSpec,
    Interrupted,
    Iterating,
    Lost,
    Recalled,
    Returned,
    RunOutcome,
    Task,
)
from asynqueue.core.window import Window
from asynqueue.deferator import Deferator
from asynqueue.delay import installedReactor
from asynqueue.errors import QueueRunError, ThreadError
from asynqueue.interfaces import Report, Resignator
from asynqueue.lanes import CallJob, Lane, OwnThread
from asynqueue.options import QueueOptions, checkCallable, seriesOf
from asynqueue.settling import errorOf, failureOf, unawaited

if TYPE_CHECKING:
    from asynqueue.bridges import Consumerator as Consumerator
    from asynqueue.bridges import Filerator as Filerator
    from asynqueue.bridges import IterationGetter as IterationGetter
    from asynqueue.bridges import OrderedItemProducer as OrderedItemProducer
    from asynqueue.bridges import PoolUser as PoolUser

_BRIDGES = ("Consumerator", "Filerator", "IterationGetter", "OrderedItemProducer", "PoolUser")

__all__ = [
    "Consumerator",
    "Filerator",
    "IterationGetter",
    "OrderedItemProducer",
    "PoolUser",
    "ThreadLooper",
    "ThreadQueue",
    "ThreadWorker",
    "deferToThread",
]

T = TypeVar("T")
P = ParamSpec("P")


class ThreadQueue(TaskQueue):
    """A queue with WORKERS threads of its own.

    RAW and the other keywords are those of `ThreadWorker` and `asynqueue.base.TaskQueue`.
    """

    def __init__(self, raw: bool = False, workers: int = 1, **kw: Unpack[QueueOptions]) -> None:
        if type(workers) is not int or workers < 1:
            raise ValueError(f"a ThreadQueue has at least one worker, got {workers!r}")
        super().__init__(**kw)
        for _ in range(workers):
            self.hire(ThreadWorker(raw=raw, reactor=kw.get("reactor")))

    @overload
    def deferToThread(
        self, f: Callable[P, Iterator[T]], /, *args: P.args, **kw: P.kwargs
    ) -> Deferred[Deferator[T]]: ...
    @overload
    def deferToThread(self, f: Callable[P, T], /, *args: P.args, **kw: P.kwargs) -> Deferred[T]: ...
    def deferToThread(self, f: Callable[..., Any], /, *args: Any, **kw: Any) -> Deferred[Any]:
        """A Deferred of what F gives, called in the queue's thread, past the queue: next after what the thread has.

        Of several threads, the one with the fewest unfinished calls has it. Every argument is F's own. An iterator
        comes as a `Deferator`, unless the queue is raw. To cancel it is as for a call in the queue. Shutting down
        waits for the call, though not for its iterator. Raises `asynqueue.errors.QueueRunError` on a queue that has
        been shut down or has no thread.

        >>> d = queue.deferToThread(connection.interrupt)                   # doctest: +SKIP
        """
        if not self.isRunning():
            raise QueueRunError(f"the queue is not running: {CallSpec(f, args, kw)} was not run")
        workers = [worker for worker in self.workers() if isinstance(worker, ThreadWorker)]
        if not workers:
            raise QueueRunError(f"the queue has no thread: {CallSpec(f, args, kw)} was not run")
        return min(workers, key=lambda worker: worker.unfinished).deferToThread(f, *args, **kw)


class ThreadWorker:
    """Runs calls in one thread of its own, one after another.

    It is qualified for the series ``thread`` and ``local``, and those in SERIES. With RAW, an iterator is a result
    like any other. A call that is cancelled or whose time runs out while it is running goes on to its end in a
    thread that is abandoned, and named so; a fresh thread has the next call. REACTOR is the installed one if it is not
    given.

    >>> queue = TaskQueue(ThreadWorker(series=["files"]))                        # doctest: +SKIP
    >>> d = queue.call(path.read_text, series="files")                           # doctest: +SKIP
    """

    cQualified: tuple[str, ...] = ("thread", "local")
    window: Window = Window(1, 64)

    def __init__(self, series: Iterable[Hashable] = (), raw: bool = False, *, reactor: Any = None) -> None:
        self.qualifications: frozenset[Hashable] = seriesOf(self.cQualified, series)
        self._raw = raw
        self._reactor = reactor
        self._thread = OwnThread(reactor, self._refreshed, self._tell)
        self._resign: Resignator | None = None
        self._report: Report | None = None
        self._given: dict[int, _TicketJob] = {}  # by ticket
        self._outcomes: list[tuple[int, RunOutcome]] = []  # what is to be reported

    def setResignator(self, resign: Resignator) -> None:
        """RESIGN is called when a thread has been abandoned for a fresh one."""
        self._resign = resign

    def run(self, task: Task) -> Deferred[RunOutcome]:
        """Make the call of TASK in the thread, which is started for the first one."""
        job = _TaskJob(task, self._raw if task.raw is None else task.raw, self._thread)
        self._thread.start(job)
        return job.deferred

    def setReport(self, report: Report) -> None:
        """REPORT is called with the outcomes of what was given under tickets."""
        self._report = report

    def give(self, runs: Sequence[tuple[int, Task]]) -> None:
        """Make the calls of RUNS as `run` does, and report the outcome of each under its ticket."""
        for ticket, task in runs:
            raw = self._raw if task.raw is None else task.raw
            job = _TicketJob(task, raw, self._thread, ticket, self._ended)
            self._thread.start(job)
            self._given[ticket] = job

    def interrupt(self, ticket: int) -> None:
        """Let go of what was given under TICKET, for which the thread may have to be abandoned."""
        if ticket in self._given:
            self._thread.interrupt(self._given[ticket])

    @overload
    def deferToThread(
        self, f: Callable[P, Iterator[T]], /, *args: P.args, **kw: P.kwargs
    ) -> Deferred[Deferator[T]]: ...
    @overload
    def deferToThread(self, f: Callable[P, T], /, *args: P.args, **kw: P.kwargs) -> Deferred[T]: ...
    def deferToThread(self, f: Callable[..., Any], /, *args: Any, **kw: Any) -> Deferred[Any]:
        """A Deferred of what F gives, called in the thread after what it has been given already."""
        return _DirectJob(CallSpec(f, args, kw), self._raw, self._thread, self._reactor).start()

    def recall(self) -> None:
        """Give back what has not started."""
        self._thread.recall()

    def stop(self) -> Deferred[None]:
        """Let the thread end when it has done what it was given; fires when it is gone."""
        return self._thread.leave()

    def crash(self) -> Sequence[Task]:
        """Abandon the thread; the tasks without an outcome."""
        tasks: list[Task] = []
        for job in self._thread.crash():
            if isinstance(job, (_TaskJob, _TicketJob)):
                tasks.append(job.task)
            else:
                job.ended(Lost("its thread was abandoned"))
        self._given.clear()
        return tasks

    @property
    def unfinished(self) -> int:
        """The number of calls it has been given and has not finished."""
        return self._thread.unfinished

    def _ended(self, ticket: int, outcome: RunOutcome) -> None:
        """What was given under TICKET has ended."""
        self._given.pop(ticket, None)
        self._outcomes.append((ticket, outcome))
        if not self._thread.hearing:
            self._tell()

    def _tell(self) -> None:
        """Report what is to be reported."""
        while self._outcomes and self._report is not None:
            outcomes, self._outcomes = self._outcomes, []
            self._report(outcomes)

    def _refreshed(self) -> None:
        if self._resign is not None:
            self._resign(returning=True)


class ThreadLooper:
    """A thread that makes one call after another, without a queue's order, retries or timeouts.

    It starts with the first call and ends with `stop`, or with the reactor. With RAW, an iterator is a result like any
    other, unless a call says otherwise. Everything here is for the reactor's thread. REACTOR is the installed one if it
    is not given.

    >>> looper = ThreadLooper()
    >>> d = looper.call(sum, range(10), doNext=True)                        # doctest: +SKIP
    """

    def __init__(self, raw: bool = False, *, reactor: Any = None) -> None:
        self._raw = raw
        self._reactor = reactor
        self._thread = OwnThread(reactor)
        self._stopped = False
        self._trigger: object = None

    @overload
    def call(
        self, f: Callable[..., T], /, *args: Any, raw: Literal[True], doNext: bool = False, **kw: Any
    ) -> Deferred[T]: ...
    @overload
    def call(
        self, f: Callable[..., Iterator[T]], /, *args: Any, doNext: bool = False, raw: bool | None = None, **kw: Any
    ) -> Deferred[Deferator[T]]: ...
    @overload
    def call(
        self, f: Callable[..., T], /, *args: Any, doNext: bool = False, raw: bool | None = None, **kw: Any
    ) -> Deferred[T]: ...
    def call(
        self, f: Callable[..., Any], /, *args: Any, doNext: bool = False, raw: bool | None = None, **kw: Any
    ) -> Deferred[Any]:
        """A Deferred of what ``f(*args, **kw)`` gives in the thread, after the calls before it.

        DONEXT puts it before those that wait. An iterator comes as a `Deferator`, whose items the thread makes between
        other calls; with RAW it is a result like any other. Cancelled, the call never runs; or, if it has started, its
        thread is abandoned, and what it gives is dropped.

        Raises `asynqueue.errors.ThreadError` after `stop`.
        """
        return self._start(CallSpec(f, args, kw), self._raw if raw is None else raw, doNext)

    @overload
    def deferToThread(
        self, f: Callable[P, Iterator[T]], /, *args: P.args, **kw: P.kwargs
    ) -> Deferred[Deferator[T]]: ...
    @overload
    def deferToThread(self, f: Callable[P, T], /, *args: P.args, **kw: P.kwargs) -> Deferred[T]: ...
    def deferToThread(self, f: Callable[..., Any], /, *args: Any, **kw: Any) -> Deferred[Any]:
        """As `call`, but every argument is F's own."""
        return self._start(CallSpec(f, args, kw), self._raw, False)

    def stop(self) -> Deferred[None]:
        """Take no more calls, and end the thread when it has made those before; fires when it is gone.

        What still iterates ends with `asynqueue.errors.WorkerLost`. May be called again.
        """
        self._stopped = True
        return self._thread.leave().addCallback(self._forgetReactor)

    @property
    def stopped(self) -> bool:
        """True once it takes no more calls."""
        return self._stopped

    def _start(self, spec: CallSpec[Any], raw: bool, urgent: bool) -> Deferred[Any]:
        if self._stopped:
            raise ThreadError(f"the ThreadLooper is stopped: {spec} was not run")
        reactor: Any = installedReactor(self._reactor)  # one that has no such events, it may be
        if self._trigger is None and hasattr(reactor, "addSystemEventTrigger"):
            self._trigger = reactor.addSystemEventTrigger("during", "shutdown", self._reactorStops)
        return _DirectJob(spec, raw, self._thread, reactor).start(urgent)

    def _forgetReactor(self, _: None) -> None:
        trigger, self._trigger = self._trigger, None
        if trigger is not None:
            reactor: Any = installedReactor(self._reactor)  # it gave us the trigger
            reactor.removeSystemEventTrigger(trigger)

    def _reactorStops(self) -> None:
        """Nothing can be waited for any more."""
        self._stopped = True
        self._trigger = None
        for job in self._thread.crash():
            job.ended(Lost("the reactor has stopped"))


_shared: ThreadLooper | None = None


@overload
def deferToThread() -> Deferred[None]: ...
@overload
def deferToThread(f: Callable[P, Iterator[T]], /, *args: P.args, **kw: P.kwargs) -> Deferred[Deferator[T]]: ...
@overload
def deferToThread(f: Callable[P, T], /, *args: P.args, **kw: P.kwargs) -> Deferred[T]: ...
def deferToThread(f: Callable[..., Any] | None = None, /, *args: Any, **kw: Any) -> Deferred[Any]:
    """A Deferred of what ``f(*args, **kw)`` gives, called in a thread that all such calls share, one after another.

    An iterator comes as a `Deferator`. To cancel it is as for `ThreadLooper.call`. The thread starts with the first
    call and ends with the reactor, or when this is called with no arguments: then the Deferred fires when it is gone,
    and the next call starts another. For the reactor's thread.

    >>> d = deferToThread(open, "/etc/hostname")                             # doctest: +SKIP
    """
    global _shared
    if f is None:
        looper, _shared = _shared, None
        return succeed(None) if looper is None else looper.stop()
    if _shared is None or _shared.stopped:
        _shared = ThreadLooper()
    return _shared.deferToThread(f, *args, **kw)


class _TaskJob(CallJob):
    """The call of a queue's task, and the Deferred of its outcome."""

    def __init__(self, task: Task, raw: bool, owner: OwnThread) -> None:
        super().__init__(task.call, raw, owner)
        self.task = task
        self.deferred: Deferred[RunOutcome] = Deferred(lambda _: owner.interrupt(self))

    def ended(self, outcome: RunOutcome) -> None:
        """Fire with OUTCOME."""
        self.deferred.callback(outcome)


class _TicketJob(CallJob):
    """The call of a queue's task, whose outcome is reported under TICKET, by ONENDED."""

    def __init__(
        self, task: Task, raw: bool, owner: OwnThread, ticket: int, onEnded: Callable[[int, RunOutcome], None]
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

    def __init__(self, call: CallSpec[Any], raw: bool, owner: OwnThread, reactor: Any) -> None:
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

    def do(self, lane: Lane) -> None:
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
            self._deferred.errback(unawaited(outcome.value, self.call))
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


if not TYPE_CHECKING:  # or a type checker would take every name for one of ours

    def __getattr__(name: str) -> Any:
        if name in _BRIDGES:
            from asynqueue import bridges

            return getattr(bridges, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
