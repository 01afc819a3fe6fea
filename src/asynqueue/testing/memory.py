"""A worker that runs in virtual time and fails on demand.

`MemoryWorker` runs calls in the thread that advances its clock. Nothing happens by chance: a test decides how long
calls take, when the worker dies, and whether it comes back. So a test can check how a program reacts to a slow or dying
worker.

It is also the smallest worker that keeps every guarantee. Read it before you write your own.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from asynqueue.core.flow.iteration import Outflow
from asynqueue.core.records import Interrupted, Iterating, Lost, Raised, Recalled, Returned, RunOutcome, Task
from asynqueue.core.results import isIterator
from asynqueue.core.scheduling.window import Window
from asynqueue.errors import WorkerLost
from asynqueue.interfaces import Clock, DelayedCall, Departed, ItemSink, Resignator, Restarted
from asynqueue.reactor.calling import make
from asynqueue.reactor.waiters import Waiters


class MemoryWorker:
    """Runs calls on a Clock.

    Args:
        clock: A `twisted.internet.task.Clock`, or any other clock.
        series: The series for which the worker is qualified.
        window: How many calls it takes. The default is at least 1 and at most 4.
        seconds: How long a call takes, in seconds of the clock. With 0 it ends in the clock's next turn.

    Example:
        >>> from twisted.internet.task import Clock
        >>> from asynqueue import TaskQueue
        >>> clock = Clock()
        >>> worker = MemoryWorker(clock, seconds=2.0)
        >>> queue = TaskQueue(worker, reactor=clock)
        >>> d = queue.call(max, 3, 5).addCallback(print)
        >>> clock.advance(0)
        >>> worker.die()  # during the call, which is then started once more
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
        self.runs: dict[Run, None] = {}  # the runs without an outcome, in order
        self.sources: dict[MemorySource, None] = {}  # the open iterations
        self._resign: Resignator | None = None
        self._stopping = Waiters[None]()

    # The protocol of a worker.

    def setResignator(self, resign: Resignator) -> None:
        """Set the function that is called when the worker dies.

        Args:
            resign: The function.
        """
        self._resign = resign

    def run(self, task: Task) -> Deferred[RunOutcome]:
        """Run a task after the earlier ones.

        Args:
            task: The task.

        Returns:
            A Deferred of its outcome.
        """
        run = Run(task, self)
        self.runs[run] = None
        self.proceed()
        return run.outcome

    def recall(self) -> None:
        """Return the tasks that have not started."""
        for run in [run for run in self.runs if not run.started]:
            self.end(run, Recalled())

    def stop(self) -> Deferred[None]:
        """Wait for all tasks and iterations.

        Returns:
            A Deferred that fires when they have ended.
        """
        done = self._stopping.add()
        self.proceed()
        return done

    def crash(self) -> Sequence[Task]:
        """Stop at once.

        Returns:
            The tasks without an outcome.
        """
        unfinished = [run.task for run in self.runs]
        self._drop("the worker was crashed")
        self.proceed()
        return unfinished

    # For tests.

    def die(self, returning: bool = True, reason: str = "the worker died") -> None:
        """Die now: running calls and open iterations are lost. Calls that have not started are recalled.

        Args:
            returning: Continue as a new worker at once, like a process that is replaced. Otherwise the worker is gone,
                as after a lost connection.
            reason: The reason, for the outcomes.
        """
        if self._resign is not None:
            # While a worker departs, the queue asks it for the calls that have not started.
            self._resign(Restarted() if returning else Departed())
        held = list(self.runs)
        self._drop(reason)
        for run in held:
            if not run.outcome.called:
                run.outcome.callback(Lost(reason) if run.started else Recalled())
        self.proceed()

    # The calls.

    def proceed(self) -> None:
        """Start the calls that may run now. Stop if everything has ended."""
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
        """Schedule the report of RUN, whose call has returned or failed."""
        if run in self.runs:
            run.due = self.clock.callLater(self.seconds, self.report, run, result)

    def report(self, run: Run, result: Any) -> None:
        """Report how RUN ended."""
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
        """Return the source of ITERATOR's items."""
        return MemorySource(self, iterator)

    def end(self, run: Run, outcome: RunOutcome) -> None:
        """End RUN with OUTCOME, and start the next."""
        del self.runs[run]
        run.cancel()
        run.outcome.callback(outcome)
        self.proceed()

    def interrupt(self, run: Run) -> None:
        """Cancel RUN."""
        if run in self.runs:
            self.end(run, Interrupted() if run.started else Recalled())

    def _drop(self, reason: str) -> None:
        """Drop all runs and iterations, for REASON, without an outcome."""
        runs, self.runs = self.runs, {}
        for run in runs:
            run.cancel()
        for source in list(self.sources):
            source.end(WorkerLost(f"the iteration ended early: {reason}"))


class Run:
    """A task that a `MemoryWorker` was given."""

    def __init__(self, task: Task, worker: MemoryWorker) -> None:
        self.task = task
        self.started = False
        self.due: DelayedCall | None = None  # its start or its report
        self.result: Deferred[Any] | None = None  # Any, because the user's callable may return anything
        self.outcome: Deferred[RunOutcome] = Deferred(lambda _: worker.interrupt(self))

    def cancel(self) -> None:
        """Cancel the delayed call and the running call."""
        if self.due is not None and self.due.active():
            self.due.cancel()
        if self.result is not None:
            self.result.addErrback(lambda _: None)  # its result is not wanted
            self.result.cancel()


class MemorySource:
    """The items of ITERATOR, which a call on WORKER returned. Granted items are sent in the next turn."""

    def __init__(self, worker: MemoryWorker, iterator: Iterator[Any]) -> None:
        self.worker = worker
        self.iterator = iterator
        self.flow: Outflow = Outflow()
        self.sink: ItemSink | None = None
        self._due: DelayedCall | None = None

    def begin(self, sink: ItemSink) -> None:
        """Send granted items to SINK."""
        self.sink = sink

    def grant(self, items: int) -> None:
        """Grant ITEMS more."""
        self.flow.granted(items)
        if self._due is None and not self.flow.ended:
            self._due = self.worker.clock.callLater(0, self.produce)
        elif self.flow.ended and self.sink is not None:
            self.sink.over(WorkerLost("the iteration ended early: its worker is gone"))

    def close(self) -> None:
        """End: no more items are wanted."""
        if not self.flow.ended:
            self.end(None)

    def produce(self) -> None:
        """Send the granted items."""
        self._due = None
        items: list[Any] = []
        try:
            while len(items) < self.flow.credit:
                items.append(next(self.iterator))
        except StopIteration:
            self.send(items)
            self.end(None)
        except BaseException as error:  # SystemExit too, which ends the iteration only
            self.send(items)
            self.end(error)
        else:
            self.send(items)

    def send(self, items: list[Any]) -> None:
        """Send ITEMS."""
        self.flow.sent(len(items))
        if items and self.sink is not None:
            self.sink.arrived(items)

    def end(self, error: BaseException | None) -> None:
        """End the iteration, with ERROR if there is one."""
        if self.flow.ended:
            return
        self.flow.end()
        if self._due is not None:
            self._due.cancel()
            self._due = None
        try:
            getattr(self.iterator, "close", lambda: None)()
        except Exception as raised:  # from the iterator's `finally`
            error = error or raised
        self.worker.sources.pop(self, None)
        if self.sink is not None:
            self.sink.over(error)
        self.worker.proceed()
