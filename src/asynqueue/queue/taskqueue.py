"""The queue: calls come in, workers run them, in an order that the scheduler decides.

What happens (a call is made, a worker answers, a timer fires) goes to the pure
`asynqueue.core.scheduling.scheduler.Scheduler` as an event. `asynqueue.queue.driver` has the commands that follow
carried out by the parts of the queue:

- `asynqueue.queue.calls`: the pending calls, and what their Deferreds fire with;
- `asynqueue.queue.updates`: the updates, and how they end on each worker;
- `asynqueue.queue.registry`: the workers, and how they come and go;
- `asynqueue.queue.dispatch`: what each worker has been given.
"""

from __future__ import annotations

import gc
from collections.abc import Hashable
from itertools import islice
from types import TracebackType
from typing import overload

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure
from typing_extensions import Self

from asynqueue.core.records import Task
from asynqueue.core.scheduling import commands as c
from asynqueue.core.scheduling.statistics import QueueStats
from asynqueue.core.text import valueText
from asynqueue.errors import QueueRunError
from asynqueue.interfaces import Clock, Consumer, DelayedCall, Worker
from asynqueue.queue.dispatch import Dispatcher
from asynqueue.queue.mapping import MappingSubmission
from asynqueue.queue.options import ByName, checkConsumer, checkSeries, checkTimeout, plainSeries
from asynqueue.queue.registry import WorkerRegistry, callsByName
from asynqueue.reactor import forks
from asynqueue.reactor.waiters import Waiters

__all__ = ["TaskQueue"]

PATIENCE = 5.0
"""Seconds after which a shutdown logs what it waits for."""


class TaskQueue(MappingSubmission):
    """Runs calls on the workers attached to it, in a fair order of priority.

    A queue is used in the reactor's thread only. It lives until `shutdown`, or until the reactor stops.

    Args:
        *workers: Workers to attach at once. `attachWorker` attaches others later.
        timeout: Seconds that a shutdown waits for what was accepted. Then the workers are terminated. Running calls
            fail with `asynqueue.errors.WorkerLost`, queued ones with `asynqueue.errors.QueueRunError`. None for no
            limit.
        callTimeout: Seconds: the time limit of every call that has none of its own. None for no limit.
        warn: Log each failing call as an error: in Twisted's log, and by ``logging.getLogger("asynqueue")``. So do
            `verbose` and `spew`.
        verbose: Name the call in what `warn` logs.
        spew: Log every call with its result.
        returnFailure: With False, a failing call is logged and its Deferred fires with None.
        maxQueued: The number of queued calls, 1 or more, from which `ready` waits. None for no limit.
        reactor: The installed reactor by default; a `twisted.internet.task.Clock` in tests.

    Raises:
        ValueError: `timeout`, `callTimeout` or `maxQueued` is out of range.
        asynqueue.errors.ImplementationError: An object of `workers` is not a worker.

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
        callTimeout: float | None = None,
        warn: bool = False,
        verbose: bool = False,
        spew: bool = False,
        returnFailure: bool = True,
        maxQueued: int | None = None,
        reactor: Clock | None = None,
    ) -> None:
        checkTimeout(timeout)
        self._timeout = timeout
        super().__init__(callTimeout, warn, verbose, spew, returnFailure, maxQueued, reactor)
        forks.watch(self._disown)
        for worker in workers:
            self.attachOwn(worker)

    def _compose(self, reactor: Clock | None) -> None:
        super()._compose(reactor)
        dispatcher = Dispatcher(self._driver, self._statistics, self._calls)
        registry = WorkerRegistry(self._driver, self._log, dispatcher, self._workerHasLeft, lambda: self.workerLeft())
        self._registry = registry
        self._calls.onNoneAwaited = self._closeIfDone
        self._workers = registry.workers
        self._closing = Waiters[None]()
        self._closed = False
        self._reminder: DelayedCall | None = None
        self._limit: DelayedCall | None = None  # of the time that a shutdown takes
        self._driver.obey(
            {
                c.Assign: dispatcher.assign,
                c.Settle: self._calls.settle,
                c.Arm: dispatcher.arm,
                c.Interrupt: registry.interrupt,
                c.Recall: registry.recall,
                c.WorkerReady: registry.ready,
                c.UpdateAbandoned: self._updates.abandoned,
                c.Updated: self._updates.ended,
                c.Discard: lambda command: command.source.close(),
                c.Stop: registry.stop,
                c.Unserved: self._logUnserved,
                c.Closed: self._hasClosed,
            }
        )

    # Workers.

    def attachWorker(self, worker: Worker) -> Deferred[int]:
        """Attach a worker to the queue.

        Args:
            worker: An object that satisfies `asynqueue.interfaces.Worker`.

        Returns:
            A Deferred of the worker's ID. It fires when the worker has run the saved updates. It fails with the error
            of the worker, or with `asynqueue.errors.WorkerLost`, if the worker is gone before that.

        Raises:
            asynqueue.errors.ImplementationError: `worker` lacks a part of the protocol, which the message names.
            ValueError: `worker` is attached already, to this queue or another.
            asynqueue.errors.QueueRunError: The queue is shut down.
        """
        if not self._scheduler.running:
            raise QueueRunError(f"{self._driver.refusal}: it takes no workers")
        return self._registry.attach(worker)

    def attachOwn(self, worker: Worker) -> None:
        """Attach a worker that the queue brings. If it is gone before it is ready, that is logged. (For subclasses.)"""
        self._registry.attach(worker).addErrback(self._logNotReady)

    def detachWorker(
        self, workerOrID: Worker | int, reassign: bool = False, crash: bool = False
    ) -> Deferred[list[Task]]:
        """Detach a worker when it has finished what it was given.

        Args:
            workerOrID: The worker or its ID.
            reassign: With True, calls that it has not started go back in the queue.
            crash: With True, nothing is waited for. What was unfinished goes back in the queue with `reassign`. Else
                it is in the list, and fails with `asynqueue.errors.WorkerLost`.

        Returns:
            A Deferred of the list of unfinished tasks: empty but for `crash` without `reassign`. For a worker that is
            not attached, it is empty.
        """
        workerID = self._registry.number(workerOrID)
        return succeed([]) if workerID is None else self._registry.detach(workerID, reassign, crash)

    def qualifyWorker(self, worker: Worker | int, series: Hashable) -> None:
        """Let a worker, given itself or by its ID, run calls of a series from now on.

        Raises:
            ValueError: The worker is not attached.
            TypeError: `series` is not hashable.
        """
        checkSeries(series)
        workerID = self._registry.number(worker)
        if workerID is None:
            raise ValueError(f"no such worker is attached to this queue: {worker!r}")
        self._registry.qualify(workerID, series)

    @overload
    def workers(self) -> list[Worker]: ...
    @overload
    def workers(self, ID: int) -> Worker | None: ...
    def workers(self, ID: int | None = None) -> list[Worker] | Worker | None:
        """Return the attached workers; with an ID, the one worker that has it, or None."""
        return list(self._workers.values()) if ID is None else self._workers.get(ID)

    def __len__(self) -> int:
        """Return the number of attached workers."""
        return len(self._workers)

    def __bool__(self) -> bool:
        """Return True while the queue runs and has a worker."""
        return self.isRunning() and len(self) > 0

    def isRunning(self) -> bool:
        """Return True until the queue is shut down."""
        return self._scheduler.running

    # What it does.

    def subscribe(self, consumer: Consumer) -> None:
        """Write the number of unfinished calls to a consumer, now and whenever it changes.

        A paused consumer gets the latest number when it resumes. A consumer that stops its producer, or raises (which
        is logged), gets nothing more. When the queue has shut down, the consumer is unregistered; its last number is 0.

        Args:
            consumer: An `IConsumer` of integers.

        Raises:
            TypeError: `consumer` is no consumer.
            asynqueue.errors.QueueRunError: The queue has shut down.
        """
        checkConsumer(consumer)
        self._driver.subscribe(consumer)

    def stats(self) -> QueueStats:
        """Return what the queue has done and is doing, as a frozen record. It is cheap."""
        scheduler = self._scheduler
        running = scheduler.unfinished - scheduler.queued
        return self._statistics.stats(scheduler.queued, running, scheduler.unserved)

    def ready(self) -> Deferred[None]:
        """Return a Deferred that fires when fewer than `maxQueued` calls are queued; at once without that limit."""
        return self._driver.ready()

    # Its end.

    def shutdown(self) -> Deferred[None]:
        """Finish what was accepted, stop every worker, and leave nothing behind. May be called again.

        Calls that no attached worker may run fail with `asynqueue.errors.QueueRunError`, and so do later ones.

        A shutdown waits for open iterations: stop a `Deferator` that is not used to its end, or drop every reference to
        it. An ``async with`` block that ends by an error stops those for which no item is awaited.

        The queue's `timeout` bounds the wait.

        Returns:
            A Deferred that fires when every call has ended and every worker is gone.
        """
        done = self._closing.add()
        if self._reminder is None and (self._calls.pending or self._workers or self._calls.awaited):
            self._reminder = self._driver.clock().callLater(0, self._waitForEnd)
            if self._timeout is not None:
                self._limit = self._driver.clock().callLater(self._timeout, self._terminate)
        self._driver.happened(self._scheduler.shutdown())
        self._closeIfDone()
        return done

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:  # its traceback refers to the loop that it ended, and to the Deferator of that loop
            for deferator in self._calls.idle:
                deferator.stop()
        await self.shutdown()

    def _takesNames(self) -> bool:
        return not self._workers or any(map(callsByName, self._workers.values()))

    def workerLeft(self) -> None:
        """Do nothing. A subclass that brings its workers overrides this to act when one has left by itself."""

    def strand(self, reason: str) -> None:
        """Fail all queued and later calls with `asynqueue.errors.QueueRunError`: no worker will come. (For subclasses.)

        Args:
            reason: The cause, for the error's message.
        """
        self._driver.happened(self._scheduler.strand(reason))

    def _disown(self) -> None:
        """Have no workers and take no calls, if this process is a fork of the program that uses the queue."""
        driver = self._driver
        if forks.isRunning(driver.reactor):
            driver.disown()
            forks.keep(driver, self._registry, self._calls, self._updates)
            self._compose(driver.reactor)
            self._driver.refusal = f"{forks.FORKED}, and this queue is the program's"
            self._driver.happened(self._scheduler.shutdown())

    def _logNotReady(self, reason: Failure) -> None:
        self._log.warn("a worker of the queue did not become ready: {reason}", reason=reason.getErrorMessage())

    def _logUnserved(self, command: c.Unserved) -> None:
        calls, series = command.calls, plainSeries(command.series)
        if type(command.series) is ByName:
            text = "the queue has no worker of a wire for calls by name{ofSeries}: {calls} of them wait for one"
        elif series is None:
            text = "the queue has no worker: {calls} calls wait for one"
        else:
            text = "no worker is qualified for calls{ofSeries}: {calls} of them wait for one (see qualifyWorker)"
        self._log.warn(text, calls=calls, ofSeries="" if series is None else f" of series {valueText(series)}")

    def _workerHasLeft(self, workerID: int) -> None:
        self._statistics.workerLeft(workerID)
        self._closeIfDone()

    def _hasClosed(self, _: c.Closed) -> None:
        self._closed = True
        self._closeIfDone()

    def _closeIfDone(self) -> None:
        """End the shutdown if nothing is left to do and every worker has left."""
        if not self._closed or self._workers or self._calls.awaited:
            return
        self._driver.end()
        self._registry.end()
        for timer in (self._reminder, self._limit):
            if timer is not None and timer.active():
                timer.cancel()
        self._closing.fire(None)

    def _terminate(self) -> None:
        """Terminate the workers: the shutdown has waited long enough."""
        self._log.warn(
            "the shutdown of a queue has waited {seconds:g} s: it terminates the workers",
            seconds=self._timeout,
        )
        self.strand("the queue has shut down")
        self._registry.terminate()
        for awaited in list(self._calls.awaited.values()):
            awaited.cancel()

    def _waitForEnd(self) -> None:
        """Have the shutdown wait for no iteration without a reference. Remind of what it waits for after a while."""
        if self._scheduler.iterations:
            gc.collect()  # a loop that was left by an error may be in a cycle
        self._reminder = self._driver.clock().callLater(PATIENCE, self._remind)

    def _remind(self) -> None:
        waiting = [str(pending.task.call) for pending in islice(self._calls.pending.values(), 10)]
        idle = len(self._calls.idle)
        text = (
            "the shutdown of a queue waits for {calls} calls, {iterations} iterations and {workers} workers: {waiting}"
        )
        log = self._log.warn
        if idle and not waiting:
            text += "; {idle} iterations wait until they are stopped, or an item is taken"
            log = self._log.critical  # a critical event is printed though no log observer is there
        log(
            text,
            calls=self._scheduler.unfinished,
            iterations=self._scheduler.iterations,
            idle=idle,
            workers=len(self._workers),
            waiting=waiting,
        )
