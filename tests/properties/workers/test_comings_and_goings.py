"""Nothing lost, nothing doubled, on real workers of which some leave, crash or are killed while others come.

Theory of operation. Hypothesis draws a story: calls of every kind, cancels, updates, `kill -9`, workers that are
detached, by a crash or as they should be, and others like them attached in their place. It is acted out on a queue;
then each call is asked how it ended, and a file how often each was started.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.python.failure import Failure

from asynqueue import AsyncWorker, ProcessWorker, TaskQueue, ThreadWorker, WorkerLost, deferToDelay
from asynqueue.core.records import CallSpec, RunOutcome, Task
from asynqueue.interfaces import Worker
from tests.support import calls as kit
from tests.support.calls import inLoop, isAbsent, until
from tests.support.stories import stories

Maker: TypeAlias = Callable[[Sequence[Hashable]], Worker]


# The story.


@attrs.frozen
class Call:
    """A call: it gives its number, fails, dawdles or iterates."""

    kind: str
    niceness: int
    series: str | None
    where: str | None
    items: int
    stopAfter: int | None  # items after which the iteration is not wanted any more
    raises: bool  # the iterator, after its items
    pauses: bool  # whoever takes the items, after each


@attrs.frozen
class Cancel:
    """The call that is BACK calls ago is not wanted any more."""

    back: int


@attrs.frozen
class Kill:
    """The process of worker WHICH is killed; of another kind of worker, nothing is."""

    which: int


@attrs.frozen
class Replace:
    """Worker WHICH leaves, by a CRASH or as it should, and one like it comes."""

    which: int
    crash: bool


@attrs.frozen
class Update:
    """Every worker runs an update."""


@attrs.frozen
class Turns:
    """The reactor has so many turns."""

    number: int


Step: TypeAlias = Call | Cancel | Kill | Replace | Update | Turns

calls = st.builds(
    Call,
    kind=st.sampled_from(["give", "give", "give", "fail", "dawdle", "iterate", "iterate"]),
    niceness=st.sampled_from([-20, 0, 0, 0, 20]),
    series=st.sampled_from([None, None, "one", "two", "both"]),
    where=st.sampled_from([None, None, None, "doNext", "doLast"]),
    items=st.sampled_from([0, 1, 5, 40, 300]),
    stopAfter=st.sampled_from([None, None, 0, 1, 7]),
    raises=st.booleans(),
    pauses=st.booleans(),
)
steps: st.SearchStrategy[Step] = st.one_of(
    calls,
    calls,
    calls,
    calls,
    st.builds(Update),
    st.builds(Turns, st.integers(1, 5)),
    st.builds(Cancel, st.integers(1, 5)),
    st.builds(Kill, st.integers(0, 1)),
    st.builds(Replace, st.integers(0, 1), st.booleans()),
)


# In a module that costs a process little to import.
KINDS: dict[str, Callable[..., Any]] = {
    "give": kit.markAndReturn,
    "fail": kit.markAndFail,
    "dawdle": kit.markAndDawdle,
    "iterate": kit.markBeforeIterating,
}


# The actors.


@attrs.define(eq=False)
class Made:
    """A call that was made, and how it ended."""

    call: Call
    deferred: Deferred[Any]
    cancelled: bool = False
    got: list[int] = attrs.field(factory=list)
    ended: Any = None  # its result, or the error it failed with
    over: bool = False


class Stage:
    """Acts stories out on a queue of COUNT workers, which MAKE makes. What its calls start is in the file PATH."""

    def __init__(self, make: Maker, count: int, path: Path) -> None:
        self.made: dict[int, Made] = {}
        self.hurt = 0  # how often a worker died under what it ran
        self.given: list[tuple[Sequence[Hashable], Task]] = []
        self._make = make
        self._path = path
        self._qualified = (("one", "both"), ("two", "both")) if count == 2 else (("one", "two", "both"),)
        self._workers = [self._worker(which) for which in range(count)]
        self._updates: list[Deferred[Any]] = []
        self._leaving: list[Deferred[list[Task]]] = []
        self._pids: set[int] = set()
        self.queue = TaskQueue(*self._workers)

    async def act(self, story: list[Step]) -> None:
        """Act STORY out, to the end of its last call and the shutdown of the queue."""
        try:
            for step in story:
                await self._take(step)
            await until(lambda: all(made.over for made in self.made.values()))
            await gatherResults(self._updates)
            await self.queue.shutdown()
            for unfinished in await gatherResults(self._leaving):
                assert unfinished == []
        finally:
            for worker in self.queue.workers():
                self.queue.detachWorker(worker, crash=True)
        assert len(self.queue) == 0
        await until(lambda: not [t for t in threading.enumerate() if t.name.startswith("asynqueue-thread")])
        for pid in self._pids:
            await until(isAbsent, pid)

    def starts(self) -> dict[int, list[int]]:
        """When each call was started: as how many-th of all starts."""
        starts: dict[int, list[int]] = {number: [] for number in self.made}
        for n, line in enumerate(self._path.read_text().split() if self._path.exists() else ()):
            starts[int(line)].append(n)
        return starts

    def _worker(self, which: int) -> Worker:
        """A new worker, which is looked at as it runs what it is given."""
        worker: Any = self._make(self._qualified[which])
        run = worker.run

        def watched(task: Task) -> Deferred[RunOutcome]:
            self.given.append((self._qualified[which], task))
            outcome: Deferred[RunOutcome] = run(task)
            return outcome

        worker.run = watched
        made: Worker = worker
        return made

    async def _take(self, step: Step) -> None:
        if isinstance(step, Call):
            self._call(step)
        elif isinstance(step, Turns):
            for _ in range(step.number):
                await deferToDelay(0)
        elif isinstance(step, Update):
            self._updates.append(self.queue.update(len, "four").addErrback(lambda reason: reason.trap(WorkerLost)))
        elif isinstance(step, Cancel):
            made = self.made.get(len(self.made) + 1 - step.back)
            if made is not None and not made.over:
                made.cancelled = True
                made.deferred.cancel()
        elif step.which < len(self._workers):
            self._hurt(step)

    def _hurt(self, step: Kill | Replace) -> None:
        worker = self._workers[step.which]
        if isinstance(worker, ProcessWorker):
            self._pids.add(worker.process.pid)
        if isinstance(step, Replace):
            self.hurt += step.crash
            self._leaving.append(self.queue.detachWorker(worker, reassign=True, crash=step.crash))
            self._workers[step.which] = self._worker(step.which)
            self.queue.attachWorker(self._workers[step.which]).addErrback(lambda reason: reason.trap(WorkerLost))
        elif isinstance(worker, ProcessWorker):
            self.hurt += 1
            kit.killProcessOf(worker)

    def _call(self, call: Call) -> None:
        number = len(self.made) + 1
        more = (call.items, call.raises) if call.kind == "iterate" else ()
        options: dict[str, Any] = {call.where: True} if call.where else {}
        spec: CallSpec[Any] = CallSpec(KINDS[call.kind], (self._path, number, *more))
        d: Deferred[Any] = self.queue.submit(spec, niceness=call.niceness, series=call.series, **options)
        self.made[number] = made = Made(call, d)
        d.addBoth(lambda result: Deferred.fromCoroutine(self._end(made, result)))

    async def _end(self, made: Made, result: Any) -> None:
        try:
            if isinstance(result, Failure):
                result.raiseException()
            elif made.call.kind == "iterate":
                await self._drain(made, result)
            else:
                made.ended = result
        except Exception as error:
            made.ended = error
        made.over = True

    async def _drain(self, made: Made, iteration: Any) -> None:
        if made.call.stopAfter == 0:
            iteration.stop()
        async for item in iteration:
            made.got.append(item)
            if len(made.got) == made.call.stopAfter:
                iteration.stop()
            elif made.call.pauses:
                await deferToDelay(0)


# The guarantees.


def settledOnceStartedAtMostTwice(number: int, made: Made, starts: list[int], hurt: int) -> None:
    ended, kind = made.ended, made.call.kind
    assert len(starts) <= min(2, 1 + hurt), "once, and once more if a worker died under it"
    if isinstance(ended, CancelledError):
        assert made.cancelled
    elif isinstance(ended, WorkerLost):
        assert len(starts) == 2 or (kind == "iterate" and len(starts) == 1), "lost after two starts, or as it iterated"
    else:
        assert starts, "what has an outcome was started"
        if kind in ("give", "dawdle"):
            assert ended == number
        elif kind == "fail":
            assert (type(ended), ended.args) == (ZeroDivisionError, (number,))


def itemsInOrderEachOnce(made: Made) -> None:
    call, got = made.call, made.got
    assert got == list(range(len(got)))
    if made.ended is None or isinstance(made.ended, ZeroDivisionError):
        wanted = call.items if call.stopAfter is None else min(call.items, call.stopAfter)
        assert len(got) == wanted
        if call.stopAfter is None or call.stopAfter > call.items:
            assert (made.ended is not None) == call.raises, "an error comes after the items before it"


def onlyWhatItIsQualifiedFor(stage: Stage) -> None:
    for qualified, task in stage.given:
        assert task.series is None or task.series in qualified


def firstInFirstOut(stage: Stage, starts: dict[int, list[int]]) -> None:
    """Of one flow on one worker at a time: in the order in which the calls were made."""
    flows: dict[object, list[int]] = {}
    for number, made in stage.made.items():
        if starts[number]:
            flow: object = made.call.where or (made.call.series, made.call.niceness)
            flows.setdefault(flow, []).append(starts[number][-1])
    for flow, order in flows.items():
        assert order == sorted(order), f"first in, first out, in flow {flow}"


def property_(make: Maker, count: int, share: int = 1) -> Callable[[], None]:
    """A test of its own for each kind of worker: pytest-twisted wraps the function that Hypothesis calls, once.

    Of the stories that the profile has for real workers it is told the SHAREth part.
    """

    async def everyStoryEndsWell(story: list[Step]) -> None:
        with tempfile.TemporaryDirectory() as place:
            stage = Stage(make, count, Path(place) / "started")
            await stage.act(story)
            starts = stage.starts()
        for number, made in stage.made.items():
            settledOnceStartedAtMostTwice(number, made, starts[number], stage.hurt)
            if made.call.kind == "iterate":
                itemsInOrderEachOnce(made)
        onlyWhatItIsQualifiedFor(stage)
        if count == 1 and not any(isinstance(step, Replace) for step in story):
            firstInFirstOut(stage, starts)

    waited: Callable[..., Any] = inLoop(everyStoryEndsWell)  # Hypothesis knows nothing of Deferreds
    return settings(max_examples=stories(share))(given(story=st.lists(steps, max_size=60))(waited))


test_nothing_is_lost_or_doubled_while_workers_of_the_main_loop_come_and_go = property_(AsyncWorker, 1)
test_nothing_is_lost_or_doubled_while_a_thread_comes_and_goes = property_(ThreadWorker, 1)
test_nothing_is_lost_or_doubled_while_threads_come_and_go = property_(ThreadWorker, 2)
test_nothing_is_lost_or_doubled_while_a_process_comes_and_dies = property_(ProcessWorker, 1, share=5)
test_nothing_is_lost_or_doubled_while_processes_come_and_die = property_(ProcessWorker, 2, share=5)
test_nothing_is_lost_or_doubled_while_processes_wear_out_and_die = property_(
    lambda series: ProcessWorker(series, maxTasks=3), 2, share=10
)
