"""The place of one thread: it has a fresh thread as soon as one was abandoned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from asynqueue.core.records import Interrupted, Recalled
from asynqueue.errors import ThreadError
from asynqueue.reactor import watchdog
from asynqueue.reactor.lookup import installedReactor
from asynqueue.reactor.waiters import Waiters
from asynqueue.threads.thread import CallJob, WorkerThread


class ThreadSlot:
    """A thread for the calls of one owner, replaced by a fresh one whenever it is abandoned.

    ONFRESH is called when a thread was abandoned and must be replaced; ONCOLLECTED after all callbacks were called that
    a thread has posted. All methods are for the reactor's thread.
    """

    def __init__(
        self, reactor: Any, onFresh: Callable[[], None] | None = None, onCollected: Callable[[], None] | None = None
    ) -> None:
        self._reactor = reactor
        self._onFresh = onFresh
        self._onCollected = onCollected
        self._thread: WorkerThread | None = None
        self._jobs: dict[CallJob, None] = {}  # those without an outcome, in order
        self._leaving = False
        self._left = Waiters[None]()
        self._grace: Any = None

    @property
    def unfinished(self) -> int:
        """The number of calls without an outcome."""
        return len(self._jobs)

    @property
    def collecting(self) -> bool:
        """True while the callbacks of the thread are called. ONCOLLECTED is called after that."""
        return self._thread is not None and self._thread.collecting

    def start(self, job: CallJob, urgent: bool = False) -> None:
        """Do JOB after the jobs before it. An URGENT job comes before those that wait. The first starts the thread."""
        if self._leaving:
            raise ThreadError(f"the thread is ending: it does not call {job.call}")
        self._jobs[job] = None
        self._present().do(job, urgent)

    def recall(self) -> None:
        """End calls that have not started as `Recalled`. Movable ones stay."""
        if self._thread is not None:
            self._reassign(self._thread.recall())
            if self._leaving:
                self._leave()

    def interrupt(self, job: CallJob) -> None:
        """End JOB as `Interrupted`. Its thread is abandoned if it has started."""
        thread = self._thread
        if thread is None or job not in self._jobs:
            return
        unstarted = self._recallAll(thread)
        if job in self._jobs and job not in unstarted:
            self._abandon(thread, job)
            if self._onFresh is not None:
                self._onFresh()
            job.end(Interrupted())
        self._reassign(unstarted)
        if self._leaving:
            self._leave()

    def leave(self) -> Deferred[None]:
        """End the thread after its calls. May be called again.

        The thread has `watchdog.STOP_GRACE` seconds after its last call, to close its iterators. Then it is abandoned.

        Returns a Deferred that fires when the thread has exited.
        """
        left = self._left.add()
        if not self._leaving:
            self._leaving = True
            self._leave()
        return left

    def crash(self) -> list[CallJob]:
        """Abandon the thread. Return the calls without an outcome; they get none."""
        thread = self._thread
        if thread is not None:
            unstarted = thread.recall()  # first, so that no other call starts while the last outcomes are collected
            thread.collect()
            waiting = set(unstarted)
            self._abandon(thread, next((job for job in self._jobs if job not in waiting), None))
        unfinished = list(self._jobs)
        self._jobs.clear()
        if self._leaving:
            self._leave()
        return unfinished

    def ended(self, job: CallJob) -> None:
        """JOB has its outcome: forget it. (For the job itself.)"""
        self._jobs.pop(job, None)
        self._startGraceIfIdle()

    def _present(self) -> WorkerThread:
        if self._thread is None:
            self._thread = WorkerThread(installedReactor(self._reactor), self._replaceStuck, self._onCollected)
        return self._thread

    def _recallAll(self, thread: WorkerThread) -> list[CallJob]:
        """Return the calls that have not started, and collect the outcomes of those that have ended."""
        unstarted = thread.recall()
        thread.collect()
        return unstarted + thread.recall()  # callbacks may have started more calls

    def _replaceStuck(self, thread: WorkerThread) -> None:
        """Abandon THREAD, which does not come back from its iterators, unless a call has started there."""
        unstarted = self._recallAll(thread)
        if thread is self._thread and thread.iterations and self._jobs.keys() <= set(unstarted):
            self._abandon(thread, None)
            if self._onFresh is not None:
                self._onFresh()
        self._reassign(unstarted)
        if self._leaving:
            self._leave()

    def _abandon(self, thread: WorkerThread, job: CallJob | None) -> None:
        thread.abandon(job)
        self._thread = None

    def _reassign(self, unstarted: list[CallJob]) -> None:
        """Move the movable calls of UNSTARTED to the present thread, and end the others as `Recalled`."""
        for job in unstarted:
            if not job.movable:
                job.end(Recalled())
        movable = [job for job in unstarted if job.movable]
        if movable and self._onFresh is not None and self._thread is None and not self._leaving:
            # The owner now runs its updates in the fresh thread, and these have to come first.
            reactor: Any = installedReactor(self._reactor)  # the type of a clock has no threads
            reactor.callFromThread(self._move, movable)
        else:
            self._move(movable)

    def _move(self, jobs: list[CallJob]) -> None:
        for job in jobs:
            if job in self._jobs:
                self._present().do(job)

    def _leave(self) -> None:
        if self._thread is None:
            self._gone(None)
        else:
            self._thread.leave().addCallback(lambda _, thread: self._gone(thread), self._thread)
            self._startGraceIfIdle()

    def _startGraceIfIdle(self) -> None:
        if self._leaving and not self._jobs and self._grace is None and self._thread is not None:
            reactor: Any = installedReactor(self._reactor)  # as in _reassign
            self._grace = reactor.callLater(watchdog.STOP_GRACE, self._graceOver)

    def _graceOver(self) -> None:
        self._grace = None
        if self._thread is not None:
            self._abandon(self._thread, None)
        self._leave()

    def _gone(self, thread: WorkerThread | None) -> None:
        if thread is not self._thread:
            return  # it was abandoned while it was leaving
        self._thread = None
        self._leaving = False
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None
        self._left.fire(None)
