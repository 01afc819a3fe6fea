"""The thread worker, by real threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, gatherResults

from asynqueue import TaskQueue, ThreadLooper, ThreadQueue, ThreadWorker, errors
from asynqueue.core.flow.iterators import SLICE
from asynqueue.core.records import CallSpec, Interrupted, Iterating, Raised, Recalled, Returned, Task
from asynqueue.errors import WorkerLost
from asynqueue.interfaces import Departed, Resignation, Restarted
from asynqueue.reactor import watchdog as closings
from tests.support import calls as kit
from tests.support.calls import failureOf, inLoop, until


class Gate:
    """Holds whatever thread passes through it until it is opened."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()
        self.starts = 0
        self.name = ""

    def passThrough(self) -> str:
        """Wait, then give the name of this thread."""
        self.starts += 1
        self.name = threading.current_thread().name
        self.reached.set()
        self.opened.wait(kit.PATIENCE)
        return self.name

    def open(self) -> None:
        """Let go of all that wait."""
        self.opened.set()


@pytest.fixture
def gate() -> Iterator[Gate]:
    """A gate that is open in the end, so that no thread waits for ever."""
    gate = Gate()
    yield gate
    gate.open()


def threadName() -> str:
    return threading.current_thread().name


def ours() -> list[str]:
    """The names of the threads of thread workers."""
    return sorted(t.name for t in threading.enumerate() if t.name.startswith("asynqueue-thread"))


def task(number: int, f: Callable[..., Any], *args: Any) -> Task:
    return Task(number, CallSpec(f, args))


class Steps:
    """An iterator of thread names, that tells where it was closed."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.closedIn: list[str] = []

    def items(self) -> Iterator[str]:
        """NUMBER names."""
        try:
            for _ in range(self.number):
                yield threadName()
        finally:
            self.closedIn.append(threadName())


class TestCalls:
    @inLoop
    async def test_all_run_in_one_thread_which_is_named_and_is_not_the_main_one(self) -> None:
        async with ThreadQueue() as queue:
            names = await gatherResults([queue.call(threadName) for _ in range(200)])
            assert len(set(names)) == 1
            assert names[0].startswith("asynqueue-thread-")
            assert names[0] != threadName()
        assert ours() == []

    @inLoop
    async def test_their_results_come_in_the_order_of_the_calls(self) -> None:
        got: list[int] = []
        async with ThreadQueue() as queue:
            await gatherResults([queue.call(kit.echo, n).addCallback(got.append) for n in range(1000)])
        assert got == list(range(1000))

    @inLoop
    async def test_no_thread_is_started_before_the_first_call(self) -> None:
        async with ThreadQueue(workers=3) as queue:
            assert ours() == []
            await queue.call(threadName)
            assert len(ours()) == 1

    @pytest.mark.parametrize(
        "error", [KeyError("gone"), SystemExit(3), KeyboardInterrupt(), GeneratorExit(), StopIteration(1)], ids=repr
    )
    @inLoop
    async def test_an_error_is_the_very_one_and_ends_nothing_else(self, error: BaseException) -> None:
        async with ThreadQueue() as queue:
            name = await queue.call(threadName)
            assert await failureOf(queue.call(kit.raiseThis, error)) is error
            assert await queue.call(threadName) == name

    @inLoop
    async def test_a_call_is_let_go_of_when_it_has_ended(self) -> None:
        import gc
        import weakref

        class Thing:
            pass

        async with ThreadQueue() as queue:
            thing = Thing()
            gone = weakref.ref(thing)
            assert await queue.call(lambda _: 1, thing) == 1
            del thing
            await until(lambda: gc.collect() is None or gone() is None)

    @pytest.mark.parametrize("workers", [0, -1])
    def test_a_number_of_workers_that_is_none_is_named(self, workers: int) -> None:
        with pytest.raises(ValueError, match=f"at least one worker, got {workers}"):
            ThreadQueue(workers=workers)

    @inLoop
    async def test_several_workers_run_at_the_same_time(self) -> None:
        both = threading.Barrier(2)
        async with ThreadQueue(workers=2) as queue:
            assert sorted(await gatherResults([queue.call(both.wait, kit.PATIENCE) for _ in range(2)])) == [0, 1]


class TestUpdates:
    @inLoop
    async def test_one_runs_in_each_thread_before_its_first_call(self) -> None:
        mine = threading.local()

        def prepare() -> str:
            mine.ready = True
            return threadName()

        async with ThreadQueue(workers=2) as queue:
            assert len(set(await queue.update(prepare))) == 2
            assert all(await gatherResults([queue.call(getattr, mine, "ready") for _ in range(20)]))

    @inLoop
    async def test_a_fresh_thread_has_run_it_too(self, gate: Gate) -> None:
        mine = threading.local()

        def prepare() -> None:
            mine.ready = True

        async with ThreadQueue() as queue:
            await queue.update(prepare)
            stuck = queue.call(gate.passThrough)
            await until(gate.reached.is_set)
            stuck.cancel()
            await failureOf(stuck)
            assert await queue.call(getattr, mine, "ready", False) is True


class TestLettingGoOfACall:
    @inLoop
    async def test_a_queued_call_that_is_cancelled_never_runs(self, gate: Gate) -> None:
        ran: list[int] = []
        async with ThreadQueue() as queue:
            running, queued = queue.call(gate.passThrough), queue.call(ran.append, 1)
            queued.cancel()
            assert isinstance(await failureOf(queued), CancelledError)
            gate.open()
            name = await running
            assert await queue.call(threadName) == name
        assert ran == []

    @pytest.mark.parametrize("stays", [False, True])
    @inLoop
    async def test_one_that_does_not_come_back_from_an_iterator_is_abandoned_when_that_is_stopped(
        self, stays: bool, gate: Gate, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def items() -> Iterator[str]:
            try:
                yield threadName()
                if not stays:
                    gate.passThrough()
                while True:
                    yield threadName()
            finally:
                gate.passThrough()

        monkeypatch.setattr(closings, "STOP_GRACE", 0.05)
        async with ThreadQueue() as queue:
            iteration = await queue.call(items)
            name = await anext(iteration)
            waiting = anext(iteration)
            if stays:
                await waiting
            else:
                await until(gate.reached.is_set)
            iteration.stop()
            assert await queue.call(threadName) != name
            assert f"{name} (abandoned)" in ours()
            if not stays:
                assert isinstance(await failureOf(waiting), StopAsyncIteration)
            gate.open()

    @inLoop
    async def test_a_call_does_not_wait_for_an_iterator_while_another_thread_idles(self, gate: Gate) -> None:
        def items() -> Iterator[str]:
            yield threadName()
            gate.passThrough()
            yield threadName()

        async with ThreadQueue(workers=2) as queue:
            iteration = await queue.call(items)
            name = await anext(iteration)
            waiting = anext(iteration)
            await until(gate.reached.is_set)
            assert name not in await gatherResults([queue.call(threadName) for _ in range(20)])
            gate.open()
            assert await waiting == name
            iteration.stop()

    @inLoop
    async def test_one_that_does_not_end_when_it_is_told_to_is_abandoned(
        self, gate: Gate, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def items() -> Iterator[int]:
            try:
                yield 1
                yield 2
            finally:
                gate.passThrough()

        monkeypatch.setattr(closings, "STOP_GRACE", 0.05)
        looper = ThreadLooper()
        iteration = await looper.call(items)
        assert await anext(iteration) == 1
        await looper.stop()
        assert ours() == [f"{gate.name} (abandoned)"]
        with pytest.raises(WorkerLost):
            await kit.drained(iteration)
        gate.open()

    @inLoop
    async def test_one_that_was_stopped_is_taken_again(self) -> None:
        worker = ThreadWorker()
        names = set()
        for _ in range(2):
            async with TaskQueue(worker) as queue:
                names.add(await queue.call(threadName))
            assert not ours()
        assert len(names) == 2

    @inLoop
    async def test_a_running_call_that_is_cancelled_ends_now_and_its_thread_is_abandoned(self, gate: Gate) -> None:
        async with ThreadQueue() as queue:
            running = queue.call(gate.passThrough)
            after = queue.call(threadName)
            await until(gate.reached.is_set)
            running.cancel()
            assert running.called
            assert isinstance(await failureOf(running), CancelledError)
            fresh = await after
            assert fresh != gate.name
            assert ours() == sorted([f"{gate.name} (abandoned in Gate.passThrough())", fresh])
            gate.open()
            await until(lambda: ours() == [fresh])
        assert gate.starts == 1

    @inLoop
    async def test_a_call_whose_time_runs_out_frees_its_worker_twice(self, gate: Gate) -> None:
        async with ThreadQueue() as queue:
            slow = queue.call(gate.passThrough, timeout=0.05)
            after = queue.call(threadName)
            assert isinstance(await failureOf(slow), errors.TimeoutError)
            assert await after not in ("", gate.name)
            assert len(ours()) == 3
        assert gate.starts == 2

    @inLoop
    async def test_its_neighbours_run_once_and_in_order(self, gate: Gate) -> None:
        ran: list[int] = []
        async with ThreadQueue() as queue:
            await gatherResults([queue.call(kit.echo, n) for n in range(1000)])  # the window grows
            before = [queue.call(ran.append, n) for n in range(20)]
            running = queue.call(gate.passThrough)
            after = [queue.call(ran.append, n) for n in range(20, 60)]
            await until(gate.reached.is_set)
            running.cancel()
            await failureOf(running)
            await gatherResults(before + after)
        assert ran == list(range(60))


class TestTheWorkerAlone:
    @inLoop
    async def test_recalled_calls_come_back_and_never_run(self, gate: Gate) -> None:
        worker = ThreadWorker()
        ran: list[int] = []
        running = worker.run(task(1, gate.passThrough))
        await until(gate.reached.is_set)
        waiting = [worker.run(task(n, ran.append, n)) for n in range(2, 50)]
        worker.recall()
        assert [await d for d in waiting] == [Recalled()] * 48
        assert not running.called
        gate.open()
        assert isinstance(await running, Returned)
        await worker.stop()
        assert ran == []

    @inLoop
    async def test_a_cancelled_run_gives_back_what_is_behind_it(self, gate: Gate) -> None:
        worker = ThreadWorker()
        resigned: list[Resignation] = []
        worker.setResignator(lambda why=Departed(): resigned.append(why))  # noqa: B008  # it is frozen
        running, behind = worker.run(task(1, gate.passThrough)), worker.run(task(2, threadName))
        await until(gate.reached.is_set)
        running.cancel()
        assert (await running, await behind) == (Interrupted(), Recalled())
        assert resigned == [Restarted()]
        await worker.stop()

    @inLoop
    async def test_stopping_waits_for_what_was_given_and_may_be_asked_for_again(self, gate: Gate) -> None:
        worker = ThreadWorker()
        running = worker.run(task(1, gate.passThrough))
        first, second = worker.stop(), worker.stop()
        assert not first.called
        assert not second.called
        gate.open()
        assert isinstance(await running, Returned)
        await first
        await second
        assert ours() == []

    @inLoop
    async def test_stopping_one_that_never_ran_is_at_once(self) -> None:
        assert ThreadWorker().stop().called

    @inLoop
    async def test_crashing_lists_what_was_not_finished_and_waits_for_nothing(self, gate: Gate) -> None:
        worker = ThreadWorker()
        ran: list[int] = []
        tasks = [task(1, kit.echo, 1), task(2, gate.passThrough), task(3, ran.append, 3)]
        runs = [worker.run(each) for each in tasks]
        assert gate.reached.wait(kit.PATIENCE)  # while the reactor hears nothing of the first
        assert worker.crash() == tasks[1:]
        assert isinstance(await runs[0], Returned)
        assert worker.crash() == []
        gate.open()
        await until(lambda: not ours())
        assert ran == []

    @inLoop
    async def test_stopping_ends_what_iterates_and_says_so(self) -> None:
        worker = ThreadWorker()
        steps = Steps(10)
        outcome = await worker.run(task(1, steps.items))
        assert isinstance(outcome, Iterating)
        sink = Sink()
        outcome.source.begin(sink)
        outcome.source.grant(1)
        await until(lambda: sink.items)
        await worker.stop()
        assert len(sink.items) == 1
        assert isinstance(sink.ended[0], WorkerLost)
        assert steps.closedIn == sink.items

    @inLoop
    async def test_an_iteration_that_begins_after_a_crash_is_over_at_once(self, gate: Gate) -> None:
        worker = ThreadWorker()
        outcome = await worker.run(task(1, Steps(10).items))
        assert isinstance(outcome, Iterating)
        worker.crash()
        sink = Sink()
        outcome.source.begin(sink)
        outcome.source.grant(1)
        assert isinstance(sink.ended[0], WorkerLost)


class Sink:
    """Keeps what an iteration gives."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.ended: list[BaseException | None] = []

    def arrived(self, items: Any, more: bool = False) -> None:
        self.items += items

    def over(self, error: BaseException | None) -> None:
        self.ended.append(error)


class TestIterations:
    @inLoop
    async def test_one_runs_in_the_worker_s_thread_and_is_closed_there(self) -> None:
        steps = Steps(100)
        async with ThreadQueue() as queue:
            name = await queue.call(threadName)
            assert await kit.drained(await queue.call(steps.items)) == [name] * 100
        assert steps.closedIn == [name]

    @inLoop
    async def test_one_that_is_stopped_is_closed_there(self) -> None:
        steps = Steps(1_000_000)
        async with ThreadQueue() as queue:
            iteration = await queue.call(steps.items)
            name = await iteration.__anext__()
            iteration.stop()
            assert await queue.call(threadName) == name
        assert steps.closedIn == [name]

    @inLoop
    async def test_an_error_comes_after_the_items_before_it(self) -> None:
        def broken() -> Iterator[int]:
            yield from (1, 2)
            raise KeyError("gone")

        got: list[Any] = []
        async with ThreadQueue() as queue:
            error = await failureOf(queue.call(broken, consumer=kit.Collector(got)))
        assert isinstance(error, KeyError)
        assert got == [1, 2]

    @inLoop
    async def test_calls_have_their_turn_while_one_goes_on_for_ever(self) -> None:
        steps = Steps(1_000_000_000)
        async with ThreadQueue() as queue:
            iteration = await queue.call(steps.items)
            items = [await iteration.__anext__() for _ in range(5)]
            assert await gatherResults([queue.call(kit.echo, n) for n in range(100)]) == list(range(100))
            items += [await iteration.__anext__() for _ in range(500)]
            iteration.stop()
        assert len(items) == 505

    @inLoop
    async def test_calls_have_their_turn_while_one_is_slow(self) -> None:
        made = 0

        def slowly() -> Iterator[int]:
            nonlocal made
            for _ in range(200):
                time.sleep(2 * SLICE)
                made += 1
                yield made

        worker, sink = ThreadWorker(), Sink()
        outcome = await worker.run(task(1, slowly))
        assert isinstance(outcome, Iterating)
        outcome.source.begin(sink)
        outcome.source.grant(200)
        await until(lambda: made)
        call = await worker.run(task(2, lambda: made))
        assert isinstance(call, Returned)
        assert call.value < 200
        await worker.stop()

    @inLoop
    async def test_no_more_is_made_than_was_granted(self, tmp_path: Path) -> None:
        made = 0

        def count() -> Iterator[int]:
            nonlocal made
            while True:
                made += 1
                yield made

        async with ThreadQueue() as queue:
            iteration = await queue.call(count)
            await queue.call(threadName)
            assert made == 1
            for n in range(1, 10):
                assert await iteration.__anext__() == n
            await queue.call(threadName)
            assert made <= 9 + 256
            iteration.stop()

    @inLoop
    async def test_one_ends_with_its_abandoned_thread_and_is_closed_there(self, gate: Gate) -> None:
        steps = Steps(1000)
        async with ThreadQueue() as queue:
            iteration = await queue.call(steps.items)
            name = await iteration.__anext__()
            running = queue.call(gate.passThrough)
            await until(gate.reached.is_set)
            running.cancel()
            await failureOf(running)
            with pytest.raises(WorkerLost, match="abandoned"):
                await kit.drained(iteration)
            gate.open()
            await until(lambda: steps.closedIn)
        assert steps.closedIn == [f"{name} (abandoned in Gate.passThrough())"]

    @inLoop
    async def test_raw_gives_the_iterator_itself(self) -> None:
        async with ThreadQueue(raw=True) as queue:
            d: Deferred[Any] = queue.call(iter, [1, 2])
            assert list(await d) == [1, 2]


class TestLettingGoOfAWorker:
    @inLoop
    async def test_with_crash_and_reassign_another_finishes_its_calls(self, gate: Gate) -> None:
        ran: list[int] = []
        async with ThreadQueue() as queue:
            await gatherResults([queue.call(kit.echo, n) for n in range(1000)])  # the window grows
            running = queue.call(gate.passThrough)
            behind = [queue.call(ran.append, n, retries=0) for n in range(30)]
            await until(gate.reached.is_set)
            assert await queue.detachWorker(queue.workers()[0], reassign=True, crash=True) == []
            assert len(queue) == 0
            await queue.attachWorker(ThreadWorker())
            gate.open()
            await running
            await gatherResults(behind)
        assert gate.starts == 2
        assert ran == list(range(30))

    @inLoop
    async def test_a_crash_may_hear_the_last_outcome_of_a_worker_that_leaves(self, gate: Gate) -> None:
        async with ThreadQueue() as queue:
            worker: Any = queue.workers()[0]  # we look into it
            last = queue.call(gate.passThrough)
            await until(gate.reached.is_set)
            left = queue.detachWorker(worker)
            gate.open()
            while not worker._slot._thread._posted:  # the reactor has no turn
                time.sleep(0.001)
            crashed = queue.detachWorker(worker, crash=True)
            assert (await left, await crashed) == ([], [])
            assert await last == gate.name

    @inLoop
    async def test_with_crash_alone_its_calls_are_lost_and_listed_and_no_timer_is_left(self, gate: Gate) -> None:
        async with ThreadQueue() as queue:
            running = queue.call(gate.passThrough, timeout=3600)
            await until(gate.reached.is_set)
            failure = failureOf(running)
            (unfinished,) = await queue.detachWorker(queue.workers()[0], crash=True)
            assert unfinished.call.f == gate.passThrough
            assert isinstance(await failure, WorkerLost)

    @inLoop
    async def test_what_had_not_started_is_not_charged(self, gate: Gate) -> None:
        async with ThreadQueue() as queue:
            running = queue.call(gate.passThrough, retries=0)
            waiting = queue.call(kit.echo, 5, retries=0)
            await until(gate.reached.is_set)
            lost = failureOf(running)
            await queue.detachWorker(queue.workers()[0], reassign=True, crash=True)
            await queue.attachWorker(ThreadWorker())
            assert isinstance(await lost, WorkerLost)
            assert await waiting == 5

    @inLoop
    async def test_an_outcome_of_the_unexpected_kind_is_an_outcome_too(self) -> None:
        worker = ThreadWorker()
        outcome = await worker.run(task(1, kit.raiseThis, SystemExit(3)))
        assert isinstance(outcome, Raised)
        assert type(outcome.error) is SystemExit
        await worker.stop()


class TestTickets:
    """What a queue gives a worker that reports many outcomes at a time."""

    @inLoop
    async def test_each_call_is_reported_once_under_its_ticket(self) -> None:
        worker, reports = ThreadWorker(), list[list[tuple[int, Any]]]()
        worker.setReport(lambda outcomes: reports.append([*outcomes]))
        for ticket in range(100, 200):
            worker.give([(ticket, task(ticket, abs, -ticket))])
        await worker.stop()
        told = [(ticket, outcome.value) for report in reports for ticket, outcome in report]
        assert told == [(ticket, ticket) for ticket in range(100, 200)]

    @pytest.mark.parametrize("wanted", [True, False])
    @inLoop
    async def test_an_iterator_whose_thread_ended_before_anybody_listened_is_over(
        self, gate: Gate, wanted: bool
    ) -> None:
        worker, told = ThreadWorker(), list[tuple[int, Any]]()
        worker.setReport(told.extend)
        worker.give([(7, task(1, gate.passThrough))])
        worker.give([(8, task(2, iter, [1, 2]))])
        left = worker.stop()
        gate.open()
        await left
        source, sink = dict(told)[8].source, Sink()
        source.begin(sink)
        source.grant(1) if wanted else source.close()
        assert (sink.items, [type(error) for error in sink.ended]) == ([], [WorkerLost])

    @inLoop
    async def test_one_that_runs_is_let_go_of_and_what_waits_is_given_back(self, gate: Gate) -> None:
        worker, told = ThreadWorker(), list[tuple[int, Any]]()
        worker.setReport(told.extend)
        worker.give([(7, task(1, gate.passThrough))])
        worker.give([(8, task(2, abs, -2))])
        await until(gate.reached.is_set)
        worker.interrupt(7)
        worker.interrupt(7)  # it has its outcome
        assert told == [(7, Interrupted()), (8, Recalled())]
        await worker.stop()
        gate.open()
        await until(lambda: not ours())
        assert len(told) == 2

    @inLoop
    async def test_what_a_crash_leaves_is_not_reported(self, gate: Gate) -> None:
        worker, told = ThreadWorker(), list[tuple[int, Any]]()
        worker.setReport(told.extend)
        worker.give([(7, task(1, gate.passThrough))])
        worker.give([(8, task(2, abs, -2))])
        await until(gate.reached.is_set)
        assert [left.id for left in worker.crash()] == [1, 2]
        worker.interrupt(7)
        gate.open()
        await until(lambda: not ours())
        assert told == []
