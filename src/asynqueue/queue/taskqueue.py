"""The queue: drives the pure `asynqueue.core.scheduling.scheduler.Scheduler` with workers and a reactor.

What happens (a call is made, a worker answers, a timer fires) goes to the scheduler as an event, and its
`asynqueue.queue.driver` has the commands that follow carried out: with the calls and how they end
(`asynqueue.queue.calls`), the updates (`asynqueue.queue.updates`), the workers (`asynqueue.queue.registry`) and what
each of them has been given (`asynqueue.queue.dispatch`). Here is what a caller sees of that, and which command is
whose. Which task goes where and when is decided in none of them.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Coroutine, Hashable, Iterable, Iterator
from functools import partial
from itertools import islice
from types import TracebackType
from typing import Any, Literal, TypeVar, final, overload

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from typing_extensions import Self, Unpack, assert_never

from asynqueue.core.records import NO_KEYWORDS, CallSpec, Task
from asynqueue.core.scheduling import commands as c
from asynqueue.core.scheduling.scheduler import Scheduler
from asynqueue.core.scheduling.statistics import QueueStats, StatsCollector
from asynqueue.errors import QueueRunError
from asynqueue.interfaces import Clock, Consumer, DelayedCall, Worker
from asynqueue.iteration.deferator import Deferator
from asynqueue.queue.calls import Calls, Pending
from asynqueue.queue.dispatch import Dispatcher
from asynqueue.queue.driver import Driver
from asynqueue.queue.mapping import MapSource
from asynqueue.queue.options import CallOptions, checkCall, checkConsumer, checkOptions, checkSeries, checkTimeout
from asynqueue.queue.registry import WorkerRegistry
from asynqueue.queue.updates import Updates
from asynqueue.reactor.checks import checkCallable

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


class TaskQueue:
    """Runs calls on the workers attached to it, in a fair order of priority.

    WORKERS are attached at once, others later with `attachWorker`. TIMEOUT (seconds) is that of every call that
    does not have one of its own. With WARN, each failing call is logged as an error; with VERBOSE, what the call
    was with it; with SPEW, every call and its result is. With RETURNFAILURE false, a failing call is logged and its
    Deferred fires with None. MAXQUEUED calls or more in the queue are too many: `ready` waits until there are
    fewer. REACTOR is the installed one if it is not given. All of a queue is for the reactor's thread, and it lives
    until `shutdown`, or until the reactor stops.

    >>> from twisted.internet.task import Clock
    >>> from asynqueue import AsyncWorker, TaskQueue
    >>> clock = Clock()
    >>> queue = TaskQueue(AsyncWorker(reactor=clock), reactor=clock)
    >>> d = queue.call(max, 3, 5, niceness=-5).addCallback(print)
    >>> clock.advance(0)
    5
    """

    def __init__(
        self,
        *workers: Worker,
        timeout: float | None = None,
        warn: bool = False,
        verbose: bool = False,
        spew: bool = False,
        returnFailure: bool = True,
        maxQueued: int | None = None,
        reactor: Clock | None = None,
    ) -> None:
        checkTimeout(timeout)
        if maxQueued is not None and (type(maxQueued) is not int or maxQueued < 1):
            raise ValueError(f"maxQueued must be an integer of 1 or more, or None for no limit; got {maxQueued!r}")
        self._timeout = timeout
        self._returnFailure = returnFailure
        self._lastTask = 0
        self._log = Logger("asynqueue", source=self)
        self._scheduler = Scheduler()
        self._ledger = StatsCollector()
        self._workers: dict[int, Worker] = {}
        self._engine = Driver(self._scheduler, self._do, maxQueued, reactor)
        self._calls = Calls(self._engine, self._ledger, self._log, warn, verbose, spew)
        self._cancel = self._calls.cancel  # once, and not for each call
        self._updates = Updates(self._engine, self._log)
        self._runs = Dispatcher(self._engine, self._ledger, self._calls, self._workers)
        self._staff = WorkerRegistry(
            self._engine, self._log, self._runs, self._workers, self._closeIfDone, lambda: self.workerLeft()
        )
        self._closing: list[Deferred[None]] = []
        self._closed = False
        self._reminder: DelayedCall | None = None
        for worker in workers:
            self.hire(worker)

    # Calls.

    @overload
    def call(
        self, f: Callable[..., object], /, *args: Any, consumer: C, niceness: int = 0, series: Hashable = None,
        doNext: bool = False, doLast: bool = False, timeout: float | None = None, raw: None = None,
        retries: int | None = None, returnFailure: bool | None = None, **kw: Any,
    ) -> Deferred[C]: ...  # fmt: skip
    @overload
    def call(
        self, f: Callable[..., _Whatever], /, *args: Any, consumer: None = None, niceness: int = 0,
        series: Hashable = None, doNext: bool = False, doLast: bool = False, timeout: float | None = None,
        raw: bool | None = None, retries: int | None = None, returnFailure: bool | None = None, **kw: Any,
    ) -> Deferred[Any]: ...  # fmt: skip
    @overload
    def call(
        self, f: Callable[..., T], /, *args: Any, raw: Literal[True], consumer: None = None, niceness: int = 0,
        series: Hashable = None, doNext: bool = False, doLast: bool = False, timeout: float | None = None,
        retries: int | None = None, returnFailure: bool | None = None, **kw: Any,
    ) -> Deferred[T]: ...  # fmt: skip
    @overload
    def call(
        self, f: Callable[..., Iterator[T]], /, *args: Any, consumer: None = None, niceness: int = 0,
        series: Hashable = None, doNext: bool = False, doLast: bool = False, timeout: float | None = None,
        raw: Literal[False] | None = None, retries: int | None = None, returnFailure: bool | None = None, **kw: Any,
    ) -> Deferred[Deferator[T]]: ...  # fmt: skip
    @overload
    def call(
        self, f: Callable[..., Deferred[T] | Coroutine[Any, Any, T]], /, *args: Any, consumer: None = None,
        niceness: int = 0, series: Hashable = None, doNext: bool = False, doLast: bool = False,
        timeout: float | None = None, raw: bool | None = None, retries: int | None = None,
        returnFailure: bool | None = None, **kw: Any,
    ) -> Deferred[T]: ...  # fmt: skip
    @overload
    def call(
        self, f: Callable[..., T], /, *args: Any, consumer: None = None, niceness: int = 0, series: Hashable = None,
        doNext: bool = False, doLast: bool = False, timeout: float | None = None, raw: bool | None = None,
        retries: int | None = None, returnFailure: bool | None = None, **kw: Any,
    ) -> Deferred[T]: ...  # fmt: skip

    def call(
        self,
        f: Callable[..., Any],
        /,
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
        checkCall(spec, niceness, series, doNext, doLast, timeout, retries, consumer, raw)
        if not self._scheduler.running:
            raise QueueRunError(f"the queue is not running: {spec} was not queued")
        if timeout is None:
            timeout = self._timeout
        if returnFailure is None:
            returnFailure = self._returnFailure
        elif type(returnFailure) is not bool:
            raise TypeError(f"returnFailure must be True, False, or None for the queue's own; got {returnFailure!r}")
        self._lastTask += 1
        task = Task(
            self._lastTask, spec, series, niceness, doNext, doLast, timeout, 1 if retries is None else retries, raw
        )
        calls, engine = self._calls, self._engine
        pending = calls.pending[task.id] = Pending(self._cancel, task, engine.stamp())
        if consumer is not None:
            pending.consumer = consumer
        if not returnFailure:
            pending.returnFailure = False
        engine.happened(self._scheduler.submit(task))
        return pending

    @overload
    def update(
        self, f: Callable[..., _Whatever], /, *args: Any, ephemeral: bool = False, sequential: bool = False,
        consumer: None = None, **kw: Any,
    ) -> Deferred[list[Any]]: ...  # fmt: skip
    @overload
    def update(
        self, f: Callable[..., Deferred[T] | Coroutine[Any, Any, T]], /, *args: Any, ephemeral: bool = False,
        sequential: bool = False, consumer: None = None, **kw: Any,
    ) -> Deferred[list[T]]: ...  # fmt: skip
    @overload
    def update(
        self, f: Callable[..., T], /, *args: Any, ephemeral: bool = False, sequential: bool = False,
        consumer: None = None, **kw: Any,
    ) -> Deferred[list[T]]: ...  # fmt: skip

    def update(
        self,
        f: Callable[..., Any],
        /,
        *args: Any,
        ephemeral: bool = False,
        sequential: bool = False,
        consumer: None = None,
        **kw: Any,
    ) -> Deferred[list[Any]]:
        """Call ``f(*args, **kw)`` on every worker, past the queue; fires with the list of results.

        Unless EPHEMERAL, every worker that comes later does it too before its first task. With SEQUENTIAL, one
        worker ends it before the next begins, and goes on with calls until its turn comes. If F is a method of an
        object, that object lives on in every worker process, and later calls of its methods, or of itself, run on that
        copy.

        The Deferred fails with the first error if it fails on any worker. The update is saved all the same, for it need
        not fail on the next: on a worker that comes later, or a process that takes the place of another, it is tried
        again, and that it fails there is logged. An update under which a worker dies, and another that began it after
        that, with none between them that lived through it, is given up, which is logged too: those that come later do
        without it. A ``consumer`` is a ValueError: an update has no items.
        """
        if consumer is not None:
            raise ValueError("an update runs on every worker and cannot feed a consumer")
        checkCallable(f)
        spec = CallSpec(f, args, kw)
        if not self._scheduler.running:
            raise QueueRunError(f"the queue is not running: the update {spec} was not made")
        self._lastTask += 1
        task = Task(self._lastTask, spec, raw=False, update=True, ephemeral=ephemeral)
        return self._updates.begin(task, ephemeral, sequential)

    def cancelSeries(self, series: Hashable) -> None:
        """Let no queued call of SERIES run; their Deferreds fail with CancelledError. What runs goes on."""
        checkSeries(series)
        self._engine.happened(self._scheduler.cancelSeries(series))

    def cancelAll(self) -> None:
        """Let no queued call run; their Deferreds fail with CancelledError. What runs goes on."""
        self._engine.happened(self._scheduler.cancelAll())

    @overload
    def map(
        self, f: Callable[..., _Whatever], /, *iterables: Iterable[Any], raw: bool | None = None,
        **options: Unpack[CallOptions],
    ) -> Deferator[Any]: ...  # fmt: skip
    @overload
    def map(
        self, f: Callable[..., T], /, *iterables: Iterable[Any], raw: Literal[True], **options: Unpack[CallOptions]
    ) -> Deferator[T]: ...
    @overload
    def map(
        self, f: Callable[..., Iterator[T]], /, *iterables: Iterable[Any], raw: Literal[False] | None = None,
        **options: Unpack[CallOptions],
    ) -> Deferator[Deferator[T]]: ...  # fmt: skip
    @overload
    def map(
        self, f: Callable[..., Deferred[T] | Coroutine[Any, Any, T]], /, *iterables: Iterable[Any],
        raw: bool | None = None, **options: Unpack[CallOptions],
    ) -> Deferator[T]: ...  # fmt: skip
    @overload
    def map(
        self, f: Callable[..., T], /, *iterables: Iterable[Any], raw: bool | None = None,
        **options: Unpack[CallOptions],
    ) -> Deferator[T]: ...  # fmt: skip

    def map(self, f: Callable[..., Any], /, *iterables: Iterable[Any], **options: Any) -> Deferator[Any]:
        """The results of F for the items of ITERABLES, in order, as the built-in `map` gives them.

        So many calls are queued ahead as the taker of the results keeps up with, at most a few hundred: an endless
        iterable is fine. The items are taken in the main loop. OPTIONS are those of `call`. The first call that
        fails ends the results, after those before it; what was queued ahead of it is cancelled then.

        Raises `ValueError` and `TypeError` for what cannot be, as `call` does, and
        `asynqueue.errors.QueueRunError` on a queue that has been shut down.
        """
        spec: CallSpec[Any] = CallSpec(f)
        checkOptions(spec, options)
        if not iterables:
            raise TypeError(f"map needs an iterable at least, whose items {spec} is called with")
        if "consumer" in options:
            raise ValueError("map gives a Deferator, which feeds a consumer by an IterationProducer, not by consumer=")
        if not self._scheduler.running:
            raise QueueRunError(f"the queue is not running: {spec} was not mapped")
        return Deferator(MapSource(partial(self.call, f, **options), iterables), reactor=self._engine.clock())

    def subscribe(self, consumer: Consumer) -> None:
        """Write the number of unfinished calls to CONSUMER, an `IConsumer`, now and whenever it changes.

        A consumer that has paused gets the latest number when it resumes. To be written to no more, it tells its
        producer to stop; from when the queue has shut down it is unregistered, the last number being 0. One that
        raises is told no more, which is logged.

        Raises TypeError for what is no consumer, and QueueRunError on a queue that has shut down.
        """
        checkConsumer(consumer)
        self._engine.subscribe(consumer)

    def stats(self) -> QueueStats:
        """A picture of what the queue has done and is doing, as a frozen record. Cheap."""
        return self._ledger.stats(self._scheduler.queued, self._scheduler.unfinished - self._scheduler.queued)

    def ready(self) -> Deferred[None]:
        """Fires when fewer than `maxQueued` calls are queued: at once, if there is no such limit."""
        return self._engine.ready()

    # Workers.

    def attachWorker(self, worker: Worker) -> Deferred[int]:
        """Take WORKER on; fires with its ID once it has run the saved updates.

        Raises `asynqueue.errors.ImplementationError` for what does not satisfy
        `asynqueue.interfaces.Worker`, and QueueRunError on a queue that has been shut down.
        """
        if not self._scheduler.running:
            raise QueueRunError("the queue is not running: it takes no workers")
        return self._staff.hire(worker)

    def hire(self, worker: Worker) -> None:
        """Take WORKER on as one that the queue brings; if it is gone before it is ready, that is logged."""
        self._staff.hire(worker).addErrback(self._notHired)

    def detachWorker(
        self, workerOrID: Worker | int, reassign: bool = False, crash: bool = False
    ) -> Deferred[list[Task]]:
        """Let a worker (WORKERORID) go when it has finished what it was given; fires with what it left unfinished.

        With REASSIGN, what it has not started goes back in the queue, and the list is empty. With CRASH, nothing
        is waited for: what was unfinished goes back in the queue too if REASSIGN, and else is in the list and
        fails with `WorkerLost`. Raises ValueError for a worker that is not attached.
        """
        return self._staff.dismiss(self._staff.number(workerOrID), reassign, crash)

    def qualifyWorker(self, worker: Worker | int, series: Hashable) -> None:
        """Let WORKER, or the one of that ID, run calls of SERIES from now on.

        Raises ValueError for one that is not attached, and TypeError for a series that is not hashable.
        """
        checkSeries(series)
        self._staff.qualify(self._staff.number(worker), series)

    def workers(self, ID: int | None = None) -> list[Worker]:
        """The workers attached, or the one of number ID. Raises ValueError if there is none."""
        return list(self._workers.values()) if ID is None else [self._workers[self._staff.number(ID)]]

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
        of it. (The end of an ``async with`` block by an error stops those of which nobody waits for an item.) May be
        called again. Calls that no worker is qualified for, or none that is there, fail with
        QueueRunError, as do later ones.
        """
        done: Deferred[None] = Deferred()
        self._closing.append(done)
        if self._reminder is None and (self._calls.pending or self._workers):
            self._reminder = self._engine.clock().callLater(0, self._waitForEnd)
        self._engine.happened(self._scheduler.shutdown())
        self._staff.dismissAbsent()
        self._closeIfDone()
        return done

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:  # its traceback has the loop that it ended, and what that went through
            for deferator in self._calls.idle:
                deferator.stop()
        await self.shutdown()

    def workerLeft(self) -> None:
        """A worker has gone by itself; another may be attached. (A queue that brings its workers may differ.)"""

    def strand(self, reason: str) -> None:
        """Let no call wait for a worker any more: none will come, for REASON. They fail with QueueRunError."""
        self._engine.happened(self._scheduler.strand(reason))

    def _notHired(self, reason: Failure) -> None:
        self._log.warn("a worker was never ready: {reason}", reason=reason.getErrorMessage())

    def _do(self, command: c.Command) -> None:
        """Carry out COMMAND. (For the engine.)"""
        if isinstance(command, c.Assign):
            self._runs.assign(command.worker, [command, *self._engine.following(command)])
        elif isinstance(command, c.Settle):
            self._calls.settle(command.task, command.settlement)
        elif isinstance(command, c.Tick):
            self._engine.startTicker(command.budgets)
        elif isinstance(command, c.Arm):
            self._runs.arm(command.ticket, command.seconds)
        elif isinstance(command, c.Interrupt):
            self._staff.tell(command.worker, partial(self._runs.interrupt, command))
        elif isinstance(command, c.Recall):
            self._staff.recall(command.worker)
        elif isinstance(command, c.WorkerReady):
            self._staff.hired(command.worker)
        elif isinstance(command, c.UpdateAbandoned):
            self._updates.givenUp(command)
        elif isinstance(command, c.Updated):
            self._updates.ended(command)
        elif isinstance(command, c.Discard):
            command.source.close()
        elif isinstance(command, c.Stop):
            self._staff.stop(command.worker)
        elif isinstance(command, c.Closed):
            self._closed = True
            self._closeIfDone()
        else:
            assert_never(command)

    def _closeIfDone(self) -> None:
        """Fire what waits for the end, if this is it: nothing left to do, and every worker gone and cleaned up."""
        if not self._closed or self._workers:
            return
        self._engine.end()
        self._staff.end()
        if self._reminder is not None and self._reminder.active():
            self._reminder.cancel()
        closing, self._closing = self._closing, []
        for done in closing:
            done.callback(None)

    def _waitForEnd(self) -> None:
        """Have the shutdown wait for no iteration that nobody has any more; and say so if it has to wait for long."""
        if self._scheduler.iterations:
            gc.collect()  # a loop that was left by an error may be in a cycle
        self._reminder = self._engine.clock().callLater(PATIENCE, self._remind)

    def _remind(self) -> None:
        waiting = [str(pending.task.call) for pending in islice(self._calls.pending.values(), 10)]
        idle = len(self._calls.idle)
        text = (
            "the shutdown of a queue waits for {calls} calls, {iterations} iterations and {workers} workers: {waiting}"
        )
        say = self._log.warn
        if idle and not waiting:
            text += "; {idle} iterations wait for somebody to stop them, or to take an item"
            say = self._log.critical  # which is seen though nobody logs
        say(
            text,
            calls=self._scheduler.unfinished,
            iterations=self._scheduler.iterations,
            idle=idle,
            workers=len(self._workers),
            waiting=waiting,
        )
