"""The queue with worker processes of its own, and calls in processes without a queue."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from multiprocessing.context import BaseContext
from typing import Any, ParamSpec, TypeVar, overload

from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.logger import Logger
from typing_extensions import Unpack

from asynqueue.core.records import CallSpec, Task
from asynqueue.core.scheduling.statistics import CallTimes, ProcessStats
from asynqueue.errors import ProcessError
from asynqueue.interfaces import DelayedCall
from asynqueue.iteration.deferator import Deferator
from asynqueue.process.base import ProcessBase
from asynqueue.process.child.main import ProcessUniverse
from asynqueue.process.cpus import cores
from asynqueue.process.worker import ProcessWorker
from asynqueue.queue.options import QueueOptions, seriesOf
from asynqueue.queue.taskqueue import TaskQueue

__all__ = [
    "CallTimes",
    "ProcessBase",
    "ProcessQueue",
    "ProcessStats",
    "ProcessUniverse",
    "ProcessWorker",
    "cores",
    "deferToProcess",
]


class ProcessQueue(TaskQueue):
    """A queue with worker processes of its own.

    Args:
        N: The number of processes, 1 or more. The default is `cores`.
        callStats: With True, the queue keeps how long each call took; see `stats`.
        raw: As for `ProcessWorker`, like the following ones.
        series: The further series of all workers.
        context: The start method of `multiprocessing`.
        maxTasks: The most calls of one process.
        maxMemory: The most resident memory of one process, in kB.
        useReactor: With True, each process runs a Twisted reactor.
        killOnCancel: With False, a running call that is cancelled goes on to its end.
        kw: The keywords of `asynqueue.base.TaskQueue`.

    Raises:
        ValueError: `N` or another argument is out of range.
        ProcessError: A process cannot be started.

    Example:
        >>> queue = ProcessQueue(2)                              # doctest: +SKIP
        >>> d = queue.call(pow, 2, 1000)                         # doctest: +SKIP
    """

    def __init__(
        self,
        N: int | None = None,
        callStats: bool = False,
        raw: bool = False,
        series: Iterable[Hashable] = (),
        context: str | BaseContext | None = None,
        maxTasks: int | None = None,
        maxMemory: int | None = None,
        useReactor: bool = False,
        killOnCancel: bool = True,
        **kw: Unpack[QueueOptions],
    ) -> None:
        if N is not None and (type(N) is not int or N < 1):
            raise ValueError(f"a ProcessQueue has at least one worker, got N={N!r}")
        series = seriesOf((), series)
        super().__init__(**kw)
        self._ownWorkers: list[ProcessWorker] = []
        try:
            for _ in range(cores() if N is None else N):
                worker = ProcessWorker(
                    series,
                    raw,
                    callStats,
                    context,
                    useReactor,
                    maxTasks=maxTasks,
                    maxMemory=maxMemory,
                    killOnCancel=killOnCancel,
                    reactor=kw.get("reactor"),
                )
                self.attachOwn(worker)
                self._ownWorkers.append(worker)
        except BaseException:
            for each in self.workers():
                self.detachWorker(each, crash=True)
            self.shutdown()
            raise

    @staticmethod
    def cores() -> int:
        """Return how many CPU cores this process may use: `asynqueue.process.cores`."""
        return cores()

    def stats(self) -> ProcessStats:
        """Return the statistics of the queue, with the times of its calls if `callStats` is True.

        Returns:
            A `ProcessStats`. Its `calls` has, for each of the last calls of the processes, the seconds from sending it
            to its answer, and the seconds that it ran in the process.
        """
        return ProcessStats.of(super().stats(), [times for worker in self._ownWorkers for times in worker.stats()])

    def crashWorkers(self) -> Deferred[list[Task]]:
        """Kill the processes of all workers at once. Workers without a process are detached too.

        Queued tasks stay in the queue for workers that are attached later; `shutdown` refuses them.

        Returns:
            A Deferred of the unfinished tasks, each of which fails with `WorkerLost`.
        """
        left = [self.detachWorker(worker, crash=True) for worker in self.workers()]
        return gatherResults(left).addCallback(lambda unfinished: [task for tasks in unfinished for task in tasks])

    def workerLeft(self) -> None:
        """Refuse all queued calls if the last worker has resigned, because none of them would ever run."""
        if not self._scheduler.workers:
            self.strand(f"no worker process could be kept running: {self._registry.resignation}")


# The pool of `deferToProcess`, one for the program. It starts with the first call and ends with the reactor. A call
# that finds no idle process adds one, up to the number of `cores`.

P = ParamSpec("P")
T = TypeVar("T")

_log = Logger(namespace="asynqueue")


class _Pool(TaskQueue):
    """A queue that adds a process when a call finds none idle, up to MOST.

    While there is no call, it has nothing in the reactor: the reactor of a test is clean after `deferToProcess`.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most
        self._resting: DelayedCall | None = None
        self._driver.observeIdle(self._idle)

    def shutdown(self) -> Deferred[None]:
        """Shut down as any queue."""
        self.wake()
        return super().shutdown()

    def wake(self) -> None:
        """Watch the processes, for a call that comes."""
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        for worker in self._own:
            worker.wake()

    def _idle(self) -> None:
        """Rest in the next turn of the reactor, unless another call comes before."""
        if self._resting is None and self.isRunning():
            self._resting = self._driver.clock().callLater(0, self._rest)

    def _rest(self) -> None:
        self._resting = None
        if self._scheduler.unfinished or self._scheduler.iterations:
            return
        self._driver.rest()
        for worker in self._own:
            worker.rest()

    @property
    def _own(self) -> list[ProcessWorker]:
        return [worker for worker in self.workers() if isinstance(worker, ProcessWorker)]

    def grow(self) -> None:
        """Add a process for one more call, if none is idle. Raises `ProcessError` if there is no process at all."""
        self.wake()
        if len(self) >= min(self._most, self._scheduler.unfinished + 1):
            return
        try:
            self.attachOwn(ProcessWorker())
        except ProcessError as error:
            if not len(self):
                raise
            _log.error("the process pool of deferToProcess could not start another process: {error}", error=error)

    def workerLeft(self) -> None:
        """Refuse all queued calls if the last worker has resigned. (The next call starts a new pool.)"""
        if not self._scheduler.workers:
            self.strand(f"no worker process could be kept running: {self._registry.resignation}")


_shared: _Pool | None = None


@overload
def deferToProcess() -> Deferred[None]: ...
@overload
def deferToProcess(f: Callable[P, Iterator[T]], /, *args: P.args, **kw: P.kwargs) -> Deferred[Deferator[T]]: ...
@overload
def deferToProcess(f: Callable[P, T], /, *args: P.args, **kw: P.kwargs) -> Deferred[T]: ...
def deferToProcess(f: Callable[..., Any] | None = None, /, *args: Any, **kw: Any) -> Deferred[Any]:
    """Call ``f(*args, **kw)`` in a process of a pool that all such calls share.

    The pool starts with the first call, adds processes as they are needed, up to `asynqueue.process.cores`, and ends
    with the reactor. Without arguments, this ends the pool now; the next call starts another. Only the thread of the
    reactor may call this.

    Args:
        f: A callable. All further arguments are its own.

    Returns:
        A Deferred of the result, with the same rules as for a call in a queue:

        - An iterator arrives as a `Deferator`, and an error with its remote traceback.
        - If the process dies, the call is started once more, and then fails with `asynqueue.errors.WorkerLost`.
        - A call that cannot be pickled fails with `asynqueue.errors.SerializationError`.

        Without arguments, the Deferred fires when all processes have exited.

    Raises:
        ProcessError: No process can be started.

    Example:
        >>> d = deferToProcess(pow, 3, 100_000, 7)                              # doctest: +SKIP
    """
    global _shared
    if f is None:
        pool, _shared = _shared, None
        return succeed(None) if pool is None else pool.shutdown()
    spec = CallSpec(f, args, kw)
    if _shared is None or not _shared:
        _shared = _Pool(cores())
    _shared.grow()
    return _shared.submit(spec)
