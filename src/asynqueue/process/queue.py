"""Work in processes: one process a worker, over a link of its own.

Here is the queue that brings its processes. The other names of the trade are here too, each from the module where it
lives: the worker, the far side, calls without a queue, and objects that live in processes.
"""

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
    """A queue with N processes of its own; as many as there are `cores` if N is not given.

    With CALLSTATS, it keeps how long each call took, here and over there, for `stats` to tell. RAW, SERIES, CONTEXT,
    MAXTASKS (calls), MAXMEMORY (kB) and USEREACTOR are those of `ProcessWorker`, the other keywords those of
    `asynqueue.base.TaskQueue`.

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
        **kw: Unpack[QueueOptions],
    ) -> None:
        if N is not None and (type(N) is not int or N < 1):
            raise ValueError(f"a ProcessQueue has at least one worker, got N={N!r}")
        series = seriesOf((), series)
        super().__init__(**kw)
        self._brought: list[ProcessWorker] = []
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
                    reactor=kw.get("reactor"),
                )
                self.attachOwn(worker)
                self._brought.append(worker)
        except BaseException:
            for each in self.workers():
                self.detachWorker(each, crash=True)
            self.shutdown()
            raise

    def stats(self) -> ProcessStats:
        """A picture of what the queue has done and is doing, and the times of its calls, if it keeps them.

        Those are ``calls`` of the picture: for each of the processes' last calls, the seconds for which the worker
        waited for it and those for which its process was at it. The other fields are those of every queue.
        """
        return ProcessStats.of(super().stats(), [times for worker in self._brought for times in worker.stats()])

    def crashWorkers(self) -> Deferred[list[Task]]:
        """Kill every worker's process at once; fires with the tasks that they left unfinished, which fail with
        `WorkerLost`.

        Workers that have no process are made to let go, too. What is queued stays so, for a worker that may be
        attached; `shutdown` refuses it.
        """
        left = [self.detachWorker(worker, crash=True) for worker in self.workers()]
        return gatherResults(left).addCallback(lambda unfinished: [task for tasks in unfinished for task in tasks])

    def workerLeft(self) -> None:
        """With its last worker gone by itself, nothing would ever run: say so to all that wait."""
        if not self._scheduler.workers:
            self.strand("no worker process could be kept running")


# Calls in processes without a queue to make.
#
# There is one pool for the program. It starts with the first call, grows by a process whenever a call finds none free
# until there are as many as `cores`, and ends with the reactor.

P = ParamSpec("P")
T = TypeVar("T")

_log = Logger(namespace="asynqueue")


class _Pool(TaskQueue):
    """A queue that brings a process when a call finds none free, up to MOST."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def grow(self) -> None:
        """Be ready for one more call. Raises `ProcessError` if there is no process at all for it."""
        if len(self) >= min(self._most, self._scheduler.unfinished + 1):
            return
        try:
            self.attachOwn(ProcessWorker())
        except ProcessError as error:
            if not len(self):
                raise
            _log.error("the pool of processes does not grow: {error}", error=error)

    def workerLeft(self) -> None:
        """With its last worker gone by itself, nothing that waits would ever run. (The next call has a new pool.)"""
        if not self._scheduler.workers:
            self.strand("no worker process could be kept running")


_shared: _Pool | None = None


@overload
def deferToProcess() -> Deferred[None]: ...
@overload
def deferToProcess(f: Callable[P, Iterator[T]], /, *args: P.args, **kw: P.kwargs) -> Deferred[Deferator[T]]: ...
@overload
def deferToProcess(f: Callable[P, T], /, *args: P.args, **kw: P.kwargs) -> Deferred[T]: ...
def deferToProcess(f: Callable[..., Any] | None = None, /, *args: Any, **kw: Any) -> Deferred[Any]:
    """A Deferred of what ``f(*args, **kw)`` gives, called in a process of a pool that all such calls share.

    It fires, fails and is cancelled as that of a call in a queue: an iterator comes as a `Deferator`, an error as the
    original one with the traceback from over there, and a process that dies is replaced and the call started once
    more, before it fails with `asynqueue.errors.WorkerLost`. Every argument is F's own. What pickle and cloudpickle
    refuse fails the call with `asynqueue.errors.SerializationError`.

    The pool starts with the first call, a process at a time as they are needed, and has as many as
    `asynqueue.process.cores` at most. It ends with the reactor, or when this is called with no arguments: then the
    Deferred fires when every process is gone, and the next call starts another. For the reactor's thread. Raises
    `asynqueue.errors.ProcessError` if no process can be started.

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
