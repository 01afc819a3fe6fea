"""Nothing lost, nothing doubled, on real workers of which some leave, crash or are killed while others come.

Theory of operation. Hypothesis draws a story: calls of every kind, cancels, updates, `kill -9`, workers that are
detached, by a crash or as they should be, and others like them attached in their place. It is acted out on a queue, at
no time at rest: nobody knows what runs when a worker is killed. The kit's model judges it. So that the model can, each
call that has not ended at a death counts as perhaps charged with it.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeAlias

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, gatherResults
from twisted.python.failure import Failure

from asynqueue import AsyncWorker, ProcessWorker, TaskQueue, ThreadWorker, WorkerLost, deferToDelay
from asynqueue.core.records import Task
from asynqueue.interfaces import Worker
from asynqueue.testing.consumers import Feeder, Taker, takerOf
from asynqueue.testing.harness import ENOUGH
from asynqueue.testing.model import QUALIFIED, Broken, Call, CallRequest, Model
from asynqueue.testing.spy import WatchedWorker
from asynqueue.testing.strategies import callRequests
from asynqueue.testing.workload import Journal, fail, give, iterate
from tests.support import calls as kit
from tests.support.calls import inLoop, isAbsent, until
from tests.support.stories import stories

Maker: TypeAlias = Callable[[Sequence[Hashable]], Worker]

# A held call has to be released, which a thread of the main loop could not do: here it takes its time instead.
WORK: dict[str, Callable[..., Any]] = {"give": give, "fail": fail, "hold": kit.giveLater, "iterate": iterate}


# The story.


@attrs.frozen
class Cancel:
    """The call that is BACK calls ago is not wanted any more."""

    back: int


@attrs.frozen
class Take:
    """So many ITEMS are taken of the iteration that is BACK calls ago, if it is one."""

    back: int
    items: int


@attrs.frozen
class StopTaking:
    """No more items are wanted of the iteration that is BACK calls ago, if it is one."""

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


Step: TypeAlias = CallRequest | Cancel | Take | StopTaking | Kill | Replace | Update | Turns

BACK = st.integers(1, 5)
steps: st.SearchStrategy[Step] = st.one_of(
    callRequests(),
    callRequests(),
    callRequests(),
    st.builds(Update),
    st.builds(Turns, st.integers(1, 5)),
    st.builds(Cancel, BACK),
    st.builds(Take, BACK, st.sampled_from((1, 7, ENOUGH))),
    st.builds(StopTaking, BACK),
    st.builds(Kill, st.integers(0, 1)),
    st.builds(Replace, st.integers(0, 1), st.booleans()),
)


# The actors.


class Stage:
    """Acts stories out on a queue of COUNT workers, which MAKE makes. The journal of the calls is in PLACE."""

    def __init__(self, make: Maker, count: int, place: str) -> None:
        self.model = Model()
        self.journal = Journal(place)
        self.broken: list[Broken] = []
        self._place = place
        self._make = make
        self._watched: list[WatchedWorker] = []
        self._workers = [self._worker() for _ in range(count)]
        self._takers: dict[int, Taker] = {}
        self._deferreds: dict[int, Deferred[Any]] = {}
        self._leaving: list[Deferred[list[Task]]] = []
        self._pids: set[int] = set()
        self.queue = TaskQueue(*self._workers)

    async def act(self, story: list[Step]) -> None:
        """Act STORY out, to the end of its last call and the shutdown of the queue."""
        try:
            for step in story:
                await self._take(step)
            for taker in self._takers.values():
                taker.take(ENOUGH)
            await self.queue.shutdown()
            await until(lambda: all(call.ended for call in self.model.calls.values()))
            for unfinished in await gatherResults(self._leaving):
                assert unfinished == []
        finally:
            for worker in self.queue.workers():
                self.queue.detachWorker(worker, crash=True)
        assert len(self.queue) == 0
        await until(lambda: not [t for t in threading.enumerate() if t.name.startswith("asynqueue-thread")])
        for pid in self._pids:
            await until(isAbsent, pid)
        self.journal.read()
        self.broken += self.model.broken(self.journal)
        for watched in self._watched:
            self.broken += watched.wrong()

    def _worker(self) -> WatchedWorker:
        """A new worker, which is watched."""

        def report(*broken: Any) -> None:
            self.broken.append(broken)

        worker = WatchedWorker(self._make(QUALIFIED), self.journal, report, lambda _: None)
        self._watched.append(worker)
        return worker

    async def _take(self, step: Step) -> None:
        if isinstance(step, CallRequest):
            self._call(step)
        elif isinstance(step, Turns):
            for _ in range(step.number):
                await deferToDelay(0)
        elif isinstance(step, Update):
            update = self.model.make(CallRequest("update"))
            update.workers = ENOUGH
            self._await(update, self.queue.update(give, self._place, update.number))
        elif isinstance(step, (Kill, Replace)):
            if step.which < len(self._workers):
                self._hurt(step)
        else:
            self._interfere(step)

    def _interfere(self, step: Cancel | Take | StopTaking) -> None:
        number = len(self.model.calls) + 1 - step.back
        taker = self._takers.get(number)
        if isinstance(step, Take):
            if taker is not None:
                taker.take(step.items)
        elif isinstance(step, StopTaking):
            if taker is not None and not taker.call.ended:
                taker.stop()
        elif number in self._deferreds:
            call = self.model.calls[number]
            if not call.ends and call.request.do != "update":
                call.cancelled = True
                self._death(charged=False)  # to end it, the process may be replaced, and iterations go with it
                self._deferreds[number].cancel()

    def _hurt(self, step: Kill | Replace) -> None:
        worker = self._workers[step.which]
        inner = worker.worker
        if isinstance(inner, ProcessWorker):
            self._pids.add(inner.process.pid)
        if isinstance(step, Replace):
            self._death(charged=step.crash)
            self._leaving.append(self.queue.detachWorker(worker, reassign=True, crash=step.crash))
            self._workers[step.which] = self._worker()
            self.queue.attachWorker(self._workers[step.which]).addErrback(lambda reason: reason.trap(WorkerLost))
        elif isinstance(inner, ProcessWorker):
            self._death(charged=True)
            kit.killProcessOf(inner)

    def _death(self, charged: bool) -> None:
        """A worker dies, or may: whoever runs something on it may feel that."""
        for call in self.model.calls.values():
            if not call.ended:
                call.perhaps += charged
                call.exposed = call.exposed or call.request.do in ("iterate", "update")

    def _call(self, request: CallRequest) -> None:
        call = self.model.make(request)
        taker = takerOf(call)
        if taker is not None:
            self._takers[call.number] = taker
        consumer = taker if isinstance(taker, Feeder) else None
        spec = call.spec(WORK[request.do], self._place)
        self._await(call, self.queue.submit(spec, consumer=consumer, **call.options()))

    def _await(self, call: Call, d: Deferred[Any]) -> None:
        self._deferreds[call.number] = d
        d.addBoth(self._ended, call)

    def _ended(self, result: Any, call: Call) -> None:
        call.ends.append(result.value if isinstance(result, Failure) else result)
        if call.iterates:
            self._takers[call.number].begin(result)

    def lostTooSoon(self) -> list[int]:
        """The calls that were lost though they could have been started again.

        Of those that a process had it is not known: it may be killed when it has taken a call and not yet started it.
        """
        return (
            []
            if self._pids
            else [
                call.number
                for call in self.model.calls.values()
                if call.request.do in ("give", "fail", "hold")
                and isinstance(call.ends[0], WorkerLost)
                and self.journal.count("start", call.number) <= call.request.retries
            ]
        )


def property_(make: Maker, count: int, share: int = 1) -> Callable[[], None]:
    """A test of its own for each kind of worker: pytest-twisted wraps the function that Hypothesis calls, once.

    Of the stories that the profile has for real workers it is told the SHAREth part.
    """

    async def everyStoryEndsWell(story: list[Step]) -> None:
        with tempfile.TemporaryDirectory() as place:
            stage = Stage(make, count, place)
            await stage.act(story)
        assert stage.broken == []
        assert stage.lostTooSoon() == []

    waited: Callable[..., Any] = inLoop(everyStoryEndsWell)  # Hypothesis knows nothing of Deferreds
    return settings(max_examples=stories(share))(given(story=st.lists(steps, min_size=15, max_size=60))(waited))


test_nothing_is_lost_or_doubled_while_workers_of_the_main_loop_come_and_go = property_(AsyncWorker, 1)
test_nothing_is_lost_or_doubled_while_a_thread_comes_and_goes = property_(ThreadWorker, 1)
test_nothing_is_lost_or_doubled_while_threads_come_and_go = property_(ThreadWorker, 2)
test_nothing_is_lost_or_doubled_while_a_process_comes_and_dies = property_(ProcessWorker, 1, share=5)
test_nothing_is_lost_or_doubled_while_processes_come_and_die = property_(ProcessWorker, 2, share=5)
test_nothing_is_lost_or_doubled_while_processes_wear_out_and_die = property_(
    lambda series: ProcessWorker(series, maxTasks=3), 2, share=10
)
