"""The workers of a queue, how they come and how they go."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from asynqueue.core.records import Task
from asynqueue.core.scheduling.states import WorkerState
from asynqueue.core.scheduling.window import Window
from asynqueue.errors import ImplementationError, WorkerLost
from asynqueue.interfaces import Recaller, Resizable, Worker
from asynqueue.queue.dispatch import Dispatcher
from asynqueue.queue.driver import Driver

_attached: WeakValueDictionary[int, Worker] = WeakValueDictionary()  # by id(), to any queue


class WorkerRegistry:
    """The WORKERS, by number, of the queue that ENGINE drives, with what they do among RUNS.

    What a worker does not do well is told of in LOG. ONLEFT is called when one has gone, WORKERLEFT when it has
    gone by itself.
    """

    def __init__(
        self,
        engine: Driver,
        log: Logger,
        runs: Dispatcher,
        workers: dict[int, Worker],
        onLeft: Callable[[], None],
        workerLeft: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._scheduler = engine.scheduler
        self._log = log
        self._runs = runs
        self._workers = workers
        self._onLeft = onLeft
        self._workerLeft = workerLeft
        self._last = 0
        self._trigger: object = None
        self._hiring: dict[int, list[Deferred[int]]] = {}
        self._leaving: dict[int, list[Deferred[list[Task]]]] = {}
        self._away: set[int] = set()  # those that are attached, but not there at present
        self._qualified: dict[int, set[Hashable]] = {}  # the series that they have been qualified for since

    def number(self, workerOrID: Worker | int) -> int:
        """The ID of a worker that is attached; else a ValueError."""
        for workerID, worker in self._workers.items():
            if workerOrID is worker or (type(workerOrID) is int and workerOrID == workerID):
                return workerID
        raise ValueError(f"no such worker is attached to this queue: {workerOrID!r}")

    def hire(self, worker: Worker) -> Deferred[int]:
        """Take WORKER on; fires with its ID once it has run the saved updates."""
        lacking = missing(worker)
        if lacking:
            raise ImplementationError(f"{type(worker).__name__} is not a Worker: it lacks {', '.join(lacking)}")
        if worker in self._workers.values():
            raise ValueError(f"{worker!r} is attached to this queue already")
        if _attached.get(id(worker)) is worker:
            raise ValueError(f"{worker!r} is attached to another queue: detach it there first")
        series, limits = qualifications(worker), window(worker)
        self._last += 1
        workerID = self._last
        self._workers[workerID] = worker
        _attach(worker)
        hired: Deferred[int] = Deferred()
        self._hiring[workerID] = [hired]
        self._watchReactor()
        self._runs.expect(workerID, worker)
        self._engine.later(self._scheduler.hire(workerID, series, limits))
        try:
            if isinstance(worker, Resizable):
                worker.setResizer(partial(self._resized, workerID))
            worker.setResignator(partial(self._resigned, workerID))  # it may resign at once, or fail to start
        except Exception:
            del self._workers[workerID], self._hiring[workerID]
            _attached.pop(id(worker), None)
            self._away.discard(workerID)
            self._lose(workerID, True, "the worker could not be attached")
            raise
        self._engine.happened([])
        return hired

    def hired(self, workerID: int) -> None:
        """A worker has run the saved updates."""
        if workerID in self._away:
            return  # it will be hired when it is there
        for hired in self._hiring.pop(workerID, []):
            hired.callback(workerID)

    def qualify(self, workerID: int, series: Hashable) -> None:
        """Let a worker run calls of SERIES from now on."""
        self._qualified.setdefault(workerID, set()).add(series)
        self._engine.happened(self._scheduler.qualify(workerID, series))

    def dismiss(self, workerID: int, reassign: bool, crash: bool) -> Deferred[list[Task]]:
        """Let a worker go; fires with what it left unfinished."""
        left: Deferred[list[Task]] = Deferred()
        self._leaving.setdefault(workerID, []).append(left)
        if crash:
            unfinished = self._lose(workerID, reassign, "its worker was made to crash", crash=True)
            self._cleanUp(workerID, [] if reassign else unfinished)
        elif workerID in self._away:
            self._cleanUp(workerID, [])
        else:
            self._engine.happened(self._scheduler.detach(workerID, reassign))
        return left

    def tell(self, workerID: int, what: Callable[[], object]) -> None:
        """Have a worker do WHAT. If it cannot, that is for the log: it must not keep others from their work."""
        try:
            what()
        except BaseException:
            self._log.failure("worker {worker} raised an error of its own", worker=workerID)

    def recall(self, workerID: int) -> None:
        """Have a worker give back what it has not started, if it can."""
        worker = self._workers.get(workerID)
        if isinstance(worker, Recaller):
            self.tell(workerID, worker.recall)

    def stop(self, workerID: int) -> None:
        """Have a worker, which holds nothing, leave."""
        if self._scheduler.workerState(workerID) is WorkerState.GONE:
            return  # it was lost since, and is cleaned up
        stopped = self._cleanUp(workerID, [])
        stopped.addCallback(lambda _: self._engine.happened(self._scheduler.stopped(workerID)))

    def dismissAbsent(self) -> None:
        """Wait for no worker that is away."""
        for workerID in list(self._away):
            self._cleanUp(workerID, [])

    def end(self) -> None:
        """No worker will come any more."""
        if self._trigger is not None:
            self._engine.clock().removeSystemEventTrigger(self._trigger)
            self._trigger = None

    # How a worker goes.

    def _cleanUp(self, workerID: int, unfinished: list[Task], error: BaseException | None = None) -> Deferred[None]:
        """Have a worker leave nothing behind; then it has left, because of ERROR and with what is UNFINISHED."""
        self._away.discard(workerID)
        stopped = maybeDeferred(self._workers[workerID].stop)
        stopped.addErrback(self._logStop, workerID)
        stopped.addCallback(lambda _: self._left(workerID, unfinished, error))
        return stopped

    def _logStop(self, reason: Failure, workerID: int) -> None:
        self._log.failure("worker {worker} did not stop well", reason, worker=workerID)

    def _resigned(
        self, workerID: int, returning: bool = False, away: bool = False, error: BaseException | None = None
    ) -> None:
        if workerID in self._away:
            if returning:
                self._away.discard(workerID)
                worker = self._workers[workerID]
                series = qualifications(worker) | self._qualified.get(workerID, set())
                self._engine.happened(self._scheduler.hire(workerID, series, window(worker)))
            elif not away:
                self._cleanUp(workerID, [], error).addCallback(lambda _: self._workerLeft())
        elif self._scheduler.workerState(workerID) is WorkerState.GONE:
            return
        elif returning:
            commands = self._scheduler.restarted(workerID)
            self._engine.happened(commands + self._engine.takeBack(workerID))
        elif away and self._scheduler.running:
            self._away.add(workerID)
            self._lose(workerID, True, "its worker is away")
        else:
            self._lose(workerID, True, "its worker resigned")
            self._cleanUp(workerID, [], error).addCallback(lambda _: self._workerLeft())

    def _resized(self, workerID: int, limits: Window | None) -> None:
        self._engine.happened(self._scheduler.resized(workerID, limits))

    def _lose(self, workerID: int, reassign: bool, reason: str, crash: bool = False) -> list[Task]:
        """A worker is gone, for REASON, or to CRASH now, and reports nothing more; what it had not finished.

        With REASSIGN, it first gives back what it has not started. All that comes of this is carried out in the end.
        """
        engine, scheduler = self._engine, self._scheduler
        with engine.held():
            engine.later(scheduler.detach(workerID, False))
            worker = self._workers.get(workerID)
            if reassign and isinstance(worker, Recaller):
                self.tell(workerID, worker.recall)
            if crash and worker is not None:
                self.tell(workerID, worker.crash)
            engine.later(engine.takeBack(workerID))
            unfinished = scheduler.held(workerID)
            engine.later(scheduler.lost(workerID, reassign, reason))
            self._runs.forgetAllOf(workerID)
        return unfinished

    def _left(self, workerID: int, unfinished: list[Task], error: BaseException | None = None) -> None:
        """A worker is gone, because of ERROR and with what it left unfinished."""
        worker = self._workers.pop(workerID, None)
        if worker is None:
            return
        _attached.pop(id(worker), None)
        self._away.discard(workerID)
        self._qualified.pop(workerID, None)
        for hired in self._hiring.pop(workerID, []):
            hired.errback(error or WorkerLost(f"worker {workerID} was gone before it was ready"))
        for left in self._leaving.pop(workerID, []):
            left.callback(unfinished)
        self._onLeft()

    def _watchReactor(self) -> None:
        """Have no worker outlive the reactor."""
        reactor = self._engine.clock()
        if self._trigger is None and hasattr(reactor, "addSystemEventTrigger"):
            self._trigger = reactor.addSystemEventTrigger("during", "shutdown", self._reactorStops)

    def _reactorStops(self) -> None:
        """Nothing can be waited for any more: let every worker go at once."""
        self._trigger = None
        self._engine.happened(self._scheduler.strand("the reactor has stopped"))
        for workerID in list(self._workers):
            self._lose(workerID, False, "the reactor has stopped", crash=True)
            self._left(workerID, [])
        self._engine.happened(self._scheduler.shutdown())


def _attach(worker: Worker) -> None:
    """Know that a queue has WORKER."""
    try:
        _attached[id(worker)] = worker
    except TypeError:
        pass  # it has no room for a weak reference, and nobody else's word is worth one that lasts


# What a queue wants to know of an object that is to be its worker.


def missing(worker: object) -> list[str]:
    """What of the `Worker` protocol WORKER lacks. Raises `ImplementationError` for the class of a worker."""
    if isinstance(worker, type):
        name = worker.__name__
        raise ImplementationError(f"a worker is an instance of its class, got the class: not {name} but {name}(...)")
    lacking = [name for name in ("run", "stop", "crash", "setResignator") if not callable(getattr(worker, name, None))]
    if not any(hasattr(worker, name) for name in ("qualifications", "cQualified", "iQualified")):
        lacking.append("qualifications")
    return lacking


def qualifications(worker: Any) -> set[Hashable]:
    """The series a worker names, in whichever way it does: hence Any."""
    named: set[Hashable] = set()
    for name in ("qualifications", "cQualified", "iQualified"):
        series = getattr(worker, name, ())
        try:
            if isinstance(series, (str, bytes)):
                raise TypeError("which has letters and no series")
            named.update(series)
        except TypeError as error:
            raise ImplementationError(
                f"{type(worker).__name__}.{name} must be a collection of series, got {series!r}: {error}"
            ) from error
    return named


def window(worker: object) -> Window:
    """The window of a worker; one written for 0.9 names none."""
    given = getattr(worker, "window", Window())
    if not isinstance(given, Window):
        raise ImplementationError(f"{type(worker).__name__}.window must be a Window, got {given!r}")
    return given
