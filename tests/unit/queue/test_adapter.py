"""Workers that have only one of `run` and `give`, and those that were written for 0.9, which report to their task."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer
from zope.interface.verify import verifyObject

from asynqueue import (
    AsyncWorker,
    Deferator,
    ListConsumer,
    ProcessWorker,
    TaskQueue,
    ThreadWorker,
    WireWorker,
    tasks,
)
from asynqueue.core.records import CallSpec, Interrupted, Iterating, Returned, RunOutcome, Task
from asynqueue.errors import TimeoutError, WorkerError, WorkerLost
from asynqueue.interfaces import IWorker
from asynqueue.queue.adapter import ReportingWorker
from asynqueue.wire import WireWorkerUniverse
from tests.support.calls import inLoop
from tests.support.deferreds import errorOf, resultOf


@implementer(IWorker)
class Worker09:
    """Makes the call of a task when the test says so, and reports as workers of 0.9 do."""

    cQualified: Iterable[str] = ["old"]

    def __init__(self, report: Any = None) -> None:
        self.iQualified: list[str] = ["mine"]
        self.tasks: list[Any] = []
        self.ran: list[Deferred[None]] = []
        self.stopped = 0
        self._report = report

    def setResignator(self, callableObject: Any) -> None:
        self.resign = callableObject

    def run(self, task: Any) -> Deferred[None]:
        self.tasks.append(task)
        self.ran.append(Deferred())
        return self.ran[-1]

    def step(self) -> None:
        task, ran = self.tasks.pop(0), self.ran.pop(0)
        f, args, kw = task.callTuple
        try:
            result = f(*args, **kw)
        except Exception:
            task.errback(Failure())
        else:
            task.callback(("r", result) if self._report is None else self._report)
        ran.callback(None)

    def stop(self) -> Deferred[None]:
        self.stopped += 1
        return succeed(None)

    def crash(self) -> list[Any]:
        return self.tasks


def one(report: Any = None) -> tuple[Any, TaskQueue]:
    """Such a worker, and a queue that has it."""
    worker: Any = Worker09(report)
    return worker, TaskQueue(worker, reactor=Clock())


class TestAWorkerOf09:
    def test_runs_calls_one_by_one_by_their_series(self) -> None:
        worker, queue = one()
        calls: list[Deferred[Any]] = [
            queue.call(divmod, 7, 2),
            queue.call(int, "11", base=2, series="old", niceness=-5),
        ]
        calls.append(queue.call(int, series="mine", doLast=True))
        assert [task.callTuple for task in worker.tasks] == [(divmod, (7, 2), {})]
        worker.step()
        task = worker.tasks[0]
        assert (task.series, task.niceness, task.priority, task.call.f) == ("old", -5, -5, int)
        worker.step()
        worker.step()
        assert [resultOf(d) for d in calls] == [(3, 1), 3, 0]

    def test_reports_an_error_by_errback(self) -> None:
        worker, queue = one()
        d = queue.call(divmod, 1, 0)
        worker.step()
        errorOf(d, ZeroDivisionError)

    @pytest.mark.parametrize(
        ("report", "result"),
        [
            (("n", 5), None),
            (("c", "the consumer"), "the consumer"),
            (("i", []), []),
            (("x", 5), ("x", 5)),
            ("the result alone", "the result alone"),
        ],
    )
    def test_reports_by_a_status(self, report: Any, result: Any) -> None:
        worker, queue = one(report)
        d = queue.call(int)
        worker.step()
        assert resultOf(d) == result

    @pytest.mark.parametrize(
        ("report", "kind", "text"),
        [
            (("e", "it broke"), WorkerError, "it broke"),
            (("e", KeyError("it broke")), KeyError, "it broke"),
            (("e", Failure(KeyError("it broke"))), KeyError, "it broke"),
            (("t", None), TimeoutError, "the time limit has passed"),
        ],
    )
    def test_reports_an_error_by_a_status(self, report: Any, kind: type[Exception], text: str) -> None:
        worker, queue = one(report)
        d = queue.call(int)
        worker.step()
        assert text in str(errorOf(d, kind))

    @pytest.mark.parametrize("kind", [iter, lambda items: Deferator(iter(items))])
    @inLoop
    async def test_reports_an_iteration(self, kind: Any) -> None:
        worker: Any = Worker09(("i", kind([5, 6])))
        queue, consumer = TaskQueue(worker), ListConsumer()
        d = queue.call(int, consumer=consumer)
        worker.step()
        assert await d is consumer
        assert await consumer() == [5, 6]
        await queue.shutdown()

    def test_that_raises_or_fails_fails_the_call(self) -> None:
        worker, queue = one()
        worker.run = lambda task: fail(KeyError("of its own"))
        errorOf(queue.call(int), KeyError)
        worker.run = lambda task: 1 // 0
        errorOf(queue.call(int), ZeroDivisionError)
        worker.run = lambda task: succeed(Returned(5))
        assert resultOf(queue.call(int)) == 5

    def test_may_be_interrupted_updated_detached_and_may_resign(self) -> None:
        worker, queue = one()
        d = queue.call(int)
        d.cancel()
        errorOf(d, CancelledError)
        worker.step()
        update = queue.update(int, "5")
        worker.step()
        assert resultOf(update) == [5]
        d = queue.call(int, retries=0)
        worker.resign()
        errorOf(d, WorkerLost)
        assert worker.stopped == 1


class TestTheInterface:
    @pytest.mark.parametrize(
        "worker",
        [
            AsyncWorker(["mine"]),
            ThreadWorker(["mine"]),
            ProcessWorker(["mine"]),
            WireWorker(WireWorkerUniverse, "unix:/nowhere", ["mine"], key=bytes(32)),
        ],
    )
    def test_is_provided_by_our_workers(self, worker: Any) -> None:
        assert verifyObject(IWorker, worker)
        assert worker.iQualified == ["mine"]


class TestATaskOf09:
    def test_is_made_of_a_call_and_has_what_a_task_has(self) -> None:
        task = tasks.Task(divmod, [7], {"two": 2}, 5, "series", 1.5)
        assert task.callTuple == (divmod, (7,), {"two": 2})
        assert (task.priority, task.series, task.timeout) == (5, "series", 1.5)
        made: Any = task.copy()
        assert isinstance(made.call, CallSpec)
        assert made.niceness == 5
        assert repr(task) == "<Task: divmod(7, two=2)>"
        with pytest.raises(AttributeError):
            made.nothing()

    def test_keeps_the_first_report(self) -> None:
        task = tasks.Task(int)
        task.rush()
        task.relax()
        task.startTimer()
        got: list[Any] = []
        task.addCallback(got.append)
        task.callback(1)
        task.callback(2)
        task.errback(KeyError())
        task.timedout()
        assert got == [1]
        task.reset()
        task.timedout()
        assert resultOf(task.d) == ("t", None)


class Giving(ReportingWorker):
    """Notes what it is given and what it is to interrupt. The test reports."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[int] = []
        self.interrupted: list[int] = []
        self.reports: list[list[tuple[int, RunOutcome]]] = []
        self.setReport(lambda outcomes: self.reports.append([*outcomes]))

    def give(self, runs: Sequence[tuple[int, Task]]) -> None:
        self.given += [ticket for ticket, _ in runs]

    def interrupt(self, ticket: int) -> None:
        self.interrupted.append(ticket)


class Source:
    closed = 0

    def close(self) -> None:
        self.closed += 1


TASK = Task(1, CallSpec(abs, (-1,)))


class TestRunByGive:
    def test_each_deferred_fires_with_its_outcome_and_the_queue_has_the_rest(self) -> None:
        worker = Giving()
        first, second = worker.run(TASK), worker.run(TASK)
        worker.give([(1, TASK)])
        one, two, three = worker.given
        worker.reported([(two, Returned(2)), (three, Returned(3)), (one, Returned(1))])
        assert (resultOf(first), resultOf(second)) == (Returned(1), Returned(2))
        assert worker.reports == [[(1, Returned(3))]]

    def test_what_the_queue_gave_is_reported_while_nothing_runs(self) -> None:
        worker = Giving()
        worker.reported([(1, Returned(3))])
        assert worker.reports == [[(1, Returned(3))]]

    def test_a_report_to_no_queue_is_no_harm(self) -> None:
        worker = ThreadWorker()
        worker.reported([(1, Returned(3))])

    def test_one_that_is_cancelled_is_interrupted_and_its_later_iterator_closed(self) -> None:
        worker, source = Giving(), Source()
        run = worker.run(TASK)
        run.cancel()
        assert worker.interrupted == worker.given
        assert resultOf(run) == Interrupted()
        worker.reported([(worker.given[0], Iterating(source))])
        assert source.closed == 1
        assert worker.reports == []
