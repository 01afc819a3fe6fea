"""Work in processes: one process a worker, over a link of its own.

A process that dies, or has to be killed to end a call, is replaced at once; its worker then resigns as one that
returns, and runs the saved updates again. `asynqueue.workerprocess` has the process itself.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Hashable, Iterable, Sequence
from itertools import count
from multiprocessing.context import BaseContext
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from typing_extensions import Unpack

from asynqueue.base import TaskQueue
from asynqueue.core.records import RunOutcome, Task
from asynqueue.core.window import Window
from asynqueue.cores import cores
from asynqueue.delay import installedReactor
from asynqueue.errors import ProcessError
from asynqueue.interfaces import Resignator
from asynqueue.options import QueueOptions
from asynqueue.universe import ProcessUniverse
from asynqueue.workerprocess import WorkerProcess, contextFor

__all__ = ["ProcessQueue", "ProcessUniverse", "ProcessWorker", "cores"]

START_ATTEMPTS = 3
"""How many processes in a row may die before they speak, other than killed from outside; then a worker gives up.
So it does when as many in a row cannot be started at all."""

START_PAUSE = 0.01
"""Seconds between one process that could not be started and the next."""

T = TypeVar("T")


class ProcessWorker:
    """Runs calls in one process of its own, one after another.

    It is qualified for the series ``process`` and ``local``, and those in SERIES. With RAW, an iterator is a result
    like any other (and will not cross the link). CONTEXT is a start method of `multiprocessing` or a context from
    there; the fork server is the default where there is one, else ``spawn``. The process starts when a queue takes
    the worker. It ignores Ctrl-C, which is the parent's business, and dies with its parent.
    """

    cQualified = ("process", "local")
    window = Window(1, 64)
    _log = Logger(namespace="asynqueue")

    def __init__(
        self,
        series: Iterable[Hashable] = (),
        raw: bool = False,
        context: str | BaseContext | None = None,
        *,
        reactor: Any = None,
    ) -> None:
        self.qualifications = frozenset(self.cQualified) | frozenset(series)
        self._raw = raw
        self._context = contextFor(context)
        self._reactor = reactor
        self._process: WorkerProcess | None = None
        self._processes: dict[WorkerProcess, None] = {}  # those not gone: the replaced ones too
        self._stopping = False
        self._failedStarts = 0
        self._resign: Resignator | None = None

    @property
    def process(self) -> WorkerProcess:
        """The process, which has a `pid` and `is_alive()`; started, if it was not."""
        if self._process is None:
            self._process = self._start()
        return self._process

    def setResignator(self, resign: Resignator) -> None:
        """RESIGN is called when the process has been replaced, or cannot be."""
        self._resign = resign
        self.process  # noqa: B018  # it starts

    def run(self, task: Task) -> Deferred[RunOutcome]:
        """Have the process make the call of TASK."""
        return self.process.link.call(task, self._raw if task.raw is None else task.raw)

    def recall(self) -> None:
        """Give back what has not started."""
        for process in list(self._processes):
            process.link.recall()

    def stop(self) -> Deferred[None]:
        """Have the process exit when it has done what it was given; fires when it is gone."""
        self._stopping = True
        if self._process is not None:
            self._process.goodbye()
        return _allOf([process.gone for process in self._processes])

    def crash(self) -> Sequence[Task]:
        """Kill the process; the tasks without an outcome."""
        self._stopping = True
        for process in list(self._processes):
            process.kill()
            process.link.hearOut()
        return [task for process in self._processes for task in process.link.unfinished]

    def replace(self, process: WorkerProcess) -> None:
        """PROCESS is about to die: have another. (For the process itself.)"""
        if process is not self._process or self._stopping:
            return
        self._process = None
        try:
            self._process = self._start()
        except ProcessError as error:
            self._giveUp(str(error))
        else:
            if self._resign is not None:
                self._resign(returning=True)

    def lost(self, process: WorkerProcess) -> None:
        """PROCESS has died. (For the process itself.)"""
        self.replace(process)

    def exited(self, process: WorkerProcess) -> None:
        """PROCESS has exited. (For the process itself.)"""
        if process.link.ready or self._stopping:
            self._failedStarts = 0
        elif process.exitcode != -signal.SIGKILL:
            self._failedStarts += 1
            if self._failedStarts == START_ATTEMPTS:
                self._giveUp(f"{START_ATTEMPTS} processes in a row died before they were ready")

    def _giveUp(self, why: str) -> None:
        self._log.error("a process worker gives up: {why}", why=why)
        self.crash()
        if self._resign is not None:
            self._resign()

    def _start(self) -> WorkerProcess:
        if self._stopping:
            raise ProcessError("this worker was stopped")
        for attempt in count(1):
            try:
                process = WorkerProcess(self._context, installedReactor(self._reactor), self)
                break
            except (OSError, EOFError) as error:
                if attempt == START_ATTEMPTS:
                    raise ProcessError(f"no process could be started: {error!r}") from error
                time.sleep(START_PAUSE)  # a fork server that was killed is noticed, and replaced, when it is buried
        self._processes[process] = None
        process.gone.addCallback(lambda _: self._processes.pop(process))
        return process


class ProcessQueue(TaskQueue):
    """A queue with N processes of its own; as many as there are `cores` if N is not given.

    RAW, SERIES and CONTEXT are those of `ProcessWorker`, the other keywords those of
    `asynqueue.base.TaskQueue`.

    >>> queue = ProcessQueue(2)                              # doctest: +SKIP
    >>> d = queue.call(pow, 2, 1000)                         # doctest: +SKIP
    """

    def __init__(
        self,
        N: int | None = None,
        raw: bool = False,
        series: Iterable[Hashable] = (),
        context: str | BaseContext | None = None,
        **kw: Unpack[QueueOptions],
    ) -> None:
        if N is not None and (type(N) is not int or N < 1):
            raise ValueError(f"a ProcessQueue has at least one worker, got N={N!r}")
        super().__init__(**kw)
        series = list(series)
        try:
            for _ in range(cores() if N is None else N):
                self.hire(ProcessWorker(series, raw, context, reactor=kw.get("reactor")))
        except BaseException:
            for worker in self.workers():
                self.detachWorker(worker, crash=True)
            self.shutdown()
            raise

    def workerLeft(self) -> None:
        """With its last worker gone by itself, nothing would ever run: say so to all that wait."""
        if not self._scheduler.workers:
            self.strand("no worker process could be kept running")


def _allOf(deferreds: list[Deferred[None]]) -> Deferred[None]:
    """Fires when all of DEFERREDS, none of which fails, have fired; they go on as they were."""
    all_: Deferred[None] = Deferred()
    left = len(deferreds)

    def one(result: T) -> T:
        nonlocal left
        left -= 1
        if not left:
            all_.callback(None)
        return result

    for d in deferreds:
        d.addCallback(one)
    if not deferreds:
        all_.callback(None)
    return all_
