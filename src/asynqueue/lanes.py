"""Threads of our own, each with its jobs.

A `Lane` is a thread that does one job after another and puts what comes of them where the reactor collects it, as many
at a time as have come. A job that must end cannot be ended in Python; its lane is *abandoned*: the thread goes on until
the job ends by itself, then exits, and what the job gave is dropped. An `OwnThread` is a lane, always: it has a fresh
one in the place of one that was abandoned.

What is for the reactor's thread and what for the lane's own is said; only `deque`, `SimpleQueue` and what is written
once are touched from both.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from queue import SimpleQueue
from time import perf_counter
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from asynqueue import closings
from asynqueue.core.iteration import Outflow
from asynqueue.core.records import (
    CallSpec,
    Interrupted,
    Iterating,
    Raised,
    Recalled,
    Returned,
    RunOutcome,
    describe,
)
from asynqueue.delay import installedReactor
from asynqueue.errors import ThreadError, WorkerLost
from asynqueue.interfaces import ItemSink
from asynqueue.settling import ERROR, failureOf
from asynqueue.universe import SLICE, isIterator

_log = Logger(namespace="asynqueue")
_numbers = count(1)


class OwnThread:
    """A thread for the calls of one owner, and a fresh one whenever it had to be abandoned: then ONFRESH is called.

    ONHEARD is called when all has been heard that a thread had told at one time. Everything here is for the reactor's
    thread.
    """

    def __init__(
        self, reactor: Any, onFresh: Callable[[], None] | None = None, onHeard: Callable[[], None] | None = None
    ) -> None:
        self._reactor = reactor
        self._onFresh = onFresh
        self._onHeard = onHeard
        self._lane: Lane | None = None
        self._jobs: dict[CallJob, None] = {}  # those without an outcome, in order
        self._leaving = False
        self._left: list[Deferred[None]] = []
        self._grace: Any = None

    @property
    def unfinished(self) -> int:
        """The number of calls without an outcome."""
        return len(self._jobs)

    @property
    def hearing(self) -> bool:
        """True while it is heard what the thread has told: ONHEARD is called after that."""
        return self._lane is not None and self._lane.hearing

    def start(self, job: CallJob, urgent: bool = False) -> None:
        """Do JOB after those before it, or before those that wait, if it is URGENT. The first one starts the thread."""
        if self._leaving:
            raise ThreadError(f"the thread is told to end: it does not call {job.call}")
        self._jobs[job] = None
        self._present().do(job, urgent)

    def recall(self) -> None:
        """Give back what has not started, but for what is movable."""
        if self._lane is not None:
            self._reassign(self._lane.takeBack())
            if self._leaving:
                self._leave()

    def interrupt(self, job: CallJob) -> None:
        """The outcome of JOB is not wanted any more."""
        lane = self._lane
        if lane is None or job not in self._jobs:
            return
        unstarted = lane.takeBack()
        lane.collect()
        unstarted += lane.takeBack()  # what hearing that has brought
        if job in self._jobs and job not in unstarted:
            self._abandon(lane, job)
            if self._onFresh is not None:
                self._onFresh()
            job.end(Interrupted())
        self._reassign(unstarted)
        if self._leaving:
            self._leave()

    def leave(self) -> Deferred[None]:
        """End the thread when it has made its calls; fires when it is gone. May be called again.

        It has a grace for what it does after the last call, which is to close its iterators. Then it is abandoned.
        """
        left: Deferred[None] = Deferred()
        self._left.append(left)
        if not self._leaving:
            self._leaving = True
            self._leave()
        return left

    def crash(self) -> list[CallJob]:
        """Abandon the thread; the calls without an outcome, which get none."""
        lane = self._lane
        if lane is not None:
            unstarted = lane.takeBack()  # first, so that no other starts while it is heard what has ended
            lane.collect()
            waiting = set(unstarted)
            self._abandon(lane, next((job for job in self._jobs if job not in waiting), None))
        unfinished = list(self._jobs)
        self._jobs.clear()
        if self._leaving:
            self._leave()
        return unfinished

    def ended(self, job: CallJob) -> None:
        """JOB has its outcome. (For the job itself.)"""
        self._jobs.pop(job, None)
        self._startGraceIfIdle()

    def _present(self) -> Lane:
        if self._lane is None:
            self._lane = Lane(installedReactor(self._reactor), self._free, self._onHeard)
        return self._lane

    def _free(self, lane: Lane) -> None:
        """LANE is stuck, unless a call has started there."""
        unstarted = lane.takeBack()
        lane.collect()
        unstarted += lane.takeBack()  # what hearing that has brought
        if lane is self._lane and lane.iterations and self._jobs.keys() <= set(unstarted):
            self._abandon(lane, None)
            if self._onFresh is not None:
                self._onFresh()
        self._reassign(unstarted)
        if self._leaving:
            self._leave()

    def _abandon(self, lane: Lane, job: CallJob | None) -> None:
        lane.abandon(job)
        self._lane = None

    def _reassign(self, unstarted: list[CallJob]) -> None:
        """What was taken back: the movable to the thread there is now, the others to whoever asked for them."""
        for job in unstarted:
            if not job.movable:
                job.end(Recalled())
        movable = [job for job in unstarted if job.movable]
        if movable and self._onFresh is not None and self._lane is None and not self._leaving:
            # The owner has first of all to make a fresh thread what the other one was, and does that now.
            reactor: Any = installedReactor(self._reactor)  # a clock would have no threads
            reactor.callFromThread(self._move, movable)
        else:
            self._move(movable)

    def _move(self, jobs: list[CallJob]) -> None:
        for job in jobs:
            if job in self._jobs:
                self._present().do(job)

    def _leave(self) -> None:
        if self._lane is None:
            self._gone(None)
        else:
            self._lane.leave().addCallback(lambda _, lane: self._gone(lane), self._lane)
            self._startGraceIfIdle()

    def _startGraceIfIdle(self) -> None:
        if self._leaving and not self._jobs and self._grace is None and self._lane is not None:
            reactor: Any = installedReactor(self._reactor)  # as in _reassign
            self._grace = reactor.callLater(closings.STOP_GRACE, self._tooLate)

    def _tooLate(self) -> None:
        self._grace = None
        if self._lane is not None:
            self._abandon(self._lane, None)
        self._leave()

    def _gone(self, lane: Lane | None) -> None:
        if lane is not self._lane:
            return  # it was abandoned while it was leaving
        self._lane = None
        self._leaving = False
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None
        left, self._left = self._left, []
        for each in left:
            each.callback(None)


class Lane:
    """A thread that does one job after another, and tells the reactor's thread what came of each."""

    def __init__(
        self, reactor: Any, onStuck: Callable[[Lane], None], onHeard: Callable[[], None] | None = None
    ) -> None:
        self.gone: Deferred[None] = Deferred()
        self.hearing: bool = False
        self.heard: int = 0  # how often it has told anything
        self.closings: closings.Closings = closings.Closings(self, reactor)
        self._onHeard = onHeard
        self.sources: dict[LaneSource, None] = {}  # those that somebody listens to; for the reactor's thread
        self.iterating: dict[LaneSource, None] = {}  # those that have not ended; for the thread
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

    def do(self, lane: Lane) -> None:
        """Do it, there."""
        raise TypeError("a job says what to do")


class CallJob(Job):
    """A call. MOVABLE is one that goes to another thread when its own is abandoned before its turn has come."""

    movable = False

    def __init__(self, call: CallSpec[Any], raw: bool, owner: OwnThread) -> None:
        self.call = call
        self._raw = raw
        self._owner = owner

    def do(self, lane: Lane) -> None:
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
                outcome = Iterating(LaneSource(lane, result), seconds)
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


class LaneSource(Job):
    """The items of an iterator that runs in a lane's thread, a slice at a time.

    It is the job of going on with the iterator as well: what was granted is there for it to see.
    """

    def __init__(self, lane: Lane, iterator: Iterator[Any]) -> None:
        self._lane = lane
        self._iterator = iterator
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

    def do(self, lane: Lane) -> None:
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
        self._lane.iterating.pop(self, None)
        close = getattr(self._iterator, "close", None)
        try:
            if callable(close):
                close()
        except BaseException as raised:
            if error is None:
                error = raised
            else:
                self._lane.report(raised)
        if items:
            self._lane.tell(lambda: self._arrived(items))
        self._lane.tell(lambda: self.over(error))


class _Grant(Job):
    def __init__(self, source: LaneSource, items: int) -> None:
        self._source = source
        self._items = items

    def do(self, lane: Lane) -> None:
        self._source.granted(self._items)


class _Close(Job):
    def __init__(self, source: LaneSource) -> None:
        self._source = source

    def do(self, lane: Lane) -> None:
        self._source.end()


def _emptied(jobs: deque[Any]) -> Iterator[Any]:
    """What is taken out of JOBS, from which a thread takes as well. (A deque of one kind or another: hence Any.)"""
    while True:
        try:
            job = jobs.popleft()
        except IndexError:
            return
        yield job
