"""The stage on which the kit's stories are acted out: a queue, its workers, and what is known of them.

Each method does one thing to them and writes it down in the story; `WorkerConformance` has the steps that are made of
these. What is found to be wrong ends the story, with the guarantee that did not hold.
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
from asynqueue.testing import workload as deeds
from asynqueue.testing.consumers import Feeder, Taker
from asynqueue.testing.guarantees import Guarantee, GuaranteeBroken
from asynqueue.testing.model import QUALIFIED, UNQUALIFIED, Broken, Call, CallRequest, Model
from asynqueue.testing.pump import ClockTurner, ReactorTurner, Turner
from asynqueue.testing.spy import Run, WatchedWorker, handedBack

ENOUGH = 1 << 30
"""More items than any iterator of the kit has."""


class Harness(RuleBasedStateMachine):
    """What `WorkerConformance` acts on, and what a subclass of that may say about its worker."""

    patience: float = 20.0
    """Seconds for which something that has to happen is waited for, where the time is real."""

    grace: float = 3.0
    """Seconds that a thread or a process has to be gone in, after the queue has shut down."""

    timeout: float = 0.02
    """The timeout, in seconds, of calls that never end."""

    blocking: bool = True
    """Whether calls may block where they run: not in the main loop, where they give a Deferred instead."""

    residents: bool = True
    """Whether the object of an update's bound method lives on in the worker."""

    # To be overridden.

    def makeWorker(self, series: Sequence[str]) -> Worker:
        """A new worker, qualified for SERIES. It has to be overridden."""
        raise NotImplementedError(f"{type(self).__name__} has to say how to make a worker: override makeWorker")

    def hurtWorker(self, worker: Any) -> None:
        """Kill WORKER, one that `makeWorker` made: its process, say. Without this, none is killed.

        (A subclass knows of what class it is: hence Any.)
        """

    def makeClock(self) -> Clock | None:
        """The clock on which everything is to happen, if it is not the installed reactor. It is then `clock`."""
        return None

    def makeTurner(self) -> Turner:
        """What turns the clock or the reactor, where neither of those in `asynqueue.testing.pump` will do."""
        return ReactorTurner(self.patience) if self.clock is None else ClockTurner(self.clock)

    def callable(self, name: str) -> Callable[..., Any]:
        """What a call is made of, for the deed NAME of `asynqueue.testing.workload`."""
        deed: Callable[..., Any] = getattr(deeds, name)
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
        self._held: dict[int, Deferred[int]] = {}  # by call, where a call gives a Deferred
        self._holding: list[Call] = []  # those not released, cancelled or lost
        self._updates: list[Call] = []
        self._overruns = 0
        self._notebook = deeds.Notebook()

    # The beginning.

    def open(self) -> None:
        """A queue, and its worker."""
        self._directory = tempfile.TemporaryDirectory(prefix="asynqueue-testing-")
        self._place = self._directory.name
        self._journal = deeds.Journal(self._place)
        self.clock = self.makeClock()
        self._turner = self.makeTurner()
        self._turner.begin()
        self._begun = True
        globalLogPublisher.addObserver(self._observe)  # pyright: ignore[reportArgumentType]  # zope's interfaces
        self._before = leftovers.present()
        clock: Any = self.clock  # a Clock is as good as a reactor, but for its type
        self.queue = TaskQueue(reactor=clock)
        self._hire()

    # The end.

    def teardown(self) -> None:
        """Everything is released, taken, shut down and judged; and nothing is left."""
        if not self._begun:
            return
        try:
            if not self._failed:
                self._end()
        finally:
            self._clear()

    def _end(self) -> None:
        self._say("the end: all that is held is released, all items are taken, and the queue is shut down")
        for call in list(self._holding):
            self._release(call)
        for taker in self._takers.values():
            taker.take(ENOUGH)
        self._rest()
        closed = self._fired(self.queue.shutdown())
        self._until(closed, None, "the shutdown never ended")
        gone = [self._fired(left) for left in self._leaving]
        self._until(
            lambda: all(each() for each in gone), Guarantee.NOTHING_LEFT, "a worker that was to leave is still here"
        )
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
            self._break(Guarantee.NOTHING_LEFT, f"there is left: {what}")

    def _clear(self) -> None:
        """Leave nothing, however it ended."""
        globalLogPublisher.removeObserver(self._observe)  # pyright: ignore[reportArgumentType]  # as above
        try:
            crashed = self.queue.workers()
            gone: list[Any] = []
            for worker in crashed:
                self.queue.detachWorker(worker, crash=True).addBoth(gone.append)
            self._directory.cleanup()  # which ends what is held
            for held in self._held.values():
                held.cancel()
            self._turner.turn()
            deadline = time.monotonic() + self.grace
            while self.clock is None and len(gone) < len(crashed) and time.monotonic() < deadline:
                self._turner.turn()  # what a worker has yet to do is not to be left to the next story
        except Exception:
            if not self._failed:
                raise  # else it is the failure before this that counts
        finally:
            self._directory.cleanup()
            self._turner.close()

    # How calls are made.

    def _make(self, wish: CallRequest, timeout: float | None = None) -> Call:
        call = self.model.make(wish)
        args: tuple[Any, ...] = (self._place, call.number)
        if wish.do == "iterate":
            args += (wish.items, wish.breaks) if wish.raw is None else (wish.items, False, True)
        elif wish.do == "hold":
            self._holding.append(call)
        f = self._holdInLoop if wish.do == "hold" and not self.blocking else self.callable(wish.do)
        self._submit(call, CallSpec(f, args, {wish.keyword: deeds.MORE} if wish.keyword else {}), timeout)
        return call

    def _submit(self, call: Call, spec: CallSpec[Any], timeout: float | None = None) -> None:
        wish = call.wish
        self._say(f"call {call.number} is made: {wish!r}")
        options: dict[str, Any] = {wish.where: True} if wish.where else {}
        if wish.do == "iterate" and not wish.raw:
            taker = self._takers[call.number] = Feeder(call) if wish.fed else Taker(call)
            if isinstance(taker, Feeder):
                options["consumer"] = taker
        d = self.queue.submit(
            spec,
            series=wish.series,
            niceness=wish.niceness,
            retries=wish.retries,
            timeout=timeout,
            raw=wish.raw,
            **options,
        )
        self._await(call, d)

    def _await(self, call: Call, d: Deferred[Any]) -> None:
        self._deferreds[call.number] = d

        def ended(result: Any) -> None:
            if isinstance(result, Failure):
                result = result.value
            elif isinstance(result, BaseException):
                result = ("returned", result)  # which is not to fail with it
            self._say(f"call {call.number} ends in {result!r}")
            call.ends.append(result)
            if isinstance(result, Deferator):
                taker = self._takers.get(call.number)
                if taker is None:  # which is wrong, and found to be so in the end
                    result.stop()
                else:
                    taker.begin(result)

        d.addBoth(ended)

    def _holdInLoop(self, place: str, number: int) -> Deferred[int]:
        """As `deeds.hold`, but in the main loop."""
        deeds.mark(place, "start", number)
        held: Deferred[int] = Deferred()
        if os.path.exists(os.path.join(place, f"release-{number}")):
            held.callback(number)
        else:
            self._held[number] = held
        return held.addCallback(partial(self._ceaseToHold, place))

    def _ceaseToHold(self, place: str, number: int) -> int:
        deeds.mark(place, "end", number)
        return number

    def _release(self, call: Call) -> None:
        self._say(f"call {call.number} is released")
        self._holding.remove(call)
        with open(os.path.join(self._place, f"release-{call.number}"), "w"):
            pass
        held = self._held.pop(call.number, None)
        if held is not None and not held.called:
            held.callback(call.number)

    def _taker(self, which: int) -> Taker:
        takers = list(self._takers.values())
        return takers[-1 - which % len(takers)]

    # How workers come and go.

    def _hire(self) -> None:
        made = self.makeWorker(QUALIFIED)
        worker = WatchedWorker(made, self._journal, self._report, self._say)
        self._say("a worker comes")
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
                if call.charged > call.wish.retries and call in self._holding:
                    self._holding.remove(call)

    def _drop(self, runs: list[Run]) -> None:
        for run in runs:
            if not run.task.update:
                call = self.model.calls[run.number]
                call.dropped = True
                if call in self._holding:
                    self._holding.remove(call)

    def _expose(self, worker: WatchedWorker) -> None:
        """WORKER may die, with the iterations that are open on it, and with updates that it has not run."""
        for number in {run.number for run in worker.runs} & self._takers.keys():
            if not self.model.calls[number].ended:
                self.model.calls[number].exposed = True
        self._exposeUpdates()

    def _exposeUpdates(self) -> None:
        """A worker may leave before it has run the updates that have not ended."""
        for update in self._updates:
            update.exposed = update.exposed or not update.ends

    # How things happen.

    def _turn(self) -> None:
        try:
            self._turner.turn()
        except AlreadyCalledError:
            self._break(Guarantee.NOTHING_LOST, "a worker answered twice for one call")

    def _turnReactor(self) -> None:
        if self.clock is None:
            self._turn()

    def _rest(self) -> None:
        """Let all happen that can, until only what is held runs."""
        self._until(self._atRest, None, "")
        self._check()

    def _atRest(self) -> bool:
        if self._workers[-1].gone:
            self._hire()
        self._journal.read()
        if any(worker.away for worker in self._workers if not worker.gone):
            return False
        return next(self._unanswered(), None) is None and next(self._unfinished(), None) is None

    def _unanswered(self) -> Iterator[tuple[WatchedWorker, Run]]:
        """The runs of which there is something to hear yet."""
        for worker in self._workers:
            for run in () if worker.gone or worker.away else worker.front:
                held = not run.task.update and self.model.calls[run.number] in self._holding
                if not held or not worker.started(run):
                    yield worker, run

    def _unfinished(self) -> Iterator[Call]:
        """The iterations and the updates of which there is something to hear yet, now that no call runs."""
        if not any(worker.held for worker in self._workers if not worker.gone):
            yield from (taker.call for taker in self._takers.values() if not taker.content)
            yield from (update for update in self._updates if not update.ends)

    def _until(self, condition: Callable[[], bool], guarantee: Guarantee | None, otherwise: str) -> None:
        """Let things happen until CONDITION holds. If it never will, GUARANTEE is broken, as OTHERWISE says."""
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
        """Say which guarantee it is that something never happens."""
        self._check(*(broken for worker in self._workers for broken in worker.wrong()))
        for worker, run in self._unanswered():
            call = self.model.calls[run.number]
            if call.charged > call.wish.retries:
                how = f"call {run.number} was given to a worker after {call.charged} had died of it"
                self._break(Guarantee.STARTED_AGAIN_ONCE, how)
            past = [r for r in worker.runs[: worker.runs.index(run)] if not isinstance(r.outcome, Recalled)]
            if past and past[-1].interrupted:
                expires = self.model.calls[past[-1].number].expires
                self._break(
                    Guarantee.TIMEOUT if expires else Guarantee.CANCELLATION,
                    f"call {run.number} had no answer: the worker was not free of call {past[-1].number}, which it was "
                    "to let go of",
                )
            guarantee = Guarantee.UPDATES if run.task.update else Guarantee.NOTHING_LOST
            self._break(guarantee, f"the worker never answered for call {run.number}, which it was given")
        for call in self._unfinished():
            if call.wish.do == "update":
                self._break(Guarantee.UPDATES, f"update {call.number} never ended")
            self._break(
                Guarantee.ITERATION_ENDS if call.stopped or call.cancelled else Guarantee.EXACT_ITEMS,
                f"call {call.number} gave {len(call.got)} of {call.wish.items} items, and nothing more was heard of it",
            )
        for worker in self._workers:
            busy = next(worker.notFreeOf(), None) if worker.stops else None
            if busy is not None:
                self._break(
                    Guarantee.TIMEOUT if self.model.calls[busy.number].expires else Guarantee.CANCELLATION,
                    f"the worker was told to stop and did not: it was not free of call {busy.number}, which it was to "
                    "let go of",
                )
            if worker.stops and not worker.held:
                self._break(Guarantee.NOTHING_LEFT, "the worker was told to stop and did not")

    def _probe(self, guarantee: Guarantee, when: str, perhaps: int = 0) -> None:
        """The worker answers."""
        call = self._make(CallRequest("give", where="doNext", retries=2))
        call.perhaps = perhaps
        self._until(lambda: call.ended or self._workers[-1].gone, guarantee, f"the worker did not answer {when}")
        self._rest()

    def _fired(self, d: Deferred[Any]) -> Callable[[], bool]:
        """Whether D has fired, which must not be with a Failure."""
        fired: list[Any] = []
        d.addBoth(fired.append)

        def check() -> bool:
            if fired and isinstance(fired[0], Failure):
                fired[0].raiseException()
            return bool(fired)

        return check

    # What is found.

    def _say(self, what: str) -> None:
        self.story.append(what)

    def _report(self, guarantee: Guarantee, how: str) -> None:
        """GUARANTEE is broken; where this is said nobody could be told by an exception."""
        self._wrong.append((guarantee, how))

    def _check(self, *broken: Broken) -> None:
        for guarantee, how in (*self._wrong, *broken):
            self._break(guarantee, how)

    def _break(self, guarantee: Guarantee, how: str) -> NoReturn:
        self._failed = True
        raise GuaranteeBroken(guarantee, how, self.story)

    @implementer(ILogObserver)
    def _observe(self, event: LogEvent) -> None:
        """What a reactor logs, of what is raised in it, nobody else hears."""
        failure = event.get("log_failure")
        if failure is not None and failure.check(AlreadyCalledError):
            self._report(Guarantee.NOTHING_LOST, "a worker answered twice for one call")

    def _sharesTemporaryFiles(self) -> bool:
        """True when others have their temporary files where ours are."""
        return os.environ.get("TMPDIR") != tempfile.gettempdir()
