"""What the unit tests of the queue and of iterations share: looking at Deferreds, and workers that obey the test."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from asynqueue.core.records import Recalled, Returned, RunOutcome, Task
from asynqueue.core.scheduling.window import Window
from asynqueue.interfaces import Resignator

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)


def outcomes(d: Deferred[Any]) -> list[Any]:
    """What D fires with, a Failure too: empty until it does. D's result is taken."""
    got: list[Any] = []
    d.addBoth(got.append)
    return got


def resultOf(d: Deferred[T]) -> T:
    """The result of D, which has to have fired."""
    got = outcomes(d)
    assert got, "the Deferred has not fired"
    if isinstance(got[0], Failure):
        got[0].raiseException()
    result: T = got[0]
    return result


def errorOf(d: Deferred[Any], kind: type[E]) -> E:
    """The error of D, which has to have failed with one of KIND."""
    got = outcomes(d)
    assert got, "the Deferred has not fired"
    assert isinstance(got[0], Failure), f"the Deferred fired with {got[0]!r}"
    assert isinstance(got[0].value, kind), f"the Deferred failed with {got[0].value!r}"
    return got[0].value


@contextmanager
def logged() -> Iterator[list[LogEvent]]:
    """The events that AsynQueue logs meanwhile."""
    events: list[LogEvent] = []

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        if event.get("log_namespace", "").startswith("asynqueue"):
            events.append(event)

    globalLogPublisher.addObserver(observe)
    try:
        yield events
    finally:
        globalLogPublisher.removeObserver(observe)


def nothing() -> None:
    """A call that is never looked at."""


class HeldWorker:
    """A worker that holds what it is given until the test says how it ended.

    It holds up to MOST tasks and is qualified for SERIES. A cancelled run reports nothing by itself, unless it has
    CANCELLERS to do so.
    """

    def __init__(self, series: Collection[Hashable] = (), most: int = 1) -> None:
        self.qualifications: Collection[Hashable] = frozenset(series)
        self.window = Window(1, most)
        self.given: list[Task] = []  # all there ever were
        self.held: list[tuple[Task, Deferred[RunOutcome]]] = []
        self.interrupted: list[Task] = []
        self.stops: list[Deferred[None]] = []
        self.stopsAtOnce = True
        self.crashed = False
        self.resign: Resignator | None = None

    def run(self, task: Task) -> Deferred[RunOutcome]:
        self.given.append(task)
        run: Deferred[RunOutcome] = Deferred(lambda _: self.interrupted.append(task))
        self.held.append((task, run))
        return run

    def end(self, outcome: RunOutcome, n: int = 0) -> None:
        """The Nth of what is held ends with OUTCOME."""
        _, run = self.held.pop(n)
        run.callback(outcome)

    def recall(self) -> None:
        while len(self.held) > 1:
            self.end(Recalled(), 1)

    def stop(self) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        self.stops.append(done)
        if self.stopsAtOnce:
            done.callback(None)
        return done

    def crash(self) -> Sequence[Task]:
        self.crashed = True
        unfinished = [task for task, _ in self.held]
        self.held.clear()
        return unfinished

    def setResignator(self, resign: Resignator) -> None:
        self.resign = resign


class NowWorker(HeldWorker):
    """A worker that has done each call before `run` returns."""

    def run(self, task: Task) -> Deferred[RunOutcome]:
        self.given.append(task)
        done: Deferred[RunOutcome] = Deferred()
        done.callback(Returned(task.call.f(*task.call.args, **task.call.kw)))
        return done


@attrs.define
class ListSource:
    """A source whose items the test gives out, up to the credit."""

    sink: Any = None
    credit: int = 0
    closed: bool = False
    prompt: bool = True  # when it is closed, it says at once that it is over

    def begin(self, sink: Any) -> None:
        self.sink = sink

    def grant(self, items: int) -> None:
        self.credit += items

    def close(self) -> None:
        self.closed = True
        if self.prompt:
            self.sink.over(None)

    def give(self, *items: Any) -> None:
        """Send ITEMS, which have to be within the credit."""
        assert len(items) <= self.credit, f"{len(items)} items would break a credit of {self.credit}"
        self.credit -= len(items)
        self.sink.arrived(items)
