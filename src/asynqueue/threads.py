"""Work in threads: one dedicated thread a worker.

A worker's thread takes jobs from a queue of its own and puts what comes of them where the reactor collects it, as
many at a time as have come. A job that must end cannot be ended in Python; its thread is *abandoned*: it goes on
until the job ends by itself, then exits, and what the job gave is dropped. A fresh thread takes its place at once.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import count
from queue import Empty, SimpleQueue
from time import perf_counter
from typing import Any

from twisted.internet.defer import Deferred, succeed
from typing_extensions import Unpack

from asynqueue.base import TaskQueue
from asynqueue.core.iteration import Outflow
from asynqueue.core.records import (
    Interrupted,
    Iterating,
    Raised,
    Recalled,
    Returned,
    RunOutcome,
    Task,
)
from asynqueue.core.window import Window
from asynqueue.delay import installedReactor
from asynqueue.errors import WorkerLost
from asynqueue.interfaces import ItemSink, Resignator
from asynqueue.options import QueueOptions
from asynqueue.universe import SLICE, isIterator

__all__ = ["ThreadQueue", "ThreadWorker"]

_numbers = count(1)


class _Lane:
    """A thread that does one job after another, and tells the reactor's thread what came of each."""

    def __init__(self, reactor: Any) -> None:
        self.gone: Deferred[None] = Deferred()
        self.sources: dict[_LaneSource, None] = {}  # those that somebody listens to; for the reactor's thread
        self.iterations: dict[_LaneSource, None] = {}  # those that have not ended; for the thread
        self._reactor = reactor
        self.abandoned: bool = False
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._told: deque[Callable[[], None]] = deque()
        self._telling = False
        name = f"asynqueue-thread-{next(_numbers)}"
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    # For the reactor's thread.

    def do(self, job: _Job) -> None:
        """Do JOB after those before it."""
        self._jobs.put(job)

    def takeBack(self) -> list[_CallJob]:
        """The calls that have not started, and now never will here."""
        taken: list[_CallJob] = []
        others: list[_Job | None] = []
        while True:
            try:
                job = self._jobs.get_nowait()
            except Empty:
                break
            if isinstance(job, _CallJob):
                taken.append(job)
            else:
                others.append(job)
        for other in others:
            self._jobs.put(other)
        return taken

    def collect(self) -> None:
        """Hear what the thread has told."""
        self._telling = False
        while self._told and not self.abandoned:
            self._told.popleft()()

    def leave(self) -> Deferred[None]:
        """End the thread when it has done its jobs; fires when it is gone."""
        self._jobs.put(None)
        return self.gone

    def abandon(self) -> None:
        """Let the thread end when its job does, and hear nothing more of it."""
        self.abandoned = True
        self._thread.name += " (abandoned)"
        self._jobs.put(None)
        for source in list(self.sources):
            source.over(WorkerLost("the iteration ended early: its thread was abandoned"))

    # For the thread.

    def tell(self, what: Callable[[], None]) -> None:
        """Call WHAT in the reactor's thread; what is told at about the same time is heard in one turn."""
        self._told.append(what)
        if not self._telling:
            self._telling = True
            self._reactor.callFromThread(self.collect)

    def _work(self) -> None:
        while not self.abandoned:
            job = self._jobs.get()
            if job is None:
                break
            job.do(self)
            del job  # or what it was passed would live until the next one comes
        for source in list(self.iterations):
            source.end(WorkerLost("the iteration ended early: its thread has ended"))
        self._reactor.callFromThread(self._join)

    def _join(self) -> None:
        self._thread.join()
        self.gone.callback(None)


class _Job:
    """Something to be done in a lane's thread."""

    def do(self, lane: _Lane) -> None:
        """Do it, there."""
        raise TypeError("a job says what to do")


class _CallJob(_Job):
    """A call, and the Deferred of its outcome."""

    def __init__(self, task: Task, raw: bool, worker: ThreadWorker) -> None:
        self.task = task
        self.deferred: Deferred[RunOutcome] = Deferred(lambda _: worker.interrupt(self))
        self._raw = raw
        self._worker = worker

    def do(self, lane: _Lane) -> None:
        """Make the call."""
        call = self.task.call
        started = perf_counter()
        outcome: RunOutcome
        try:
            result: Any = call.f(*call.args, **call.kw)
        except BaseException as error:  # SystemExit too: it is the call that ends, not the thread
            outcome = Raised(error, perf_counter() - started)
        else:
            seconds = perf_counter() - started
            if not self._raw and isIterator(result):
                outcome = Iterating(_LaneSource(lane, result), seconds)
            else:
                outcome = Returned(result, seconds)
        lane.tell(lambda: self.end(outcome))

    def end(self, outcome: RunOutcome) -> None:
        """Fire with OUTCOME."""
        self._worker.ended(self)
        self.deferred.callback(outcome)


class _LaneSource(_Job):
    """The items of an iterator that runs in a lane's thread, a slice at a time.

    It is the job of going on with the iterator as well: what was granted is there for it to see.
    """

    def __init__(self, lane: _Lane, iterator: Iterator[Any]) -> None:
        self._lane = lane
        self._iterator = iterator
        self._flow = Outflow()
        self._sink: ItemSink | None = None
        lane.iterations[self] = None

    # For the reactor's thread.

    def begin(self, sink: ItemSink) -> None:
        """Send to SINK what is granted."""
        self._sink = sink
        self._lane.sources[self] = None

    def grant(self, items: int) -> None:
        """Produce ITEMS more."""
        if self._lane.abandoned:
            self.over(WorkerLost("the iteration ended early: its thread was abandoned"))
        else:
            self._lane.do(_Grant(self, items))

    def close(self) -> None:
        """End the iterator in its thread, and say so."""
        self._lane.do(_Close(self))

    def over(self, error: BaseException | None) -> None:
        """Nothing more comes."""
        self._lane.sources.pop(self, None)
        if self._sink is not None:
            self._sink.over(error)

    def _arrived(self, items: Sequence[Any]) -> None:
        if self._sink is not None:
            self._sink.arrived(items)

    # For the thread.

    def granted(self, items: int) -> None:
        """ITEMS more are wanted: go on."""
        idle = not self._flow.ready
        self._flow.granted(items)
        if idle and not self._flow.ended:
            self._lane.do(self)

    def do(self, lane: _Lane) -> None:
        """Produce items for as long as a slice lasts; then other jobs have their turn."""
        items: list[Any] = []
        deadline = perf_counter() + SLICE
        while len(items) < self._flow.credit:
            try:
                items.append(next(self._iterator))
            except StopIteration:
                self._end(items, None)
                return
            except BaseException as error:
                self._end(items, error)
                return
            if perf_counter() > deadline:
                break
        if items:
            self._flow.sent(len(items))
            lane.tell(lambda: self._arrived(items))
        if self._flow.ready:
            lane.do(self)

    def end(self, error: BaseException | None = None) -> None:
        """Close the iterator, which ends with ERROR if there is one."""
        if not self._flow.ended:
            self._end([], error)

    def _end(self, items: list[Any], error: BaseException | None) -> None:
        self._flow.end()
        self._lane.iterations.pop(self, None)
        close = getattr(self._iterator, "close", None)
        try:
            if callable(close):
                close()
        except BaseException as raised:
            error = error or raised
        if items:
            self._lane.tell(lambda: self._arrived(items))
        self._lane.tell(lambda: self.over(error))


class _Grant(_Job):
    def __init__(self, source: _LaneSource, items: int) -> None:
        self._source = source
        self._items = items

    def do(self, lane: _Lane) -> None:
        self._source.granted(self._items)


class _Close(_Job):
    def __init__(self, source: _LaneSource) -> None:
        self._source = source

    def do(self, lane: _Lane) -> None:
        self._source.end()


class ThreadWorker:
    """Runs calls in one thread of its own, one after another.

    It is qualified for the series ``thread`` and ``local``, and those in SERIES. With RAW, an iterator is a result
    like any other. A call that is cancelled or whose time runs out while it is running goes on to its end in a
    thread that is abandoned, and named so; a fresh thread has the next call.
    """

    cQualified: tuple[str, ...] = ("thread", "local")
    window: Window = Window(1, 64)

    def __init__(self, series: Iterable[Hashable] = (), raw: bool = False, *, reactor: Any = None) -> None:
        self.qualifications: frozenset[Hashable] = frozenset(self.cQualified) | frozenset(series)
        self._raw = raw
        self._reactor = reactor
        self._lane: _Lane | None = None
        self._leaving: Deferred[None] = succeed(None)
        self._jobs: dict[_CallJob, None] = {}  # those without an outcome, in order
        self._resign: Resignator | None = None

    def setResignator(self, resign: Resignator) -> None:
        """RESIGN is called when a thread has been abandoned for a fresh one."""
        self._resign = resign

    def run(self, task: Task) -> Deferred[RunOutcome]:
        """Make the call of TASK in the thread, which is started for the first one."""
        if self._lane is None:
            self._lane = _Lane(installedReactor(self._reactor))
        job = _CallJob(task, self._raw if task.raw is None else task.raw, self)
        self._jobs[job] = None
        self._lane.do(job)
        return job.deferred

    def recall(self) -> None:
        """Give back what has not started."""
        if self._lane is not None:
            for job in self._lane.takeBack():
                job.end(Recalled())

    def stop(self) -> Deferred[None]:
        """Let the thread end when it has done what it was given; fires when it is gone."""
        if self._lane is not None:
            self._leaving, self._lane = self._lane.leave(), None
        stopped: Deferred[None] = Deferred()
        self._leaving.addCallback(stopped.callback)
        return stopped

    def crash(self) -> Sequence[Task]:
        """Abandon the thread; the tasks without an outcome."""
        lane = self._lane
        if lane is not None:
            lane.takeBack()  # first, so that no other starts while it is heard what has ended
            lane.collect()
            lane.abandon()
            self._lane = None
        unfinished = [job.task for job in self._jobs]
        self._jobs.clear()
        return unfinished

    def interrupt(self, job: _CallJob) -> None:
        """The outcome of JOB is not wanted any more. (For the job's own Deferred.)"""
        lane = self._lane
        if lane is None or job not in self._jobs:
            return
        unstarted = lane.takeBack()
        lane.collect()
        unstarted += lane.takeBack()  # what hearing that has brought
        if job in self._jobs and job not in unstarted:
            lane.abandon()
            self._lane = None
            if self._resign is not None:
                self._resign(returning=True)
            job.end(Interrupted())
        for other in unstarted:
            other.end(Recalled())

    def ended(self, job: _CallJob) -> None:
        """JOB has its outcome. (For the job itself.)"""
        self._jobs.pop(job, None)


class ThreadQueue(TaskQueue):
    """A queue with WORKERS threads of its own.

    RAW and the other keywords are those of `ThreadWorker` and `asynqueue.base.TaskQueue`.
    """

    def __init__(self, raw: bool = False, workers: int = 1, **kw: Unpack[QueueOptions]) -> None:
        if workers < 1:
            raise ValueError(f"a ThreadQueue has at least one worker, got {workers}")
        super().__init__(**kw)
        for _ in range(workers):
            self.hire(ThreadWorker(raw=raw, reactor=kw.get("reactor")))
