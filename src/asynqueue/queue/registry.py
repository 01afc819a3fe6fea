"""The workers of a queue: how they are attached, resign, reconnect and leave."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from typing_extensions import assert_never

from asynqueue.core.records import Task
from asynqueue.core.scheduling.commands import Interrupt, Recall, Stop, WorkerReady
from asynqueue.core.scheduling.states import (
    Departed,
    Disconnected,
    Reconnected,
    Resignation,
    Restarted,
    WorkerState,
)
from asynqueue.core.scheduling.window import Window
from asynqueue.core.serieskey import seriesKey
from asynqueue.errors import ImplementationError, WorkerLost
from asynqueue.interfaces import Recaller, Resizable, Worker
from asynqueue.queue.dispatch import Dispatcher
from asynqueue.queue.driver import Driver
from asynqueue.queue.options import ByName
from asynqueue.reactor.failures import failureOf, printable
from asynqueue.reactor.lookup import whenInstalled
from asynqueue.reactor.shutdowntrigger import ShutdownTrigger
from asynqueue.reactor.waiters import Waiters

_attached: WeakValueDictionary[int, Worker] = WeakValueDictionary()  # by id(), to any queue


class WorkerRegistry:
    """The workers of the queue that DRIVER drives, by ID. They are given tasks by DISPATCHER.

    A worker's own errors go to LOG. ONLEFT is called when a worker has left, ONRESIGNED when it has left by itself.
    """

    def __init__(
        self,
        driver: Driver,
        log: Logger,
        dispatcher: Dispatcher,
        onLeft: Callable[[int], None],
        onResigned: Callable[[], None],
    ) -> None:
        self.workers: dict[int, Worker] = {}
        self.resignation: BaseException | None = None  # why the last worker that has resigned did so
        self._driver = driver
        self._scheduler = driver.scheduler
        self._log = log
        self._dispatcher = dispatcher
        self._onLeft = onLeft
        self._onResigned = onResigned
        self._last = 0
        self._trigger = ShutdownTrigger(self._reactorStops)
        self._attaching: dict[int, Deferred[int]] = {}
        self._leaving: dict[int, Waiters[list[Task]]] = {}

    def number(self, workerOrID: Worker | int) -> int | None:
        """Return the ID of an attached worker, or None if there is none."""
        for workerID, worker in self.workers.items():
            if workerOrID is worker or (type(workerOrID) is int and workerOrID == workerID):
                return workerID
        return None

    def attach(self, worker: Worker) -> Deferred[int]:
        """Attach WORKER. The Deferred fires with its ID when it has run the saved updates."""
        lacking = missing(worker)
        if lacking:
            raise ImplementationError(f"{type(worker).__name__} is not a Worker: it lacks {', '.join(lacking)}")
        if worker in self.workers.values():
            raise ValueError(f"{worker!r} is attached to this queue already")
        if _attached.get(id(worker)) is worker:
            raise ValueError(f"{worker!r} is attached to another queue: detach it there first")
        series, limits = set(map(seriesKey, qualifications(worker))), window(worker)
        if callsByName(worker):
            series |= {ByName(), *map(ByName, series)}
        self._last += 1
        workerID = self._last
        self.workers[workerID] = worker
        _attach(worker)
        attached = self._attaching[workerID] = Deferred[int]()
        whenInstalled(self._driver.reactor, self._trigger.add)  # no worker outlives the reactor
        self._dispatcher.attach(workerID, worker)
        self._driver.later(self._scheduler.attach(workerID, series, limits))
        try:
            if isinstance(worker, Resizable):
                worker.setResizer(partial(self._resized, workerID))
            worker.setResignator(partial(self._resigned, workerID))  # it may resign at once, or fail to start
        except Exception:
            del self.workers[workerID], self._attaching[workerID]
            _attached.pop(id(worker), None)
            self._lose(workerID, True, "the worker could not be attached")
            raise
        self._driver.happened([])
        return attached

    def ready(self, command: WorkerReady) -> None:
        """Note that a worker has run the saved updates."""
        if self._scheduler.workerState(command.worker) is not WorkerState.AWAY:  # it may have disconnected since
            attached = self._attaching.pop(command.worker, None)
            if attached is not None:
                attached.callback(command.worker)

    def qualify(self, workerID: int, series: Hashable) -> None:
        """Let a worker run calls of SERIES from now on."""
        series = seriesKey(series)
        if callsByName(self.workers[workerID]):
            self._driver.later(self._scheduler.qualify(workerID, ByName(series)))
        self._driver.happened(self._scheduler.qualify(workerID, series))

    def detach(self, workerID: int, reassign: bool, crash: bool) -> Deferred[list[Task]]:
        """Have a worker leave. The Deferred fires with what it left unfinished."""
        left = self._leaving.setdefault(workerID, Waiters()).add()
        if crash:
            unfinished = self._lose(workerID, reassign, "its worker was made to crash", crash=True)
            self._stop(workerID, [] if reassign else unfinished)
        else:
            self._driver.happened(self._scheduler.detach(workerID, reassign))
        return left

    def terminate(self) -> None:
        """Crash every worker. What they held fails."""
        for workerID in list(self.workers):
            self.detach(workerID, reassign=False, crash=True)

    def interrupt(self, command: Interrupt) -> None:
        """Interrupt a worker's call."""
        self._guarded(command.worker, lambda: self._dispatcher.interrupt(command))

    def recall(self, command: Recall) -> None:
        """Have a worker give back what it has not started, if it can."""
        worker = self.workers.get(command.worker)
        if isinstance(worker, Recaller):
            self._guarded(command.worker, worker.recall)

    def stop(self, command: Stop) -> None:
        """Stop a worker, which holds nothing."""
        workerID = command.worker
        if self._scheduler.workerState(workerID) is not WorkerState.GONE:  # else it was lost since, and is stopped
            stopped = self._stop(workerID, [])
            stopped.addCallback(lambda _: self._driver.happened(self._scheduler.stopped(workerID)))

    def end(self) -> None:
        """Note that no worker will be attached any more."""
        self._trigger.remove()

    def _guarded(self, workerID: int, f: Callable[[], object]) -> None:
        """Call F, which has a worker do something. Log its error: it must not keep others from their work."""
        try:
            f()
        except BaseException as error:
            self._log.failure("worker {worker} raised an error of its own", printable(error), worker=workerID)

    # How a worker leaves.

    def _stop(self, workerID: int, unfinished: list[Task], error: BaseException | None = None) -> Deferred[None]:
        """Stop a worker. When it has stopped, it has left, because of ERROR and with UNFINISHED tasks."""
        stopped = maybeDeferred(self.workers[workerID].stop)
        stopped.addErrback(self._logStop, workerID)
        stopped.addCallback(lambda _: self._left(workerID, unfinished, error))
        return stopped

    def _logStop(self, reason: Failure, workerID: int) -> None:
        self._log.failure("worker {worker} did not stop well", reason, worker=workerID)

    def _resigned(self, workerID: int, why: Resignation = Departed()) -> None:  # noqa: B008  # it is frozen
        state = self._scheduler.workerState(workerID)
        if state is WorkerState.GONE:
            return
        if isinstance(why, Restarted):
            commands = self._scheduler.restarted(workerID)
            self._driver.happened(commands + self._driver.withdraw(workerID))
        elif isinstance(why, Reconnected):
            limits = window(self.workers[workerID])
            self._driver.happened(self._scheduler.reconnected(workerID, limits))
        elif isinstance(why, Disconnected):
            if state is WorkerState.LEAVING or not self._scheduler.running:
                self._depart(workerID, None)  # it is not waited for
            elif state is not WorkerState.AWAY:
                self._disconnect(workerID)
        elif isinstance(why, Departed):
            self._depart(workerID, why.error)
        else:
            assert_never(why)

    def _disconnect(self, workerID: int) -> None:
        with self._driver.held():
            self._driver.later(self._scheduler.disconnected(workerID))
            self._takeReports(workerID)
            self._driver.later(self._scheduler.unreported(workerID, "its worker is away"))
            self._dispatcher.forgetTimers(workerID)

    def _depart(self, workerID: int, error: BaseException | None) -> None:
        detached = workerID in self._leaving
        self.resignation = error
        self._lose(workerID, True, "its worker resigned")
        self._stop(workerID, [], error).addCallback(lambda _: None if detached else self._onResigned())

    def _resized(self, workerID: int, limits: Window | None) -> None:
        self._driver.happened(self._scheduler.resized(workerID, limits))

    def _lose(self, workerID: int, reassign: bool, reason: str, crash: bool = False) -> list[Task]:
        """Note that a worker is gone, for REASON, or is to CRASH now. Return the tasks that it did not finish.

        With REASSIGN, it first gives back what it has not started.
        """
        driver, scheduler = self._driver, self._scheduler
        with driver.held():
            driver.later(scheduler.detach(workerID, False))
            self._takeReports(workerID, reassign, crash)
            unfinished = scheduler.held(workerID)
            driver.later(scheduler.lost(workerID, reassign, reason))
            self._dispatcher.detach(workerID)
        return unfinished

    def _takeReports(self, workerID: int, recall: bool = True, crash: bool = False) -> None:
        """Have a worker report what it knows of the tasks that it holds, the last time. What it was not given yet, it
        is not given."""
        worker = self.workers.get(workerID)
        if recall and isinstance(worker, Recaller):
            self._guarded(workerID, worker.recall)
        if crash and worker is not None:
            self._guarded(workerID, worker.crash)
        self._driver.later(self._driver.withdraw(workerID))

    def _left(self, workerID: int, unfinished: list[Task], error: BaseException | None = None) -> None:
        """Forget a worker that has left, because of ERROR and with UNFINISHED tasks."""
        worker = self.workers.pop(workerID, None)
        if worker is None:
            return
        _attached.pop(id(worker), None)
        self._dispatcher.detach(workerID)
        attached = self._attaching.pop(workerID, None)
        if attached is not None:
            if error is None:
                error = WorkerLost(f"worker {workerID} was gone before it was ready")
            attached.errback(failureOf(error))
        leaving = self._leaving.pop(workerID, None)
        if leaving is not None:
            leaving.fire(unfinished)
        self._onLeft(workerID)

    def _reactorStops(self) -> None:
        """Crash every worker: when the reactor has stopped, nothing can be waited for."""
        self._driver.happened(self._scheduler.strand("the reactor has stopped"))
        for workerID in list(self.workers):
            self._lose(workerID, False, "the reactor has stopped", crash=True)
            self._left(workerID, [])
        self._driver.happened(self._scheduler.shutdown())


def _attach(worker: Worker) -> None:
    """Note that a queue has WORKER."""
    try:
        _attached[id(worker)] = worker
    except TypeError:
        pass  # it takes no weak reference, and a strong one would keep it for ever


def missing(worker: object) -> list[str]:
    """Return what WORKER lacks of the `Worker` protocol. Raise `ImplementationError` for the class of a worker."""
    if isinstance(worker, type):
        name = worker.__name__
        raise ImplementationError(f"a worker is an instance of its class, got the class: not {name} but {name}(...)")
    lacking = [name for name in ("run", "stop", "crash", "setResignator") if not callable(getattr(worker, name, None))]
    if not any(hasattr(worker, name) for name in ("qualifications", "cQualified", "iQualified")):
        lacking.append("qualifications")
    return lacking


def qualifications(worker: Any) -> set[Hashable]:
    """Return the series that a worker names by any of three attributes. (Any: it may be a worker of 0.9.)"""
    named: set[Hashable] = set()
    for name in ("qualifications", "cQualified", "iQualified"):
        series = getattr(worker, name, ())
        try:
            if isinstance(series, (str, bytes)):
                raise TypeError("a text is not a collection of series")
            named.update(series)
        except TypeError as error:
            raise ImplementationError(
                f"{type(worker).__name__}.{name} must be a collection of series, got {series!r}: {error}"
            ) from error
    return named


def callsByName(worker: object) -> bool:
    """Return whether a worker takes calls by name, which those of wires do."""
    return getattr(worker, "callsByName", False) is True


def window(worker: object) -> Window:
    """Return the window of a worker. A worker of 0.9 has none, and takes one task at a time."""
    given = getattr(worker, "window", Window())
    if not isinstance(given, Window):
        raise ImplementationError(f"{type(worker).__name__}.window must be a Window, got {given!r}")
    return given
