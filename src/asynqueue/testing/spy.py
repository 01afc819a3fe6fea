"""A proxy between a queue and a worker, which checks that the worker keeps the protocol.

A `WatchedWorker` passes everything on. It reports at once what the protocol of `asynqueue.interfaces.Worker` forbids.
What the calls wrote in the journal is checked later.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from asynqueue.core.records import Interrupted, Iterating, Lost, Raised, Recalled, Returned, RunOutcome, Task
from asynqueue.core.scheduling.window import Window
from asynqueue.interfaces import (
    Departed,
    Disconnected,
    ItemSink,
    ItemSource,
    Recaller,
    Reconnected,
    Report,
    Reporter,
    Resignation,
    Resignator,
    Resizable,
    Resizer,
    Restarted,
    Worker,
)
from asynqueue.queue.registry import qualifications, window
from asynqueue.testing.guarantees import Guarantee
from asynqueue.testing.model import Broken
from asynqueue.testing.workload import Journal

ReportBroken = Callable[[Guarantee, str], None]


@attrs.define(eq=False)
class Run:
    """A task that a worker was given."""

    task: Task
    number: int  # the number of the call, as in the journal
    startsBefore: int  # how often the call had been started before
    outcome: RunOutcome | Failure | None = None
    interrupted: bool = False
    handedBack: bool = False  # returned by `crash`, as unfinished


class WatchedWorker:
    """Passes everything between a queue and WORKER on.

    REPORT gets the broken guarantees, and RECORD the events.
    """

    def __init__(self, worker: Worker, journal: Journal, report: ReportBroken, record: Callable[[str], None]) -> None:
        self.worker = worker
        self.qualifications: Collection[Hashable] = frozenset(qualifications(worker))
        self.window: Window = window(worker)
        self.runs: list[Run] = []  # all runs so far, in order
        self.held: list[Run] = []  # the runs without an outcome
        self.returns = 0  # how often it resigned and returned
        self.gone: bool = False
        self.stops: int = 0  # how many of its `stop` calls have not finished
        self._journal = journal
        self._report = report
        self._record = record
        self.away = False
        # Optional methods: this has them if the worker does.
        if isinstance(worker, Recaller):
            self.recall: Callable[[], None] = self._recaller(worker)
        if isinstance(worker, Resizable):
            self.setResizer: Callable[[Resizer], None] = self._resizable(worker)
        if isinstance(worker, Reporter):
            self.setReport: Callable[[Report], None]
            self.give: Callable[[Sequence[tuple[int, Task]]], None]
            self.interrupt: Callable[[int], None]
            self.setReport, self.give, self.interrupt = self._reporter(worker)

    @property
    def front(self) -> list[Run]:
        """The runs without an outcome that may be running."""
        return self.held[: self.window.running]

    def started(self, run: Run) -> bool:
        """Return whether RUN has started, according to the journal."""
        return self._journal.count("start", run.number) > run.startsBefore

    # Called by the queue.

    def setResignator(self, resign: Resignator) -> None:
        """Set the function RESIGN, through this proxy."""

        def resigned(why: Resignation = Departed()) -> None:  # noqa: B008  # it is frozen
            self._record(f"the worker resigns: {type(why).__name__}")
            returns = isinstance(why, (Restarted, Reconnected))
            self.away = isinstance(why, Disconnected)
            self.gone = isinstance(why, Departed)
            self.returns += returns
            held = list(self.held)
            resign(why)
            if not returns:  # these get no outcome any more
                self.held = [run for run in self.held if run not in held]

        self.worker.setResignator(resigned)

    def run(self, task: Task) -> Deferred[RunOutcome]:
        """Make the worker run TASK."""
        run = self._given(task)
        inner = self.worker.run(task)
        if not isinstance(inner, Deferred):
            self._report(Guarantee.NOTHING_LOST, f"run gave no Deferred for call {run.number}, but {inner!r}")
        outer: Deferred[RunOutcome] = Deferred(lambda _: self._interrupt(run, inner))
        inner.addBoth(self._fired, run, outer)
        return outer

    def stop(self) -> Deferred[None]:
        """Make the worker stop when it has finished."""
        self.stops += 1
        self._record("the worker is stopped")
        return self.worker.stop().addCallback(self._stopped)

    def crash(self) -> Sequence[Task]:
        """Make the worker stop at once."""
        before = list(self.held)
        unfinished = list(self.worker.crash())
        wanted = [run for run in before if run.outcome is None]
        self._record(f"the worker is crashed, and returns calls {[task.call.args[1] for task in unfinished]}")
        if unfinished != [run.task for run in wanted]:
            self._report(Guarantee.CRASH, f"the worker {handedBack(unfinished, [run.task for run in wanted])}")
        for run in wanted:
            run.handedBack = True
        self.held = []
        self.gone = True
        return unfinished

    def _recaller(self, worker: Recaller) -> Callable[[], None]:
        def recall() -> None:
            self._record("the worker's unstarted calls are recalled")
            worker.recall()

        return recall

    def _resizable(self, worker: Resizable) -> Callable[[Resizer], None]:
        def setResizer(resize: Resizer) -> None:
            def resized(limits: Window | None) -> None:
                self._record(f"the worker's window is {limits}")
                self.away = limits is None
                self.window = limits or self.window
                resize(limits)

            worker.setResizer(resized)

        return setResizer

    def _reporter(
        self, worker: Reporter
    ) -> tuple[Callable[[Report], None], Callable[[Sequence[tuple[int, Task]]], None], Callable[[int], None]]:
        """Return the methods of a `Reporter`."""
        tickets: dict[int, Run] = {}

        def setReport(report: Report) -> None:
            def reported(outcomes: Sequence[tuple[int, RunOutcome]]) -> None:
                report([(ticket, self._answered(tickets[ticket], outcome)) for ticket, outcome in outcomes])

            worker.setReport(reported)

        def give(runs: Sequence[tuple[int, Task]]) -> None:
            tickets.update((ticket, self._given(task)) for ticket, task in runs)
            worker.give(runs)

        def interrupt(ticket: int) -> None:
            if tickets[ticket].outcome is None:
                self._markInterrupted(tickets[ticket])
            worker.interrupt(ticket)

        return setReport, give, interrupt

    # Checks.

    def stillRunning(self) -> Iterator[Run]:
        """Yield the cancelled runs whose calls continue, according to the journal."""
        for run in self.runs:
            ended = self._journal.count("end", run.number)
            if run.interrupted and self.started(run) and self._journal.count("start", run.number) > ended:
                yield run

    def wrong(self) -> Iterator[Broken]:
        """Yield the broken guarantees that the journal shows."""
        given = Counter(run.number for run in self.runs)
        firm = [  # the runs with exactly one start in the journal
            run.number
            for run in self.runs
            if given[run.number] == 1
            and not run.interrupted
            and not run.task.update
            and not isinstance(run.outcome, (Recalled, Lost, Interrupted))
            and self._journal.count("start", run.number) == 1
        ]
        places = {number: place for place, (what, number) in enumerate(self._journal.lines) if what == "start"}
        for n, number in enumerate(firm):
            overtaken = [earlier for earlier in firm[:n] if places[earlier] > places[number]]
            if len(overtaken) >= self.window.running:
                yield Guarantee.ORDER, f"call {number} was started before call {overtaken[0]}, which was given first"
                break
        running: set[int] = set()
        for what, number in self._journal.lines:
            if what == "start" and number in firm:
                running.add(number)
                if len(running) > self.window.running:
                    yield Guarantee.WINDOW, f"calls {sorted(running)} ran at once, where it runs {self.window.running}"
                    break
            elif what == "end":
                running.discard(number)

    def _given(self, task: Task) -> Run:
        number: int = task.call.args[1]
        self._journal.read()
        run = Run(task, number, self._journal.count("start", number))
        if task.series is not None and task.series not in self.qualifications:
            self._report(Guarantee.QUALIFIED, f"call {number}, of series {task.series!r}, came to it")
        self.runs.append(run)
        self.held.append(run)
        if len(self.held) > self.window.most:
            self._report(Guarantee.WINDOW, f"it was given {len(self.held)} calls at once")
        self._record(f"the worker is given {'update' if task.update else 'call'} {number}")
        return run

    def _interrupt(self, run: Run, inner: Deferred[RunOutcome]) -> None:
        self._markInterrupted(run)
        inner.cancel()
        if run.outcome is None:
            self._report(Guarantee.CANCELLATION, f"the worker did not end call {run.number}, which was cancelled")

    def _markInterrupted(self, run: Run) -> None:
        self._record(f"call {run.number} is cancelled on the worker")
        run.interrupted = True

    def _fired(self, outcome: RunOutcome | Failure, run: Run, outer: Deferred[RunOutcome]) -> None:
        answered = self._answered(run, outcome)
        if not outer.called:
            outer.callback(answered)

    def _answered(self, run: Run, outcome: Any) -> Any:
        """Record the OUTCOME of RUN, and return what the queue gets.

        (Any, because a worker may return something that is not an outcome.)
        """
        if run.outcome is not None:
            self._report(Guarantee.NOTHING_LOST, f"a worker answered twice for call {run.number}")
        run.outcome = outcome
        if run in self.held:
            self.held.remove(run)
        if isinstance(outcome, (Returned, Raised, Iterating)) and run.handedBack:
            self._report(
                Guarantee.NOTHING_LOST, f"call {run.number} was given back as unfinished, and then ended in {outcome}"
            )
        if isinstance(outcome, Failure):
            if not (run.interrupted and outcome.check(CancelledError)):
                how = f"the outcome of call {run.number} is no outcome: {outcome.value!r}"
                self._report(Guarantee.NOTHING_LOST, how)
        elif isinstance(outcome, Iterating):
            self._record(f"call {run.number} gave an iterator")
            if isinstance(outcome.source, ItemSource):
                source = _WatchedSource(outcome.source, run.number, self._report)
                return attrs.evolve(outcome, source=source)
        else:
            self._record(f"the worker answers for call {run.number}: {outcome!r}")
        return outcome

    def _stopped(self, _: None) -> None:
        self.stops -= 1
        if self.held and not self.gone:
            held = ", ".join(str(run.number) for run in self.held)
            self._report(Guarantee.SHUTDOWN_WAITS, f"the worker had stopped before it had answered for calls {held}")


def handedBack(unfinished: Sequence[Task], wanted: Sequence[Task]) -> str:
    """Describe what is wrong with the UNFINISHED tasks, where the WANTED tasks were right."""
    gave, held = ([task.call.args[1] for task in tasks] for tasks in (unfinished, wanted))
    if gave == held:
        return f"gave back other tasks of calls {held} than it was given: return the same tasks, not copies"
    if sorted(gave) == sorted(held):
        return f"gave back {gave}, where they were given in the order {held}"
    return f"gave back {gave}, where {held} were unfinished"


class _WatchedSource:
    """Passes on everything between SOURCE, of call NUMBER, and its sink."""

    def __init__(self, source: ItemSource, number: int, report: ReportBroken) -> None:
        self._source = source
        self._number = number
        self._report = report
        self._sink: ItemSink | None = None
        self._credit = 0
        self._over = False

    def begin(self, sink: ItemSink) -> None:
        """Send granted items to SINK."""
        self._sink = sink
        self._source.begin(self)

    def grant(self, items: int) -> None:
        """Grant ITEMS more."""
        self._credit += items
        self._source.grant(items)

    def close(self) -> None:
        """End: no more items are wanted."""
        self._source.close()

    def arrived(self, items: Sequence[Any], more: bool = False) -> None:
        """Pass on ITEMS, and the promise of MORE."""
        self._credit -= len(items)
        if self._credit < 0:
            self._report(Guarantee.CREDIT, f"call {self._number} sent {-self._credit} items more than were granted")
            return
        if self._over:
            self._report(Guarantee.EXACT_ITEMS, f"call {self._number} sent items after it was over")
        if self._sink is not None:
            self._sink.arrived(items, more)

    def over(self, error: BaseException | None) -> None:
        """Pass on the end."""
        self._over = True
        if self._sink is not None:
            self._sink.over(error)
