"""The queue: drives the pure `asynqueue.core.scheduler.Scheduler` with workers and a reactor.

What happens (a call is made, a worker answers, a timer fires) goes to the scheduler as an event; the commands it
gives back are carried out here, in order and one at a time: a command that makes something else happen adds to
the list, it does not nest. Which task goes where and when is not decided in this module.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Hashable, Iterable, Iterator
from functools import partial
from typing import Any, Literal, TypeVar, final, overload

import attrs
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from typing_extensions import Self, Unpack, assert_never

from asynqueue.contract import missing, qualifications, window
from asynqueue.core import commands as c
from asynqueue.core.ledger import Ledger, QueueStats
from asynqueue.core.records import (
    NO_KEYWORDS,
    CallSpec,
    Cancelled,
    Interrupted,
    Iterating,
    Lost,
    Raised,
    Recalled,
    Returned,
    RunOutcome,
    Settlement,
    Task,
)
from asynqueue.core.scheduler import Scheduler
from asynqueue.core.transitions import WorkerState
from asynqueue.core.window import BUDGET
from asynqueue.delay import installedReactor
from asynqueue.errors import ImplementationError, QueueRunError, WorkerError, WorkerLost
from asynqueue.interfaces import Consumer, ItemSource, Recaller, Worker
from asynqueue.iteration import Deferator, IterationProducer
from asynqueue.mapping import MapSource
from asynqueue.options import CallOptions, checkCall, checkTimeout
from asynqueue.settling import errorOf, failureOf
from asynqueue.subscription import Subscription

__all__ = ["TaskQueue"]

T = TypeVar("T")
C = TypeVar("C", bound=Consumer)

PATIENCE = 5.0
"""Seconds after which a shutdown says what it is waiting for."""


@final
class _Whatever:
    """What only a callable of an undetermined result type could return: one whose own type variables decide.

    Its arguments are not seen by `TaskQueue.call`, which therefore has it give Any; `CallSpec.of` sees them.
    """


class _Pending:
    """A call whose Deferred has not fired, and what to do with its result. As a callable, that Deferred's canceller."""

    __slots__ = ("consumer", "deferred", "queue", "returnFailure", "started", "submitted", "task", "worker")

    def __init__(
        self, queue: TaskQueue, task: Task, consumer: Consumer | None, returnFailure: bool, submitted: float
    ) -> None:
        self.queue = queue
        self.task = task
        self.consumer = consumer
        self.returnFailure = returnFailure
        self.submitted = submitted
        self.started: float | None = None
        self.worker: int | None = None  # that was given it last
        self.deferred: Deferred[Any] = Deferred(self)  # calls of every type are pending in one queue

    def __call__(self, deferred: Deferred[Any]) -> None:
        self.queue.cancel(self)


@attrs.define(eq=False)
class _Run:
    """A task that WORKER has been given, until it reports the outcome or is gone."""

    worker: int
    outcome: Deferred[RunOutcome]
    timer: IDelayedCall | None = None


@attrs.define(eq=False)
class _Update:
    """An update under way: on which workers, which of them wait for their turn, and how it ended on the others."""

    task: Task
    deferred: Deferred[list[Any]]
    workers: list[int]
    waiting: deque[int]
    ended: dict[int, Returned | Raised | Lost] = attrs.field(factory=dict)


class TaskQueue:
    """Runs calls on the workers attached to it, in a fair order of priority.

    WORKERS are attached at once, others later with `attachWorker`. TIMEOUT (seconds) is that of every call that
    does not have one of its own. With WARN, each failing call is logged as an error; with VERBOSE, what the call
    was with it; with SPEW, every call and its result is. With RETURNFAILURE false, a failing call is logged and its
    Deferred fires with None. MAXQUEUED calls or more in the queue are too many: `ready` waits until there are
    fewer. REACTOR is the installed one if it is not given.

    >>> from twisted.internet.task import Clock
    >>> from asynqueue import AsyncWorker, TaskQueue
    >>> clock = Clock()
    >>> queue = TaskQueue(AsyncWorker(reactor=clock), reactor=clock)
    >>> d = queue.call(max, 3, 5, niceness=-5).addCallback(print)
    >>> clock.advance(0)
    5
    """

    _log = Logger(namespace="asynqueue")

    def __init__(
        self,
        *workers: Worker,
        timeout: float | None = None,
        warn: bool = False,
        verbose: bool = False,
        spew: bool = False,
        returnFailure: bool = True,
        maxQueued: int | None = None,
        reactor: IReactorTime | None = None,
    ) -> None:
        checkTimeout(timeout)
        if maxQueued is not None and maxQueued < 1:
            raise ValueError(f"maxQueued must be at least 1, got {maxQueued}")
        self._timeout = timeout
        self._warn = warn
        self._verbose = verbose
        self._spew = spew
        self._returnFailure = returnFailure
        self._maxQueued = maxQueued
        self._reactor = reactor
        self._scheduler = Scheduler()
        self._ledger = Ledger()
        self._subscriptions: list[Subscription] = []
        self._todo: deque[c.Command] = deque()
        self._doing = False
        self._lastTask = 0
        self._lastWorker = 0
        self._workers: dict[int, Worker] = {}
        self._hiring: dict[int, list[Deferred[int]]] = {}
        self._leaving: dict[int, list[Deferred[list[Task]]]] = {}
        self._pending: dict[int, _Pending] = {}
        self._opening: dict[int, Deferator[Any] | IterationProducer[Any]] = {}  # by task
        self._updates: dict[int, _Update] = {}
        self._runs: dict[int, _Run] = {}  # by ticket
        self._ticker: IDelayedCall | None = None
        self._reminder: IDelayedCall | None = None
        self._closing: list[Deferred[None]] = []
        self._closed = False
        self._readying: deque[Deferred[None]] = deque()
        self._trigger: object = None
        for worker in workers:
            self.hire(worker)

    # Calls.

    @overload
    def call(
        self, f: Callable[..., object], *args: Any, consumer: C, niceness: int = 0, series: Hashable = None,
        doNext: bool = False, doLast: bool = False, timeout: float | None = None, raw: None = None,
        retries: int | None = None, returnFailure: bool | None = None, **kw: Any,
    ) -> Deferred[C]: ...  # fmt: skip
    @overload
    def call(
        self, f: Callable[..., _Whatever], *args: Any, consumer: None = None, niceness: int = 0,
        series: Hashable = None, doNext: bool = False, doLast: bool = False, timeout: float | None = None,
        raw: bool | None = None, retries: int | None = None, returnFailure: bool | None = None, **kw: Any,
    ) -> Deferred[Any]: ...  # fmt: skip
    @overload
    def call(
        self, f: Callable[..., T], *args: Any, raw: Literal[True], consumer: None = None, niceness: int = 0,
        series: Hashable = None, doNext: bool = False, doLast: bool = False, timeout: float | None = None,
        retries: int | None = None, returnFailure: bool | None = None, **kw: Any,
    ) -> Deferred[T]: ...  # fmt: skip
    @overload
    def call(
        self, f: Callable[..., Iterator[T]], *args: Any, consumer: None = None, niceness: int = 0,
        series: Hashable = None, doNext: bool = False, doLast: bool = False, timeout: float | None = None,
        raw: Literal[False] | None = None, retries: int | None = None, returnFailure: bool | None = None, **kw: Any,
    ) -> Deferred[Deferator[T]]: ...  # fmt: skip
    @overload
    def call(
        self, f: Callable[..., Deferred[T] | Coroutine[Any, Any, T]], *args: Any, consumer: None = None,
        niceness: int = 0, series: Hashable = None, doNext: bool = False, doLast: bool = False,
        timeout: float | None = None, raw: bool | None = None, retries: int | None = None,
        returnFailure: bool | None = None, **kw: Any,
    ) -> Deferred[T]: ...  # fmt: skip
    @overload
    def call(
        self, f: Callable[..., T], *args: Any, consumer: None = None, niceness: int = 0, series: Hashable = None,
        doNext: bool = False, doLast: bool = False, timeout: float | None = None, raw: bool | None = None,
        retries: int | None = None, returnFailure: bool | None = None, **kw: Any,
    ) -> Deferred[T]: ...  # fmt: skip

    def call(
        self,
        f: Callable[..., Any],
        *args: Any,
        niceness: int = 0,
        series: Hashable = None,
        doNext: bool = False,
        doLast: bool = False,
        timeout: float | None = None,
        consumer: Consumer | None = None,
        raw: bool | None = None,
        retries: int | None = None,
        returnFailure: bool | None = None,
        **kw: Any,
    ) -> Deferred[Any]:
        """Queue the call ``f(*args, **kw)``; the Deferred fires with its result.

        NICENESS, from -20 (often) to 20 (seldom), is the call's share among others that wait: N+10 gets about
        half of what N gets. Calls of one SERIES, any hashable, run only on workers qualified for it, and take
        turns with those of others. DONEXT goes before, DOLAST after all others. TIMEOUT (seconds) is from when a
        worker can start the call; on the first expiry the call is tried again at the front, on the second the
        Deferred fails with `asynqueue.errors.TimeoutError`. RETRIES is how often the call may be started again
        after its worker died or its time ran out: once, if it is not given.

        A result that is an iterator comes as a `Deferator`, or is fed to CONSUMER, with which the Deferred then
        fires; with RAW true, it is a result like any other. RETURNFAILURE is as for the queue.

        The Deferred fails with what the call raised; with `WorkerLost` when its workers died under it; with
        CancelledError when it, or its series, was cancelled. Cancel it to have the call not run, or end.

        Raises `ValueError` and `TypeError` for what is not as said here, and `asynqueue.errors.QueueRunError`
        on a queue that has been shut down.
        """
        return self._submit(
            CallSpec(f, args, kw or NO_KEYWORDS),
            niceness,
            series,
            doNext,
            doLast,
            timeout,
            consumer,
            raw,
            retries,
            returnFailure,
        )

    @overload
    def submit(
        self, spec: CallSpec[object], *, consumer: C, raw: None = None, **options: Unpack[CallOptions]
    ) -> Deferred[C]: ...
    @overload
    def submit(
        self, spec: CallSpec[T], *, raw: Literal[True], consumer: None = None, **options: Unpack[CallOptions]
    ) -> Deferred[T]: ...
    @overload
    def submit(
        self, spec: CallSpec[Iterator[T]], *, consumer: None = None, raw: Literal[False] | None = None,
        **options: Unpack[CallOptions],
    ) -> Deferred[Deferator[T]]: ...  # fmt: skip
    @overload
    def submit(
        self, spec: CallSpec[Deferred[T]], *, consumer: None = None, raw: bool | None = None,
        **options: Unpack[CallOptions],
    ) -> Deferred[T]: ...  # fmt: skip
    @overload
    def submit(
        self, spec: CallSpec[Coroutine[Any, Any, T]], *, consumer: None = None, raw: bool | None = None,
        **options: Unpack[CallOptions],
    ) -> Deferred[T]: ...  # fmt: skip
    @overload
    def submit(
        self, spec: CallSpec[T], *, consumer: None = None, raw: bool | None = None, **options: Unpack[CallOptions]
    ) -> Deferred[T]: ...

    def submit(
        self,
        spec: CallSpec[Any],
        *,
        consumer: Consumer | None = None,
        raw: bool | None = None,
        niceness: int = 0,
        series: Hashable = None,
        doNext: bool = False,
        doLast: bool = False,
        timeout: float | None = None,
        retries: int | None = None,
        returnFailure: bool | None = None,
    ) -> Deferred[Any]:
        """Queue the call SPEC, made with `CallSpec.of`; the options are those of `call`.

        A type checker holds the arguments to the callable's signature, and no name of an option can clash with
        one of the callable's.
        """
        if not isinstance(spec, CallSpec):
            raise TypeError(f"submit takes a CallSpec, as from CallSpec.of(f, ...); got {type(spec).__name__}")
        return self._submit(spec, niceness, series, doNext, doLast, timeout, consumer, raw, retries, returnFailure)

    def _submit(
        self,
        spec: CallSpec[Any],
        niceness: int,
        series: Hashable,
        doNext: bool,
        doLast: bool,
        timeout: float | None,
        consumer: Consumer | None,
        raw: bool | None,
        retries: int | None,
        returnFailure: bool | None,
    ) -> Deferred[Any]:
        checkCall(spec, niceness, series, doNext, doLast, timeout, retries, consumer)
        if not self._scheduler.running:
            raise QueueRunError(f"the queue is not running: {spec} was not queued")
        if timeout is None:
            timeout = self._timeout
        if returnFailure is None:
            returnFailure = self._returnFailure
        self._lastTask += 1
        task = Task(
            self._lastTask, spec, series, niceness, doNext, doLast, timeout, 1 if retries is None else retries, raw
        )
        pending = self._pending[task.id] = _Pending(self, task, consumer, returnFailure, self._clock().seconds())
        self._happened(self._scheduler.submit(task))
        return pending.deferred

    def update(
        self, f: Callable[..., T], *args: Any, ephemeral: bool = False, sequential: bool = False, **kw: Any
    ) -> Deferred[list[T]]:
        """Call ``f(*args, **kw)`` on every worker, past the queue; fires with the list of results.

        Unless EPHEMERAL, every worker that comes later does it too before its first task. With SEQUENTIAL, one
        worker ends it before the next begins. If F is a method of an object, that object lives on in every worker
        process, and later calls of its methods, or of itself, run on that copy.

        The Deferred fails with the first error if it fails on any worker; an update under which workers die is
        given up after the second. A ``consumer`` is a ValueError: an update has no items.
        """
        if "consumer" in kw:
            raise ValueError("an update runs on every worker and cannot feed a consumer")
        if not callable(f):
            raise TypeError(f"what is called must be callable, got {f!r}")
        spec = CallSpec(f, args, kw)
        if not self._scheduler.running:
            raise QueueRunError(f"the queue is not running: the update {spec} was not made")
        self._lastTask += 1
        task = Task(self._lastTask, spec, raw=False, update=True)
        workers = self._scheduler.workers
        deferred: Deferred[list[T]] = Deferred()
        first, rest = (workers[:1], workers[1:]) if sequential else (workers, [])
        update = self._updates[task.id] = _Update(task, deferred, workers, deque(rest))
        self._happened(self._scheduler.update(task, first, save=not ephemeral, more=bool(rest)))
        if not workers:
            self._endUpdate(update)
        return deferred

    def cancelSeries(self, series: Hashable) -> None:
        """Let no queued call of SERIES run; their Deferreds fail with CancelledError. What runs goes on."""
        self._happened(self._scheduler.cancelSeries(series))

    def cancelAll(self) -> None:
        """Let no queued call run; their Deferreds fail with CancelledError. What runs goes on."""
        self._happened(self._scheduler.cancelAll())

    def map(self, f: Callable[..., T], *iterables: Iterable[Any], **options: Unpack[CallOptions]) -> Deferator[T]:
        """The results of F for the items of ITERABLES, in order, as the built-in `map` gives them.

        So many calls are queued ahead as the taker of the results keeps up with, at most a few hundred: an endless
        iterable is fine. The items are taken in the main loop. OPTIONS are those of `call`. The first call that
        fails ends the results, after those before it; what was queued ahead of it is cancelled then.
        """
        return Deferator(MapSource(partial(self.call, f, **options), iterables), reactor=self._clock())

    def subscribe(self, consumer: Consumer) -> None:
        """Write the number of unfinished calls to CONSUMER, an `IConsumer`, now and whenever it changes.

        A consumer that has paused gets the latest number when it resumes. To be written to no more, it tells its
        producer to stop; it is unregistered from when the queue has shut down.
        """
        self._subscriptions.append(Subscription(consumer, lambda: self._scheduler.unfinished))

    def stats(self) -> QueueStats:
        """A picture of what the queue has done and is doing, as a frozen record. Cheap."""
        return self._ledger.stats(self._scheduler.queued, self._scheduler.unfinished - self._scheduler.queued)

    def ready(self) -> Deferred[None]:
        """Fires when fewer than `maxQueued` calls are queued: at once, if there is no such limit."""
        ready: Deferred[None] = Deferred(lambda d: self._readying.remove(d))
        self._readying.append(ready)
        self._happened([])
        return ready

    # Workers.

    def attachWorker(self, worker: Worker) -> Deferred[int]:
        """Take WORKER on; fires with its ID once it has run the saved updates.

        Raises `asynqueue.errors.ImplementationError` for what does not satisfy
        `asynqueue.interfaces.Worker`, and QueueRunError on a queue that has been shut down.
        """
        if not self._scheduler.running:
            raise QueueRunError("the queue is not running: it takes no workers")
        return self.hire(worker)

    def hire(self, worker: Worker) -> Deferred[int]:
        """As `attachWorker`, for the queues that bring their workers."""
        lacking = missing(worker)
        if lacking:
            raise ImplementationError(f"{type(worker).__name__} is not a Worker: it lacks {', '.join(lacking)}")
        if worker in self._workers.values():
            raise ValueError(f"{worker!r} is attached to this queue already")
        series, limits = qualifications(worker), window(worker)
        self._lastWorker += 1
        workerID = self._lastWorker
        self._workers[workerID] = worker
        hired: Deferred[int] = Deferred()
        self._hiring[workerID] = [hired]
        self._watchReactor()
        self._todo.extend(self._scheduler.hire(workerID, series, limits))
        try:
            worker.setResignator(partial(self._resigned, workerID))  # it may resign at once, or fail to start
        except Exception:
            del self._workers[workerID], self._hiring[workerID]
            self._lose(workerID, True, "the worker could not be attached")
            raise
        self._happened([])
        return hired

    def detachWorker(
        self, workerOrID: Worker | int, reassign: bool = False, crash: bool = False
    ) -> Deferred[list[Task]]:
        """Let a worker go when it has finished what it was given; fires with what it left unfinished.

        With REASSIGN, what it has not started goes back in the queue, and the list is empty. With CRASH, nothing
        is waited for: what was unfinished goes back in the queue too if REASSIGN, and else is in the list and
        fails with `WorkerLost`. Raises ValueError for a worker that is not attached.
        """
        workerID = self._workerID(workerOrID)
        left: Deferred[list[Task]] = Deferred()
        self._leaving.setdefault(workerID, []).append(left)
        if crash:
            unfinished = self._lose(workerID, reassign, "its worker was made to crash", crash=True)
            self._cleanUp(workerID, [] if reassign else unfinished)
        else:
            self._happened(self._scheduler.detach(workerID, reassign))
        return left

    def qualifyWorker(self, workerOrID: Worker | int, series: Hashable) -> None:
        """Let a worker run calls of SERIES from now on. Raises ValueError for one that is not attached."""
        self._happened(self._scheduler.qualify(self._workerID(workerOrID), series))

    def workers(self, ID: int | None = None) -> list[Worker]:
        """The workers attached, or the one of number ID. Raises ValueError if there is none."""
        return list(self._workers.values()) if ID is None else [self._workers[self._workerID(ID)]]

    def __len__(self) -> int:
        """The number of workers attached."""
        return len(self._workers)

    def __bool__(self) -> bool:
        """True while it runs and has a worker."""
        return self.isRunning() and len(self) > 0

    def isRunning(self) -> bool:
        """True until it is shut down."""
        return self._scheduler.running

    # The end.

    def shutdown(self) -> Deferred[None]:
        """Run what was taken to its end, stop every worker, leave nothing; fires when that is done.

        That includes iterations that were begun: stop a `Deferator` that will not be used to its end, or let go
        of it. May be called again. Calls that no worker is qualified for fail with QueueRunError, as do later
        ones.
        """
        done: Deferred[None] = Deferred()
        self._closing.append(done)
        if self._reminder is None and (self._pending or self._workers):
            self._reminder = self._clock().callLater(PATIENCE, self._remind)
        self._happened(self._scheduler.shutdown())
        self._closeIfDone()
        return done

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.shutdown()

    # What happens.

    def _happened(self, commands: list[c.Command]) -> None:
        """Carry out COMMANDS after those before them; then tell who waits for room, if there is some."""
        self._todo.extend(commands)
        if self._doing:
            return
        self._doing = True
        try:
            while True:
                if self._todo:
                    self._do(self._todo.popleft())
                elif self._readying and (self._maxQueued is None or self._scheduler.queued < self._maxQueued):
                    self._readying.popleft().callback(None)
                else:
                    break
        finally:
            self._doing = False
        for subscription in self._subscriptions:
            subscription.changed()

    def _do(self, command: c.Command) -> None:
        if isinstance(command, c.Assign):
            self._assign(command)
        elif isinstance(command, c.Settle):
            self._settle(command)
        elif isinstance(command, c.Tick):
            self._ticker = self._clock().callLater(BUDGET, self._ticked)
        elif isinstance(command, c.Arm):
            run = self._runs.get(command.ticket)
            if run is not None:  # it has not ended since
                run.timer = self._clock().callLater(command.seconds, self._expired, command.ticket)
        elif isinstance(command, c.Interrupt):
            run = self._runs.get(command.ticket)
            if run is not None:
                self._tell(run.worker, run.outcome.cancel)
        elif isinstance(command, c.Recall):
            worker = self._workers.get(command.worker)
            if isinstance(worker, Recaller):
                self._tell(command.worker, worker.recall)
        elif isinstance(command, c.Hired):
            for hired in self._hiring.pop(command.worker, []):
                hired.callback(command.worker)
        elif isinstance(command, c.Updated):
            self._updated(command)
        elif isinstance(command, c.Discard):
            command.source.close()
        elif isinstance(command, c.Stop):
            self._stop(command.worker)
        elif isinstance(command, c.Closed):
            self._closed = True
            self._closeIfDone()
        else:
            assert_never(command)

    def _tell(self, workerID: int, what: Callable[[], object]) -> None:
        """Have a worker do WHAT. If it cannot, that is for the log: it must not keep others from their work."""
        try:
            what()
        except Exception:
            self._log.failure("worker {worker} raised an error of its own", worker=workerID)

    def _assign(self, command: c.Assign) -> None:
        worker = self._workers.get(command.worker)
        if worker is None:
            return  # it has gone since
        try:
            outcome = worker.run(command.task)
            if not isinstance(outcome, Deferred):
                raise ImplementationError(f"{type(worker).__name__}.run gave no Deferred but {outcome!r}")
        except Exception as error:
            self._happened(self._scheduler.finished(command.ticket, Raised(error)))
            return
        pending = self._pending.get(command.task.id)
        if pending is not None:
            if pending.started is not None:
                self._ledger.again(command.task.series, command.worker)
            pending.started = self._clock().seconds()
            pending.worker = command.worker
        self._runs[command.ticket] = _Run(command.worker, outcome)
        outcome.addBoth(self._ran, command)

    def _ran(self, outcome: RunOutcome | Failure, command: c.Assign) -> None:
        self._forget(command.ticket)
        if isinstance(outcome, Failure):
            if outcome.check(CancelledError):
                outcome = Interrupted()
            else:
                outcome = Raised(outcome.value or WorkerError("the worker failed"))
        elif not isinstance(outcome, (Returned, Raised, Iterating, Recalled, Interrupted, Lost)):
            outcome = Raised(ImplementationError(f"a worker gave no outcome but {outcome!r}"))
        elif isinstance(outcome, Iterating):
            if not isinstance(outcome.source, ItemSource):
                outcome = Raised(ImplementationError(f"a worker gave no source of items but {outcome.source!r}"))
        elif isinstance(outcome, Recalled) and command.task.id in self._pending:
            pending = self._pending[command.task.id]
            pending.started = pending.worker = None
        self._happened(self._scheduler.finished(command.ticket, outcome))

    def _forget(self, ticket: int) -> None:
        run = self._runs.pop(ticket, None)
        if run is not None and run.timer is not None:
            run.timer.cancel()

    def _expired(self, ticket: int) -> None:
        self._runs[ticket].timer = None
        self._happened(self._scheduler.expired(ticket))

    def _ticked(self, heard: bool = False) -> None:
        """The time has come to see which worker is slow: when what came while this reactor was busy is HEARD."""
        if not heard:
            self._ticker = self._clock().callLater(0, self._ticked, True)
            return
        self._ticker = None
        self._happened(self._scheduler.tick())

    def cancel(self, pending: _Pending) -> None:
        """The Deferred of a call was cancelled. (For that Deferred.)"""
        pending.deferred.errback(CancelledError(f"{pending.task.call} was cancelled"))
        opening = self._opening.get(pending.task.id)
        if opening is None:
            self._happened(self._scheduler.cancel(pending.task.id))
        else:
            opening.stop()

    # How a call ends.

    def _settle(self, command: c.Settle) -> None:
        pending = self._pending.pop(command.task, None)
        if pending is None:
            return
        settlement = command.settlement
        self._enter(pending, settlement)
        if isinstance(settlement, Iterating):
            self._iterate(pending, settlement.source)
        elif isinstance(settlement, Cancelled):
            if not pending.deferred.called:  # it was not wanted, so it did not fail: there is nothing to warn of
                pending.deferred.errback(errorOf(settlement, pending.task.call))
        elif not isinstance(settlement, Returned):
            self._fail(pending, errorOf(settlement, pending.task.call))
        elif isinstance(settlement.value, Deferred):
            self._fail(
                pending, TypeError(f"{pending.task.call} returned a Deferred, which its worker does not wait for")
            )
        elif pending.consumer is None:
            self._succeed(pending, settlement.value)
        else:
            what = type(settlement.value).__name__
            self._fail(pending, TypeError(f"{pending.task.call} has a consumer, but gave no iterator: {what}"))

    def _enter(self, pending: _Pending, settlement: Settlement) -> None:
        """Enter in the ledger how a call ended."""
        wait = run = None
        if pending.started is not None:
            wait = pending.started - pending.submitted
            run = self._clock().seconds() - pending.started
        self._ledger.ended(pending.task.series, pending.worker, settlement, wait, run)

    def _iterate(self, pending: _Pending, source: ItemSource) -> None:
        """The call has returned an iterator, whose items come from SOURCE."""
        taskID, worker = pending.task.id, pending.worker

        def over() -> None:  # it may not refer to `pending`, whose Deferred may have the Deferator
            if worker is not None:
                self._happened(self._scheduler.iterationEnded(worker, taskID))

        def known(deferator: Deferator[Any]) -> None:
            del self._opening[taskID]
            self._succeed(pending, deferator)

        def fed(result: Consumer | Failure) -> None:
            del self._opening[taskID]
            if isinstance(result, Failure):
                self._fail(pending, result.value or WorkerError("the iteration failed"))
            else:
                self._succeed(pending, result)

        deferator: Deferator[Any] = Deferator(source, onEnded=over, reactor=self._reactor)
        if pending.consumer is None:
            self._opening[taskID] = deferator
            deferator.whenKnown().addCallback(known)
            return
        try:
            producer = self._opening[taskID] = IterationProducer(deferator, pending.consumer)
        except Exception as error:  # the consumer refused it
            deferator.stop()
            self._fail(pending, error)
        else:
            producer.run().addBoth(fed)

    def _succeed(self, pending: _Pending, result: Any) -> None:
        if pending.deferred.called:
            return  # it was cancelled since
        if self._spew:
            self._log.info("{call} -> {result!r}", call=pending.task.call, result=result)
        pending.deferred.callback(result)

    def _fail(self, pending: _Pending, error: BaseException) -> None:
        if pending.deferred.called:
            return
        reason = failureOf(error)
        if self._warn or not pending.returnFailure:
            if self._verbose or not pending.returnFailure:
                self._log.failure("{call} failed", reason, LogLevel.error, call=pending.task.call)
            else:
                self._log.failure("a call failed", reason, LogLevel.error)
        if self._spew:
            self._log.info("{call} failed: {error!r}", call=pending.task.call, error=error)
        pending.deferred.callback(reason if pending.returnFailure else None)

    # How an update ends.

    def _updated(self, command: c.Updated) -> None:
        update = self._updates.get(command.update)
        if update is None or command.worker not in update.workers or command.worker in update.ended:
            if isinstance(command.outcome, Raised):  # on a worker that came later
                self._log.failure(
                    "an update failed on worker {worker}", failureOf(command.outcome.error), worker=command.worker
                )
            return
        update.ended[command.worker] = command.outcome
        if update.waiting:
            following = update.waiting.popleft()
            self._happened(self._scheduler.update(update.task, [following], save=False, more=bool(update.waiting)))
        self._endUpdate(update)

    def _endUpdate(self, update: _Update) -> None:
        """Fire the Deferred of UPDATE if it has ended everywhere."""
        if len(update.ended) < len(update.workers):
            return
        del self._updates[update.task.id]
        results: list[Any] = []
        for workerID in update.workers:
            outcome = update.ended[workerID]
            if not isinstance(outcome, Returned):
                update.deferred.errback(failureOf(errorOf(outcome, update.task.call)))
                return
            results.append(outcome.value)
        update.deferred.callback(results)

    # How a worker goes.

    def _stop(self, workerID: int) -> None:
        if self._scheduler.workerState(workerID) is WorkerState.GONE:
            return  # it was lost since, and is cleaned up
        self._cleanUp(workerID, []).addCallback(lambda _: self._happened(self._scheduler.stopped(workerID)))

    def _cleanUp(self, workerID: int, unfinished: list[Task]) -> Deferred[None]:
        """Have a worker leave nothing behind; then it has left, with what is UNFINISHED."""
        stopped = maybeDeferred(self._workers[workerID].stop)
        stopped.addErrback(self._logStop, workerID)
        stopped.addCallback(lambda _: self._left(workerID, unfinished))
        return stopped

    def _logStop(self, reason: Failure, workerID: int) -> None:
        self._log.failure("worker {worker} did not stop well", reason, worker=workerID)

    def _resigned(self, workerID: int, returning: bool = False) -> None:
        if self._scheduler.workerState(workerID) is WorkerState.GONE:
            return
        if returning:
            commands = self._scheduler.restarted(workerID)
            self._happened(commands + self._takeBack(workerID))
        else:
            self._lose(workerID, True, "its worker resigned")
            self._cleanUp(workerID, []).addCallback(lambda _: self.workerLeft())

    def _lose(self, workerID: int, reassign: bool, reason: str, crash: bool = False) -> list[Task]:
        """A worker is gone, for REASON, or to CRASH now, and reports nothing more; what it had not finished.

        With REASSIGN, it first gives back what it has not started. All that comes of this is carried out in the end.
        """
        doing, self._doing = self._doing, True
        try:
            self._todo.extend(self._scheduler.detach(workerID, False))
            worker = self._workers.get(workerID)
            if reassign and isinstance(worker, Recaller):
                self._tell(workerID, worker.recall)
            if crash and worker is not None:
                self._tell(workerID, worker.crash)
            self._todo.extend(self._takeBack(workerID))
            unfinished = self._scheduler.held(workerID)
            self._todo.extend(self._scheduler.lost(workerID, reassign, reason))
            for ticket in [ticket for ticket, run in self._runs.items() if run.worker == workerID]:
                self._forget(ticket)
        finally:
            self._doing = doing
        self._happened([])
        return unfinished

    def _takeBack(self, workerID: int) -> list[c.Command]:
        """What a worker was about to be given, it is not given, and is not charged with."""
        unsent = [x.ticket for x in self._todo if isinstance(x, c.Assign) and x.worker == workerID]
        self._todo = deque(x for x in self._todo if not (isinstance(x, c.Assign) and x.worker == workerID))
        return [command for ticket in unsent for command in self._scheduler.finished(ticket, Recalled())]

    def workerLeft(self) -> None:
        """A worker has gone by itself; another may be attached. (A queue that brings its workers may differ.)"""

    def strand(self, reason: str) -> None:
        """Let no call wait for a worker any more: none will come, for REASON. They fail with QueueRunError."""
        self._happened(self._scheduler.strand(reason))

    def _left(self, workerID: int, unfinished: list[Task]) -> None:
        """A worker is gone, with what it left unfinished."""
        if self._workers.pop(workerID, None) is None:
            return
        for hired in self._hiring.pop(workerID, []):
            hired.errback(WorkerLost(f"worker {workerID} was gone before it was ready"))
        for left in self._leaving.pop(workerID, []):
            left.callback(unfinished)
        self._closeIfDone()

    def _workerID(self, workerOrID: Worker | int) -> int:
        for workerID, worker in self._workers.items():
            if workerOrID in (workerID, worker):
                return workerID
        raise ValueError(f"no such worker is attached to this queue: {workerOrID!r}")

    # How the queue goes.

    def _closeIfDone(self) -> None:
        """Fire what waits for the end, if this is it: nothing left to do, and every worker gone and cleaned up."""
        if not self._closed or self._workers:
            return
        for timer in (self._ticker, self._reminder):
            if timer is not None and timer.active():
                timer.cancel()
        if self._trigger is not None:
            self._clock().removeSystemEventTrigger(self._trigger)
            self._trigger = None
        for subscription in self._subscriptions:
            subscription.end()
        closing, self._closing = self._closing, []
        for done in closing:
            done.callback(None)

    def _remind(self) -> None:
        waiting = [str(pending.task.call) for pending in self._pending.values()][:10]
        self._log.warn(
            "the shutdown of a queue waits for {calls} calls, {iterations} iterations and {workers} workers: {waiting}",
            calls=self._scheduler.unfinished,
            iterations=self._scheduler.iterations,
            workers=len(self._workers),
            waiting=waiting,
        )

    def _watchReactor(self) -> None:
        """Have no worker outlive the reactor."""
        reactor = self._clock()
        if self._trigger is None and hasattr(reactor, "addSystemEventTrigger"):
            self._trigger = reactor.addSystemEventTrigger("during", "shutdown", self._reactorStops)

    def _reactorStops(self) -> None:
        """Nothing can be waited for any more: let every worker go at once."""
        self._trigger = None
        self._happened(self._scheduler.strand("the reactor has stopped"))
        for workerID in list(self._workers):
            self._lose(workerID, False, "the reactor has stopped", crash=True)
            self._left(workerID, [])
        self._happened(self._scheduler.shutdown())

    def _clock(self) -> Any:
        """The reactor. (Some of what one can do has no interface that a `Clock` provides: hence Any.)"""
        if self._reactor is None:
            self._reactor = installedReactor(None)
        return self._reactor
