"""Work in processes: one process a worker, over a link of its own.

Here is the queue that brings its processes. The other names of the trade are here too, each from the module where it
lives: the worker, the far side, calls without a queue, and objects that live in processes.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from multiprocessing.context import BaseContext

from twisted.internet.defer import Deferred, gatherResults
from typing_extensions import Unpack

from asynqueue.base import TaskQueue
from asynqueue.core.calltimes import CallTimes, ProcessStats
from asynqueue.core.records import Task
from asynqueue.options import QueueOptions, seriesOf
from asynqueue.processbase import ProcessBase
from asynqueue.processpool import deferToProcess
from asynqueue.processworker import ProcessWorker
from asynqueue.quota import cores
from asynqueue.universe import ProcessUniverse

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
                self.hire(worker)
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
