"""Threads of our own, each with its jobs.

A `WorkerThread` is a thread that does one job after another and puts what comes of them where the reactor collects
it, as many at a time as have come. A job that must end cannot be ended in Python; its lane is *abandoned*: the thread
goes on until the job ends by itself, then exits, and what the job gave is dropped. An `ThreadSlot` is a lane, always:
it has a fresh one in the place of one that was abandoned.

What is for the reactor's thread and what for the lane's own is said; only `deque`, `SimpleQueue` and what is written
once are touched from both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asynqueue.threads.slot import ThreadSlot

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count
from queue import SimpleQueue
from time import perf_counter
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from asynqueue.core.flow.iteration import Outflow
from asynqueue.core.flow.iterators import closeIterator, isIterator, takeSlice
from asynqueue.core.records import CallSpec, Iterating, Raised, Returned, RunOutcome, describe
from asynqueue.errors import WorkerLost
from asynqueue.interfaces import ItemSink
from asynqueue.reactor import watchdog as closings
from asynqueue.reactor.failures import ERROR, failureOf

_log = Logger(namespace="asynqueue")
_numbers = count(1)


class WorkerThread:
    """A thread that does one job after another, and tells the reactor's thread what came of each."""

    def __init__(
        self, reactor: Any, onStuck: Callable[[WorkerThread], None], onHeard: Callable[[], None] | None = None
    ) -> None:
        self.gone: Deferred[None] = Deferred()
        self.hearing: bool = False
        self.heard: int = 0  # how often it has told anything
        self.closings: closings.CloseWatchdog = closings.CloseWatchdog(self, reactor)
        self._onHeard = onHeard
        self.sources: dict[ThreadItemSource, None] = {}  # those that somebody listens to; for the reactor's thread
        self.iterating: dict[ThreadItemSource, None] = {}  # those that have not ended; for the thread
        self._reactor = reactor
        self._onStuck = onStuck
        self.abandoned: bool = False
        self._urgent: deque[Job] = deque()
        self._jobs: deque[Job | None] = deque()
        self._due: SimpleQueue[None] = SimpleQueue()  # has at least as many as there are jobs
        self._told: deque[Callable[[], None]] = deque()
        self._telling = False
        name = f"asynqueue-thread-{next(_numbers)}"
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    # For the reactor's thread.

    def do(self, job: Job, urgent: bool = False) -> None:
        """Do JOB after those before it; if it is URGENT, after those alone that are, too."""
        if urgent:
            self._urgent.append(job)
        else:
            self._jobs.append(job)
        self._due.put(None)

    def takeBack(self) -> list[CallJob]:
        """The calls that have not started, and now never will here. It is not told to leave any more."""
        taken: list[CallJob] = []
        others: list[Job] = []
        for jobs in (self._urgent, self._jobs):
            for job in _emptied(jobs):
                if isinstance(job, CallJob):
                    taken.append(job)
                elif job is not None:  # whoever told it to leave tells it again
                    others.append(job)
        for other in others:
            self.do(other)
        return taken

    def collect(self) -> None:
        """Hear what the thread has told."""
        self._telling = False
        self.heard += 1
        outer, self.hearing = self.hearing, True
        try:
            while self._told and not self.abandoned:
                self._told.popleft()()
        finally:
            self.hearing = outer
            if self._onHeard is not None:
                self._onHeard()

    @property
    def iterations(self) -> int:
        """How many iterators somebody listens to."""
        return len(self.sources)

    def free(self) -> None:
        """It is silent, and should not be."""
        self._onStuck(self)

    def leave(self) -> Deferred[None]:
        """End the thread when it has done its jobs; fires when it is gone."""
        self._jobs.append(None)
        self._due.put(None)
        return self.gone

    def abandon(self, job: CallJob | None) -> None:
        """Let the thread end when JOB does, which it has been doing, and hear nothing more of it."""
        self.abandoned = True
        self.closings.end()
        self._thread.name += " (abandoned)" if job is None else f" (abandoned in {describe(job.call.f)})"
        self._due.put(None)
        for source in list(self.sources):
            source.over(WorkerLost("the iteration ended early: its thread was abandoned"))

    # For the thread.

    def tell(self, what: Callable[[], None]) -> None:
        """Call WHAT in the reactor's thread; what is told at about the same time is heard in one turn."""
        self._told.append(what)
        if not self._telling:
            self._telling = True
            self._reactor.callFromThread(self.collect)

    def report(self, error: BaseException) -> None:
        """Have ERROR logged, which nobody asks for."""
        text = "an iterator raised an error while it was closed, for another reason"
        self._reactor.callFromThread(_log.failure, text, failureOf(error), ERROR)

    def _work(self) -> None:
        while True:
            job = self._next()
            if job is None:
                break
            job.do(self)
            del job  # or what it was passed would live until the next one comes
        for source in list(self.iterating):
            source.end(WorkerLost("the iteration ended early: its thread has ended"))
        self._reactor.callFromThread(self._join)

    def _next(self) -> Job | None:
        """Wait for the next job; None for the end."""
        while not self.abandoned:
            self._due.get()
            for jobs in (self._urgent, self._jobs):
                try:
                    return jobs.popleft()
                except IndexError:
                    pass  # there is none, or it was taken back
        return None

    def _join(self) -> None:
        self._thread.join()
        self.gone.callback(None)


class Job:
    """Something to be done in a lane's thread."""

    def do(self, lane: WorkerThread) -> None:
        """Do it, there."""
        raise TypeError("a job says what to do")


class CallJob(Job):
    """A call. MOVABLE is one that goes to another thread when its own is abandoned before its turn has come."""

    movable = False

    def __init__(self, call: CallSpec[Any], raw: bool, owner: ThreadSlot) -> None:
        self.call = call
        self._raw = raw
        self._owner = owner

    def do(self, lane: WorkerThread) -> None:
        """Make the call."""
        call = self.call
        started = perf_counter()
        outcome: RunOutcome
        try:
            result: Any = call.f(*call.args, **call.kw)
        except BaseException as error:  # SystemExit too: it is the call that ends, not the thread
            outcome = Raised(error, perf_counter() - started)
        else:
            seconds = perf_counter() - started
            if not self._raw and isIterator(result):
                outcome = Iterating(ThreadItemSource(lane, result), seconds)
            else:
                outcome = Returned(result, seconds)
        lane.tell(lambda: self.end(outcome))

    def end(self, outcome: RunOutcome) -> None:
        """The call has ended with OUTCOME."""
        self._owner.ended(self)
        self.ended(outcome)

    def ended(self, outcome: RunOutcome) -> None:
        """Tell whoever asked for the call."""
        raise TypeError("a call says whom to tell")


class ThreadItemSource(Job):
    """The items of an iterator that runs in a lane's thread, a slice at a time.

    It is the job of going on with the iterator as well: what was granted is there for it to see.
    """

    def __init__(self, lane: WorkerThread, iterator: Iterator[Any]) -> None:
        self._lane = lane
        self._iterator = iterator
        self._next = partial(next, iterator)
        self._flow = Outflow()
        self._sink: ItemSink | None = None
        self._missed: BaseException | None = None  # what it ended with when nobody listened yet
        lane.iterating[self] = None

    # For the reactor's thread.

    def begin(self, sink: ItemSink) -> None:
        """Send to SINK what is granted."""
        self._sink = sink
        if self._missed is None:
            self._lane.sources[self] = None

    def grant(self, items: int) -> None:
        """Produce ITEMS more."""
        if self._lane.abandoned:
            self.over(WorkerLost("the iteration ended early: its thread was abandoned"))
        elif self._missed is not None:
            self.over(self._missed)
        else:
            self._lane.do(_Grant(self, items))

    def close(self) -> None:
        """End the iterator in its thread, and say so."""
        if self._missed is not None:
            self.over(self._missed)
            return
        self._lane.do(_Close(self))
        if self in self._lane.sources:
            self._lane.closings.told(self)

    def over(self, error: BaseException | None) -> None:
        """Nothing more comes."""
        self._lane.sources.pop(self, None)
        self._lane.closings.ended(self)
        if self._sink is not None:
            self._sink.over(error)
        else:
            self._missed = error

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

    def do(self, lane: WorkerThread) -> None:
        """Produce items for as long as a slice lasts; then other jobs have their turn."""
        items, over, error = takeSlice(self._next, self._flow, perf_counter)
        if over:
            self._end(items, error)
            return
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
        self._lane.iterating.pop(self, None)
        try:
            closeIterator(self._iterator)
        except BaseException as raised:
            if error is None:
                error = raised
            else:
                self._lane.report(raised)
        if items:
            self._lane.tell(lambda: self._arrived(items))
        self._lane.tell(lambda: self.over(error))


class _Grant(Job):
    def __init__(self, source: ThreadItemSource, items: int) -> None:
        self._source = source
        self._items = items

    def do(self, lane: WorkerThread) -> None:
        self._source.granted(self._items)


class _Close(Job):
    def __init__(self, source: ThreadItemSource) -> None:
        self._source = source

    def do(self, lane: WorkerThread) -> None:
        self._source.end()


def _emptied(jobs: deque[Any]) -> Iterator[Any]:
    """What is taken out of JOBS, from which a thread takes as well. (A deque of one kind or another: hence Any.)"""
    while True:
        try:
            job = jobs.popleft()
        except IndexError:
            return
        yield job
