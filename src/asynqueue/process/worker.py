"""The worker that runs calls in a process of its own.

A process that dies, or is killed to end a call, is replaced under the name of the worker. The worker then resigns
returning, and its queue runs the saved updates again. `asynqueue.core.scheduling.restarts` decides how soon the next
process starts, and when the worker resigns for good. `asynqueue.process.childprocess` has the process itself.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Hashable, Iterable, Sequence
from multiprocessing.context import BaseContext
from time import perf_counter
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger
from zope.interface import implementer

from asynqueue.capabilities import requirePosix
from asynqueue.core.records import Iterating, Raised, Recalled, Returned, RunOutcome, Task
from asynqueue.core.scheduling.recycling import Condition, RecycleLimits, RecyclePolicy
from asynqueue.core.scheduling.restarts import RestartPolicy
from asynqueue.core.scheduling.statistics import CallTimes, callLog
from asynqueue.core.scheduling.window import PROCESS, Window
from asynqueue.errors import ProcessError
from asynqueue.interfaces import DelayedCall, Departed, IWorker, Resignator, Resizer, Restarted
from asynqueue.process.childprocess import WorkerProcess, residentMemory
from asynqueue.process.cpus import cores
from asynqueue.process.starting import NotStartedError, contextFor, startProcess
from asynqueue.queue.adapter import ReportingWorker
from asynqueue.queue.options import seriesOf
from asynqueue.reactor.lookup import installedReactor, whenRunning

__all__ = ["ProcessWorker"]


@implementer(IWorker)
class ProcessWorker(ReportingWorker):
    """A worker that runs calls in one process of its own, one after another.

    It is qualified for the series ``process`` and ``local``. The process starts when a queue takes the worker. It
    ignores Ctrl-C, which is for the parent, and dies with its parent.

    Args:
        series: Further series for which the worker is qualified.
        raw: With True, an iterator is a result like any other, and fails the call unless it can be pickled.
        callStats: With True, the worker keeps how long its calls took; see `stats`.
        context: A start method of `multiprocessing`, or a context from there. The default is the fork server where
            there is one, else ``spawn``.
        useReactor: With True, the process runs a Twisted reactor of its own. A call may use it, and return a Deferred
            or a coroutine; the next call starts when that has fired. A process of the context ``fork`` cannot do this.
        maxTasks: The most calls that a process is given, 1 or more. After its last call, another process takes its
            place and runs the saved updates. Iterations of the old one go on there. The new process is started a
            little earlier, so that calls do not wait for its start (unless the limit is 1).
        maxMemory: The resident memory in kB, 1 or more, beyond which a process is replaced in the same way. It is
            measured after each call, as by `memUsage`.
        killOnCancel: With False, a running call that is cancelled goes on to its end, and its result is dropped. With
            True, the process is killed and replaced at once. A call that exceeds its timeout is killed in either case.
        reactor: The reactor to use instead of the installed one.

    Raises:
        ValueError: A limit is out of range, or `useReactor` does not go with the context.
        TypeError: `killOnCancel` is not a bool.
        ProcessError: This is no POSIX system; or `maxMemory` is given, and the system does not report the memory of
            processes.

    Example:
        >>> worker = ProcessWorker(["images"], maxTasks=1000)    # doctest: +SKIP
        >>> d = queue.attachWorker(worker)                       # doctest: +SKIP
    """

    cQualified: tuple[str, ...] = ("process", "local")
    window: Window = PROCESS
    _log = Logger(namespace="asynqueue")

    def __init__(
        self,
        series: Iterable[Hashable] = (),
        raw: bool = False,
        callStats: bool = False,
        context: str | BaseContext | None = None,
        useReactor: bool = False,
        *,
        maxTasks: int | None = None,
        maxMemory: int | None = None,
        killOnCancel: bool = True,
        reactor: Any = None,
    ) -> None:
        if type(killOnCancel) is not bool:
            raise TypeError(f"killOnCancel must be True or False, got {killOnCancel!r}")
        requirePosix("a worker process")
        super().__init__()
        self.qualifications: frozenset[Hashable] = seriesOf(self.cQualified, series)
        self._raw = raw
        self._context = contextFor(context)
        if useReactor and self._context.get_start_method() == "fork":
            raise ValueError(
                "useReactor=True does not work with the context fork, whose processes inherit this program's reactor: "
                "use the context forkserver or spawn"
            )
        self._useReactor = useReactor
        self._killOnCancel = killOnCancel
        self._limits = RecycleLimits(maxTasks, maxMemory)
        if maxMemory is not None and residentMemory(os.getpid()) is None:
            raise ProcessError(
                "maxMemory needs to know the memory of a process, which this system does not report: use maxTasks"
            )
        self._reactor = reactor
        self._times = callLog() if callStats else None
        self._process: WorkerProcess | None = None
        self._processes: dict[WorkerProcess, None] = {}  # all that have not ended, replaced ones too
        self._recycling = RecyclePolicy(self._limits)
        self._successor: WorkerProcess | None = None  # the process that takes over, if it was started already
        self._succeeded = False  # it was started, or its start failed
        self._stopping = False
        self._restarts = RestartPolicy()
        self._dead: WorkerProcess | None = None  # the last process, until its exit status is known
        self._restarting: DelayedCall | None = None
        self._resign: Resignator | None = None
        self._resize: Resizer | None = None
        self._watching = callStats or self._limits.any  # each call is inspected when it ends
        self._sent: dict[int, float] = {}  # when each call was sent that will be inspected, by ticket

    @staticmethod
    def cores() -> int:
        """Return how many CPU cores this process may use: `asynqueue.process.cores`."""
        return cores()

    @property
    def process(self) -> WorkerProcess:
        """The process, which has a `pid` and `is_alive()`. It is started if there is none."""
        if self._process is None:
            self._process = self._start()
            self._restarts.started()
        return self._process

    def memUsage(self) -> int | None:
        """Return the resident memory of the process in kB, with shared pages; None without a process, or if unknown."""
        return None if self._process is None else self._process.memUsage()

    def stats(self) -> list[CallTimes]:
        """Return the times of the last calls, at most `CALLS_KEPT`. Without `callStats` there are none."""
        return list(self._times or ())

    def setResignator(self, callableObject: Resignator) -> None:
        """Start the process when the reactor runs, and call CALLABLEOBJECT when it was replaced or cannot be.

        A process takes over what its program is at that moment: a program may become a daemon first, or another user. A
        worker that was stopped starts anew.

        Raises `ProcessError` if the reactor runs and this program may not start a process. If the cause may be over
        soon, the worker tries again.
        """
        if self._stopping:
            self._process = self._successor = None
            self._succeeded = self._stopping = False
            self._restarts = RestartPolicy()
            self._recycling = RecyclePolicy(self._limits)
        self._resign = callableObject
        inTime = True  # the queue that attaches this worker hears of an error

        def begin() -> None:
            if self._resign is not callableObject or self._stopping:
                return
            try:
                self._await(self.process)
            except NotStartedError as error:
                if error.passing:
                    self._retry(self._restarts.failed(outside=True), str(error))
                elif inTime:
                    raise
                else:
                    self._resignFor(str(error))

        whenRunning(self._reactor, begin)
        inTime = False
        if self._process is None:
            self._suspend()

    def setResizer(self, resize: Resizer) -> None:
        """Call RESIZE when the process can start calls, and when there is none that can."""
        self._resize = resize

    def give(self, runs: Sequence[tuple[int, Task]]) -> None:
        """Run the tasks of RUNS in the process, and report the outcome of each under its ticket."""
        process = self.process
        if not self._watching:
            process.link.give(runs, self._raw)
            return
        for run in runs:
            ticket, task = run
            if self._process is not process:  # The limit is reached. The next process first runs the updates.
                self.reported([(ticket, Recalled())])
                continue
            if not task.update:
                self._recycling.given()
                self._sent[ticket] = perf_counter()
            process.link.give([run], self._raw)
            self._review(process)

    def rest(self) -> None:
        """Leave nothing in the reactor until `wake`, while the worker has no calls."""
        for process in self._processes:
            process.rest()

    def wake(self) -> None:
        """End a `rest`."""
        for process in self._processes:
            process.wake()

    def interrupt(self, ticket: int) -> None:
        """Cancel the task of TICKET. If it is running, the process is replaced, unless `killOnCancel` is False."""
        for process in list(self._processes):
            process.link.cancel(ticket)

    def recall(self) -> None:
        """End all tasks that have not started as `Recalled`."""
        for process in list(self._processes):
            process.link.recall()

    def stop(self) -> Deferred[None]:
        """Stop the process when all its tasks have ended. The Deferred fires when it has exited."""
        self._stop()
        self.wake()
        for process in list(self._processes):
            process.stop()
        return gatherResults([process.gone.add() for process in self._processes]).addCallback(lambda _: None)

    def crash(self) -> Sequence[Task]:
        """Kill the process. Return the tasks without an outcome."""
        self._stop()
        self.wake()
        for process in list(self._processes):
            process.kill()
            process.link.drainInput()
        return [task for process in self._processes for task in process.link.unfinished]

    def ended(self, process: WorkerProcess, outcomes: Sequence[tuple[int, RunOutcome]]) -> None:
        """Report OUTCOMES of PROCESS, each with its ticket. (For the process itself.)"""
        if self._watching:
            for ticket, outcome in outcomes:
                sent = self._sent.pop(ticket, None)
                if sent is not None:
                    self._inspect(process, outcome, sent)
        self.reported(outcomes)

    def replace(self, process: WorkerProcess) -> None:
        """Start another process, since PROCESS is killed to end a call. (For the process itself.)"""
        if self._loses(process):
            self._restart()

    def lost(self, process: WorkerProcess) -> None:
        """Start another process when it is time for that: PROCESS has died. (For the process itself.)"""
        if not self._loses(process):
            return
        if process.link.received > 1:  # The first message says that it is ready, and the next ones are answers.
            self._restarts.proved()
            self._restart()
        elif process.link.started():
            self._retry(self._restarts.ended(self._now(), inCall=True), "")
        else:
            self._dead = process
            self._suspend()
            if process.exitcode is not None:
                self.exited(process)

    def exited(self, process: WorkerProcess) -> None:
        """Decide on the next process, if PROCESS has died unproved: its exit status is known. (For the process
        itself.)"""
        if process is not self._dead:
            return
        self._dead = None
        when = "as soon as" if process.link.ready else "before"
        why = f"process {process.pid} died {when} it was ready, with exit status {process.exitcode}"
        outside = process.exitcode == -signal.SIGKILL or process.lostForkServer
        self._retry(self._restarts.ended(self._now(), outside), why)

    def _loses(self, process: WorkerProcess) -> bool:
        """Take PROCESS out of service. Return whether it has to be replaced."""
        if process is self._successor:
            self._successor = None
        if process is not self._process or self._stopping:
            return False
        self._process = None
        return True

    def _restart(self) -> None:
        """Start another process; until there is one, the worker is given nothing."""
        self._restarting = None
        try:
            if self._process is None:  # else a call has needed one meanwhile
                self._takeOver()
        except NotStartedError as error:
            self._suspend()
            self._retry(self._restarts.failed(error.passing), str(error))
        else:
            self._return()

    def _retry(self, pause: float | None, why: str) -> None:
        """Start another process after PAUSE seconds. With None, resign: WHY says what happened last."""
        if self._stopping:
            return
        if pause is None:
            self._resignFor(f"{self._restarts.failures} times in a row, no process came to work; at last: {why}")
        elif pause:
            self._suspend()
            if self._restarting is None:
                self._restarting = installedReactor(self._reactor).callLater(pause, self._restart)
        else:
            self._restart()

    def _suspend(self) -> None:
        """Be given nothing until there is a process that can start calls."""
        if self._resize is not None:
            self._resize(None)

    def _now(self) -> float:
        return installedReactor(self._reactor).seconds()

    def _stop(self) -> None:
        self._stopping = True
        if self._restarting is not None:
            self._restarting.cancel()
            self._restarting = None

    def _inspect(self, process: WorkerProcess, outcome: RunOutcome, sent: float) -> None:
        """Inspect PROCESS after a call that was sent at the time SENT and has ended with OUTCOME."""
        if self._times is not None and isinstance(outcome, (Returned, Raised, Iterating)):
            self._times.append(CallTimes(perf_counter() - sent, outcome.seconds))
        if process is self._process:
            if isinstance(outcome, Recalled):
                self._recycling.recalled()
            if self._limits.maxMemory is not None:
                self._recycling.measured(process.memUsage() or 0)
            if self._review(process):
                process.link.recall()

    def _review(self, process: WorkerProcess) -> bool:
        """Replace PROCESS if a limit is reached, and return whether it was. Start its successor shortly before."""
        condition = self._recycling.condition
        if condition is Condition.FIT or self._stopping:
            return False
        try:
            if condition is Condition.WORN:
                self._takeOver()
                self._return()
                process.stopWhenIdle()
                return True
            if not self._succeeded:
                self._succeeded = True
                self._successor = self._start()
        except ProcessError as error:
            self._log.error(
                "a process is kept beyond its limit, because no other could be started: {error}",
                error=error,
            )
        return False

    def _takeOver(self) -> None:
        """Put the successor, or a new process, into service. Raises `ProcessError` if none could be started."""
        self._process = self._start() if self._successor is None else self._successor
        self._successor = None
        self._succeeded = False
        self._recycling = RecyclePolicy(self._limits)
        self._restarts.started()

    def _await(self, process: WorkerProcess) -> None:
        """Be given calls when PROCESS can start them. Until then they wait in the queue, where no time runs out."""
        if not process.link.ready:
            self._suspend()
        process.link.whenReady(lambda: self._ready(process))

    def _ready(self, process: WorkerProcess) -> None:
        if process is self._process:
            self._restarts.ready(self._now())
            if self._resize is not None:
                self._resize(self.window)

    def _return(self) -> None:
        """Notify the queue that there is a fresh process."""
        self._await(self.process)
        if self._resign is not None:
            self._resign(Restarted())

    def _resignFor(self, why: str) -> None:
        self._log.error("a process worker resigns: {why}", why=why)
        self.crash()
        if self._resign is not None:
            self._resign(Departed(ProcessError(why)))

    def _start(self) -> WorkerProcess:
        """Return a new process. Raises `ProcessError`, which is a `NotStartedError` if the start has failed."""
        if self._stopping:
            raise ProcessError("this worker was stopped")
        process = startProcess(
            self._context, installedReactor(self._reactor), self, self._useReactor, not self._killOnCancel
        )
        self._processes[process] = None
        process.gone.add().addCallback(lambda _: self._processes.pop(process))
        return process
