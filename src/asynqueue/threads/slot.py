"""The place of one thread: it has a fresh thread as soon as one was abandoned.

`asynqueue.core.protocol.runqueue` decides how calls end that are cancelled or recalled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred

from asynqueue.core.protocol.runqueue import Outcomes, RunQueue
from asynqueue.core.records import Recalled
from asynqueue.errors import ThreadError
from asynqueue.reactor import watchdog
from asynqueue.reactor.lookup import installedReactor
from asynqueue.reactor.waiters import Waiters
from asynqueue.threads.thread import CallJob, WorkerThread


class ThreadSlot:
    """A thread for the calls of one owner, replaced by a fresh one whenever it is abandoned.

    ONFRESH is called when a thread was abandoned and must be replaced; ONENDED after calls have ended. All methods are
    for the reactor's thread.
    """

    def __init__(
        self, reactor: Any, onFresh: Callable[[], None] | None = None, onEnded: Callable[[], None] = lambda: None
    ) -> None:
        self._reactor = reactor
        self._onFresh = onFresh
        self._onEnded = onEnded
        self._thread: WorkerThread | None = None
        self._runs: RunQueue[CallJob, CallJob] = RunQueue()
        self._leaving = False
        self._left = Waiters[None]()
        self._grace: Any = None

    @property
    def jobs(self) -> Mapping[CallJob, CallJob]:
        """The calls without an outcome, in order."""
        return self._runs.calls

    def start(self, job: CallJob, urgent: bool = False) -> None:
        """Do JOB after the jobs before it. An URGENT job comes before those that wait. The first starts the thread."""
        if self._leaving:
            raise ThreadError(f"the thread is ending: it does not call {job.call}")
        self._runs.given(job, job)
        self._present().do(job, urgent)

    def recall(self) -> None:
        """End calls that have not started as `Recalled`. Movable ones stay."""
        if self._thread is not None:
            self._endAll(self._runs.takenBack(self._thread.recall()))

    def interrupt(self, job: CallJob) -> None:
        """End JOB. Its thread is abandoned if it has started."""
        thread = self._thread
        if thread is not None and job in self._runs.calls:
            taken = self._recallAll(thread)
            ends, outcomes = self._runs.interrupt(job, taken)
            if ends:
                self._replace(thread)
            self._endAll(outcomes)

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
            # First, so that no other call starts while the last outcomes are collected.
            self._runs.takenBack(thread.recall())
            thread.collect()
            self._abandon(thread)
        unfinished = list(self._runs.calls)
        self._runs = RunQueue()
        if self._leaving:
            self._leave()
        return unfinished

    def ended(self, job: CallJob) -> bool:
        """JOB has its outcome: forget it. Return whether it had none before. (For the job itself.)"""
        hadNone = self._runs.answered(job) is not None
        self._startGraceIfIdle()
        return hadNone

    def _present(self) -> WorkerThread:
        if self._thread is None:
            self._thread = WorkerThread(installedReactor(self._reactor), self._replaceStuck, self._onEnded)
        return self._thread

    def _recallAll(self, thread: WorkerThread) -> list[CallJob]:
        """Return the calls that have not started, and collect the outcomes of those that have ended."""
        unstarted = thread.recall()
        thread.collect()
        return unstarted + thread.recall()  # callbacks may have started more calls

    def _replaceStuck(self, thread: WorkerThread) -> None:
        """Abandon THREAD, which does not come back from its iterators, unless a call has started there."""
        taken = self._recallAll(thread)
        ends, outcomes = self._runs.stuck(taken)
        if ends and thread.iterations:
            self._replace(thread)
        self._endAll(outcomes)

    def _replace(self, thread: WorkerThread) -> None:
        if thread is self._thread:
            self._abandon(thread)
            if self._onFresh is not None:
                self._onFresh()

    def _abandon(self, thread: WorkerThread) -> None:
        """Abandon THREAD, with the call that it runs. The others were taken back."""
        thread.abandon(next(reversed(self._runs.begun), None))
        self._thread = None

    def _endAll(self, outcomes: Outcomes[CallJob]) -> None:
        """End calls, each with its outcome. But movable ones move to the present thread instead of being recalled."""
        for job, outcome in outcomes:
            if not (job.movable and isinstance(outcome, Recalled)):
                job.end(outcome)
        self._onEnded()
        if self._runs.taken and self._onFresh is not None and self._thread is None and not self._leaving:
            # The owner now runs its updates in the fresh thread, and these have to come first.
            reactor: Any = installedReactor(self._reactor)  # the type of a clock has no threads
            reactor.callFromThread(self._move)
        else:
            self._move()
        if self._leaving:
            self._leave()

    def _move(self) -> None:
        for job in self._runs.taken:
            if job.movable:
                self._runs.given(job, job)
                self._present().do(job)

    def _leave(self) -> None:
        if self._thread is None:
            self._gone(None)
        else:
            self._thread.leave().addCallback(lambda _, thread: self._gone(thread), self._thread)
            self._startGraceIfIdle()

    def _startGraceIfIdle(self) -> None:
        if self._leaving and not self._runs.calls and self._grace is None and self._thread is not None:
            reactor: Any = installedReactor(self._reactor)  # as in _endAll
            self._grace = reactor.callLater(watchdog.STOP_GRACE, self._graceOver)

    def _graceOver(self) -> None:
        self._grace = None
        if self._thread is not None:
            self._abandon(self._thread)
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
