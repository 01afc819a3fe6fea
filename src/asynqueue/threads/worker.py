"""Work in threads: one dedicated thread a worker, or a thread alone.

- Each worker of a `ThreadQueue` has a thread of its own.
- A `ThreadLooper` is such a thread without a queue.
- `deferToThread` uses one thread that all its callers share.

Python cannot end a running call. When a call has to end, its thread is *abandoned*, and a fresh one takes its place at
once. `asynqueue.threads.thread` is about the threads.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from typing_extensions import Unpack
from zope.interface import implementer

from asynqueue.core.records import CallSpec, Lost, RunOutcome, Task
from asynqueue.core.scheduling.window import THREAD, Window
from asynqueue.errors import QueueRunError
from asynqueue.interfaces import IWorker, Resignator, Restarted
from asynqueue.queue.adapter import ReportingWorker
from asynqueue.queue.options import QueueOptions, seriesOf
from asynqueue.queue.taskqueue import TaskQueue
from asynqueue.threads.directcaller import DirectCaller
from asynqueue.threads.jobs import DirectJob, TaskJob
from asynqueue.threads.slot import ThreadSlot

__all__ = ["ThreadQueue", "ThreadWorker"]


class ThreadQueue(DirectCaller, TaskQueue):
    """A `asynqueue.base.TaskQueue` with threads of its own.

    Args:
        raw: With True, an iterator is a result like any other, unless the call has its own ``raw``.
        workers: The number of threads, 1 or more.
        kw: The keywords of `asynqueue.base.TaskQueue`.

    Raises:
        ValueError: `workers` is not an integer of 1 or more.
    """

    def __init__(self, raw: bool = False, workers: int = 1, **kw: Unpack[QueueOptions]) -> None:
        if type(workers) is not int or workers < 1:
            raise ValueError(f"a ThreadQueue has at least one worker, got {workers!r}")
        super().__init__(**kw)
        for _ in range(workers):
            self.attachOwn(ThreadWorker(raw=raw, reactor=kw.get("reactor")))

    def _callDirectly(self, call: CallSpec[Any], raw: bool | None, doNext: bool) -> Deferred[Any]:
        if not self.isRunning():
            raise QueueRunError(f"{self._driver.refusal}: {call} was not run")
        workers = [worker for worker in self.workers() if isinstance(worker, ThreadWorker)]
        if not workers:
            raise QueueRunError(f"the queue has no thread: {call} was not run")
        return min(workers, key=lambda worker: worker.unfinished)._callDirectly(call, raw, doNext)


@implementer(IWorker)
class ThreadWorker(DirectCaller, ReportingWorker):
    """A worker that runs calls in one thread of its own, one after another.

    A Deferred that a call returns is waited for, and the thread goes on with other calls meanwhile.

    A running call that is cancelled or times out goes on to its end in a thread that is abandoned, and has that in its
    name. A fresh thread makes the next call.

    Args:
        series: The series for which the worker is qualified, beside ``thread`` and ``local``.
        raw: With True, an iterator is a result like any other, unless the call has its own ``raw``.
        reactor: The reactor to use. None is the installed one.

    >>> queue = TaskQueue(ThreadWorker(series=["files"]))                        # doctest: +SKIP
    >>> d = queue.call(path.read_text, series="files")                           # doctest: +SKIP
    """

    cQualified: tuple[str, ...] = ("thread", "local")
    window: Window = THREAD

    def __init__(self, series: Iterable[Hashable] = (), raw: bool = False, *, reactor: Any = None) -> None:
        super().__init__()
        self.qualifications: frozenset[Hashable] = seriesOf(self.cQualified, series)
        self._raw = raw
        self._reactor = reactor
        self._slot = ThreadSlot(reactor, self._refreshed, self._reportOutcomes)
        self._resign: Resignator | None = None
        self._outcomes: list[tuple[int, RunOutcome]] = []  # those to be reported

    def setResignator(self, callableObject: Resignator) -> None:
        """Call CALLABLEOBJECT when the thread has been replaced by a fresh one."""
        self._resign = callableObject

    def give(self, runs: Sequence[tuple[int, Task]]) -> None:
        """Run the tasks of RUNS in the thread, and report the outcome of each under its ticket.

        The first task starts the thread.
        """
        for ticket, task in runs:
            raw = self._raw if task.raw is None else task.raw
            self._slot.start(TaskJob(task, raw, self._slot, ticket, self._outcomes.append))

    def interrupt(self, ticket: int) -> None:
        """Cancel the task of TICKET. If it has started, its thread is abandoned."""
        for job in self._slot.jobs:
            if isinstance(job, TaskJob) and job.ticket == ticket:
                self._slot.interrupt(job)
                break

    def _callDirectly(self, call: CallSpec[Any], raw: bool | None, doNext: bool) -> Deferred[Any]:
        return DirectJob(call, self._raw if raw is None else raw, self._slot, self._reactor).start(doNext)

    def recall(self) -> None:
        """End the tasks that have not started as `Recalled`."""
        self._slot.recall()

    def stop(self) -> Deferred[None]:
        """End the thread after its calls. Return a Deferred that fires when it has exited."""
        return self._slot.leave()

    def crash(self) -> Sequence[Task]:
        """Abandon the thread. Return the tasks without an outcome."""
        tasks: list[Task] = []
        for job in self._slot.crash():
            if isinstance(job, TaskJob):
                tasks.append(job.task)
            else:
                job.deliver(Lost("its thread was abandoned"))
        return tasks

    @property
    def unfinished(self) -> int:
        """The number of calls without an outcome."""
        return len(self._slot.jobs)

    def _reportOutcomes(self) -> None:
        """Report the outcomes that wait, in one call."""
        while self._outcomes:
            outcomes = self._outcomes.copy()
            self._outcomes.clear()  # and not another list, to which jobs would not append
            self.reported(outcomes)

    def _refreshed(self) -> None:
        if self._resign is not None:
            self._resign(Restarted())
