"""The environment of the kit: a queue, its workers, and what is known of them.

Each method changes one thing and records it in the story. `WorkerConformance` has the steps that consist of these
methods. An error ends the story, with the guarantee that did not hold.
"""

from __future__ import annotations

import gc
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NoReturn

from hypothesis.stateful import RuleBasedStateMachine
from twisted.internet.defer import AlreadyCalledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from asynqueue.core.records import CallSpec, Recalled
from asynqueue.errors import WorkerLost
from asynqueue.interfaces import Worker
from asynqueue.iteration.deferator import Deferator
from asynqueue.queue.taskqueue import TaskQueue
from asynqueue.testing import leaks as leftovers
from asynqueue.testing import workload
from asynqueue.testing.consumers import Feeder, Taker, takerOf
from asynqueue.testing.guarantees import Guarantee, GuaranteeBroken
from asynqueue.testing.model import QUALIFIED, UNQUALIFIED, Broken, Call, CallRequest, Model
from asynqueue.testing.pump import ClockTurner, ReactorTurner, Turner
from asynqueue.testing.spy import Run, WatchedWorker, handedBack

ENOUGH = 1 << 30
"""More items than any iterator of the kit has."""


class Harness(RuleBasedStateMachine):
    """The base of `WorkerConformance`, with the attributes and methods that a subclass may override."""

    patience: float = 20.0
    """The time limit for anything that must happen, in seconds of real time."""

    grace: float = 3.0
    """The time for threads and processes to end after the queue was shut down, in seconds."""

    timeout: float = 0.02
    """The time limit of calls that never end, in seconds."""

    blocking: bool = True
    """True if calls may block. In the main loop they return a Deferred instead."""

    residents: bool = True
    """True if the object of an update's bound method stays in the worker."""

    # Methods to override.

    def makeWorker(self, series: Sequence[str]) -> Worker:
        """Return a new worker. Must be overridden.

        Args:
            series: The series for which the worker must be qualified.
        """
        raise NotImplementedError(f"{type(self).__name__} must override makeWorker, which returns a new worker")

    def hurtWorker(self, worker: Any) -> None:
        """Kill a worker, for instance its process. Without this, no worker is killed.

        Args:
            worker: One that `makeWorker` returned. (Any, because only the subclass knows its class.)
        """

    def makeClock(self) -> Clock | None:
        """Return the clock by which queue and worker run, which `clock` is then. None is for the installed reactor."""
        return None

    def makeTurner(self) -> Turner:
        """Return what runs the clock or the reactor."""
        return ReactorTurner(self.patience) if self.clock is None else ClockTurner(self.clock)

    def callable(self, name: str) -> Callable[..., Any]:
        """Return the function that a call runs.

        Args:
            name: The name of a function in `asynqueue.testing.workload`.
        """
        deed: Callable[..., Any] = getattr(workload, name)
        return deed

    def __init__(self) -> None:
        super().__init__()
        self.clock: Clock | None = None
        self.model: Model = Model()
        self.story: list[str] = []
        self.queue: TaskQueue
        self._wrong: list[Broken] = []
        self._failed = False
        self._begun = False
        self._workers: list[WatchedWorker] = []
        self._leaving: list[Deferred[Any]] = []
        self._takers: dict[int, Taker] = {}
        self._deferreds: dict[int, Deferred[Any]] = {}
        self._held: dict[int, Deferred[int]] = {}  # the Deferreds of held calls, by number, if `blocking` is False
        self._holding: list[Call] = []  # the calls that are not released, cancelled or lost
        self._updates: list[Call] = []
        self._overruns = 0
        self._notebook = workload.Notebook()

    # Begin.

    def open(self) -> None:
        """Make a queue and a worker."""
        self._directory = tempfile.TemporaryDirectory(prefix="asynqueue-testing-")
        self._place = self._directory.name
        self._journal = workload.Journal(self._place)
        self.clock = self.makeClock()
        self._turner = self.makeTurner()
        self._turner.begin()
        self._begun = True
        globalLogPublisher.addObserver(self._observe)  # pyright: ignore[reportArgumentType]  # zope's interfaces
        self._before = leftovers.present()
        clock: Any = self.clock  # Any, because a Clock lacks only the type of a reactor
        self.queue = TaskQueue(reactor=clock)
        self._addWorker()

    # End.

    def teardown(self) -> None:
        """Release, take and shut down everything. Check every call, and that nothing is left."""
        if not self._begun:
            return
        try:
            if not self._failed:
                self._end()
        finally:
            self._clear()

    def _end(self) -> None:
        self._record("the end: all held calls are released, all items are taken, and the queue is shut down")
        for call in list(self._holding):
            self._release(call)
        for taker in self._takers.values():
            taker.take(ENOUGH)
        self._rest()
        closed = self._fired(self.queue.shutdown())
        self._until(closed, None, "the shutdown of the queue never ended")
        gone = [self._fired(left) for left in self._leaving]
        self._until(lambda: all(each() for each in gone), Guarantee.NOTHING_LEFT, "a detached worker never stopped")
        self._journal.read()
        self._check(*self.model.broken(self._journal))
        self._check(*(broken for worker in self._workers for broken in worker.wrong()))
        self._nothingIsLeft()

    def _nothingIsLeft(self) -> None:
        if self.clock is not None and self.clock.getDelayedCalls():
            self._break(Guarantee.NOTHING_LEFT, f"the clock has calls to make: {self.clock.getDelayedCalls()}")
        self._directory.cleanup()
        left = leftovers.left(self._before, self._turn, 0)
        if left:
            gc.collect()
            left = leftovers.left(self._before, self._turnReactor, self.grace)
        left.pop("temporary files", None) if self._sharesTemporaryFiles() else None
        if left:
            what = "; ".join(f"{what}: {', '.join(map(str, new))}" for what, new in left.items())
            self._break(Guarantee.NOTHING_LEFT, f"after the shutdown there is left: {what}")

    def _clear(self) -> None:
        """Clean up, however the story ended."""
        globalLogPublisher.removeObserver(self._observe)  # pyright: ignore[reportArgumentType]  # as above
        try:
            crashed = self.queue.workers()
            gone: list[Any] = []
            for worker in crashed:
                self.queue.detachWorker(worker, crash=True).addBoth(gone.append)
            self._directory.cleanup()  # this ends all held calls
            for held in self._held.values():
                held.cancel()
            self._turner.turn()
            deadline = time.monotonic() + self.grace
            while self.clock is None and len(gone) < len(crashed) and time.monotonic() < deadline:
                self._turner.turn()  # a worker must not continue during the next story
        except Exception:
            if not self._failed:
                raise  # otherwise the earlier failure counts
        finally:
            self._directory.cleanup()
            self._turner.close()

    # Calls.

    def _make(self, request: CallRequest, timeout: float | None = None) -> Call:
        call = self.model.make(request)
        if request.do == "hold":
            self._holding.append(call)
        f = self._holdInLoop if request.do == "hold" and not self.blocking else self.callable(request.do)
        self._submit(call, call.spec(f, self._place), timeout)
        return call

    def _submit(self, call: Call, spec: CallSpec[Any], timeout: float | None = None) -> None:
        self._record(f"call {call.number} is made: {call.request!r}")
        taker = takerOf(call)
        if taker is not None:
            self._takers[call.number] = taker
        consumer = taker if isinstance(taker, Feeder) else None
        self._await(call, self.queue.submit(spec, consumer=consumer, timeout=timeout, **call.options()))

    def _await(self, call: Call, d: Deferred[Any]) -> None:
        self._deferreds[call.number] = d

        def ended(result: Any) -> None:
            if isinstance(result, Failure):
                result = result.value
            elif isinstance(result, BaseException):
                result = ("returned", result)  # so that the Deferred does not fail
            self._record(f"call {call.number} ends in {result!r}")
            call.ends.append(result)
            if isinstance(result, Deferator):
                taker = self._takers.get(call.number)
                if taker is None:  # an error, which the model reports at the end
                    result.stop()
                else:
                    taker.begin(result)

        d.addBoth(ended)

    def _holdInLoop(self, place: str, number: int) -> Deferred[int]:
        """Hold a call in the main loop, as `workload.hold`."""
        workload.mark(place, "start", number)
        held: Deferred[int] = Deferred()
        if os.path.exists(os.path.join(place, f"release-{number}")):
            held.callback(number)
        else:
            self._held[number] = held
        return held.addCallback(partial(self._endHold, place))

    def _endHold(self, place: str, number: int) -> int:
        workload.mark(place, "end", number)
        return number

    def _release(self, call: Call) -> None:
        self._record(f"call {call.number} is released")
        self._holding.remove(call)
        with open(os.path.join(self._place, f"release-{call.number}"), "w"):
            pass
        held = self._held.pop(call.number, None)
        if held is not None and not held.called:
            held.callback(call.number)

    def _taker(self, which: int) -> Taker:
        takers = list(self._takers.values())
        return takers[-1 - which % len(takers)]

    # Workers.

    def _addWorker(self) -> None:
        made = self.makeWorker(QUALIFIED)
        worker = WatchedWorker(made, self._journal, self._report, self._record)
        self._record("a worker is attached")
        for series in QUALIFIED:
            if series not in worker.qualifications:
                self._report(Guarantee.QUALIFIED, f"a worker made for series {series!r} is not qualified for it")
        if UNQUALIFIED in worker.qualifications:
            self._report(Guarantee.QUALIFIED, f"a worker claims to be qualified for series {UNQUALIFIED!r}")
        self._workers.append(worker)

        self.queue.attachWorker(worker).addErrback(lambda reason: reason.trap(WorkerLost))

    def _left(self, unfinished: list[Any], wanted: list[Any]) -> None:
        if unfinished != wanted:
            self._report(Guarantee.CRASH, f"a worker that left {handedBack(unfinished, wanted)}")

    def _charge(self, runs: list[Run]) -> None:
        for run in runs:
            if not run.task.update:
                call = self.model.calls[run.number]
                call.charged += 1
                if call.charged > call.request.retries and call in self._holding:
                    self._holding.remove(call)

    def _drop(self, runs: list[Run]) -> None:
        for run in runs:
            if not run.task.update:
                call = self.model.calls[run.number]
                call.dropped = True
                if call in self._holding:
                    self._holding.remove(call)

    def _expose(self, worker: WatchedWorker) -> None:
        """Mark the open iterations of WORKER, which may die, and the updates that have not run."""
        for number in {run.number for run in worker.runs} & self._takers.keys():
            if not self.model.calls[number].ended:
                self.model.calls[number].exposed = True
        self._exposeUpdates()

    def _exposeUpdates(self) -> None:
        """Mark the updates that have not ended, because a worker may leave before it has run them."""
        for update in self._updates:
            update.exposed = update.exposed or not update.ends

    # Time.

    def _turn(self) -> None:
        try:
            self._turner.turn()
        except AlreadyCalledError:
            self._break(Guarantee.NOTHING_LOST, "a worker answered twice for one call")

    def _turnReactor(self) -> None:
        if self.clock is None:
            self._turn()

    def _rest(self) -> None:
        """Run until only held calls are running."""
        self._until(self._atRest, None, "")
        self._check()

    def _atRest(self) -> bool:
        if self._workers[-1].gone:
            self._addWorker()
        self._journal.read()
        if any(worker.away for worker in self._workers if not worker.gone):
            return False
        return next(self._unanswered(), None) is None and next(self._unfinished(), None) is None

    def _unanswered(self) -> Iterator[tuple[WatchedWorker, Run]]:
        """Yield the runs whose outcome must still come."""
        for worker in self._workers:
            for run in () if worker.gone or worker.away else worker.front:
                held = not run.task.update and self.model.calls[run.number] in self._holding
                if not held or not worker.started(run):
                    yield worker, run

    def _unfinished(self) -> Iterator[Call]:
        """Yield the iterations and updates that must still end, if no call is running."""
        if not any(worker.held for worker in self._workers if not worker.gone):
            yield from (taker.call for taker in self._takers.values() if not taker.content)
            yield from (update for update in self._updates if not update.ends)

    def _until(self, condition: Callable[[], bool], guarantee: Guarantee | None, otherwise: str) -> None:
        """Run until CONDITION holds. If it never does, GUARANTEE is broken, as OTHERWISE describes."""
        try:
            came = self._turner.until(lambda: bool(self._wrong) or condition())
        except AlreadyCalledError:
            self._break(Guarantee.NOTHING_LOST, "a worker answered twice for one call")
        self._check()
        if not came:
            self._journal.read()
            self._explain()
            self._break(guarantee or Guarantee.NOTHING_LOST, otherwise or "the queue never came to rest")

    def _explain(self) -> None:
        """Find the guarantee that is broken when something never happens."""
        self._check(*(broken for worker in self._workers for broken in worker.wrong()))
        for worker, run in self._unanswered():
            call = self.model.calls[run.number]
            if call.charged > call.request.retries:
                how = f"call {run.number} was given to a worker after {call.charged} had died of it"
                self._break(Guarantee.STARTED_AGAIN_ONCE, how)
            past = [r for r in worker.runs[: worker.runs.index(run)] if not isinstance(r.outcome, Recalled)]
            if past and past[-1].interrupted:
                expires = self.model.calls[past[-1].number].expires
                self._break(
                    Guarantee.TIMEOUT if expires else Guarantee.CANCELLATION,
                    f"call {run.number} had no outcome: cancelled call {past[-1].number} still occupied the worker",
                )
            guarantee = Guarantee.UPDATES if run.task.update else Guarantee.NOTHING_LOST
            self._break(guarantee, f"the worker never reported an outcome of call {run.number}")
        for call in self._unfinished():
            if call.request.do == "update":
                self._break(Guarantee.UPDATES, f"update {call.number} never ended")
            self._break(
                Guarantee.ITERATION_ENDS if call.stopped or call.cancelled else Guarantee.EXACT_ITEMS,
                f"call {call.number} gave {len(call.got)} of {call.request.items} items, and never ended",
            )
        for worker in self._workers:
            busy = next(worker.stillRunning(), None) if worker.stops else None
            if busy is not None:
                self._break(
                    Guarantee.TIMEOUT if self.model.calls[busy.number].expires else Guarantee.CANCELLATION,
                    f"the worker was stopped and never finished: cancelled call {busy.number} still occupied it",
                )
            if worker.stops and not worker.held:
                self._break(Guarantee.NOTHING_LEFT, "the worker was stopped and never finished")

    def _probe(self, guarantee: Guarantee, when: str, perhaps: int = 0) -> None:
        """Check that the worker answers a call."""
        call = self._make(CallRequest("give", where="doNext", retries=2))
        call.perhaps = perhaps
        self._until(lambda: call.ended or self._workers[-1].gone, guarantee, f"the worker did not answer {when}")
        self._rest()

    def _fired(self, d: Deferred[Any]) -> Callable[[], bool]:
        """Return a function that returns whether D has fired. It raises the error of a Failure."""
        fired: list[Any] = []
        d.addBoth(fired.append)

        def check() -> bool:
            if fired and isinstance(fired[0], Failure):
                fired[0].raiseException()
            return bool(fired)

        return check

    # Findings.

    def _record(self, what: str) -> None:
        self.story.append(what)

    def _report(self, guarantee: Guarantee, how: str) -> None:
        """Record that GUARANTEE is broken, where an exception would reach no caller."""
        self._wrong.append((guarantee, how))

    def _check(self, *broken: Broken) -> None:
        for guarantee, how in (*self._wrong, *broken):
            self._break(guarantee, how)

    def _break(self, guarantee: Guarantee, how: str) -> NoReturn:
        self._failed = True
        raise GuaranteeBroken(guarantee, how, self.story)

    @implementer(ILogObserver)
    def _observe(self, event: LogEvent) -> None:
        """Watch the log for errors that a reactor catches."""
        failure = event.get("log_failure")
        if failure is not None and failure.check(AlreadyCalledError):
            self._report(Guarantee.NOTHING_LOST, "a worker answered twice for one call")

    def _sharesTemporaryFiles(self) -> bool:
        """Return whether other programs use the same directory for temporary files."""
        return os.environ.get("TMPDIR") != tempfile.gettempdir()
