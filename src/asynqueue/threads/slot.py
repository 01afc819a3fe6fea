"""A thread for one owner, and a fresh one whenever it had to be abandoned."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from asynqueue.core.records import Interrupted, Recalled
from asynqueue.errors import ThreadError
from asynqueue.reactor import watchdog as closings
from asynqueue.reactor.lookup import installedReactor
from asynqueue.reactor.waiters import Waiters
from asynqueue.threads.thread import WorkerThread

if TYPE_CHECKING:
    from asynqueue.threads.thread import CallJob


class ThreadSlot:
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
        self._lane: WorkerThread | None = None
        self._jobs: dict[CallJob, None] = {}  # those without an outcome, in order
        self._leaving = False
        self._left = Waiters[None]()
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
        left = self._left.add()
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

    def _present(self) -> WorkerThread:
        if self._lane is None:
            self._lane = WorkerThread(installedReactor(self._reactor), self._free, self._onHeard)
        return self._lane

    def _free(self, lane: WorkerThread) -> None:
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

    def _abandon(self, lane: WorkerThread, job: CallJob | None) -> None:
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

    def _gone(self, lane: WorkerThread | None) -> None:
        if lane is not self._lane:
            return  # it was abandoned while it was leaving
        self._lane = None
        self._leaving = False
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None
        self._left.fire(None)
