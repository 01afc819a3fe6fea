"""Workers that are each wrong in one way: what the kit has to find.

Each is a `MemoryWorker`, which keeps every guarantee, but for the one thing that its name says. BREAKS is the guarantee
that does not hold of it, and has to be named.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import threading
from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from typing import Any, ClassVar

import attrs
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from asynqueue.core.records import CallSpec, Interrupted, Lost, Raised, Recalled, Returned, RunOutcome, Task
from asynqueue.core.scheduling.window import Window
from asynqueue.errors import WorkerLost
from asynqueue.interfaces import Clock
from asynqueue.testing import Guarantee, MemoryWorker
from asynqueue.testing.memory import MemorySource, Run


class Saboteur(MemoryWorker):
    """One that is wrong in nothing yet."""

    breaks: ClassVar[Guarantee]


# With calls.


class LosesAResult(Saboteur):
    breaks = Guarantee.NOTHING_LOST
    ended = 0

    def end(self, run: Run, outcome: RunOutcome) -> None:
        self.ended += 1
        if self.ended % 3:
            super().end(run, outcome)
        else:
            del self.runs[run]
            self.proceed()


class AnswersTwice(Saboteur):
    breaks = Guarantee.NOTHING_LOST

    def end(self, run: Run, outcome: RunOutcome) -> None:
        super().end(run, outcome)
        if isinstance(outcome, Returned):
            run.outcome.callback(outcome)


class GivesAnothersResult(Saboteur):
    breaks = Guarantee.NOTHING_LOST
    last: Any = 0

    def end(self, run: Run, outcome: RunOutcome) -> None:
        if isinstance(outcome, Returned) and isinstance(outcome.value, int) and not run.task.update:
            outcome, self.last = Returned(self.last), outcome.value
        super().end(run, outcome)


class CallsTwice(Saboteur):
    breaks = Guarantee.NOTHING_LOST

    def start(self, run: Run) -> None:
        call = run.task.call
        if call.f.__name__ == "give":
            maybeDeferred(call.f, *call.args, **call.kw).addErrback(lambda _: None)
        super().start(run)


class PretendsToHaveCalled(Saboteur):
    breaks = Guarantee.NOTHING_LOST

    def start(self, run: Run) -> None:
        call = run.task.call
        if call.f.__name__ == "give":
            run.task = attrs.evolve(run.task, call=CallSpec.of(int, call.args[1]))
        super().start(run)


class RunsWhatItGaveBack(Saboteur):
    breaks = Guarantee.NOTHING_LOST

    def recall(self) -> None:
        for run in [run for run in self.runs if not run.started]:
            call = run.task.call
            self.end(run, Recalled())
            if call.f.__name__ == "give":
                call.f(*call.args)


class DropsKeywords(Saboteur):
    breaks = Guarantee.ARGUMENTS

    def start(self, run: Run) -> None:
        task = run.task
        run.task = attrs.evolve(task, call=CallSpec(task.call.f, task.call.args))
        super().start(run)
        run.task = task


class HasKeywordsOfItsOwn(Saboteur):
    """It takes a keyword of a certain name for one of its own."""

    breaks = Guarantee.ARGUMENTS

    def start(self, run: Run) -> None:
        call, task = run.task.call, run.task
        kw = {name: value for name, value in call.kw.items() if name != "f"}
        run.task = attrs.evolve(task, call=CallSpec(call.f, call.args, kw))
        super().start(run)
        run.task = task


class BreaksOrder(Saboteur):
    breaks = Guarantee.ORDER

    def proceed(self) -> None:
        if not any(run.started or run.due for run in self.runs):
            self.runs = dict.fromkeys(reversed(self.runs))
        super().proceed()


class ExceedsItsWindow(Saboteur):
    breaks = Guarantee.WINDOW

    def proceed(self) -> None:
        honest, self.window = self.window, Window(self.window.most, self.window.most)
        super().proceed()
        self.window = honest


class WrapsErrors(Saboteur):
    breaks = Guarantee.ORIGINAL_ERRORS

    def end(self, run: Run, outcome: RunOutcome) -> None:
        if isinstance(outcome, Raised):
            outcome = Raised(RuntimeError(str(outcome.error)))
        super().end(run, outcome)


class ReturnsErrors(Saboteur):
    breaks = Guarantee.ORIGINAL_ERRORS

    def end(self, run: Run, outcome: RunOutcome) -> None:
        if isinstance(outcome, Raised):
            outcome = Returned(outcome.error)
        super().end(run, outcome)


class FailsItsDeferred(Saboteur):
    breaks = Guarantee.NOTHING_LOST

    def end(self, run: Run, outcome: RunOutcome) -> None:
        if isinstance(outcome, Raised):
            del self.runs[run]
            run.outcome.errback(Failure(outcome.error))
            self.proceed()
        else:
            super().end(run, outcome)


class ClaimsEverySeries(Saboteur):
    breaks = Guarantee.QUALIFIED

    def __init__(self, clock: Clock, series: Iterable[Hashable] = (), window: Window | None = None) -> None:
        super().__init__(clock, series, window)
        self.qualifications: Collection[Hashable] = frozenset((*self.qualifications, "nobody's"))


class OmitsASeries(Saboteur):
    breaks = Guarantee.QUALIFIED

    def __init__(self, clock: Clock, series: Iterable[Hashable] = (), window: Window | None = None) -> None:
        super().__init__(clock, list(series)[1:], window)


# With calls that are not wanted any more.


class Stubborn(Deferred[RunOutcome]):
    """A Deferred that is not to be cancelled."""

    def cancel(self) -> None:
        """It does nothing."""


class SettlesAfterCancel(Saboteur):
    breaks = Guarantee.CANCELLATION

    def run(self, task: Task) -> Deferred[RunOutcome]:
        outcome: Stubborn = Stubborn()
        super().run(task).addBoth(outcome.callback)
        return outcome


class DeafToCancel(Saboteur):
    """It goes on with what it was to let go of, and waits for that before it stops."""

    breaks = Guarantee.CANCELLATION

    def run(self, task: Task) -> Deferred[RunOutcome]:
        outcome: Deferred[RunOutcome] = Deferred()  # one that fails by itself when it is cancelled
        super().run(task).addBoth(outcome.callback)
        return outcome


class StaysBusyAfterCancel(Saboteur):
    """It says that it has let go, and runs nothing else until what it was to let go of has ended."""

    breaks = Guarantee.CANCELLATION
    busy = False

    def interrupt(self, run: Run) -> None:
        if run in self.runs and run.started and run.task.timeout is None:
            self.busy = True
            run.result = None  # it goes on
        super().interrupt(run)

    def proceed(self) -> None:
        if not self.busy:
            super().proceed()


class StaysBusyAfterTimeout(Saboteur):
    breaks = Guarantee.TIMEOUT
    busy = False

    def interrupt(self, run: Run) -> None:
        if run in self.runs and run.started and run.task.timeout is not None:
            self.busy = True
        super().interrupt(run)

    def proceed(self) -> None:
        if not self.busy:
            super().proceed()


class StartsWhatWasCancelled(Saboteur):
    breaks = Guarantee.CANCELLATION

    def interrupt(self, run: Run) -> None:
        if run in self.runs and not run.started:
            call = run.task.call
            self.clock.callLater(0, maybeDeferred, call.f, *call.args, **call.kw)
        super().interrupt(run)


# With iterators.


class SourceSaboteur(Saboteur):
    """One whose sources are of the class SOURCES."""

    sources_: ClassVar[type[MemorySource]]

    def source(self, iterator: Iterator[Any]) -> MemorySource:
        return self.sources_(self, iterator)


class SwallowsAnIteratorsError(SourceSaboteur):
    breaks = Guarantee.ERROR_AFTER_ITEMS

    class sources_(MemorySource):
        def end(self, error: BaseException | None) -> None:
            super().end(error if isinstance(error, WorkerLost) else None)


class FailsBeforeTheItems(SourceSaboteur):
    breaks = Guarantee.ERROR_AFTER_ITEMS

    class sources_(MemorySource):
        def produce(self) -> None:
            self.ahead: list[Any] = []
            try:
                super().produce()
            except LookupError:
                pass

        def send(self, items: list[Any]) -> None:
            try:
                super().send(items if len(items) == self.flow.credit else [])
            except ValueError:
                pass


class DropsAnItem(SourceSaboteur):
    breaks = Guarantee.EXACT_ITEMS

    class sources_(MemorySource):
        def send(self, items: list[Any]) -> None:
            super().send([item for item in items if item != 1])


class DuplicatesAnItem(SourceSaboteur):
    breaks = Guarantee.EXACT_ITEMS

    class sources_(MemorySource):
        last: Any = None

        def send(self, items: list[Any]) -> None:
            if self.last is not None and len(items) < self.flow.credit:
                items = [self.last, *items]
            self.last = items[-1] if items else None
            super().send(items)


class SwapsItems(SourceSaboteur):
    breaks = Guarantee.EXACT_ITEMS

    class sources_(MemorySource):
        def send(self, items: list[Any]) -> None:
            super().send(items[::-1])


class SendsBeyondCredit(SourceSaboteur):
    breaks = Guarantee.CREDIT

    class sources_(MemorySource):
        def grant(self, items: int) -> None:
            super().grant(items + 1)


class IgnoresRaw(Saboteur):
    breaks = Guarantee.RAW
    given: bool | None = None

    def report(self, run: Run, result: Any) -> None:
        task, run.task = run.task, attrs.evolve(run.task, raw=self.given)
        super().report(run, result)
        run.task = task


class GivesNothingButIterators(IgnoresRaw):
    """What it should give the items of is given as it is."""

    given = True


class TakesFalseForTrue(Saboteur):
    """What is said to be not raw is raw, since something is said."""

    breaks = Guarantee.RAW

    def report(self, run: Run, result: Any) -> None:
        task, run.task = run.task, attrs.evolve(run.task, raw=run.task.raw is not None)
        super().report(run, result)
        run.task = task


class DoesNotRunFinally(SourceSaboteur):
    breaks = Guarantee.ITERATION_ENDS

    class sources_(MemorySource):
        kept: ClassVar[list[Any]] = []

        def close(self) -> None:
            self.kept.append(self.iterator)  # or it would be closed when nobody has it any more
            self.iterator = iter(())
            super().close()


class StallsAnIteration(SourceSaboteur):
    breaks = Guarantee.EXACT_ITEMS

    class sources_(MemorySource):
        def grant(self, items: int) -> None:
            if not self.flow.credit and items < 3:
                super().grant(items)


# With the end of a worker.


class IgnoresStop(Saboteur):
    breaks = Guarantee.NOTHING_LEFT

    def stop(self) -> Deferred[None]:
        return Deferred()


class StopsTooSoon(Saboteur):
    breaks = Guarantee.SHUTDOWN_WAITS

    def stop(self) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        done.callback(None)
        return done


class KeepsAProcess(Saboteur):
    breaks = Guarantee.NOTHING_LEFT
    keeps = False
    kept: ClassVar[list[subprocess.Popen[bytes]]] = []

    def start(self, run: Run) -> None:
        if not self.keeps:
            self.keeps = True
            self.kept.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))
        super().start(run)

    @classmethod
    def repent(cls) -> None:
        for process in cls.kept:
            process.communicate(b"\n")
        cls.kept.clear()


class KeepsAThread(Saboteur):
    breaks = Guarantee.NOTHING_LEFT
    keeps = False
    kept: ClassVar[list[threading.Event]] = []

    def start(self, run: Run) -> None:
        if not self.keeps:
            self.keeps = True
            self.kept.append(threading.Event())
            threading.Thread(target=self.kept[-1].wait, name="kept").start()
        super().start(run)

    @classmethod
    def repent(cls) -> None:
        for event in cls.kept:
            event.set()
        cls.kept.clear()


class KeepsADescriptor(Saboteur):
    breaks = Guarantee.NOTHING_LEFT
    kept: ClassVar[list[int]] = []

    def start(self, run: Run) -> None:
        self.kept.extend(os.pipe())
        super().start(run)

    @classmethod
    def repent(cls) -> None:
        for descriptor in cls.kept:
            os.close(descriptor)
        cls.kept.clear()


class LeavesADelayedCall(Saboteur):
    breaks = Guarantee.NOTHING_LEFT

    def stop(self) -> Deferred[None]:
        self.clock.callLater(3600, int)
        return super().stop()


class CrashGivesBackWhatIsFinished(Saboteur):
    breaks = Guarantee.CRASH
    done: Task | None = None

    def end(self, run: Run, outcome: RunOutcome) -> None:
        if isinstance(outcome, Returned):
            self.done = run.task
        super().end(run, outcome)

    def crash(self) -> Sequence[Task]:
        unfinished = super().crash()
        return unfinished if self.done is None else [self.done, *unfinished]


class CrashGivesBackCopies(Saboteur):
    breaks = Guarantee.CRASH

    def crash(self) -> Sequence[Task]:
        return [attrs.evolve(task) for task in super().crash()]


class CrashOmitsWhatIsUnfinished(Saboteur):
    breaks = Guarantee.CRASH

    def crash(self) -> Sequence[Task]:
        return super().crash()[1:]


class CrashAnswersLater(Saboteur):
    breaks = Guarantee.NOTHING_LOST

    def crash(self) -> Sequence[Task]:
        held = list(self.runs)
        unfinished = super().crash()
        for run in held:
            self.clock.callLater(0, run.outcome.callback, Returned(None))
        return unfinished


class HidesItsDeath(Saboteur):
    breaks = Guarantee.DEATH_NOTICED

    def die(self, returning: bool = True, reason: str = "the worker died") -> None:
        self._drop(reason)


class ChargesItsNeighbours(Saboteur):
    breaks = Guarantee.NEIGHBOURS

    def die(self, returning: bool = True, reason: str = "the worker died") -> None:
        for run in self.runs:
            run.started = True
        super().die(returning, reason)


class SparesWhatRan(Saboteur):
    """It never says that a call was lost, but gives it back as if it had not started: it may kill without end."""

    breaks = Guarantee.STARTED_AGAIN_ONCE

    def die(self, returning: bool = True, reason: str = "the worker died") -> None:
        for run in self.runs:
            run.started = False
        super().die(returning, reason)


class FinishesDying(Saboteur):
    """It reports what it ran when it died as if that had ended well."""

    breaks = Guarantee.NOTHING_LOST

    def die(self, returning: bool = True, reason: str = "the worker died") -> None:
        for run in list(self.runs)[:1]:
            if run.started:
                self.end(run, Returned(None))
        super().die(returning, reason)


# With updates.


class ForgetsUpdates(Saboteur):
    breaks = Guarantee.UPDATES

    def start(self, run: Run) -> None:
        if run.task.update:
            run.task = attrs.evolve(run.task, call=CallSpec.of(int, run.task.call.args[1]))
        super().start(run)


class ShipsAFreshCopy(Saboteur):
    """It takes the object of a bound method along with each call, and an update with it is lost."""

    breaks = Guarantee.RESIDENTS

    def start(self, run: Run) -> None:
        owner = getattr(run.task.call.f, "__self__", None)
        if type(owner).__name__ == "Notebook":
            call = run.task.call
            fresh = copy.deepcopy(owner)
            run.task = attrs.evolve(run.task, call=CallSpec(getattr(fresh, call.f.__name__), call.args, call.kw))
        super().start(run)


class LetsGoOfEverything(Saboteur):
    """Told to let go of one call, it lets go of all that it holds as if each had been running."""

    breaks = Guarantee.NEIGHBOURS

    def interrupt(self, run: Run) -> None:
        if run in self.runs and run.started:
            for other in [other for other in self.runs if other is not run]:
                self.end(other, Lost("it was beside one that was to end"))
            self.end(run, Interrupted())
        else:
            super().interrupt(run)


SABOTEURS: list[type[Saboteur]] = sorted(
    (
        cls
        for cls in globals().values()
        if isinstance(cls, type) and issubclass(cls, Saboteur) and hasattr(cls, "breaks")
    ),
    key=lambda cls: cls.__name__,
)
