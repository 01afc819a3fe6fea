"""Work in threads: one dedicated thread a worker, or a thread alone.

A `ThreadQueue` has workers, each with a thread of its own; a `ThreadLooper` is such a thread without a queue, and
`deferToThread` one that is there for whoever calls. A call cannot be ended from outside in Python. So when one is to
end, its thread is *abandoned*, and a fresh one takes its place at once. `asynqueue.threads.thread` is about the
threads.

The bridges of `asynqueue.bridges` are here by name.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any, ParamSpec, TypeVar, overload

from twisted.internet.defer import Deferred
from typing_extensions import Unpack

from asynqueue.core.records import CallSpec, Lost, RunOutcome, Task
from asynqueue.core.scheduling.window import Window
from asynqueue.errors import QueueRunError
from asynqueue.interfaces import Report, Resignator
from asynqueue.iteration.deferator import Deferator
from asynqueue.queue.options import QueueOptions, seriesOf
from asynqueue.queue.taskqueue import TaskQueue
from asynqueue.threads.jobs import _DirectJob, _TaskJob, _TicketJob
from asynqueue.threads.slot import ThreadSlot

__all__ = ["ThreadQueue", "ThreadWorker"]

T = TypeVar("T")
P = ParamSpec("P")


class ThreadQueue(TaskQueue):
    """A queue with WORKERS threads of its own.

    RAW and the other keywords are those of `ThreadWorker` and `asynqueue.base.TaskQueue`.
    """

    def __init__(self, raw: bool = False, workers: int = 1, **kw: Unpack[QueueOptions]) -> None:
        if type(workers) is not int or workers < 1:
            raise ValueError(f"a ThreadQueue has at least one worker, got {workers!r}")
        super().__init__(**kw)
        for _ in range(workers):
            self.hire(ThreadWorker(raw=raw, reactor=kw.get("reactor")))

    @overload
    def deferToThread(
        self, f: Callable[P, Iterator[T]], /, *args: P.args, **kw: P.kwargs
    ) -> Deferred[Deferator[T]]: ...
    @overload
    def deferToThread(self, f: Callable[P, T], /, *args: P.args, **kw: P.kwargs) -> Deferred[T]: ...
    def deferToThread(self, f: Callable[..., Any], /, *args: Any, **kw: Any) -> Deferred[Any]:
        """A Deferred of what F gives, called in the queue's thread, past the queue: next after what the thread has.

        Of several threads, the one with the fewest unfinished calls has it. Every argument is F's own. An iterator
        comes as a `Deferator`, unless the queue is raw. To cancel it is as for a call in the queue. Shutting down
        waits for the call, though not for its iterator. Raises `asynqueue.errors.QueueRunError` on a queue that has
        been shut down or has no thread.

        >>> d = queue.deferToThread(connection.interrupt)                   # doctest: +SKIP
        """
        if not self.isRunning():
            raise QueueRunError(f"the queue is not running: {CallSpec(f, args, kw)} was not run")
        workers = [worker for worker in self.workers() if isinstance(worker, ThreadWorker)]
        if not workers:
            raise QueueRunError(f"the queue has no thread: {CallSpec(f, args, kw)} was not run")
        return min(workers, key=lambda worker: worker.unfinished).deferToThread(f, *args, **kw)


class ThreadWorker:
    """Runs calls in one thread of its own, one after another.

    It is qualified for the series ``thread`` and ``local``, and those in SERIES. With RAW, an iterator is a result
    like any other. A call that is cancelled or whose time runs out while it is running goes on to its end in a
    thread that is abandoned, and named so; a fresh thread has the next call. REACTOR is the installed one if it is not
    given.

    >>> queue = TaskQueue(ThreadWorker(series=["files"]))                        # doctest: +SKIP
    >>> d = queue.call(path.read_text, series="files")                           # doctest: +SKIP
    """

    cQualified: tuple[str, ...] = ("thread", "local")
    window: Window = Window(1, 64)

    def __init__(self, series: Iterable[Hashable] = (), raw: bool = False, *, reactor: Any = None) -> None:
        self.qualifications: frozenset[Hashable] = seriesOf(self.cQualified, series)
        self._raw = raw
        self._reactor = reactor
        self._thread = ThreadSlot(reactor, self._refreshed, self._tell)
        self._resign: Resignator | None = None
        self._report: Report | None = None
        self._given: dict[int, _TicketJob] = {}  # by ticket
        self._outcomes: list[tuple[int, RunOutcome]] = []  # what is to be reported

    def setResignator(self, resign: Resignator) -> None:
        """RESIGN is called when a thread has been abandoned for a fresh one."""
        self._resign = resign

    def run(self, task: Task) -> Deferred[RunOutcome]:
        """Make the call of TASK in the thread, which is started for the first one."""
        job = _TaskJob(task, self._raw if task.raw is None else task.raw, self._thread)
        self._thread.start(job)
        return job.deferred

    def setReport(self, report: Report) -> None:
        """REPORT is called with the outcomes of what was given under tickets."""
        self._report = report

    def give(self, runs: Sequence[tuple[int, Task]]) -> None:
        """Make the calls of RUNS as `run` does, and report the outcome of each under its ticket."""
        for ticket, task in runs:
            raw = self._raw if task.raw is None else task.raw
            job = _TicketJob(task, raw, self._thread, ticket, self._ended)
            self._thread.start(job)
            self._given[ticket] = job

    def interrupt(self, ticket: int) -> None:
        """Let go of what was given under TICKET, for which the thread may have to be abandoned."""
        if ticket in self._given:
            self._thread.interrupt(self._given[ticket])

    @overload
    def deferToThread(
        self, f: Callable[P, Iterator[T]], /, *args: P.args, **kw: P.kwargs
    ) -> Deferred[Deferator[T]]: ...
    @overload
    def deferToThread(self, f: Callable[P, T], /, *args: P.args, **kw: P.kwargs) -> Deferred[T]: ...
    def deferToThread(self, f: Callable[..., Any], /, *args: Any, **kw: Any) -> Deferred[Any]:
        """A Deferred of what F gives, called in the thread after what it has been given already."""
        return _DirectJob(CallSpec(f, args, kw), self._raw, self._thread, self._reactor).start()

    def recall(self) -> None:
        """Give back what has not started."""
        self._thread.recall()

    def stop(self) -> Deferred[None]:
        """Let the thread end when it has done what it was given; fires when it is gone."""
        return self._thread.leave()

    def crash(self) -> Sequence[Task]:
        """Abandon the thread; the tasks without an outcome."""
        tasks: list[Task] = []
        for job in self._thread.crash():
            if isinstance(job, (_TaskJob, _TicketJob)):
                tasks.append(job.task)
            else:
                job.ended(Lost("its thread was abandoned"))
        self._given.clear()
        return tasks

    @property
    def unfinished(self) -> int:
        """The number of calls it has been given and has not finished."""
        return self._thread.unfinished

    def _ended(self, ticket: int, outcome: RunOutcome) -> None:
        """What was given under TICKET has ended."""
        self._given.pop(ticket, None)
        self._outcomes.append((ticket, outcome))
        if not self._thread.hearing:
            self._tell()

    def _tell(self) -> None:
        """Report what is to be reported."""
        while self._outcomes and self._report is not None:
            outcomes, self._outcomes = self._outcomes, []
            self._report(outcomes)

    def _refreshed(self) -> None:
        if self._resign is not None:
            self._resign(returning=True)
