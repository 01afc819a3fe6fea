"""One thread of our own, and the jobs that it does one after another.

How to think about it:

- A *job* is called in the thread. It posts callbacks to the reactor's thread; callbacks that are posted at about the
  same time are called in one turn of the reactor.
- Most jobs are calls (`CallJob`). A call that has not started can be taken back.
- Python cannot end a running call. Its thread is therefore *abandoned*: the thread goes on until the call ends by
  itself, then it exits. What the call returns is dropped. `asynqueue.threads.slot` starts a fresh thread then.

The reactor's thread and this one share `deque` objects, a `SimpleQueue`, and attributes that are written once.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from queue import SimpleQueue
from time import perf_counter
from typing import Any, TypeAlias

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from asynqueue.core.records import CallSpec, Iterating, Raised, Returned, RunOutcome
from asynqueue.core.results import Kind, kindOf
from asynqueue.core.text import callableName
from asynqueue.errors import WorkerLost
from asynqueue.reactor.callercontext import CallerContext
from asynqueue.reactor.failures import ERROR, printable
from asynqueue.reactor.lookup import whenRunning
from asynqueue.reactor.watchdog import CloseWatchdog
from asynqueue.threads.items import ThreadItemSource

Job: TypeAlias = Callable[["WorkerThread"], None]
"""Is called in a thread, with the `WorkerThread` that it belongs to."""

_log = Logger(namespace="asynqueue")
_numbers = count(1)


class WorkerThread:
    """A thread that does one job after another.

    ONSTUCK is called with this object when the thread does not come back from closing its iterators; ONCOLLECTED after
    the callbacks that the thread has posted were called.
    """

    def __init__(self, reactor: Any, onStuck: Callable[[WorkerThread], None], onCollected: Callable[[], None]) -> None:
        self.gone: Deferred[None] = Deferred()
        self.received: int = 0  # how often callbacks were collected
        self.closings: CloseWatchdog = CloseWatchdog(self, reactor)
        self._onCollected = onCollected
        self.sources: dict[ThreadItemSource, None] = {}  # those that have a sink; for the reactor's thread
        self.iterating: dict[ThreadItemSource, None] = {}  # those that have not ended; for this thread
        self._reactor = reactor
        self._onStuck = onStuck
        self.abandoned: bool = False
        self._urgent: deque[Job] = deque()
        self._jobs: deque[Job | None] = deque()
        self._due: SimpleQueue[None] = SimpleQueue()  # has at least as many entries as there are jobs
        self._posted: deque[Callable[[], None]] = deque()
        self._collectionDue = False
        self._thread: threading.Thread | None = None
        whenRunning(reactor, self._start)  # A program may fork before its reactor runs, to become a daemon.

    # For the reactor's thread.

    def do(self, job: Job, urgent: bool = False) -> None:
        """Do JOB after the jobs before it. An URGENT job comes after the other urgent jobs only."""
        if urgent:
            self._urgent.append(job)
        else:
            self._jobs.append(job)
        self._due.put(None)

    def recall(self) -> list[CallJob]:
        """Return the calls that have not started. They will not start here. A `leave` before this is forgotten."""
        calls: list[CallJob] = []
        others: list[Job] = []
        for jobs in (self._urgent, self._jobs):
            for job in _drained(jobs):
                if isinstance(job, CallJob):
                    calls.append(job)
                elif job is not None:  # the owner calls `leave` again
                    others.append(job)
        for other in others:
            self.do(other)
        return calls

    def collect(self) -> None:
        """Call the callbacks that the thread has posted."""
        self._collectionDue = False
        self.received += 1
        while self._posted and not self.abandoned:
            try:
                self._posted.popleft()()
            except BaseException as error:  # One callback must not hold up those after it.
                _log.failure("a thread's outcome could not be delivered", printable(error), ERROR)
        self._onCollected()

    @property
    def iterations(self) -> int:
        """The number of iterators that have a sink."""
        return len(self.sources)

    def closeTimedOut(self) -> None:
        """Notify the owner that the thread does not come back from closing its iterators."""
        self._onStuck(self)

    def leave(self) -> Deferred[None]:
        """End the thread after its jobs. Return a Deferred that fires when the thread has exited."""
        self._jobs.append(None)
        self._due.put(None)
        return self.gone

    def abandon(self, job: CallJob | None) -> None:
        """Ignore the thread from now on. It exits when JOB, which is running, ends."""
        self.abandoned = True
        self.closings.end()
        if self._thread is not None:
            self._thread.name += " (abandoned)" if job is None else f" (abandoned in {callableName(job.call.f)}())"
        self._due.put(None)
        for source in list(self.sources):
            source.over(WorkerLost("the iteration ended early: its thread was abandoned"))

    # For this thread.

    def post(self, callback: Callable[[], None]) -> None:
        """Have the reactor's thread call CALLBACK."""
        self._posted.append(callback)
        if not self._collectionDue:
            self._collectionDue = True
            self._reactor.callFromThread(self.collect)

    def logError(
        self, error: BaseException, text: str = "an iterator raised an error while it was closed, for another reason"
    ) -> None:
        """Log ERROR, which no caller can receive."""
        self._reactor.callFromThread(_log.failure, text, printable(error), ERROR)

    def _start(self) -> None:
        # The object is made here, because Python 3.13 does not start a thread that was made before a fork in the fork.
        name = f"asynqueue-thread-{next(_numbers)}"
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while True:
            job = self._next()
            if job is None:
                break
            try:
                job(self)
            except BaseException as error:  # No job ends the thread.
                if isinstance(job, CallJob):
                    self.post(partial(job.end, Raised(error)))
                else:
                    self.logError(error, "a job of a thread raised an error")
            del job  # else the arguments of the job would live until the next one comes
        for source in list(self.iterating):
            source.end(WorkerLost("the iteration ended early: its thread has ended"))
        self._reactor.callFromThread(self._join)

    def _next(self) -> Job | None:
        """Wait for the next job, and return it; None for the end."""
        while not self.abandoned:
            self._due.get()
            for jobs in (self._urgent, self._jobs):
                try:
                    return jobs.popleft()
                except IndexError:
                    pass  # there is none, or it was taken back
        return None

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
        self.gone.callback(None)


class CallJob:
    """The job of making one call. ONENDED is called with this object before the outcome is delivered. It returns
    whether the call had no outcome before.

    The call runs in CONTEXT, that of its caller, if there is one.

    A MOVABLE one goes to a fresh thread when its own is abandoned before it has started.
    """

    movable = False

    def __init__(
        self, call: CallSpec[Any], raw: bool, onEnded: Callable[[CallJob], bool], context: CallerContext | None
    ) -> None:
        self.call = call
        self._context = context
        self._raw = raw
        self._onEnded = onEnded

    def __call__(self, thread: WorkerThread) -> None:
        """Make the call in THREAD."""
        call = self.call
        context = None if self._context is None else self._context.inThread()
        started = perf_counter()
        outcome: RunOutcome
        try:
            result: Any = call.f(*call.args, **call.kw) if context is None else context(call.f, *call.args, **call.kw)
        except BaseException as error:  # SystemExit too: the call ends, and not the thread
            outcome = Raised(error, perf_counter() - started)
        else:
            seconds = perf_counter() - started
            if not self._raw and kindOf(result) is Kind.ITERATOR:
                outcome = Iterating(ThreadItemSource(thread, result, context), seconds)
            else:
                outcome = Returned(result, seconds)
        thread.post(lambda: self.end(outcome))

    def end(self, outcome: RunOutcome) -> None:
        """End the call with OUTCOME, once."""
        if self._onEnded(self):
            self.deliver(outcome)

    def deliver(self, outcome: RunOutcome) -> None:
        """Deliver OUTCOME to the caller."""
        raise NotImplementedError


def _drained(jobs: deque[Any]) -> Iterator[Any]:
    """Remove and yield all JOBS, which a thread removes as well. (There are two kinds of deque: hence Any.)"""
    while True:
        try:
            job = jobs.popleft()
        except IndexError:
            return
        yield job
