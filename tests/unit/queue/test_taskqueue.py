"""`TaskQueue`: what its methods promise, by a clock that only moves when told and workers that obey the test."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from collections.abc import Hashable, Iterator, Sequence
from itertools import count
from typing import Any, NoReturn

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogEvent, LogLevel, formatEvent
from twisted.python.failure import Failure

from asynqueue import AsyncWorker, CallSpec, Deferator, NullQueue, TaskQueue
from asynqueue.core.records import Interrupted, Iterating, Lost, Raised, Recalled, Returned, Task
from asynqueue.core.scheduling.matching import UNSERVED
from asynqueue.core.scheduling.window import BUDGET, LOOK
from asynqueue.errors import ImplementationError, QueueRunError, TimeoutError, WorkerLost
from asynqueue.interfaces import Departed, Disconnected, Reconnected, Report, Resignator, Restarted, Window, Worker
from asynqueue.queue.driver import STAMP
from asynqueue.queue.taskqueue import PATIENCE
from tests.support.deferreds import HeldWorker, ListSource, NowWorker, errorOf, logged, nothing, outcomes, resultOf


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(clock: Clock) -> TaskQueue:
    """A queue with one worker of the main loop."""
    return NullQueue(reactor=clock)


@pytest.fixture
def worker() -> HeldWorker:
    return HeldWorker()


@pytest.fixture
def held(clock: Clock, worker: HeldWorker) -> TaskQueue:
    """A queue whose one worker ends calls when the test says so."""
    return TaskQueue(worker, reactor=clock)


def size(x: int) -> int:
    return abs(x)


def quotient(x: int, y: int) -> tuple[int, int]:
    return divmod(x, y)


def keywords(**kw: object) -> dict[str, object]:
    return kw


def fail(message: str = "no") -> int:
    raise ValueError(message)


def given(worker: HeldWorker) -> list[Any]:
    """The first argument of each call that WORKER was given."""
    return [task.call.args[0] for task in worker.given]


class TestCalls:
    def test_one_fires_with_its_result(self, clock: Clock, queue: TaskQueue) -> None:
        d = queue.call(quotient, 7, 2)
        clock.advance(0)
        assert resultOf(d) == (3, 1)

    def test_keywords_that_are_not_options_go_to_the_callable(self, clock: Clock, queue: TaskQueue) -> None:
        d = queue.call(keywords, niceness=3, a=1, b=2)
        clock.advance(0)
        assert resultOf(d) == {"a": 1, "b": 2}

    def test_one_that_raises_fails_with_what_it_raised(self, clock: Clock, queue: TaskQueue) -> None:
        d = queue.call(fail, "so")
        clock.advance(0)
        assert errorOf(d, ValueError).args == ("so",)

    def test_submit_calls_a_spec_and_no_option_clashes(self, clock: Clock, queue: TaskQueue) -> None:
        d = queue.submit(CallSpec.of(keywords, niceness="mine", timeout="too"), niceness=5)
        clock.advance(0)
        assert resultOf(d) == {"niceness": "mine", "timeout": "too"}

    def test_submit_refuses_what_is_no_spec(self, queue: TaskQueue) -> None:
        with pytest.raises(TypeError, match="submit takes a CallSpec"):
            queue.submit(nothing)  # type: ignore[call-overload]  # that is the point

    def test_a_callers_arguments_are_left_alone(self, clock: Clock, queue: TaskQueue) -> None:
        kw: Any = {"niceness": 1, "x": 2}
        queue.call(keywords, **kw)
        clock.advance(0)
        assert kw == {"niceness": 1, "x": 2}

    @pytest.mark.parametrize("niceness", [21, -21, 1.0, True, "1", None])
    def test_a_niceness_out_of_range_is_refused(self, queue: TaskQueue, niceness: Any) -> None:
        with pytest.raises(ValueError, match=r"niceness must be an integer from -20 to 20, got"):
            queue.call(nothing, niceness=niceness)

    @pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), True, "1"])
    def test_a_timeout_that_is_no_time_is_refused(self, queue: TaskQueue, timeout: Any) -> None:
        with pytest.raises(ValueError, match="timeout must be"):
            queue.call(nothing, timeout=timeout)
        with pytest.raises(ValueError, match="timeout must be"):
            TaskQueue(timeout=timeout)
        with pytest.raises(ValueError, match="timeout must be"):
            TaskQueue(callTimeout=timeout)

    @pytest.mark.parametrize("retries", [-1, 1.0, True, "1"])
    def test_retries_that_are_no_count_are_refused(self, queue: TaskQueue, retries: Any) -> None:
        with pytest.raises(ValueError, match="retries must be"):
            queue.call(nothing, retries=retries)

    @pytest.mark.parametrize("series", [[], {}, ([],)])
    def test_a_series_that_cannot_be_hashed_is_refused(self, queue: TaskQueue, series: Any) -> None:
        with pytest.raises(TypeError, match="series must be hashable"):
            queue.call(nothing, series=series)

    def test_first_and_last_at_once_is_refused(self, queue: TaskQueue) -> None:
        with pytest.raises(ValueError, match="both doNext and doLast"):
            queue.call(nothing, doNext=True, doLast=True)

    def test_what_cannot_be_called_is_refused(self, queue: TaskQueue) -> None:
        with pytest.raises(TypeError, match="must be callable, got 5"):
            queue.call(5)  # type: ignore[call-overload]  # that is the point

    def test_a_consumer_that_is_none_is_refused(self, queue: TaskQueue) -> None:
        with pytest.raises(TypeError, match=r"consumer must provide IConsumer, got \[\]"):
            queue.call(nothing, consumer=[])  # type: ignore[call-overload]  # that is the point

    def test_a_refused_one_leaves_nothing(self, held: TaskQueue, worker: HeldWorker) -> None:
        with pytest.raises(ValueError, match="niceness"):
            held.call(nothing, niceness=99)
        assert outcomes(held.shutdown()) == [None]

    def test_next_goes_before_and_last_after_all_others(self, held: TaskQueue, worker: HeldWorker) -> None:
        held.call(size, 0)
        held.call(size, 4, doLast=True)
        held.call(size, 3)
        held.call(size, 1, doNext=True)
        held.call(size, 2, doNext=True)
        while worker.held:
            worker.end(Returned(None))
        assert given(worker) == [0, 1, 2, 3, 4]

    def test_the_nice_give_way(self, held: TaskQueue, worker: HeldWorker) -> None:
        held.call(size, 0)
        for niceness in (20, 0, -20):
            held.call(size, niceness, niceness=niceness)
        while worker.held:
            worker.end(Returned(None))
        assert given(worker) == [0, -20, 0, 20]

    def test_a_series_waits_for_a_worker_qualified_for_it_and_delays_no_other(
        self, held: TaskQueue, worker: HeldWorker
    ) -> None:
        special, plain = held.call(size, 1, series="special"), held.call(size, 2)
        worker.end(Returned(2))
        assert resultOf(plain) == 2
        assert not special.called
        other = HeldWorker(["special"])
        held.attachWorker(other)
        assert given(other) == [1]
        other.end(Returned(1))
        assert resultOf(special) == 1

    def test_a_result_that_is_no_iterator_passes_the_consumer_by(self, clock: Clock, queue: TaskQueue) -> None:
        consumer = Consumer()
        d: Deferred[Any] = queue.call(size, -1, consumer=consumer)
        clock.advance(0)
        assert resultOf(d) == 1
        assert (consumer.producer, consumer.items) == (None, [])

    def test_a_deferred_that_a_worker_returns_is_waited_for(self, held: TaskQueue, worker: HeldWorker) -> None:
        first, second = held.call(nothing), held.call(nothing)
        later: Deferred[int] = Deferred()
        worker.end(Returned(later))
        assert not first.called
        later.callback(5)
        assert resultOf(first) == 5
        worker.end(Returned(2))
        assert outcomes(second) == [2]

    def test_fifty_thousand_at_once_need_no_depth(self, clock: Clock) -> None:
        queue = TaskQueue(reactor=clock)
        total = 0

        def count(x: int) -> None:
            nonlocal total
            total += x

        for _ in range(50_000):
            queue.call(size, -1).addCallback(count)
        queue.attachWorker(NowWorker())
        assert total == 50_000

    def test_a_chain_of_fifty_thousand_needs_no_depth(self, clock: Clock, queue: TaskQueue) -> None:
        left = 50_000

        def again(_: object) -> None:
            nonlocal left
            left -= 1
            if left:
                queue.call(nothing).addCallback(again)

        again(None)
        clock.advance(0)
        assert left == 0


class ReportingWorker(HeldWorker):
    """A `Reporter` that keeps what it is given; or refuses it, if it is to."""

    def __init__(self, most: int, refusal: BaseException | None = None) -> None:
        super().__init__(most=most)
        self.window = Window(most, most)
        self.runs: list[Sequence[tuple[int, Task]]] = []
        self.report: Report | None = None
        self._refusal = refusal

    def setReport(self, report: Report) -> None:
        self.report = report

    def give(self, runs: Sequence[tuple[int, Task]]) -> None:
        if self._refusal is not None:
            raise self._refusal
        self.runs.append(runs)

    def interrupt(self, ticket: int) -> None:
        raise NotImplementedError


class Consumer:
    """Takes every item."""

    def __init__(self) -> None:
        self.producer: Any = None
        self.items: list[Any] = []
        self.ended = False

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.ended = True

    def write(self, data: Any) -> None:
        self.items.append(data)


LIFE = """
import tracemalloc
from asynqueue.queue.calls import Pending
from asynqueue.core.records import CallSpec, Task

run, task = (1, 0.0), Task(1, CallSpec(len))
calls = [Pending(len, task, 0.0) for _ in range(2000)]
tracemalloc.start()
for call in calls:
    call.run = run
    call.callback(None)
print(tracemalloc.get_traced_memory()[0] / len(calls))
"""


def test_no_call_that_is_given_out_and_ends_takes_more_memory_for_it() -> None:
    """In a process of its own: what CPython has seen of a class depends on all that came before."""
    took = subprocess.run([sys.executable, "-c", LIFE], check=True, capture_output=True, text=True, timeout=60).stdout
    assert float(took) < 50


class TestWhatAFiredDeferredKeeps:
    class Thing:
        """Something that a weak reference can be made to."""

    @pytest.mark.parametrize("ends", ["returns", "raises", "is cancelled"])
    def test_it_keeps_nothing_that_the_call_was_passed(self, queue: TaskQueue, clock: Clock, ends: str) -> None:
        thing = self.Thing()
        passed = weakref.ref(thing)
        d = queue.call(id if ends == "returns" else len, thing)
        got = outcomes(d)
        if ends == "is cancelled":
            d.cancel()
        clock.advance(0)
        assert got
        del thing, got[:]
        gc.collect()
        assert passed() is None
        assert d.called


class TestIterators:
    def test_one_comes_as_a_deferator(self, clock: Clock, queue: TaskQueue) -> None:
        d = queue.call(iter, [1, 2])
        clock.advance(0)
        deferator = resultOf(d)
        got = []
        for item in deferator:
            clock.advance(0)
            got.append(resultOf(item))
        assert got == [1, 2]

    def test_raw_leaves_it_alone(self, clock: Clock, queue: TaskQueue) -> None:
        items = iter([1])
        d = queue.call(lambda: items, raw=True)
        clock.advance(0)
        assert resultOf(d) is items

    def test_a_consumer_is_fed_and_given_back(self, clock: Clock, queue: TaskQueue) -> None:
        consumer = Consumer()
        d = queue.call(iter, range(1000), consumer=consumer)
        clock.advance(0)
        assert resultOf(d) is consumer
        assert consumer.items == list(range(1000))
        assert consumer.ended

    def test_an_error_after_items_comes_after_them(self, clock: Clock, queue: TaskQueue) -> None:
        def items() -> Iterator[int]:
            yield 1
            raise ValueError("half-way")

        consumer = Consumer()
        d = queue.call(items, consumer=consumer)
        clock.advance(0)
        assert str(errorOf(d, ValueError)) == "half-way"
        assert consumer.items == [1]

    def test_a_consumer_that_refuses_its_producer_fails_the_call_and_no_other(
        self, held: TaskQueue, worker: HeldWorker
    ) -> None:
        class Refuses(Consumer):
            def registerProducer(self, producer: Any, streaming: bool) -> None:
                raise RuntimeError("I have one already")

        refused, after, source = held.call(nothing, consumer=Refuses()), held.call(nothing), ListSource()
        worker.end(Iterating(source))
        errorOf(refused, RuntimeError)
        assert source.closed
        worker.end(Returned(2))
        assert outcomes(after) == [2]
        assert outcomes(held.shutdown()) == [None]

    def test_a_consumer_that_wants_nothing_has_it_at_once(self, held: TaskQueue, worker: HeldWorker) -> None:
        class Full(Consumer):
            def registerProducer(self, producer: Any, streaming: bool) -> None:
                producer.stopProducing()

        consumer, source = Full(), ListSource()
        d = held.call(nothing, consumer=consumer)
        worker.end(Iterating(source))
        assert outcomes(d) == [consumer]
        assert source.closed

    def test_cancelling_ends_the_iteration_of_a_consumer(self, held: TaskQueue, worker: HeldWorker) -> None:
        consumer, source = Consumer(), ListSource()
        d = held.call(nothing, consumer=consumer)
        worker.end(Iterating(source))
        source.give(1)
        d.cancel()
        errorOf(d, CancelledError)
        assert source.closed
        assert consumer.ended
        assert outcomes(held.shutdown()) == [None]

    def test_cancelling_before_the_first_item_is_known_ends_the_iteration(
        self, held: TaskQueue, worker: HeldWorker
    ) -> None:
        d, source = held.call(nothing), ListSource()
        worker.end(Iterating(source))
        assert not d.called
        d.cancel()
        errorOf(d, CancelledError)
        assert source.closed

    def test_shutdown_waits_for_one(self, held: TaskQueue, worker: HeldWorker) -> None:
        d: Deferred[Any] = held.call(nothing)
        source = ListSource()
        worker.end(Iterating(source))
        source.give(1)
        deferator: Deferator[int] = resultOf(d)
        down = held.shutdown()
        assert not down.called
        deferator.stop()
        assert outcomes(down) == [None]

    def test_one_that_nobody_takes_is_ended_when_it_is_rubbish(
        self, clock: Clock, held: TaskQueue, worker: HeldWorker
    ) -> None:
        source = ListSource()
        held.call(nothing)
        worker.end(Iterating(source))
        source.give(1)
        gc.collect()
        clock.advance(0)
        assert source.closed
        assert outcomes(held.shutdown()) == [None]


class TestUpdates:
    def test_one_runs_on_every_worker_and_gives_their_results(self, clock: Clock) -> None:
        workers = [HeldWorker(), HeldWorker()]
        queue = TaskQueue(*workers, reactor=clock)
        d = queue.update(size, -1)
        assert [given(worker) for worker in workers] == [[-1], [-1]]
        workers[1].end(Returned("second"))
        assert not d.called
        workers[0].end(Returned("first"))
        assert outcomes(d) == [["first", "second"]]

    def test_one_of_a_series_runs_on_qualified_workers_alone(self, clock: Clock) -> None:
        workers = [HeldWorker(series=["a"]), HeldWorker(series=["b"])]
        queue = TaskQueue(*workers, reactor=clock)
        d = queue.update(size, -1, series="a", niceness=5)
        assert [given(worker) for worker in workers] == [[-1], []]
        workers[0].end(Returned("first"))
        assert outcomes(d) == [["first"]]
        later = HeldWorker(series=["a", "b"])
        queue.attachWorker(later)
        assert given(later) == [-1], "a later qualified worker runs it too"

    def test_a_saved_one_of_a_series_runs_when_a_worker_is_qualified(self, clock: Clock, held: TaskQueue) -> None:
        (worker,) = held.workers()
        assert isinstance(worker, HeldWorker)
        assert outcomes(held.update(size, -1, series="a")) == [[]]
        assert given(worker) == []
        held.qualifyWorker(worker, "a")
        assert given(worker) == [-1]

    @pytest.mark.parametrize(("options", "kind"), [({"niceness": 21}, ValueError), ({"series": []}, TypeError)])
    def test_a_wrong_option_of_one_is_refused(self, held: TaskQueue, options: Any, kind: type[Exception]) -> None:
        with pytest.raises(kind, match=next(iter(options))):
            held.update(size, 1, **options)

    def test_one_goes_before_what_is_queued(self, held: TaskQueue, worker: HeldWorker) -> None:
        for number in (1, 2):
            held.call(size, number)
        held.update(size, 3)
        worker.end(Returned(None))
        assert given(worker) == [1, 3]

    def test_a_new_hire_runs_the_saved_ones_in_order_before_its_first_task(
        self, clock: Clock, held: TaskQueue, worker: HeldWorker
    ) -> None:
        held.detachWorker(worker)
        for number in (1, 2):
            assert resultOf(held.update(size, number)) == []
        held.call(size, 3)
        new = HeldWorker()
        hired = held.attachWorker(new)
        assert given(new) == [1]
        new.end(Returned(1))
        assert not hired.called
        new.end(Returned(2))
        assert outcomes(hired) == [2]
        assert given(new) == [1, 2, 3]

    def test_an_ephemeral_one_is_not_for_new_hires(self, held: TaskQueue, worker: HeldWorker) -> None:
        held.update(size, 1, ephemeral=True)
        new = HeldWorker()
        assert outcomes(held.attachWorker(new)) == [2]
        assert given(new) == []

    def test_a_sequential_one_goes_from_worker_to_worker(self, clock: Clock) -> None:
        workers = [HeldWorker(), HeldWorker(), HeldWorker()]
        queue = TaskQueue(*workers, reactor=clock)
        d = queue.update(size, 1, sequential=True)
        for n, worker in enumerate(workers):
            assert [len(w.given) for w in workers] == [1] * (n + 1) + [0] * (2 - n)
            worker.end(Returned(n))
        assert outcomes(d) == [[0, 1, 2]]

    def test_a_sequential_one_is_finished_before_a_shutdown(self, clock: Clock) -> None:
        workers = [HeldWorker(), HeldWorker()]
        queue = TaskQueue(*workers, reactor=clock)
        d = queue.update(size, 1, sequential=True)
        down = queue.shutdown()
        workers[0].end(Returned(0))
        assert not down.called
        workers[1].end(Returned(1))
        assert outcomes(d) == [[0, 1]]
        assert down.called

    def test_a_sequential_one_goes_on_when_a_worker_is_gone(self, clock: Clock) -> None:
        workers = [HeldWorker(), HeldWorker(), HeldWorker()]
        queue = TaskQueue(*workers, reactor=clock)
        d = queue.update(size, 1, sequential=True)
        queue.detachWorker(workers[1])
        workers[0].end(Returned(0))
        assert len(workers[2].given) == 1
        workers[2].end(Returned(2))
        errorOf(d, WorkerLost)

    def test_one_that_fails_somewhere_fails_when_it_has_ended_everywhere(self, clock: Clock) -> None:
        workers = [HeldWorker(), HeldWorker()]
        queue = TaskQueue(*workers, reactor=clock)
        d = queue.update(size, 1)
        workers[0].end(Raised(ValueError("here")))
        assert not d.called
        workers[1].end(Returned(1))
        errorOf(d, ValueError)

    def test_one_that_fails_on_a_new_hire_is_logged_and_the_hire_works(self, clock: Clock, held: TaskQueue) -> None:
        held.detachWorker(1)
        held.update(size, 1)
        new = HeldWorker()
        hired = held.attachWorker(new)
        with logged() as events:
            new.end(Raised(ValueError("there")))
        assert [formatEvent(event) for event in events] == ["an update failed on worker 2"]
        assert outcomes(hired) == [2]

    def test_one_whose_worker_dies_twice_fails_and_is_said_to_be_given_up(
        self, clock: Clock, held: TaskQueue, worker: HeldWorker
    ) -> None:
        d = held.update(size, 1)
        worker.end(Lost())
        assert not d.called
        with logged() as events:
            worker.end(Lost())
        errorOf(d, WorkerLost)
        (said,) = map(formatEvent, events)
        assert said.startswith("the update size(1) is abandoned: two workers in a row died")

    def test_an_iterator_is_no_result_of_one_and_is_closed(self, held: TaskQueue, worker: HeldWorker) -> None:
        d, source = held.update(iter, [1]), ListSource()
        source.begin(Sink())
        worker.end(Iterating(source))
        errorOf(d, TypeError)
        assert source.closed

    def test_a_consumer_and_what_cannot_be_called_are_refused(self, held: TaskQueue) -> None:
        with pytest.raises(ValueError, match="cannot feed a consumer"):
            held.update(size, consumer=Consumer())  # type: ignore[call-overload]  # that is the point
        with pytest.raises(TypeError, match="must be callable"):
            held.update(3)  # type: ignore[call-overload]  # that is the point

    def test_none_is_taken_after_shutdown(self, held: TaskQueue) -> None:
        held.shutdown()
        with pytest.raises(QueueRunError, match=r"the update size\(1\) was not made"):
            held.update(size, 1)


class Sink:
    """Wants no items."""

    def arrived(self, items: Sequence[Any], more: bool = False) -> None:
        raise AssertionError(f"unwanted items: {items}")

    def over(self, error: BaseException | None) -> None:
        assert error is None


class Bare:
    """Not a worker: it lacks nearly everything."""

    def run(self, task: Task) -> None:
        raise AssertionError("it is given nothing")


class Old:
    """A worker as they were written for AsynQueue 0.9."""

    cQualified = ("old", "kind")

    def __init__(self) -> None:
        self.iQualified = ["mine"]
        self.inner = HeldWorker()
        self.run, self.stop, self.crash = self.inner.run, self.inner.stop, self.inner.crash

    def setResignator(self, callableObject: Any) -> None:
        self.resign = callableObject


class TestWorkers:
    def test_they_are_numbered_from_one_and_counted(self, clock: Clock) -> None:
        first, second = HeldWorker(), HeldWorker()
        queue = TaskQueue(first, reactor=clock)
        assert outcomes(queue.attachWorker(second)) == [2]
        assert (len(queue), queue.workers(), queue.workers(2)) == (2, [first, second], second)

    def test_an_id_that_no_worker_has_gives_none(self, held: TaskQueue) -> None:
        assert held.workers(9) is None
        assert resultOf(held.detachWorker(9)) == []
        assert resultOf(held.detachWorker(HeldWorker(), crash=True)) == []
        with pytest.raises(ValueError, match="no such worker is attached to this queue: 9"):
            held.qualifyWorker(9, "x")

    def test_a_queue_is_true_while_it_runs_and_has_one(self, clock: Clock) -> None:
        queue = TaskQueue(reactor=clock)
        assert (bool(queue), queue.isRunning()) == (False, True)
        queue.attachWorker(HeldWorker())
        assert bool(queue)
        queue.shutdown()
        assert (bool(queue), queue.isRunning(), len(queue)) == (False, False, 0)

    def test_what_is_no_worker_is_told_what_it_lacks(self, held: TaskQueue) -> None:
        lacks = "Bare is not a Worker: it lacks stop, crash, setResignator, qualifications"
        with pytest.raises(ImplementationError, match=lacks):
            held.attachWorker(Bare())  # type: ignore[arg-type]  # that is the point
        assert len(held) == 1

    def test_a_class_of_workers_is_told_to_be_none(self, held: TaskQueue) -> None:
        for kind in AsyncWorker, HeldWorker, Bare:
            with pytest.raises(ImplementationError, match=rf"got the class: not {kind.__name__} but {kind.__name__}\("):
                held.attachWorker(kind)  # type: ignore[arg-type]  # that is the point
        assert len(held) == 1

    @pytest.mark.parametrize("wrong", [5, None, "files", b"files", [["files"]]])
    def test_qualifications_that_are_none_are_refused_and_leave_nothing(self, held: TaskQueue, wrong: Any) -> None:
        worker = HeldWorker()
        worker.qualifications = wrong
        with pytest.raises(ImplementationError, match=r"HeldWorker\.qualifications must be a collection of series"):
            held.attachWorker(worker)
        assert len(held) == 1
        assert outcomes(held.shutdown()) == [None]

    def test_a_window_that_is_none_is_refused_and_leaves_nothing(self, held: TaskQueue) -> None:
        wrong = HeldWorker()
        wrong.window = 3  # type: ignore[assignment]  # that is the point
        with pytest.raises(ImplementationError, match=r"HeldWorker\.window must be a Window, got 3"):
            held.attachWorker(wrong)
        assert len(held) == 1
        assert outcomes(held.shutdown()) == [None]

    def test_the_same_one_twice_is_refused(self, held: TaskQueue, worker: HeldWorker) -> None:
        with pytest.raises(ValueError, match="attached to this queue already"):
            held.attachWorker(worker)

    def test_one_that_another_queue_has_is_refused_until_that_lets_it_go(self, clock: Clock) -> None:
        worker, other = HeldWorker(), HeldWorker()
        queue = TaskQueue(worker, reactor=clock)
        with pytest.raises(ValueError, match="is attached to another queue: detach it there first"):
            TaskQueue(worker, reactor=clock)
        taking = TaskQueue(other, reactor=clock)
        queue.detachWorker(worker)
        assert resultOf(taking.attachWorker(worker)) == 2
        d = queue.call(nothing)
        assert not outcomes(d)

    def test_one_that_was_stopped_is_taken_again(self, clock: Clock) -> None:
        worker = AsyncWorker(reactor=clock)
        for _ in range(2):
            queue = TaskQueue(worker, reactor=clock)
            d = queue.call(size, 7)
            clock.advance(0)
            assert resultOf(d) == 7
            assert outcomes(queue.shutdown()) == [None]

    def test_one_that_cannot_start_is_not_attached(self, clock: Clock) -> None:
        class Broken(HeldWorker):
            def setResignator(self, resign: Resignator) -> None:
                raise OSError("no more processes")

        queue, broken, whole = TaskQueue(reactor=clock), Broken(), HeldWorker()
        d = queue.call(size, 1, retries=0)
        with pytest.raises(OSError, match="no more processes"):
            queue.attachWorker(broken)
        assert (len(queue), broken.given) == (0, [])
        queue.attachWorker(whole)
        whole.end(Returned(1))
        assert outcomes(d) == [1]
        assert outcomes(queue.shutdown()) == [None]

    def test_one_that_is_away_and_then_cannot_start_leaves_nothing_to_wait_for(self, clock: Clock) -> None:
        class Broken(HeldWorker):
            def setResignator(self, resign: Resignator) -> None:
                resign(Disconnected())
                raise OSError("no such machine")

        queue = TaskQueue(reactor=clock)
        with pytest.raises(OSError, match="no such machine"):
            queue.attachWorker(Broken())
        assert outcomes(queue.shutdown()) == [None]

    def test_one_that_resigns_at_once_is_given_nothing(self, clock: Clock) -> None:
        class Unwilling(HeldWorker):
            stopsAtOnce = False

            def setResignator(self, resign: Resignator) -> None:
                resign()

        queue, unwilling, willing = TaskQueue(reactor=clock), Unwilling(), HeldWorker()
        unwilling.stopsAtOnce = False
        d = queue.call(size, 1, retries=0)
        queue.attachWorker(unwilling)
        assert unwilling.given == []
        queue.attachWorker(willing)
        willing.end(Returned(1))
        assert outcomes(d) == [1]
        unwilling.stops[0].callback(None)
        assert outcomes(queue.shutdown()) == [None]

    def test_one_written_for_0_9_works(self, clock: Clock) -> None:
        old: Any = Old()
        queue = TaskQueue(old, reactor=clock)
        for number, series in enumerate(("old", "kind", "mine", "other")):
            queue.call(size, number, series=series)
            if old.inner.held:
                old.inner.end(Returned(number))
        assert given(old.inner) == [0, 1, 2]

    def test_one_is_qualified_for_more_when_asked(self, held: TaskQueue, worker: HeldWorker) -> None:
        held.call(size, 1, series="more")
        assert given(worker) == []
        held.qualifyWorker(worker, "more")
        assert given(worker) == [1]

    def test_none_is_attached_after_shutdown(self, held: TaskQueue) -> None:
        held.shutdown()
        with pytest.raises(QueueRunError, match="takes no workers"):
            held.attachWorker(HeldWorker())

    def test_the_window_is_not_exceeded(self, clock: Clock) -> None:
        worker = HeldWorker(most=8)
        queue = TaskQueue(worker, reactor=clock)
        for number in range(100):
            queue.call(size, number)
        most = 0
        while worker.held:
            most = max(most, len(worker.held))
            worker.end(Returned(0, 1e-6))
        assert (most, given(worker)) == (8, list(range(100)))


class TestGivingOut:
    def test_a_worker_has_its_next_call_before_a_caller_has_a_result(self, held: TaskQueue, worker: HeldWorker) -> None:
        seen: list[list[Any]] = []
        held.call(size, 1).addCallback(lambda _: seen.append(given(worker)))
        held.call(size, 2)
        worker.end(Returned(1))
        assert seen == [[1, 2]]

    def test_a_call_made_in_a_slow_callback_has_waited_and_run_since_then(
        self, clock: Clock, held: TaskQueue, worker: HeldWorker
    ) -> None:
        def again(_: object) -> None:
            clock.rightNow += 3.0
            held.call(size, 2)

        held.call(size, 1).addCallback(again)
        clock.rightNow += 1.0
        worker.end(Returned(1))
        clock.rightNow += 2.0
        worker.end(Returned(2))
        stats = held.stats()
        assert (stats.wait.total, stats.run.total, stats.run.longest) == (0.0, 3.0, 2.0)

    def test_calls_queued_at_once_have_waited_for_as_long(
        self, clock: Clock, held: TaskQueue, worker: HeldWorker
    ) -> None:
        clock.rightNow = 100.0
        for step in (0.0, 0.9 * STAMP, 0.2 * STAMP):
            clock.rightNow += step
            held.call(size, 1)
        for _ in range(3):
            worker.end(Returned(1))
        assert held.stats().wait.total == pytest.approx(1.1 * STAMP, abs=1e-9)
        before = held.stats()
        clock.rightNow = 50.0  # a clock that was put back
        held.call(size, 1)
        worker.end(Returned(1))
        after = held.stats()
        assert (after.wait.total, after.run.total) == (before.wait.total, before.run.total)

    def test_a_reporter_is_given_all_at_once_that_it_is_given(self, clock: Clock) -> None:
        worker = ReportingWorker(most=3)
        queue = TaskQueue(reactor=clock)
        calls = [queue.call(size, number, timeout=5.0) for number in range(3)]
        queue.attachWorker(worker)
        assert [[task.call.args for _, task in runs] for runs in worker.runs] == [[(0,), (1,), (2,)]]
        assert worker.report is not None
        worker.report([(ticket, Returned(ticket)) for ticket, _ in worker.runs[0]])
        assert [outcomes(call) for call in calls] == [[1], [2], [3]]

    def test_calls_that_a_reporter_refuses_fail(self, clock: Clock) -> None:
        worker = ReportingWorker(most=2, refusal=OSError("no"))
        queue = TaskQueue(reactor=clock)
        calls = [queue.call(size, number) for number in range(2)]
        queue.attachWorker(worker)
        assert [str(errorOf(call, OSError)) for call in calls] == ["no", "no"]


class TestDetaching:
    def test_a_plain_one_finishes_what_it_holds(self, held: TaskQueue, worker: HeldWorker) -> None:
        d = held.call(size, 1)
        left = held.detachWorker(worker)
        held.call(size, 2)
        assert not left.called
        worker.end(Returned(1))
        assert (outcomes(d), outcomes(left), len(held)) == ([1], [[]], 0)
        assert given(worker) == [1]

    def test_by_number_is_the_same(self, held: TaskQueue, worker: HeldWorker) -> None:
        assert outcomes(held.detachWorker(1)) == [[]]
        assert len(worker.stops) == 1

    def test_with_reassign_the_unstarted_go_elsewhere(self, clock: Clock) -> None:
        worker, other = HeldWorker(most=8), HeldWorker()
        queue = TaskQueue(worker, reactor=clock)
        for number in range(9):
            queue.call(size, number)
        while len(worker.held) < 3:
            worker.end(Returned(0, 1e-6))
        running, *unstarted = [task.call.args[0] for task, _ in worker.held]
        left = queue.detachWorker(worker, reassign=True)
        assert [task.call.args[0] for task, _ in worker.held] == [running]
        queue.attachWorker(other)
        assert given(other)[0] == unstarted[0]
        worker.end(Returned(0))
        assert outcomes(left) == [[]]

    def test_a_crash_gives_the_unfinished_which_are_lost(self, held: TaskQueue, worker: HeldWorker) -> None:
        running, queued = held.call(size, 1), held.call(size, 2)
        left = held.detachWorker(worker, crash=True)
        assert worker.crashed
        assert [task.call.args for task in resultOf(left)] == [(1,)]
        assert "made to crash" in str(errorOf(running, WorkerLost))
        assert not queued.called

    def test_a_crash_with_reassign_gives_none_and_they_run_elsewhere(self, held: TaskQueue, worker: HeldWorker) -> None:
        d, other = held.call(size, 1), HeldWorker()
        held.attachWorker(other)
        assert outcomes(held.detachWorker(worker, reassign=True, crash=True)) == [[]]
        assert given(other) == [1]
        other.end(Returned(1))
        assert outcomes(d) == [1]

    def test_a_crash_leaves_no_timer(self, clock: Clock, held: TaskQueue, worker: HeldWorker) -> None:
        errorOf_ = held.call(size, 1, timeout=60)
        held.detachWorker(worker, crash=True)
        errorOf(errorOf_, WorkerLost)
        assert clock.getDelayedCalls() == []

    def test_a_call_cancelled_before_the_crash_is_not_among_the_unfinished(
        self, held: TaskQueue, worker: HeldWorker
    ) -> None:
        d = held.call(size, 1)
        d.cancel()
        errorOf(d, CancelledError)
        assert worker.held, "the worker has it still"
        assert outcomes(held.detachWorker(worker, crash=True)) == [[]]

    def test_a_crash_while_it_leaves_ends_the_waiting(self, held: TaskQueue, worker: HeldWorker) -> None:
        d = held.call(size, 1)
        leaving, crashed = held.detachWorker(worker), held.detachWorker(worker, crash=True)
        assert [task.id for task in resultOf(leaving)] == [task.id for task in resultOf(crashed)] == [1]
        errorOf(d, WorkerLost)

    def test_an_answer_after_it_has_gone_changes_nothing(self, held: TaskQueue, worker: HeldWorker) -> None:
        d = held.call(size, 1)
        _, run = worker.held[0]
        held.detachWorker(worker, crash=True)
        errorOf(d, WorkerLost)
        source = ListSource()
        source.begin(Sink())
        run.callback(Iterating(source))
        assert source.closed
        assert outcomes(held.shutdown()) == [None]

    def test_one_that_is_gone_before_it_was_ready_says_so(self, held: TaskQueue, worker: HeldWorker) -> None:
        held.update(size, 1)
        new = HeldWorker()
        hired = held.attachWorker(new)
        held.detachWorker(new, crash=True)
        errorOf(hired, WorkerLost)

    def test_what_was_about_to_be_given_to_one_that_crashes_is_not_charged(self, clock: Clock) -> None:
        worker, other = HeldWorker(), HeldWorker()
        queue = TaskQueue(worker, reactor=clock)
        first, second = queue.call(size, 1), list[Deferred[int]]()

        def crash(_: int) -> None:
            second.append(queue.call(size, 2, retries=0))  # it is assigned, and is given out after this
            queue.detachWorker(worker, crash=True)

        first.addCallback(crash)
        worker.end(Returned(1))
        assert given(worker) == [1]
        queue.attachWorker(other)
        assert given(other) == [2]
        other.end(Returned(2))
        assert outcomes(second[0]) == [2]

    def test_one_that_does_not_stop_well_is_logged_and_gone(self, held: TaskQueue, worker: HeldWorker) -> None:
        worker.stopsAtOnce = False
        left = held.detachWorker(worker)
        assert not left.called
        with logged() as events:
            worker.stops[0].errback(OSError("stuck"))
        assert [formatEvent(event) for event in events] == ["worker 1 did not stop well"]
        assert outcomes(left) == [[]]


class TestTicking:
    def test_a_tick_that_is_wanted_sooner_takes_the_place_of_the_one_that_was_to_come(self, clock: Clock) -> None:
        slow, idle = HeldWorker(most=8), HeldWorker()
        queue = TaskQueue(slow, reactor=clock)
        queue.call(nothing)
        slow.end(Returned(None, 10 * BUDGET))
        for _ in range(2):
            queue.call(nothing)
        assert [call.getTime() for call in clock.getDelayedCalls()] == [11 * BUDGET]
        queue.attachWorker(idle)
        assert [call.getTime() for call in clock.getDelayedCalls()] == [BUDGET, LOOK]
        clock.pump([BUDGET, 0, BUDGET, 0])
        assert len(idle.held) == 1


class TestResigning:
    def test_what_it_held_runs_elsewhere_charged_once(self, held: TaskQueue, worker: HeldWorker) -> None:
        d, others = held.call(size, 1), [HeldWorker(), HeldWorker()]
        assert worker.resign is not None
        worker.resign()
        assert len(held) == 0
        held.attachWorker(others[0])
        assert others[0].given[0].attempt == 1
        assert others[0].resign is not None
        others[0].resign()
        errorOf(d, WorkerLost)
        held.attachWorker(others[1])
        assert others[1].given == []

    def test_twice_is_once(self, held: TaskQueue, worker: HeldWorker) -> None:
        left: list[None] = []
        held.workerLeft = lambda: left.append(None)  # type: ignore[method-assign]  # it is there to be replaced
        worker.stopsAtOnce = False
        assert worker.resign is not None
        worker.resign()
        worker.resign()
        assert (len(worker.stops), left) == (1, [])
        worker.stops[0].callback(None)
        worker.resign()
        assert (len(worker.stops), left, len(held)) == (1, [None], 0)

    def test_one_that_returns_runs_the_saved_updates_again(self, held: TaskQueue, worker: HeldWorker) -> None:
        held.update(size, 1)
        worker.end(Returned(1))
        d = held.call(size, 2)
        assert worker.resign is not None
        worker.resign(Restarted())
        worker.end(Lost())
        assert [*given(worker)] == [1, 2, 1]
        worker.end(Returned(1))
        worker.end(Returned(2))
        assert outcomes(d) == [2]
        assert len(held) == 1

    def test_one_that_returns_has_not_lost_what_it_was_about_to_be_given(self, clock: Clock) -> None:
        worker = HeldWorker()
        queue = TaskQueue(worker, reactor=clock)
        first, second = queue.call(size, 1), queue.call(size, 2, retries=0)
        assert worker.resign is not None
        first.addCallback(lambda _: worker.resign and worker.resign(Restarted()))
        worker.end(Returned(1))
        assert given(worker) == [1, 2]
        worker.end(Returned(2))
        assert outcomes(second) == [2]

    def test_a_timer_does_not_outlive_it(self, clock: Clock, held: TaskQueue, worker: HeldWorker) -> None:
        held.call(size, 1, timeout=60)
        assert worker.resign is not None
        worker.resign()
        assert [call.getTime() for call in clock.getDelayedCalls()] == [UNSERVED]


def test_a_worker_that_was_detached_is_not_kept(clock: Clock) -> None:
    queue = TaskQueue(reactor=clock)
    worker = HeldWorker()
    kept = weakref.ref(worker)
    queue.attachWorker(worker)
    assert resultOf(queue.detachWorker(worker)) == []
    del worker
    gc.collect()
    assert kept() is None


class AwayWorker(HeldWorker):
    """A worker that is away when it is attached."""

    def setResignator(self, resign: Resignator) -> None:
        super().setResignator(resign)
        resign(Disconnected())


class TestBeingAway:
    @pytest.fixture
    def worker(self) -> AwayWorker:
        return AwayWorker()

    def resign(self, worker: HeldWorker) -> Resignator:
        assert worker.resign is not None
        return worker.resign

    def test_one_that_is_away_is_given_nothing_until_it_returns(self, clock: Clock, worker: AwayWorker) -> None:
        queue = TaskQueue(reactor=clock)
        hired, d = queue.attachWorker(worker), queue.call(size, 1)
        assert (len(queue), worker.given, hired.called) == (1, [], False)
        self.resign(worker)(Reconnected())
        assert resultOf(hired) == 1
        worker.end(Returned(1))
        assert resultOf(d) == 1

    def test_a_reporter_is_given_batches_again_after_each_connection(self, clock: Clock) -> None:
        worker = ReportingWorker(most=8)
        queue = TaskQueue(worker, reactor=clock)
        for connection in range(1, 3):
            self.resign(worker)(Disconnected())
            calls = [queue.call(size, n) for n in range(4)]
            self.resign(worker)(Reconnected())
            assert worker.report is not None
            assert len(worker.runs[-1]) == 4
            worker.report([(ticket, Returned(1)) for ticket, _ in worker.runs[-1]])
            assert [resultOf(d) for d in calls] == [1] * 4
            assert len(worker.runs) == connection

    def test_a_series_it_was_qualified_for_while_away_counts_after_it(self, clock: Clock, worker: AwayWorker) -> None:
        queue = TaskQueue(worker, reactor=clock)
        queue.qualifyWorker(worker, "new")
        d = queue.call(size, 1, series="new")
        self.resign(worker)(Reconnected())
        worker.end(Returned(1))
        assert resultOf(d) == 1

    def test_what_it_held_comes_back_to_it_charged_once(self, held: TaskQueue, worker: AwayWorker) -> None:
        self.resign(worker)(Reconnected())
        d = held.call(size, 1)
        self.resign(worker)(Disconnected())
        self.resign(worker)(Disconnected())
        assert not d.called
        worker.held.clear()
        self.resign(worker)(Reconnected())
        assert [task.attempt for task in worker.given] == [0, 1]
        self.resign(worker)(Disconnected())
        errorOf(d, WorkerLost)

    def test_it_runs_the_saved_updates_when_it_returns(self, held: TaskQueue, worker: AwayWorker) -> None:
        assert resultOf(held.update(size, 1)) == []
        d = held.call(size, 2)
        self.resign(worker)(Reconnected())
        worker.end(Returned(1))
        worker.end(Returned(2))
        assert (given(worker), resultOf(d)) == ([1, 2], 2)

    def test_what_it_was_qualified_for_meanwhile_it_may_run_then(self, held: TaskQueue, worker: AwayWorker) -> None:
        d = held.call(size, 1, series="a")
        held.qualifyWorker(worker, "a")
        self.resign(worker)(Reconnected())
        worker.end(Returned(1))
        assert resultOf(d) == 1

    def test_a_shutdown_does_not_wait_for_it(self, held: TaskQueue, worker: AwayWorker) -> None:
        d, done = held.call(size, 1), held.shutdown()
        errorOf(d, QueueRunError)
        assert (done.called, len(worker.stops)) == (True, 1)

    def test_one_that_goes_away_in_a_shutdown_is_gone(self, held: TaskQueue, worker: AwayWorker) -> None:
        self.resign(worker)(Reconnected())
        d, done = held.call(size, 1), held.shutdown()
        self.resign(worker)(Disconnected())
        errorOf(d, QueueRunError)
        assert done.called

    def test_it_can_be_detached(self, held: TaskQueue, worker: AwayWorker) -> None:
        assert resultOf(held.detachWorker(worker)) == []
        assert len(held) == 0
        self.resign(worker)(Reconnected())
        assert len(held) == 0

    def test_when_it_gives_up_whoever_waits_for_it_hears_why(self, clock: Clock, worker: AwayWorker) -> None:
        queue = TaskQueue(reactor=clock)
        hired = queue.attachWorker(worker)
        self.resign(worker)(Departed(OSError("no such host")))
        assert str(errorOf(hired, OSError)) == "no such host"
        assert len(queue) == 0

    def test_one_of_the_constructor_that_gives_up_is_told_of(self, clock: Clock, worker: AwayWorker) -> None:
        queue = TaskQueue(worker, reactor=clock)
        with logged() as events:
            self.resign(worker)()
        assert [formatEvent(event) for event in events] == [
            "a worker of the queue did not become ready: worker 1 was gone before it was ready"
        ]
        assert len(queue) == 0


class TestMisbehaviour:
    def worker(self, run: Any) -> HeldWorker:
        worker = HeldWorker()
        worker.run = run  # type: ignore[method-assign]  # that is the point
        return worker

    def test_one_that_gives_no_deferred_fails_the_call(self, clock: Clock) -> None:
        d = TaskQueue(self.worker(lambda task: 5), reactor=clock).call(nothing)
        assert "HeldWorker.run gave no Deferred but 5" in str(errorOf(d, ImplementationError))

    def test_one_that_raises_fails_the_call(self, clock: Clock) -> None:
        d = TaskQueue(self.worker(lambda task: fail("run")), reactor=clock).call(nothing)
        assert str(errorOf(d, ValueError)) == "run"

    def test_one_that_would_end_the_program_fails_the_call(self, clock: Clock) -> None:
        def leave(_: object) -> NoReturn:
            raise SystemExit("run")

        queue = TaskQueue(self.worker(leave), reactor=clock)
        assert str(errorOf(queue.call(nothing), SystemExit)) == "run"
        assert str(errorOf(queue.call(nothing), SystemExit)) == "run"

    def test_one_whose_iterator_will_not_close_has_the_next_call_at_once(
        self, held: TaskQueue, worker: HeldWorker
    ) -> None:
        class Obstinate(ListSource):
            def close(self) -> None:
                raise SystemExit("I stay")

        update, d = held.update(nothing), held.call(nothing)
        with logged() as events:
            worker.end(Iterating(Obstinate()))
        assert [formatEvent(event)[:35] for event in events] == ["a queue could not carry out Discard"]
        errorOf(update, TypeError)
        worker.end(Returned(2))
        assert outcomes(d) == [2]

    def test_one_that_fires_a_failure_fails_the_call(self, held: TaskQueue, worker: HeldWorker) -> None:
        d = held.call(nothing)
        worker.held[0][1].errback(ValueError("own"))
        assert str(errorOf(d, ValueError)) == "own"

    @pytest.mark.parametrize("rubbish", [None, ("r", 1), Iterating("no source")], ids=["None", "tuple", "iterating"])
    def test_one_that_fires_rubbish_fails_the_call_and_goes_on(
        self, held: TaskQueue, worker: HeldWorker, rubbish: Any
    ) -> None:
        first, second = held.call(nothing), held.call(nothing)
        worker.end(rubbish)
        errorOf(first, ImplementationError)
        worker.end(Returned(2))
        assert outcomes(second) == [2]

    def test_one_that_lets_go_unasked_has_the_call_again_once(self, held: TaskQueue, worker: HeldWorker) -> None:
        d = held.call(nothing)
        worker.end(Interrupted())
        worker.end(Interrupted())
        assert "ended the call without an outcome" in str(errorOf(d, WorkerLost))

    def test_one_that_gives_back_has_it_again_uncharged(self, held: TaskQueue, worker: HeldWorker) -> None:
        d = held.call(nothing, retries=0)
        for _ in range(5):
            worker.end(Recalled())
        worker.end(Returned(1))
        assert outcomes(d) == [1]

    def test_one_that_raises_when_told_to_let_go_keeps_no_other_waiting(self, clock: Clock) -> None:
        def refuse(_: object) -> None:
            raise OSError("I will not")

        other = HeldWorker(["other"])
        queue = TaskQueue(self.worker(lambda task: Deferred(refuse)), other, reactor=clock)
        queue.call(nothing, timeout=1)
        d = queue.call(nothing, series="other")
        with logged() as events:
            clock.advance(1)
        assert [formatEvent(event) for event in events] == ["worker 1 raised an error of its own"]
        other.end(Returned(1))
        assert outcomes(d) == [1]


class TestCancelling:
    def test_a_queued_one_never_runs(self, held: TaskQueue, worker: HeldWorker) -> None:
        held.call(size, 1)
        d = held.call(size, 2)
        d.cancel()
        assert "size(2) was cancelled" in str(errorOf(d, CancelledError))
        worker.end(Returned(1))
        assert given(worker) == [1]

    def test_a_running_one_is_interrupted_and_ends_now(self, held: TaskQueue, worker: HeldWorker) -> None:
        d, after = held.call(size, 1), held.call(size, 2)
        d.cancel()
        errorOf(d, CancelledError)
        assert [task.call.args for task in worker.interrupted] == [(1,)]
        assert given(worker) == [1, 2]
        assert not after.called

    def test_one_that_has_ended_cannot_be(self, held: TaskQueue, worker: HeldWorker) -> None:
        d = held.call(size, 1)
        worker.end(Returned(1))
        d.cancel()
        assert outcomes(d) == [1]

    def test_without_failures_a_cancelled_one_still_fails(self, clock: Clock) -> None:
        queue = TaskQueue(returnFailure=False, warn=True, reactor=clock)
        with logged() as events:
            one, two = queue.call(nothing), queue.call(nothing)
            one.cancel()
            queue.cancelAll()
        for d in (one, two):
            errorOf(d, CancelledError)
        assert events == []

    def test_a_series_is_cancelled_but_for_what_runs(self, clock: Clock) -> None:
        worker = HeldWorker(["a", "b"])
        queue = TaskQueue(worker, reactor=clock)
        running, queued = queue.call(size, 1, series="a"), queue.call(size, 2, series="a")
        other = queue.call(size, 3, series="b")
        queue.cancelSeries("a")
        errorOf(queued, CancelledError)
        worker.end(Returned(1))
        worker.end(Returned(3))
        assert (outcomes(running), outcomes(other), given(worker)) == ([1], [3], [1, 3])

    def test_all_are_cancelled_but_what_runs(self, held: TaskQueue, worker: HeldWorker) -> None:
        running, *queued = [held.call(size, n, series=None if n < 2 else "none has it") for n in range(4)]
        held.cancelAll()
        for d in queued:
            errorOf(d, CancelledError)
        worker.end(Returned(0))
        assert (outcomes(running), given(worker)) == ([0], [0])


class TestTimeouts:
    def test_the_first_puts_it_in_front_and_the_second_fails_it(
        self, clock: Clock, held: TaskQueue, worker: HeldWorker
    ) -> None:
        d = held.call(size, 1, timeout=5)
        held.call(size, 2, doNext=True)
        clock.advance(4.9)
        assert worker.interrupted == []
        clock.advance(0.1)
        assert [task.call.args for task in worker.interrupted] == [(1,)]
        assert [(task.call.args[0], task.attempt) for task in worker.given] == [(1, 0), (1, 1)]
        clock.advance(5)
        assert str(errorOf(d, TimeoutError)) == "size(1) took more than 5 seconds"
        assert given(worker) == [1, 1, 2]

    def test_it_counts_from_when_the_call_can_start(self, clock: Clock, held: TaskQueue, worker: HeldWorker) -> None:
        held.call(size, 1)
        held.call(size, 2, timeout=5)
        clock.advance(100)
        worker.end(Returned(1))
        clock.advance(4.9)
        assert worker.interrupted == []

    def test_the_queue_has_one_for_calls_without(self, clock: Clock, worker: HeldWorker) -> None:
        queue = TaskQueue(worker, callTimeout=2, reactor=clock)
        d = queue.call(size, 1, retries=0)
        clock.advance(2)
        errorOf(d, TimeoutError)

    def test_no_retries_means_none(self, clock: Clock, held: TaskQueue, worker: HeldWorker) -> None:
        d = held.call(size, 1, timeout=5, retries=0)
        clock.advance(5)
        errorOf(d, TimeoutError)

    def test_retries_say_how_often(self, clock: Clock, held: TaskQueue, worker: HeldWorker) -> None:
        d = held.call(size, 1, timeout=5, retries=3)
        for _ in range(3):
            clock.advance(5)
            assert not d.called
        clock.advance(5)
        errorOf(d, TimeoutError)
        assert len(worker.given) == 4

    def test_one_that_is_answered_in_time_leaves_no_timer(
        self, clock: Clock, held: TaskQueue, worker: HeldWorker
    ) -> None:
        held.call(size, 1, timeout=5)
        worker.end(Returned(1))
        assert clock.getDelayedCalls() == []

    def test_one_that_is_answered_at_once_leaves_no_timer(self, clock: Clock) -> None:
        queue = TaskQueue(NowWorker(), reactor=clock)
        assert resultOf(queue.call(size, -1, timeout=5)) == 1
        assert clock.getDelayedCalls() == []

    def test_deaths_count_as_starts_too(self, clock: Clock, held: TaskQueue, worker: HeldWorker) -> None:
        d = held.call(size, 1, timeout=5)
        worker.end(Lost())
        clock.advance(5)
        errorOf(d, TimeoutError)


def levels(events: list[LogEvent]) -> list[tuple[LogLevel, str]]:
    return [(event["log_level"], formatEvent(event)) for event in events]


class TestLogging:
    @pytest.fixture
    def failing(self, clock: Clock) -> Any:
        """Run one call that fails on a queue of the options given; what is logged, and how its Deferred fired."""

        def run(returnFailure: bool | None = None, **options: Any) -> tuple[list[tuple[LogLevel, str]], Any]:
            queue = NullQueue(reactor=clock, **options)
            with logged() as events:
                d = queue.call(fail, "so", returnFailure=returnFailure)
                clock.advance(0)
            for event in events:
                if event["log_level"] is LogLevel.error:
                    assert event["log_failure"].check(ValueError)
            return levels(events), outcomes(d)[0]

        return run

    def test_by_default_nothing_is(self, failing: Any) -> None:
        events, result = failing()
        assert (events, result.check(ValueError)) == ([], ValueError)

    def test_warn_logs_a_failure_and_the_deferred_fails(self, failing: Any) -> None:
        events, result = failing(warn=True)
        assert events == [(LogLevel.error, "a call failed")]
        assert result.check(ValueError)

    def test_verbose_adds_what_the_call_was(self, failing: Any) -> None:
        assert failing(warn=True, verbose=True)[0] == [(LogLevel.error, "fail('so') failed")]

    def test_without_returnFailure_it_is_logged_and_None(self, failing: Any) -> None:
        logs = [(LogLevel.error, "fail('so') failed")]
        assert failing(returnFailure=False) == (logs, None)

    def test_returnFailure_may_differ_from_call_to_call(self, clock: Clock) -> None:
        queue = NullQueue(reactor=clock, returnFailure=False)
        d = queue.call(fail, returnFailure=True)
        clock.advance(0)
        errorOf(d, ValueError)

    def test_spew_logs_every_call_with_its_result(self, clock: Clock, failing: Any) -> None:
        queue = NullQueue(reactor=clock, spew=True)
        with logged() as events:
            queue.call(size, -5)
            clock.advance(0)
        assert levels(events) == [(LogLevel.info, "size(-5) -> 5")]
        failed = (LogLevel.info, "fail('so') failed: ValueError: so")
        assert failing(spew=True)[0] == [failed]
        assert failing(spew=True, warn=True)[0] == [(LogLevel.error, "a call failed"), failed]


class TestRoom:
    def test_there_is_always_some_without_a_limit(self, held: TaskQueue) -> None:
        for n in range(10):
            held.call(size, n)
        assert outcomes(held.ready()) == [None]

    def test_one_waits_until_fewer_are_queued_than_the_limit(self, clock: Clock, worker: HeldWorker) -> None:
        queue = TaskQueue(worker, maxQueued=2, reactor=clock)
        queue.call(size, 0)  # it runs
        queue.call(size, 1)
        assert outcomes(queue.ready()) == [None]
        queue.call(size, 2)
        waiting = queue.ready()
        late = queue.call(size, 3)  # past the limit, and taken all the same
        worker.end(Returned(0))
        assert not waiting.called
        worker.end(Returned(0))
        assert outcomes(waiting) == [None]
        assert not late.called

    def test_a_wait_can_be_cancelled(self, clock: Clock) -> None:
        queue = TaskQueue(maxQueued=1, reactor=clock)
        queued, ready = queue.call(size, 0), queue.ready()
        ready.cancel()
        errorOf(ready, CancelledError)
        queue.cancelAll()
        errorOf(queued, CancelledError)

    def test_those_who_wait_come_in_as_there_is_room_and_need_no_depth(self, clock: Clock) -> None:
        queue, most = TaskQueue(maxQueued=20_000, reactor=clock), 0

        def more(_: object) -> None:
            nonlocal most
            queue.call(nothing)
            most += 1

        for _ in range(20_000):
            queue.call(nothing).addErrback(lambda reason: None)
        for _ in range(30_000):
            queue.ready().addCallback(more)
        queue.cancelAll()
        assert most == 20_000

    def test_a_limit_below_one_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"maxQueued must be an integer of 1 or more.* got 0"):
            TaskQueue(maxQueued=0)


class TestStandardLogging:
    def test_warnings_and_results_reach_the_logger_asynqueue(
        self, clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        queue = NullQueue(warn=True, verbose=True, spew=True, reactor=clock)
        with caplog.at_level("INFO", logger="asynqueue"), logged() as events:
            queue.call(size, -3)
            failing = queue.call(fail, "wrong")
            clock.advance(0)
            clock.advance(0)
        errorOf(failing, ValueError)
        texts = [record.getMessage() for record in caplog.records if record.name == "asynqueue"]
        assert texts == [formatEvent(event) for event in events]
        assert texts[0] == "size(-3) -> 3"
        assert texts[1].startswith("fail('wrong') failed")
        failed = next(record for record in caplog.records if record.levelname == "CRITICAL" or record.exc_info)
        assert failed.exc_info is not None
        assert failed.exc_info[0] is ValueError

    def test_without_a_handler_nothing_is_printed(self) -> None:
        program = """
from twisted.internet.task import Clock
from asynqueue import NullQueue
clock = Clock()
NullQueue(warn=True, reactor=clock).call(int, "x").addErrback(lambda _: None)
clock.advance(0)
"""
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert (done.stdout, done.stderr) == ("", "")


class TestShutdown:
    def test_it_runs_what_was_taken_and_stops_the_workers(
        self, clock: Clock, held: TaskQueue, worker: HeldWorker
    ) -> None:
        calls = [held.call(size, n) for n in range(3)]
        worker.stopsAtOnce = False
        down = held.shutdown()
        while worker.held:
            worker.end(Returned("done"))
        assert [outcomes(d) for d in calls] == [["done"]] * 3
        assert not down.called
        worker.stops[0].callback(None)
        assert outcomes(down) == [None]
        assert clock.getDelayedCalls() == []

    def test_its_timeout_terminates_the_workers_and_fails_what_is_left(self, clock: Clock, worker: HeldWorker) -> None:
        queue = TaskQueue(worker, timeout=5, reactor=clock)
        calls = [queue.call(size, n) for n in range(3)]
        queue.call(size, 3, series="never").addErrback(lambda _: None)
        clock.advance(60)
        assert not any(d.called for d in calls), "the timeout is that of a shutdown, not of calls"
        down = queue.shutdown()
        clock.advance(4.9)
        assert not down.called
        with logged() as events:
            clock.advance(0.2)
        assert [formatEvent(e) for e in events] == ["the shutdown of a queue has waited 5 s: it terminates the workers"]
        assert outcomes(down) == [None]
        errorOf(calls[0], WorkerLost)
        for d in calls[1:]:
            assert "the queue has shut down" in str(errorOf(d, QueueRunError))
        assert clock.getDelayedCalls() == []

    def test_its_timeout_is_forgotten_when_it_ends_before(self, clock: Clock, worker: HeldWorker) -> None:
        queue = TaskQueue(worker, timeout=5, reactor=clock)
        assert outcomes(queue.shutdown()) == [None]
        assert clock.getDelayedCalls() == []

    def test_again_is_the_same(self, held: TaskQueue, worker: HeldWorker) -> None:
        held.call(size, 1)
        first, second = held.shutdown(), held.shutdown()
        worker.end(Returned(1))
        assert (outcomes(first), outcomes(second), outcomes(held.shutdown())) == ([None], [None], [None])
        assert len(worker.stops) == 1

    def test_of_an_empty_queue_is_at_once(self, clock: Clock) -> None:
        assert outcomes(TaskQueue(reactor=clock).shutdown()) == [None]
        assert clock.getDelayedCalls() == []

    def test_a_later_call_is_refused_by_name(self, held: TaskQueue) -> None:
        held.shutdown()
        with pytest.raises(QueueRunError, match=r"the queue is not running: size\(7\) was not queued"):
            held.call(size, 7)

    def test_what_no_worker_is_qualified_for_fails(self, held: TaskQueue) -> None:
        d = held.call(size, 1, series="nobody's")
        down = held.shutdown()
        assert 'no worker for series "nobody\'s"' in str(errorOf(d, QueueRunError))
        assert outcomes(down) == [None]

    def test_what_fails_then_has_failed_before_it_is_done(self, clock: Clock) -> None:
        queue, order = TaskQueue(reactor=clock), list[str]()
        calls = [queue.call(nothing), queue.call(nothing)]

        def shut(_: Failure) -> None:
            order.append("first")
            queue.shutdown().addCallback(lambda _: order.append("down"))

        calls[0].addErrback(shut)
        calls[1].addErrback(lambda _: order.append("second"))
        queue.cancelAll()
        assert order == ["first", "second", "down"]

    def test_it_waits_for_an_update(self, held: TaskQueue, worker: HeldWorker) -> None:
        update, down = held.update(size, 1), held.shutdown()
        assert not down.called
        worker.end(Returned(1))
        assert (outcomes(update), outcomes(down)) == ([[1]], [None])

    def test_a_long_one_says_what_it_waits_for(self, clock: Clock, held: TaskQueue, worker: HeldWorker) -> None:
        held.call(size, 1)
        held.shutdown()
        with logged() as events:
            clock.pump([0, PATIENCE])
        text = "the shutdown of a queue waits for 1 calls, 0 iterations and 1 workers: ['size(1)']"
        assert levels(events) == [(LogLevel.warn, text)]
        worker.end(Returned(1))
        assert clock.getDelayedCalls() == []

    def test_one_that_waits_for_an_iteration_that_nobody_goes_on_with_says_so_aloud(
        self, clock: Clock, queue: TaskQueue
    ) -> None:
        d = queue.call(count)
        clock.advance(0)
        deferator = resultOf(d)
        down = queue.shutdown()
        with logged() as events:
            clock.pump([0, PATIENCE])
        ((level, said),) = levels(events)
        assert level is LogLevel.critical
        assert said.endswith("1 workers: []; 1 iterations wait until they are stopped, or an item is taken")
        deferator.stop()
        clock.advance(0)
        assert outcomes(down) == [None]
        assert clock.getDelayedCalls() == []

    def test_it_does_not_wait_for_an_iteration_that_nobody_has(self, clock: Clock, queue: TaskQueue) -> None:
        d = queue.call(count)
        clock.advance(0)
        cycle: list[Any] = [resultOf(d)]
        cycle.append(cycle)
        gc.disable()  # which is as good as an idle program
        try:
            del cycle
            down = queue.shutdown()
            assert outcomes(down) == []
            clock.pump([0, 0, 0])
            assert outcomes(down) == [None]
        finally:
            gc.enable()
        assert clock.getDelayedCalls() == []

    def test_an_error_in_async_with_stops_the_iterations_that_nobody_waits_for(
        self, held: TaskQueue, worker: HeldWorker
    ) -> None:
        left, wanted = ListSource(), ListSource()

        async def use() -> None:
            async with held:
                items = await held.call(iter, [1, 2])
                async for n in items:
                    raise ValueError(n)

        ended = Deferred.fromCoroutine(use())
        worker.end(Iterating(left, 0.0))
        d = held.call(iter, [3, 4])
        worker.end(Iterating(wanted, 0.0))
        wanted.give(3)
        other = resultOf(d)
        first = next(other)
        wanted.give(4)
        assert resultOf(first) == 3
        last = next(other)  # which is there, but not known to be the last
        left.give(1)
        assert (left.closed, wanted.closed, ended.called) == (True, False, False)
        wanted.sink.over(None)
        assert resultOf(last) == 4
        errorOf(ended, ValueError)

    def test_those_who_wait_for_room_are_told(self, clock: Clock) -> None:
        queue = TaskQueue(maxQueued=1, reactor=clock)
        errors = outcomes(queue.call(nothing))
        ready = queue.ready()
        queue.shutdown()
        assert (len(errors), outcomes(ready)) == (1, [None])

    def test_leaving_async_with_is_one(self, clock: Clock, worker: HeldWorker) -> None:
        queue, seen = TaskQueue(worker, reactor=clock), list[bool]()

        async def use() -> None:
            async with queue as same:
                assert same is queue
                seen.append(queue.isRunning())
                queue.call(size, 1)
            seen.append(queue.isRunning())

        d = Deferred.fromCoroutine(use())
        assert seen == [True]
        worker.end(Returned(1))
        assert outcomes(d) == [None]
        assert seen == [True, False]

    def test_a_reactor_that_stops_takes_everything_with_it(self) -> None:
        reactor: Any = MemoryReactorClock()
        reactor.removed = []
        reactor.removeSystemEventTrigger = reactor.removed.append
        worker = HeldWorker()
        queue = TaskQueue(worker, reactor=reactor)
        running, queued = queue.call(size, 1, timeout=9), queue.call(size, 2)
        (stops,) = [f for trigger in reactor.triggers.values() for f, _, _ in trigger.get("shutdown", [])]
        stops()
        errorOf(running, WorkerLost)
        errorOf(queued, QueueRunError)
        assert worker.crashed
        assert reactor.getDelayedCalls() == []
        assert outcomes(queue.shutdown()) == [None]

    def test_nothing_keeps_a_queue_that_was_shut_down(self, clock: Clock) -> None:
        queue = NullQueue(reactor=clock)
        queue.call(nothing)
        clock.advance(0)
        queue.shutdown()
        reference = weakref.ref(queue)
        del queue
        gc.collect()
        assert reference() is None


class TestReentrancy:
    def test_a_callback_may_call(self, held: TaskQueue, worker: HeldWorker) -> None:
        inner: list[Deferred[int]] = []
        held.call(size, 1).addCallback(lambda _: inner.append(held.call(size, 2, doNext=True)))
        held.call(size, 3)
        while worker.held:
            worker.end(Returned(0))
        assert sorted(given(worker)) == [1, 2, 3]
        assert outcomes(inner[0]) == [0]

    def test_a_callback_may_cancel_another(self, clock: Clock, held: TaskQueue, worker: HeldWorker) -> None:
        first, second = held.call(size, 1), held.call(size, 2)
        first.addCallback(lambda _: second.cancel())
        worker.end(Returned(1))
        errorOf(second, CancelledError)
        assert outcomes(held.shutdown()) == [None]

    def test_an_errback_of_a_cancelled_one_may_cancel_all(self, held: TaskQueue, worker: HeldWorker) -> None:
        calls = [held.call(size, n) for n in range(4)]
        calls[1].addErrback(lambda _: held.cancelAll())
        calls[1].cancel()
        for d in calls[2:]:
            errorOf(d, CancelledError)
        worker.end(Returned(0))
        assert given(worker) == [0]

    def test_a_callback_may_shut_down(self, held: TaskQueue, worker: HeldWorker) -> None:
        down: list[Deferred[None]] = []
        held.call(size, 1).addCallback(lambda _: down.append(held.shutdown()))
        held.call(size, 2)
        worker.end(Returned(1))
        assert not down[0].called
        worker.end(Returned(2))
        assert outcomes(down[0]) == [None]

    def test_a_callback_may_detach_the_worker_twice(self, held: TaskQueue, worker: HeldWorker) -> None:
        left: list[Any] = []

        def leave(_: object) -> None:
            left.append(outcomes(held.detachWorker(worker)))
            left.append(outcomes(held.detachWorker(worker, crash=True)))

        held.call(size, 1).addCallback(leave)
        worker.end(Returned(1))
        assert left == [[[]], [[]]]
        assert outcomes(held.shutdown()) == [None]

    def test_a_callback_that_raises_harms_only_its_own_deferred(self, held: TaskQueue, worker: HeldWorker) -> None:
        first, second = held.call(size, 1), held.call(size, 2)
        first.addCallback(lambda _: 1 / 0)
        worker.end(Returned(1))
        worker.end(Returned(2))
        errorOf(first, ZeroDivisionError)
        assert outcomes(second) == [2]

    def test_a_call_may_call_its_own_queue(self, clock: Clock, queue: TaskQueue) -> None:
        inner: list[Deferred[int]] = []
        queue.call(lambda: inner.append(queue.call(size, -2)))
        clock.advance(0)
        assert resultOf(inner[0]) == 2


def test_every_worker_of_these_tests_is_one_to_the_type_checker_and_at_run_time() -> None:
    workers: list[Worker] = [HeldWorker(), NowWorker(), AsyncWorker(reactor=Clock())]
    assert all(isinstance(worker, Worker) for worker in workers)
    kinds: list[Hashable] = [worker.window for worker in workers]
    assert all(isinstance(kind, Window) for kind in kinds)


class TestSeriesWithoutAWorker:
    def warnings(self, events: list[LogEvent]) -> list[str]:
        assert all(event["log_level"] is LogLevel.warn for event in events)
        return [formatEvent(event) for event in events]

    def test_it_is_logged_once_after_some_seconds_and_counted(self, clock: Clock, held: TaskQueue) -> None:
        with logged() as events:
            for n in range(3):
                held.call(size, n, series="mial")
            clock.advance(UNSERVED / 2)
            assert (events, held.stats().unserved) == ([], 3)
            clock.advance(UNSERVED / 2)
            held.call(size, 3, series="mial")
            clock.advance(2 * UNSERVED)
        (text,) = self.warnings(events)
        assert text.startswith("no worker is qualified for calls of series 'mial': 3 of them wait")
        assert clock.getDelayedCalls() == []
        assert held.stats().unserved == 4

    def test_a_worker_that_comes_in_time_leaves_nothing_to_log(self, clock: Clock, held: TaskQueue) -> None:
        with logged() as events:
            held.call(size, 1, series="mail")
            held.attachWorker(HeldWorker(["mail"]))
            assert held.stats().unserved == 0
            assert UNSERVED not in [call.getTime() for call in clock.getDelayedCalls()]
            clock.advance(2 * UNSERVED)
        assert events == []

    def test_a_queue_without_a_worker_says_so(self, clock: Clock) -> None:
        queue = TaskQueue(reactor=clock)
        with logged() as events:
            calls = queue.call(size, 1), queue.call(size, 2)
            clock.advance(UNSERVED)
        assert self.warnings(events) == ["the queue has no worker: 2 calls wait for one"]
        assert list(map(outcomes, calls)) == [[], []]

    def test_a_shutdown_leaves_no_timer(self, clock: Clock) -> None:
        queue = TaskQueue(reactor=clock)
        waiting = queue.call(size, 1, series="mail")
        resultOf(queue.shutdown())
        assert isinstance(errorOf(waiting, QueueRunError), QueueRunError)
        assert clock.getDelayedCalls() == []

    def test_a_series_that_raises_when_it_is_shown_is_named_all_the_same(self, clock: Clock, held: TaskQueue) -> None:
        class Unshowable:
            def __repr__(self) -> str:
                raise SystemExit

        with logged() as events:
            held.call(size, 1, series=Unshowable())
            clock.advance(UNSERVED)
        (text,) = self.warnings(events)
        assert "Unshowable" in text
