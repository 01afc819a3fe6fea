"""A worker that lives in virtual time, and fails when told to.

`MemoryWorker` runs calls in the thread that advances its clock. Nothing happens in it by chance: a test says how long
calls take, when the worker dies, and whether it comes back. So what a program does about a slow or dying worker can
be tested without one.

It is also the smallest worker that keeps every guarantee: read it before you write your own.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from asynqueue.core.flow.iteration import Outflow
from asynqueue.core.flow.iterators import isIterator
from asynqueue.core.records import Interrupted, Iterating, Lost, Raised, Recalled, Returned, RunOutcome, Task
from asynqueue.core.scheduling.window import Window
from asynqueue.errors import WorkerLost
from asynqueue.interfaces import Clock, DelayedCall, ItemSink, Resignator
from asynqueue.reactor.calling import make
from asynqueue.reactor.waiters import Waiters


class MemoryWorker:
    """Runs calls on a Clock, each of which takes SECONDS of its time; 0, the default, is its next turn.

    It is qualified for SERIES, and takes as many calls as WINDOW says. CLOCK is a `twisted.internet.task.Clock`, or
    whatever else tells the time.

    >>> from twisted.internet.task import Clock
    >>> from asynqueue import TaskQueue
    >>> clock = Clock()
    >>> worker = MemoryWorker(clock, seconds=2.0)
    >>> queue = TaskQueue(worker, reactor=clock)
    >>> d = queue.call(max, 3, 5).addCallback(print)
    >>> clock.advance(0)
    >>> worker.die()  # under the call, which is then started once more
    >>> clock.pump([0, 2.0])
    5
    """

    def __init__(
        self,
        clock: Clock,
        series: Iterable[Hashable] = (),
        window: Window | None = None,
        seconds: float = 0.0,
    ) -> None:
        self.qualifications: Collection[Hashable] = frozenset(series)
        self.window: Window = window or Window(1, 4)
        self.clock = clock
        self.seconds = seconds
        self.runs: dict[Run, None] = {}  # those without an outcome, in the order given
        self.sources: dict[MemorySource, None] = {}  # those not over
        self._resign: Resignator | None = None
        self._stopping = Waiters[None]()

    # What a worker has to have.

    def setResignator(self, resign: Resignator) -> None:
        """RESIGN is called when the worker dies."""
        self._resign = resign

    def run(self, task: Task) -> Deferred[RunOutcome]:
        """Make the call of TASK after those before it."""
        run = Run(task, self)
        self.runs[run] = None
        self.proceed()
        return run.outcome

    def recall(self) -> None:
        """Give back what has not started."""
        for run in [run for run in self.runs if not run.started]:
            self.end(run, Recalled())

    def stop(self) -> Deferred[None]:
        """Fires when all that was given has ended."""
        done = self._stopping.add()
        self.proceed()
        return done

    def crash(self) -> Sequence[Task]:
        """Leave at once; the tasks without an outcome."""
        unfinished = [run.task for run in self.runs]
        self._drop("the worker was made to crash")
        self.proceed()
        return unfinished

    # What a test has it do.

    def die(self, returning: bool = True, reason: str = "the worker died") -> None:
        """Die now, for REASON: what runs is lost, and so are the iterations; what had not started has not.

        With RETURNING, a fresh one takes its place at once, as a process is replaced. Otherwise it is gone, as when
        a connection is lost.
        """
        if self._resign is not None:
            self._resign(returning)  # one that is gone is asked, while it says so, for what had not started
        held = list(self.runs)
        self._drop(reason)
        for run in held:
            if not run.outcome.called:
                run.outcome.callback(Lost(reason) if run.started else Recalled())
        self.proceed()

    # How a call goes.

    def proceed(self) -> None:
        """Start what may run now; stop, if it is time."""
        for run in list(self.runs)[: self.window.running]:
            if run.due is None and not run.started:
                run.due = self.clock.callLater(0, self.start, run)
        if not self.runs and not self.sources:
            self._stopping.fire(None)

    def start(self, run: Run) -> None:
        """Make the call of RUN."""
        run.due = None
        run.started = True
        call = run.task.call
        run.result = make(call.f, call.args, call.kw)
        run.result.addBoth(self.made, run)

    def made(self, result: Any, run: Run) -> None:
        """The call of RUN has returned, or failed with a Failure, which is reported when its time is up."""
        if run in self.runs:
            run.due = self.clock.callLater(self.seconds, self.report, run, result)

    def report(self, run: Run, result: Any) -> None:
        """Say how RUN ended."""
        run.due = None
        if isinstance(result, Failure):
            self.end(run, Raised(result.value or WorkerLost("no error"), self.seconds))
        elif isIterator(result) and not run.task.raw:
            source = self.source(result)
            self.sources[source] = None
            self.end(run, Iterating(source, self.seconds))
        else:
            self.end(run, Returned(result, self.seconds))

    def source(self, iterator: Iterator[Any]) -> MemorySource:
        """What gives the items of ITERATOR."""
        return MemorySource(self, iterator)

    def end(self, run: Run, outcome: RunOutcome) -> None:
        """RUN ends with OUTCOME, and the next may start."""
        del self.runs[run]
        run.letGo()
        run.outcome.callback(outcome)
        self.proceed()

    def interrupt(self, run: Run) -> None:
        """The outcome of RUN is not wanted any more."""
        if run in self.runs:
            self.end(run, Interrupted() if run.started else Recalled())

    def _drop(self, reason: str) -> None:
        """Let go of everything that was given, for REASON, without a word about the calls."""
        runs, self.runs = self.runs, {}
        for run in runs:
            run.letGo()
        for source in list(self.sources):
            source.end(WorkerLost(f"the iteration ended early: {reason}"))


class Run:
    """A call that a `MemoryWorker` was given."""

    def __init__(self, task: Task, worker: MemoryWorker) -> None:
        self.task = task
        self.started = False
        self.due: DelayedCall | None = None  # its start, or its report
        self.result: Deferred[Any] | None = None  # whatever the user's callable returns
        self.outcome: Deferred[RunOutcome] = Deferred(lambda _: worker.interrupt(self))

    def letGo(self) -> None:
        """Wait for nothing any more."""
        if self.due is not None and self.due.active():
            self.due.cancel()
        if self.result is not None:
            self.result.addErrback(lambda _: None)  # nobody wants to hear what comes of it
            self.result.cancel()


class MemorySource:
    """The items of ITERATOR, which a call on WORKER returned: those that are granted, a turn later."""

    def __init__(self, worker: MemoryWorker, iterator: Iterator[Any]) -> None:
        self.worker = worker
        self.iterator = iterator
        self.flow: Outflow = Outflow()
        self.sink: ItemSink | None = None
        self._due: DelayedCall | None = None

    def begin(self, sink: ItemSink) -> None:
        """Send to SINK what is granted."""
        self.sink = sink

    def grant(self, items: int) -> None:
        """ITEMS more are wanted."""
        self.flow.granted(items)
        if self._due is None and not self.flow.ended:
            self._due = self.worker.clock.callLater(0, self.produce)
        elif self.flow.ended and self.sink is not None:
            self.sink.over(WorkerLost("the iteration ended early: its worker is gone"))

    def close(self) -> None:
        """No more are wanted."""
        if not self.flow.ended:
            self.end(None)

    def produce(self) -> None:
        """Give what is granted."""
        self._due = None
        items: list[Any] = []
        try:
            while len(items) < self.flow.credit:
                items.append(next(self.iterator))
        except StopIteration:
            self.send(items)
            self.end(None)
        except BaseException as error:  # SystemExit too: it is the iteration that ends
            self.send(items)
            self.end(error)
        else:
            self.send(items)

    def send(self, items: list[Any]) -> None:
        """Give ITEMS."""
        self.flow.sent(len(items))
        if items and self.sink is not None:
            self.sink.arrived(items)

    def end(self, error: BaseException | None) -> None:
        """There are no more, because of ERROR if there is one."""
        if self.flow.ended:
            return
        self.flow.end()
        if self._due is not None:
            self._due.cancel()
            self._due = None
        try:
            getattr(self.iterator, "close", lambda: None)()
        except Exception as raised:  # of the iterator's `finally`
            error = error or raised
        self.worker.sources.pop(self, None)
        if self.sink is not None:
            self.sink.over(error)
        self.worker.proceed()
