"""Given these events, exactly these commands."""

from __future__ import annotations

from collections.abc import Hashable

import pytest

from asynqueue.core.records import (
    CallSpec,
    Cancelled,
    Interrupted,
    Iterating,
    Lost,
    Raised,
    Recalled,
    Refused,
    Returned,
    Task,
    TimedOut,
)
from asynqueue.core.scheduling.commands import (
    Arm,
    Assign,
    Closed,
    Command,
    Discard,
    Interrupt,
    Recall,
    Settle,
    Stop,
    Tick,
    Unserved,
    UpdateAbandoned,
    Updated,
    WorkerReady,
)
from asynqueue.core.scheduling.matching import REPORTED
from asynqueue.core.scheduling.scheduler import Scheduler
from asynqueue.core.scheduling.states import TaskState, WorkerState
from asynqueue.core.scheduling.window import BUDGET, Window

CALL = CallSpec.of(print)
ONE = Window()
TWO = Window(2, 2)
DONE = Returned(None)


def task(number: int, series: Hashable = None, timeout: float | None = None, retries: int = 1) -> Task:
    return Task(number, CALL, series, timeout=timeout, retries=retries)


def update(number: int, retries: int = 1, series: Hashable = None) -> Task:
    return Task(number, CALL, series, retries=retries, update=True)


def assigned(commands: list[Command]) -> list[tuple[int, int]]:
    """Which worker was given which task."""
    return [(command.worker, command.task.id) for command in commands if isinstance(command, Assign)]


class Validated(Scheduler):
    """A scheduler that asserts its invariants whenever its commands are looked at."""

    def _dispatch(self) -> list[Command]:
        commands = super()._dispatch()
        self.validate()
        return commands


@pytest.fixture
def s() -> Scheduler:
    return Validated()


# Tasks.


def test_a_task_goes_to_a_worker_and_is_settled_with_its_outcome(s: Scheduler) -> None:
    assert s.attach(1, (), ONE) == [WorkerReady(1)]
    t = task(1)
    assert s.submit(t) == [Assign(1, 1, t)]
    assert s.taskState(t) is TaskState.ASSIGNED
    assert s.held(1) == [t]
    assert s.finished(1, Returned("x")) == [Settle(1, Returned("x"))]
    assert s.taskState(t) is TaskState.SETTLED


def test_a_task_waits_for_a_worker(s: Scheduler) -> None:
    t = task(1)
    assert s.submit(t) == []
    assert (s.queued, s.unfinished, s.taskState(t)) == (1, 1, TaskState.QUEUED)
    assert s.attach(1, (), ONE) == [WorkerReady(1), Assign(1, 1, t)]
    assert (s.queued, s.unfinished) == (0, 1)


def test_what_a_call_raised_is_its_settlement(s: Scheduler) -> None:
    s.attach(1, (), ONE)
    s.submit(task(1))
    outcome = Raised(ZeroDivisionError())
    assert s.finished(1, outcome) == [Settle(1, outcome)]


def test_a_task_of_a_series_goes_to_who_is_qualified_and_delays_nobody(s: Scheduler) -> None:
    s.attach(1, (), ONE)
    assert s.submit(task(1, "a")) == []
    assert assigned(s.submit(task(2))) == [(1, 2)]
    assert assigned(s.attach(2, ("a",), ONE)) == [(2, 1)]


def test_a_worker_that_is_qualified_later_takes_what_waited(s: Scheduler) -> None:
    s.attach(1, (), ONE)
    s.submit(task(1, "a"))
    assert assigned(s.qualify(1, "a")) == [(1, 1)]
    assert s.qualify(7, "a") == []


def test_the_worker_with_the_fewest_unfinished_tasks_goes_first_then_who_waited_longest(s: Scheduler) -> None:
    for worker, qualifications in ((1, ()), (2, ("a",)), (3, ())):
        s.attach(worker, qualifications, Window(2, 2))
    assert [assigned(s.submit(task(n)))[0][0] for n in range(1, 7)] == [1, 2, 3, 1, 2, 3]


def test_of_those_with_nothing_to_do_who_worked_last_goes_first_as_it_is_warm(s: Scheduler) -> None:
    for worker in range(1, 5):
        s.attach(worker, (), Window(2, 2))
    for number in (1, 2, 3):
        s.submit(task(number))
    for ticket in (2, 1, 3):
        s.finished(ticket, DONE)
    assert [assigned(s.submit(task(n)))[0][0] for n in range(4, 10)] == [3, 1, 2, 4, 3, 1]


def test_who_has_worked_last_but_has_an_iterator_to_go_on_with_goes_last(s: Scheduler) -> None:
    for worker in (1, 2, 3):
        s.attach(worker, (), ONE)
    s.submit(task(1))
    s.submit(task(2))
    s.finished(2, DONE)
    s.finished(1, Iterating("it"))
    assert [assigned(s.submit(task(n)))[0][0] for n in (3, 4, 5)] == [2, 3, 1]
    for ticket in (5, 4, 3):
        s.finished(ticket, DONE)
    s.iterationEnded(1, 1)
    assert assigned(s.submit(task(6))) == [(1, 6)], "it has none any more"


def test_a_late_or_doubled_report_does_no_harm(s: Scheduler) -> None:
    s.attach(1, (), ONE)
    s.submit(task(1))
    s.finished(1, DONE)
    assert s.finished(1, Lost()) == []
    assert s.finished(99, Iterating("it")) == [Discard("it")]


def test_an_unstarted_task_that_comes_back_keeps_its_place(s: Scheduler) -> None:
    s.attach(1, (), Window(2, 2))
    for number in (1, 2, 3):
        s.submit(task(number))
    assert assigned(s.finished(2, Recalled())) == [(1, 2)]
    assert assigned(s.finished(1, Recalled())) == [(1, 1)]


# Cancelling.


def test_a_queued_task_that_is_cancelled_never_runs(s: Scheduler) -> None:
    s.submit(task(1))
    assert s.cancel(task(1)) == [Settle(1, Cancelled())]
    assert s.attach(1, (), ONE) == [WorkerReady(1)]
    assert s.cancel(task(1)) == []


def test_an_assigned_task_that_is_cancelled_is_interrupted_and_its_iterator_closed(s: Scheduler) -> None:
    s.attach(1, (), ONE)
    s.submit(task(1))
    assert s.cancel(task(1)) == [Interrupt(1, 1), Settle(1, Cancelled())]
    assert s.held(1) == []
    assert s.finished(1, Iterating("it")) == [Discard("it")]


def test_a_series_is_cancelled_and_what_is_running_left_alone(s: Scheduler) -> None:
    s.attach(1, ("a",), ONE)
    for number, series in ((1, "a"), (2, "a"), (3, None), (4, "a")):
        s.submit(task(number, series))
    assert s.cancelSeries("a") == [Settle(2, Cancelled()), Settle(4, Cancelled())]
    assert s.cancelAll() == [Settle(3, Cancelled())]
    assert s.unfinished == 1
    assert s.finished(1, DONE) == [Settle(1, DONE)]


# Time.


def test_a_task_whose_time_is_up_goes_to_the_front_and_then_fails(s: Scheduler) -> None:
    s.attach(1, (), ONE)
    t = task(1, timeout=5.0)
    assert s.submit(t) == [Assign(1, 1, t), Arm(1, 5.0)]
    s.submit(Task(2, CALL, doNext=True))
    assert s.expired(1) == [Interrupt(1, 1)]
    commands = s.finished(1, Interrupted())
    assert assigned(commands) == [(1, 1)]
    assert commands[1:] == [Arm(2, 5.0)]
    assert s.expired(2) == [Interrupt(1, 2), Settle(1, TimedOut(5.0))]
    assert s.expired(2) == []


def test_the_time_of_what_cannot_have_been_started_does_not_run(s: Scheduler) -> None:
    s.attach(1, (), Window(1, 2))
    s.submit(task(1))
    s.finished(1, Returned(None, 1e-6))
    s.submit(task(2))
    t = task(3, timeout=5.0)
    assert s.submit(t) == [Assign(1, 3, t), Tick()]
    assert s.finished(2, DONE) == [Arm(3, 5.0), Settle(2, DONE)]


@pytest.mark.parametrize("how", ["update", "leave"])
def test_time_runs_too_on_a_worker_that_waits_for_an_update_or_leaves(s: Scheduler, how: str) -> None:
    s.attach(1, (), Window(1, 2))
    s.submit(task(1))
    s.finished(1, Returned(None, 1e-6))
    s.submit(task(2))
    s.submit(task(3, timeout=5.0))
    if how == "update":
        s.update(update(4), [1], save=False)
    else:
        s.detach(1, reassign=False)
    assert s.finished(2, DONE) == [Arm(3, 5.0), Settle(2, DONE)]


# Deaths.


def test_a_death_is_charged_to_what_ran_and_the_rest_goes_elsewhere(s: Scheduler) -> None:
    s.attach(1, (), Window(2, 3))
    for number in (1, 2):
        s.submit(task(number, retries=0))
    s.finished(1, Recalled())
    assert s.lost(1, reason="kill -9") == [Settle(2, Lost("kill -9")), Settle(1, Lost("kill -9"))]


def test_a_call_that_kills_its_worker_is_started_twice(s: Scheduler) -> None:
    s.submit(task(1))
    s.attach(1, (), ONE)
    assert s.lost(1) == []
    (_, assign) = s.attach(2, (), ONE)
    assert isinstance(assign, Assign)
    assert assign.task.attempt == 1
    assert s.lost(2, reason="it died") == [Settle(1, Lost("it died"))]


def test_a_worker_that_crashes_without_reassigning_loses_all_it_held(s: Scheduler) -> None:
    s.attach(1, (), ONE)
    s.submit(task(1))
    assert s.lost(1, reassign=False, reason="crashed") == [Settle(1, Lost("crashed"))]
    assert s.workerState(1) is WorkerState.GONE


def test_a_worker_that_restarts_reports_on_what_it_held_and_joins_again(s: Scheduler) -> None:
    u = update(9)
    s.update(u, [], save=True)
    s.attach(1, (), Window(2, 2))
    s.finished(1, DONE)
    s.submit(task(1))
    s.submit(task(2))
    assert s.restarted(1) == []
    assert s.workerState(1) is WorkerState.JOINING
    assert s.finished(2, Lost()) == []
    assert s.finished(3, Recalled()) == [Assign(1, 4, u)]
    commands = s.finished(4, DONE)
    assert commands[0] == Updated(9, 1, DONE)
    assert assigned(commands) == [(1, 1), (1, 2)]


def test_a_call_interrupted_unasked_is_tried_again_then_lost(s: Scheduler) -> None:
    s.attach(1, (), ONE)
    s.submit(task(1))
    assert assigned(s.finished(1, Interrupted())) == [(1, 1)]
    assert s.finished(2, Interrupted()) == [Settle(1, Lost("the worker ended the call without an outcome"))]


# Updates.


def test_an_update_goes_before_what_is_queued_and_runs_alone(s: Scheduler) -> None:
    s.attach(1, (), Window(2, 2))
    s.submit(task(1))
    u = update(2)
    assert s.update(u, [1], save=False) == []
    s.submit(task(3))
    assert s.finished(1, DONE) == [Assign(1, 2, u), Settle(1, DONE)]
    assert assigned(s.finished(2, DONE)) == [(1, 3)]


def test_a_new_worker_is_hired_when_it_has_run_the_saved_updates(s: Scheduler) -> None:
    u, v = update(1), update(2)
    assert s.update(u, [], save=True) == s.update(v, [], save=True) == []
    assert s.attach(1, (), ONE) == [Assign(1, 1, u)]
    assert s.finished(1, DONE) == [Updated(1, 1, DONE), Assign(1, 2, v)]
    assert s.finished(2, DONE) == [Updated(2, 1, DONE), WorkerReady(1)]


def test_an_update_that_was_running_when_its_worker_died_runs_again_in_its_turn(s: Scheduler) -> None:
    saved, passing = update(1), update(2)
    s.attach(1, (), ONE)
    s.update(saved, [1], save=True)
    s.finished(1, DONE)
    s.update(passing, [1], save=False)
    s.restarted(1)
    assert s.finished(2, Lost()) == [Assign(1, 3, saved)]
    assert s.finished(3, DONE) == [Updated(1, 1, DONE), Assign(1, 4, passing)]


def test_a_saved_update_is_answered_once_by_a_worker_that_died_under_it_and_went(s: Scheduler) -> None:
    s.update(update(1), [], save=True)
    s.attach(1, (), ONE)
    s.restarted(1)
    assert s.lost(1) == [Updated(1, 1, Lost("the worker died"))]


def test_an_update_that_kills_twice_is_given_to_nobody_any_more(s: Scheduler) -> None:
    u = update(1)
    s.update(u, [], save=True)
    s.attach(1, (), ONE)
    s.attach(2, (), ONE)
    s.restarted(1)
    assert s.finished(1, Lost()) == [Assign(1, 3, u)]
    assert s.lost(1) == [UpdateAbandoned(u), Updated(1, 1, Lost("the worker died"))]
    s.restarted(2)
    assert s.finished(2, Lost()) == [Updated(1, 2, Lost("the worker died or left")), WorkerReady(2)]
    assert s.attach(3, (), ONE) == [WorkerReady(3)]


def test_workers_that_die_together_under_an_update_are_one_death(s: Scheduler) -> None:
    u = update(1)
    s.attach(1, (), ONE)
    s.attach(2, (), ONE)
    s.update(u, [1, 2], save=True)
    s.restarted(1)
    assert s.finished(1, Lost()) == [Assign(1, 3, u)]
    s.restarted(2)
    assert s.finished(2, Lost()) == [Assign(2, 4, u)]
    assert s.finished(3, DONE) == [Updated(1, 1, DONE)]
    assert s.finished(4, DONE) == [Updated(1, 2, DONE)]


def test_an_update_waits_for_a_worker_that_can_start_nothing(s: Scheduler) -> None:
    u = update(1)
    s.attach(1, (), ONE)
    s.resized(1, None)
    assert s.update(u, [1], save=True) == []
    s.restarted(1)
    assert s.resized(1, ONE) == [Assign(1, 1, u)]


def test_a_sequential_update_runs_on_one_worker_after_another(s: Scheduler) -> None:
    u = update(1)
    for worker in (1, 2, 3):
        s.attach(worker, (), ONE)
    assert s.update(u, [1, 2, 3], save=False, sequential=True) == [Assign(1, 1, u)]
    assert s.lost(2) == []
    assert s.finished(1, DONE) == [Updated(1, 1, DONE), Updated(1, 2, Lost("the worker left")), Assign(3, 2, u)]
    assert s.finished(2, DONE) == [Updated(1, 3, DONE)]


def test_an_update_waits_for_its_turn_on_a_worker_that_restarts(s: Scheduler) -> None:
    before, u = update(1), update(2)
    s.attach(1, (), ONE)
    s.attach(2, (), ONE)
    s.update(before, [1, 2], save=True)
    s.finished(1, DONE)
    s.finished(2, DONE)
    assert s.update(u, [1, 2], save=True, sequential=True) == [Assign(1, 3, u)]
    assert s.restarted(2) == [Assign(2, 4, before)]
    assert s.finished(4, DONE) == [Updated(1, 2, DONE)]
    assert s.disconnected(2) == s.unreported(2) == []
    assert s.reconnected(2, ONE) == [Assign(2, 5, before)]
    assert s.finished(5, DONE)[0] == Updated(1, 2, DONE)
    assert s.finished(3, DONE) == [Updated(2, 1, DONE), Assign(2, 6, u)]
    assert s.finished(6, DONE) == [Updated(2, 2, DONE)]
    assert s.restarted(2) == [Assign(2, 7, before)]
    assert s.finished(7, DONE) == [Updated(1, 2, DONE), Assign(2, 8, u)]


def test_a_sequential_update_whose_turn_comes_goes_before_later_ones(s: Scheduler) -> None:
    first, before, later = update(1), update(2), update(3)
    s.attach(1, (), ONE)
    s.attach(2, (), ONE)
    s.update(first, [1, 2], save=False, sequential=True)
    assert s.update(before, [2], save=False) == [Assign(2, 2, before)]
    s.update(later, [2], save=False)
    assert s.finished(1, DONE) == [Updated(1, 1, DONE)]
    assert s.finished(2, DONE) == [Updated(2, 2, DONE), Assign(2, 3, first)]
    assert s.finished(3, DONE) == [Updated(1, 2, DONE), Assign(2, 4, later)]


def test_a_sequential_update_that_killed_two_workers_runs_on_no_third(s: Scheduler) -> None:
    u = update(1)
    for worker in (1, 2, 3):
        s.attach(worker, (), ONE)
    s.update(u, [1, 2, 3], save=False, sequential=True)
    s.lost(1)
    killed = Lost("it killed two workers")
    assert s.lost(2) == [Updated(1, 2, Lost("the worker died")), Updated(1, 3, killed)]


def test_an_update_that_kills_twice_is_taken_back_from_who_has_not_begun_it(s: Scheduler) -> None:
    s.attach(1, (), ONE)
    s.attach(2, (), ONE)
    s.submit(task(1))
    u = update(9)
    assert s.update(u, [1, 2], save=False) == [Assign(2, 2, u)]
    s.restarted(2)
    assert s.finished(2, Lost()) == [Assign(2, 3, u)]
    s.restarted(2)
    assert s.finished(3, Lost())[:2] == [
        Updated(9, 1, Lost("it killed two workers")),
        Updated(9, 2, Lost("the worker died or left")),
    ]
    assert s.finished(1, DONE) == [Settle(1, DONE)]


@pytest.mark.parametrize("lived", [DONE, Raised(ValueError())])
def test_an_update_is_given_up_when_it_kills_two_workers_in_a_row(s: Scheduler, lived: Returned | Raised) -> None:
    u = update(9)
    s.update(u, [], save=True)
    s.attach(1, (), ONE)
    for ticket in (1, 3, 5):
        s.restarted(1)
        assert s.finished(ticket, Lost()) == [Assign(1, ticket + 1, u)]
        s.finished(ticket + 1, lived)
        s.restarted(1)
    assert s.finished(7, Lost()) == [Assign(1, 8, u)]
    s.restarted(1)
    assert s.finished(8, Lost())[0] == UpdateAbandoned(u)
    assert s.attach(2, (), ONE) == [WorkerReady(2)]


def test_an_update_that_was_given_up_stays_so_though_a_worker_lives_through_it(s: Scheduler) -> None:
    u = update(9)
    for workerID in (1, 2, 3):
        s.attach(workerID, (), ONE)
    s.update(u, [1, 2, 3], save=False)
    s.restarted(1)
    assert s.finished(1, Lost()) == [Assign(1, 4, u)]
    s.restarted(1)
    s.restarted(2)
    assert s.finished(4, Lost()) == [Updated(9, 1, Lost("the worker died or left"))]
    assert s.finished(3, DONE) == [Updated(9, 3, DONE)]
    assert s.finished(2, Lost()) == [Updated(9, 2, Lost("the worker died or left"))]


def test_an_update_for_a_worker_that_leaves_is_answered(s: Scheduler) -> None:
    s.attach(1, (), ONE)
    s.detach(1, reassign=False)
    assert s.update(update(1), [1, 8], save=False) == [
        Updated(1, 1, Lost("the worker left")),
        Updated(1, 8, Lost("the worker left")),
    ]


def test_an_update_cannot_return_an_iterator(s: Scheduler) -> None:
    s.attach(1, (), ONE)
    s.update(update(1), [1], save=False)
    discard, updated = s.finished(1, Iterating("it"))
    assert discard == Discard("it")
    assert isinstance(updated, Updated)
    assert isinstance(updated.outcome, Raised)


# The window.


def grown() -> Scheduler:
    """A scheduler with one worker that holds three tasks, of which it runs one; the tick has been asked for."""
    s = Validated()
    s.attach(1, (), Window(1, 8))
    for number in (1, 2, 3):
        s.submit(task(number))
        s.finished(number, Returned(None, 1e-6))
    for number in (4, 5, 6):
        s.submit(task(number))
    assert [t.id for t in s.held(1)] == [4, 5, 6]
    return s


def test_a_worker_that_answers_nothing_from_one_tick_to_the_next_gives_back_what_it_has_not_started() -> None:
    s = grown()
    assert s.tick() == [Tick()]
    assert s.tick() == [Recall(1)]
    assert s.attach(2, (), ONE) == [WorkerReady(2)]
    assert assigned(s.finished(5, Recalled())) == [(2, 5)]


def slowly() -> Scheduler:
    """A worker whose calls take two budgets, which runs task 2, holds task 3, and has task 4 wait."""
    s = Validated()
    s.attach(1, (), Window(1, 64))
    s.submit(task(1))
    s.finished(1, Returned(None, 2 * BUDGET))
    for number in (2, 3, 4):
        s.submit(task(number))
    assert [t.id for t in s.held(1)] == [2, 3]
    return s


def test_a_worker_whose_calls_take_longer_than_a_budget_has_as_long_to_answer() -> None:
    s = slowly()
    assert [s.tick() for _ in range(2)] == [[Tick(3)], [Recall(1)]]


@pytest.mark.parametrize(
    ("order", "ticks"), [(("slower", "slow"), [[Tick(9)], [Tick(5)]]), (("slow", "slower"), [[Tick(5)], []])]
)
def test_a_tick_comes_when_the_first_worker_would_have_outlasted_its_calls(
    order: tuple[str, str], ticks: list[list[Tick]]
) -> None:
    s = Validated()
    for worker, series, budgets in ((1, "slow", 4), (2, "slower", 8)):
        s.attach(worker, (series,), Window(1, 64))
        s.submit(task(worker, series))
        s.finished(worker, Returned(None, budgets * BUDGET))
    s.submit(task(3, "slow"))
    s.submit(task(4, "slower"))
    assert [s.submit(task(number, series))[1:] for number, series in enumerate(order, 5)] == ticks
    assert s.tick() == [Tick(5)]  # both had answered meanwhile
    assert s.tick() == [Recall(1), Tick(4)]
    assert s.finished(5 + order.index("slow"), Recalled()) == []
    assert s.tick() == [Recall(2)]


def test_a_tick_that_is_two_budgets_away_is_too_late_for_fast_calls() -> None:
    s = Validated()
    for worker, series, seconds in ((1, "slow", 1.5 * BUDGET), (2, "fast", 1e-6)):
        s.attach(worker, (series,), Window(1, 64))
        s.submit(task(worker, series))
        s.finished(worker, Returned(None, seconds))
    s.submit(task(3, "fast"))
    s.submit(task(4, "slow"))
    assert s.submit(task(5, "slow"))[1:] == [Tick(2)]
    assert s.submit(task(6, "fast"))[1:] == [Tick()]


def test_a_tick_that_is_two_budgets_away_is_too_late_for_who_has_nothing_to_do() -> None:
    s = Validated()
    s.attach(1, (), Window(1, 64))
    s.submit(task(1))
    s.finished(1, Returned(None, 1.5 * BUDGET))
    s.submit(task(2))
    assert s.submit(task(3))[1:] == [Tick(2)]
    assert s.attach(2, (), ONE) == [WorkerReady(2), Tick()]


def test_of_several_that_have_fallen_silent_who_holds_what_goes_first_is_recalled_first() -> None:
    s = Validated()
    for worker, series in ((1, "a"), (2, "b")):
        s.attach(worker, (series,), Window(1, 8))
        for ticket in range(3 * worker - 2, 3 * worker + 1):
            s.submit(task(ticket, series))
            s.finished(ticket, Returned(None, 1e-6))
    for number, series in ((7, "a"), (8, "a"), (9, "b")):
        s.submit(task(number, series))
    s.submit(Task(10, CALL, "b", doNext=True))
    assert [[t.id for t in s.held(worker)] for worker in (1, 2)] == [[7, 8], [9, 10]]
    assert s.tick() == [Tick()]
    assert s.tick() == [Recall(2), Recall(1)]


def test_a_worker_with_nothing_to_do_does_not_wait_for_what_another_holds() -> None:
    s = slowly()
    s.cancel(task(4))
    assert s.attach(2, (), ONE) == [WorkerReady(2), Tick()]  # for which the tick that was to come is too late
    assert s.tick() == [Tick()]
    assert s.tick() == [Recall(1)]
    assert assigned(s.finished(3, Recalled())) == [(2, 3)]


def test_a_call_that_goes_next_goes_before_what_a_slow_worker_has_not_started() -> None:
    s = slowly()
    assert s.submit(Task(5, CALL, doNext=True)) == [Recall(1)]
    assert assigned(s.finished(3, Recalled())) == []
    assert assigned(s.finished(2, Returned(None, 2 * BUDGET))) == [(1, 5), (1, 3)]
    s.validate()


def test_a_call_that_goes_next_waits_behind_no_slow_call_for_another_worker_may_be_there_sooner() -> None:
    s = slowly()
    s.cancel(task(4))
    s.attach(2, (), ONE)
    s.submit(task(5))
    s.submit(Task(6, CALL, doNext=True))
    s.finished(3, Recalled())
    assert assigned(s.finished(4, Returned(None))) == [(2, 6)]


def test_a_worker_that_holds_more_than_its_window_has_become_gives_back_what_it_has_not_started() -> None:
    s = grown()
    for number in range(7, 12):
        s.submit(task(number))
    assert len(s.held(1)) > 3
    assert [type(command) for command in s.finished(4, Returned(None, 0.9 * BUDGET))] == [Settle]
    assert s.tick() == [Recall(1), Tick()]


def test_a_call_that_goes_next_calls_nothing_back_from_a_worker_that_has_done_it_in_no_time() -> None:
    s = grown()
    for number in range(7, 12):
        s.submit(task(number))
    assert s.submit(Task(12, CALL, doNext=True)) == []


def test_a_worker_that_answers_between_ticks_keeps_what_it_holds() -> None:
    s = grown()
    assert s.tick() == [Tick()]
    s.finished(4, Returned(None, 1e-6))
    assert s.tick() == [Tick()]


def test_a_worker_that_holds_only_what_it_runs_is_left_alone() -> None:
    s = grown()
    s.finished(4, Returned(None, 1e-6))
    s.finished(5, Returned(None, 1e-6))
    assert s.tick() == []
    assert s.tick() == []


def test_a_worker_that_was_idle_at_the_tick_has_a_whole_budget_for_what_it_is_given_then() -> None:
    s = grown()
    assert s.tick() == [Tick()]
    for ticket in (4, 5, 6):
        s.finished(ticket, Returned(None, 1e-6))
    assert s.tick() == []
    s.submit(task(7))
    assert Tick() in s.submit(task(8))
    assert s.tick() == [Tick()]


def test_room_that_came_and_went_is_not_remembered() -> None:
    """Else a worker that is busy for long would have all that its neighbour did pile up behind it."""
    s = Scheduler()
    for worker in (1, 2):
        s.attach(worker, (), Window(4, 4))
    s.submit(task(1))
    for number in range(2, 500):
        (assign,) = s.submit(task(number))
        assert isinstance(assign, Assign)
        s.finished(assign.ticket, DONE)
        assert sum(len(cls.room) for cls in s._matcher._classes.values()) <= 2 * 2 + 17
    assert assigned([*s.submit(task(500)), *s.submit(task(501))]) == [(2, 500), (1, 501)], "and who has room is known"


def test_what_is_remembered_of_room_is_not_gone_through_for_each_task() -> None:
    s = Scheduler()
    for worker in range(1, 101):
        s.attach(worker, (), ONE)
    (cls,) = s._matcher._classes.values()
    remembered = cls.room
    for number in range(1, 51):
        s.submit(task(number))
        s.finished(number, DONE)
    assert cls.room is remembered


def test_a_series_for_every_task_is_not_remembered_for_ever() -> None:
    s = Scheduler()
    s.attach(1, ("a",), ONE)
    for number in range(1, 10_100):
        s.submit(task(number, number))
        assert len(s._matcher._groupOf) <= 10_000
    assert s.cancelSeries(17) == [Settle(17, Cancelled())]
    s.validate()


class Named:
    """A series that counts how often it is looked up."""

    def __init__(self) -> None:
        self.looks = 0

    def __hash__(self) -> int:
        self.looks += 1
        return 1


def test_who_may_run_a_series_is_not_found_anew_for_each_of_its_tasks() -> None:
    s, series = Scheduler(), Named()
    for number in range(1, 101):
        s.attach(number, [number], ONE)
    s.submit(task(1, series))
    before, series.looks = series.looks, 0
    s.submit(task(2, series))
    assert series.looks < before / 10


# Fairness between sets of workers.


def test_a_flow_with_one_task_at_a_time_does_not_shut_out_another_that_fewer_workers_run(s: Scheduler) -> None:
    s.attach(1, ("b",), ONE)
    s.attach(2, (), ONE)
    s.submit(task(1))
    s.submit(task(2))  # both are busy
    s.submit(Task(3, CALL, "b", niceness=20))
    ticket = 1
    for number in range(4, 40):
        s.submit(Task(number, CALL, None, niceness=-20))
        (assign, _) = s.finished(ticket, DONE)
        assert isinstance(assign, Assign)
        if assign.task.id == 3:
            break
        ticket = assign.ticket
    else:
        pytest.fail("the flow of 'b' is shut out")


def test_a_new_flow_does_not_shut_out_one_that_was_served_on_workers_of_its_own(s: Scheduler) -> None:
    s.attach(1, ("a",), ONE)
    s.attach(2, ("b",), ONE)
    s.submit(task(1, "b"))  # which takes long
    s.submit(task(2, "b"))
    ticket, number = 2, 3
    s.submit(task(number, "a"))
    for number in range(4, 104):  # `a` goes fast
        s.submit(task(number, "a"))
        commands = s.finished(ticket, DONE)
        (ticket,) = (command.ticket for command in commands if isinstance(command, Assign))
    for number in range(104, 110):
        s.submit(task(number, "a"))
    for number in range(110, 120):
        s.submit(task(number))
    series = []
    for _ in range(6):
        commands = s.finished(ticket, DONE)
        (assign,) = (command for command in commands if isinstance(command, Assign))
        ticket = assign.ticket
        series.append(assign.task.series)
    assert sorted(series, key=str) == [None] * 3 + ["a"] * 3


def test_a_group_whose_tasks_were_only_put_back_starts_its_flows_at_the_time_of_the_others(s: Scheduler) -> None:
    s.attach(1, (), ONE)
    s.submit(task(1, timeout=5.0))
    s.attach(2, ("a",), ONE)
    for number in range(2, 20):
        s.submit(task(number, "a"))
    for ticket in range(2, 12):
        s.finished(ticket, DONE)
    s.expired(1)
    for number in range(21, 30):
        s.submit(task(number))
    went = [assigned(s.finished(ticket, DONE))[0][1] for ticket in range(12, 17)]
    assert went == [1, 13, 21, 14, 22]


# Leaving and closing.


def test_a_worker_that_leaves_finishes_what_it_holds(s: Scheduler) -> None:
    s.attach(1, (), ONE)
    s.submit(task(1))
    assert s.detach(1, reassign=False) == []
    assert s.workers == []
    assert s.finished(1, DONE) == [Settle(1, DONE), Stop(1)]
    assert s.stopped(1) == []
    assert s.workerState(1) is WorkerState.GONE


def test_a_worker_that_leaves_with_reassign_gives_back_what_it_has_not_started() -> None:
    s = grown()
    assert s.detach(1, reassign=True) == [Recall(1)]
    s.finished(6, Recalled())
    assert s.detach(1, reassign=True) == [Recall(1)]
    s.finished(5, Recalled())
    assert s.detach(1, reassign=True) == [Recall(1)], "what it has room to run it may not have started either"
    assert s.finished(4, Recalled()) == [Stop(1)]
    assert s.detach(1, reassign=True) == []


def test_a_worker_that_leaves_keeps_its_iterators_to_their_end(s: Scheduler) -> None:
    s.attach(1, (), ONE)
    s.submit(task(1))
    assert s.finished(1, Iterating("it")) == [Settle(1, Iterating("it"))]
    assert s.detach(1, reassign=False) == []
    assert s.iterationEnded(1, 1) == [Stop(1)]


def test_what_a_worker_held_that_stopped_all_the_same_goes_elsewhere_or_is_lost(s: Scheduler) -> None:
    s.attach(1, (), Window(2, 2))
    s.submit(task(1, retries=0))
    s.submit(task(2))
    s.detach(1, reassign=False)
    assert s.stopped(1) == [Settle(1, Lost("the worker stopped"))]
    assert assigned(s.attach(2, (), ONE)) == [(2, 2)]


def test_what_a_worker_cannot_do_does_not_exist(s: Scheduler) -> None:
    s.attach(1, (), ONE)
    with pytest.raises(KeyError):
        s.stopped(1)


def test_shutdown_finishes_what_was_accepted_then_stops_every_worker(s: Scheduler) -> None:
    s.attach(1, (), ONE)
    s.submit(task(1))
    s.submit(task(2))
    assert (s.running, s.closed) == (True, False)
    assert s.shutdown() == []
    assert (s.running, s.closed) == (False, False)
    assert s.submit(task(3)) == [Settle(3, Refused("the queue is not running"))]
    assert assigned(s.finished(1, DONE)) == [(1, 2)]
    assert s.finished(2, DONE) == [Settle(2, DONE), Stop(1)]
    assert s.shutdown() == []
    assert s.stopped(1) == [Closed()]
    assert s.closed
    assert s.shutdown() == []


def test_during_shutdown_too_who_worked_last_goes_first(s: Scheduler) -> None:
    for number in (1, 2, 3):
        s.attach(number, (), ONE)
        s.submit(task(number))
    s.shutdown()
    s.finished(2, DONE)
    s.finished(1, DONE)
    assert assigned(s.lost(3)) == [(1, 3)]


def test_shutdown_refuses_what_nobody_can_run(s: Scheduler) -> None:
    s.submit(task(1, "a"))
    settle, closed = s.shutdown()
    assert settle == Settle(1, Refused("the queue shut down with no worker for series 'a'"))
    assert closed == Closed()


def test_a_queue_for_which_no_worker_will_come_refuses_what_is_queued_and_comes_back(s: Scheduler) -> None:
    s.attach(1, (), Window(2, 2))
    for number in (1, 2, 3):
        s.submit(task(number))
    why = Refused("no process can be started")
    assert s.strand(why.reason) == [Settle(3, why)]
    assert s.submit(task(4)) == [Settle(4, why)]
    assert s.finished(1, DONE) == [Settle(1, DONE)]
    assert s.finished(2, Recalled()) == [Settle(2, why)]


def test_shutdown_waits_for_a_sequential_update(s: Scheduler) -> None:
    s.attach(1, (), ONE)
    s.attach(2, (), ONE)
    u = update(1)
    s.update(u, [1, 2], save=False, sequential=True)
    assert s.shutdown() == []
    assert s.finished(1, DONE) == [Updated(1, 1, DONE), Assign(2, 2, u), Stop(1)]
    assert s.finished(2, DONE) == [Updated(1, 2, DONE), Stop(2)]
    assert s.workerState(1) is WorkerState.LEAVING


def test_shutdown_waits_for_an_update(s: Scheduler) -> None:
    s.attach(1, (), ONE)
    s.update(update(1), [1], save=False)
    assert s.shutdown() == []
    assert s.finished(1, DONE) == [Updated(1, 1, DONE), Stop(1)]


def test_cancelling_a_series_leaves_the_others_that_the_same_workers_run() -> None:
    s = Scheduler()
    for number, series in enumerate(("a", None, "a"), 1):
        s.submit(task(number, series))
    assert [c.task for c in s.cancelSeries("a") if isinstance(c, Settle)] == [1, 3]
    assert s.queued == 1


def test_calls_whose_time_ran_out_go_on_in_the_order_in_which_they_went() -> None:
    s = Scheduler()
    s.attach(1, (), Window(2, 2))
    tickets = [ticket for n in (1, 2) for _, ticket in assigned(s.submit(task(n, timeout=1.0)))]
    for ticket in reversed(tickets):
        s.expired(ticket)
    s.attach(2, (), Window())
    assert [t.id for t in s.held(2)] == [1]


def test_the_last_timeout_says_how_long_it_was() -> None:
    s = Scheduler()
    s.attach(1, (), Window())
    ((_, ticket),) = assigned(s.submit(task(1, timeout=2.5, retries=0)))
    assert Settle(1, TimedOut(2.5)) in s.expired(ticket)


def test_an_update_that_gives_an_iterator_is_refused_in_words() -> None:
    s = Scheduler()
    s.attach(1, (), Window())
    ((_, ticket),) = assigned(s.update(update(1), [1], save=False))
    (told,) = [c for c in s.finished(ticket, Iterating("source")) if isinstance(c, Updated)]
    assert isinstance(told.outcome, Raised)
    assert isinstance(told.outcome.error, TypeError)
    assert str(told.outcome.error).startswith("an update cannot return an iterator, as ")


def test_what_waits_beside_an_iterator_goes_to_a_worker_that_has_nothing_to_do(s: Scheduler) -> None:
    s.attach(1, (), ONE)
    s.attach(2, (), ONE)
    s.submit(task(1))
    s.finished(1, Iterating("it"))
    assert assigned(s.submit(task(2))) == [(2, 2)]
    t = task(3)
    assert s.submit(t) == [Assign(1, 3, t), Tick()]
    assert s.tick() == []  # nobody could do it sooner
    assert s.finished(2, DONE) == [Tick(), Settle(2, DONE)]
    assert s.tick() == [Recall(1)]
    assert assigned(s.finished(3, Recalled())) == [(2, 3)]


def test_what_a_worker_does_not_start_goes_to_one_that_has_nothing_to_do(s: Scheduler) -> None:
    s.attach(1, ["a"], ONE)
    s.attach(2, ["b"], ONE)
    assert assigned(s.submit(task(1, "a"))) == [(1, 1)]
    assert s.watching
    assert s.look() == []  # who has nothing to do may not run it
    s.qualify(2, "a")
    assert s.look() == [Recall(1)]
    assert s.look() == []  # it was asked, and has started what it did not give back
    assert assigned(s.finished(1, Recalled())) == [(2, 1)]
    assert s.look() == []  # the first one has given it back
    s.submit(task(2, "nobody's"))
    assert s.cancel(task(2, "nobody's")) == [Settle(2, Cancelled())]
    assert s.finished(2, DONE) == [Settle(1, DONE)]
    assert not s.watching


def test_what_some_have_given_back_goes_to_one_that_has_not_though_it_waited_less(s: Scheduler) -> None:
    for worker in (1, 2, 3):
        s.attach(worker, (), ONE)
    s.submit(task(1))
    s.submit(task(2))
    assert s.look() == [Recall(1), Recall(2)]
    assert assigned(s.finished(1, Recalled())) == [(3, 1)]
    s.finished(2, DONE)
    assert s.look() == [Recall(3)]
    assert assigned(s.finished(3, Recalled())) == [(2, 1)]


def test_a_worker_that_is_away_has_nothing_to_do_and_could_do_nothing_sooner(s: Scheduler) -> None:
    for worker in (1, 2):
        s.attach(worker, (), ONE)
    s.submit(task(1))
    s.resized(2, None)
    assert s.look() == []
    assert s.resized(2, ONE) == []
    assert s.look() == [Recall(1)]


def test_a_worker_is_asked_once_for_each_task_though_it_was_given_another_since(s: Scheduler) -> None:
    s.attach(1, ["a", "b"], Window(2, 2))
    s.attach(2, ["a"], ONE)
    s.submit(task(1, "a"))
    assert s.look() == [Recall(1)]
    assert assigned(s.submit(task(2, "b"))) == [(1, 2)]
    assert s.look() == []  # the first it has started, and the second is not for the other


def test_a_plain_call_calls_nothing_back_from_a_slow_worker() -> None:
    assert slowly().submit(task(5)) == []


def test_a_call_that_goes_next_calls_back_from_those_who_may_run_it() -> None:
    s = Validated()
    for worker, series in ((1, "a"), (2, "b")):
        s.attach(worker, [series], Window(1, 64))
        (assign,) = s.submit(task(worker, series))
        assert isinstance(assign, Assign)
        s.finished(assign.ticket, Returned(None, 2 * BUDGET))
        for number in (1, 2):
            s.submit(task(10 * worker + number, series))
    assert s.submit(Task(31, CALL, "b", doNext=True)) == [Recall(2)]


def test_a_call_that_goes_next_goes_to_a_fast_worker_at_once_though_a_slow_one_has_less_to_do() -> None:
    s = Validated()
    for worker, seconds in ((1, 2 * BUDGET), (2, 1e-6)):
        s.attach(worker, [worker], Window(1, 64))
        for number in range(1, 8):
            (assign, *_) = s.submit(task(10 * worker + number, worker))
            assert isinstance(assign, Assign)
            s.finished(assign.ticket, Returned(None, seconds))
    s.submit(task(31, 1))
    for number in (32, 33, 34):
        s.submit(task(number, 2))
    assert assigned(s.submit(Task(35, CALL, doNext=True))) == [(2, 35)]


def test_calls_whose_time_ran_out_go_on_in_the_order_in_which_they_went_and_not_in_that_of_their_numbers() -> None:
    s = Validated()
    s.attach(1, (), Window(2, 2))
    for number in (1, 2):
        s.submit(task(number))
    s.submit(task(3, timeout=1.0))
    s.submit(Task(4, CALL, doNext=True, timeout=1.0))
    s.finished(1, DONE)
    s.finished(2, DONE)
    for ticket in (3, 4):
        s.expired(ticket)
    assert assigned(s.finished(3, Interrupted())) == [(1, 4)]


def test_a_call_that_was_given_back_may_be_cancelled(s: Scheduler) -> None:
    s.attach(1, (), ONE)
    s.submit(task(1))
    s.submit(task(2))
    s.resized(1, None)
    assert s.finished(1, Recalled()) == []
    assert s.cancel(task(1)) == [Settle(1, Cancelled())]


def test_an_iterator_that_there_is_not_cannot_end(s: Scheduler) -> None:
    s.attach(1, (), ONE)
    s.submit(task(1))
    s.finished(1, Iterating("it"))
    s.iterationEnded(1, 9)
    s.iterationEnded(9, 1)
    assert s.iterations == 1


def test_of_a_worker_that_is_lost_the_iterators_end_and_of_others_they_go_on(s: Scheduler) -> None:
    for worker in (1, 2, 3):
        s.attach(worker, [worker], ONE)
        s.submit(task(worker, worker))
        s.finished(worker, Iterating("it"))
    s.lost(1)
    assert s.iterations == 2


def test_a_worker_that_runs_fewer_at_once_than_it_did_holds_the_others_ahead(s: Scheduler) -> None:
    s.attach(1, (), Window(3, 3))
    for number in (1, 2, 3):
        s.submit(task(number))
    s.resized(1, Window(1, 3))
    assert s.tick() == [Recall(1), Tick()]


def test_what_beside_an_iterator_is_the_next_has_a_budget_to_be_begun() -> None:
    s = Validated()
    s.attach(1, (), Window(1, 8))
    s.submit(task(1))
    s.finished(1, Iterating("it", 1e-6))
    for number in (2, 3):
        s.submit(task(number))
    assert len(s.held(1)) == 2
    s.attach(2, (), ONE)
    assert s.tick() == [Tick()]


def test_a_worker_alone_is_not_looked_at_beside_its_iterator(s: Scheduler) -> None:
    s.attach(1, (), ONE)
    s.submit(task(1))
    s.finished(1, Iterating("it"))
    assert [type(command) for command in s.submit(task(2))] == [Assign]


def test_a_worker_that_has_caught_up_is_left_alone() -> None:
    s = grown()
    for ticket in (4, 5):
        s.finished(ticket, Returned(None, 1e-6))
    assert s.tick() == []


def test_a_worker_that_is_lost_is_not_looked_at() -> None:
    s = grown()
    s.lost(1)
    assert s.tick() == []


def test_the_time_of_a_call_that_was_cancelled_before_it_began_does_not_run() -> None:
    s = Validated()
    s.attach(1, (), Window(1, 8))
    for number in (1, 2, 3):
        s.submit(task(number))
        s.finished(number, Returned(None, 1e-6))
    s.submit(task(4))
    s.submit(task(5, timeout=1.0))
    s.cancel(task(5))
    assert s.finished(4, Returned(None, 1e-6)) == [Settle(4, Returned(None, 1e-6))]


def test_an_update_that_was_not_begun_when_its_worker_left_is_answered_in_words(s: Scheduler) -> None:
    s.attach(1, (), ONE)
    s.submit(task(1))
    s.update(update(2), [1], save=False)
    assert s.detach(1, reassign=False) == [Updated(2, 1, Lost("the worker left"))]


def test_who_has_a_ticket_and_for_what_is_known_until_it_is_closed(s: Scheduler) -> None:
    s.attach(7, (), ONE)
    known = task(3)
    s.submit(known)
    assert s.assigned(1) == (7, known)
    s.finished(1, DONE)
    assert s.assigned(1) is None


def test_a_worker_that_is_qualified_keeps_its_other_qualifications(s: Scheduler) -> None:
    s.attach(1, ("a",), TWO)
    s.disconnected(1)
    s.qualify(1, "b")
    s.reconnected(1, TWO)
    s.qualify(1, "c")
    for number, series in enumerate(("a", "b", "c"), 1):
        assigns = assigned(s.submit(task(number, series=series)))
        assert assigns == [(1, number)]
        s.finished(number, DONE)
    for nobody in (s.qualify(9, "a"), s.disconnected(9), s.unreported(9), s.reconnected(9, ONE), s.unreported(1)):
        assert nobody == []


def test_a_saved_update_of_a_series_runs_on_workers_qualified_for_it(s: Scheduler) -> None:
    u, other = update(1, series="a"), update(2, series="b")
    s.attach(1, (), ONE)
    s.attach(2, ("b",), ONE)
    assert s.workersFor(u) == []
    assert s.workersFor(other) == [2]
    assert s.workersFor(update(3)) == [1, 2]
    assert s.update(u, [], save=True) == []
    assert s.update(other, [2], save=True) == [Assign(2, 1, other)]
    assert s.attach(3, ("a", "b"), ONE) == [Assign(3, 2, u)]
    assert s.qualify(1, "c") == []
    assert s.qualify(1, "a") == [Assign(1, 3, u)]
    assert s.finished(1, DONE) == [Updated(2, 2, DONE)]
    s.disconnected(2)
    assert s.workersFor(other) == [3]


def test_a_worker_that_is_qualified_twice_runs_an_update_of_the_series_once(s: Scheduler) -> None:
    u = update(1, series="a")
    s.update(u, [], save=True)
    assert s.attach(1, ("a",), ONE) == [Assign(1, 1, u)]
    assert s.qualify(1, "a") == []
    assert s.finished(1, DONE) == [Updated(1, 1, DONE), WorkerReady(1)]
    assert s.qualify(1, "a") == []


def test_what_a_worker_held_when_it_disconnected_says_why_it_is_lost(s: Scheduler) -> None:
    s.attach(1, (), ONE)
    s.submit(task(1, retries=0))
    s.update(update(2), [1], save=False)
    assert s.disconnected(1) == [Updated(2, 1, Lost("the worker is away"))]
    assert s.disconnected(1) == []
    assert s.workerState(1) is WorkerState.AWAY
    assert s.unreported(1) == [Settle(1, Lost("the worker is away"))]
    assert s.reconnected(1, ONE) == [WorkerReady(1)]


def test_a_worker_that_reconnects_has_the_window_of_a_new_one(s: Scheduler) -> None:
    s.attach(1, (), Window(1, 64))
    for number in range(1, 9):
        s.submit(task(number))
        s.finished(number, Returned(None, 0.00001))
    s.disconnected(1)
    s.unreported(1)
    s.reconnected(1, Window(1, 64))
    commands = [command for number in range(20, 24) for command in s.submit(task(number))]
    assert assigned(commands) == [(1, 20)], "it holds what it runs, until its calls are known to be quick"


def test_a_look_asks_a_worker_once_for_what_an_idle_one_may_run(s: Scheduler) -> None:
    s.attach(1, (), ONE)
    s.submit(task(1))
    assert s.look() == [], "no worker is idle"
    s.attach(2, (), ONE)
    assert s.look() == [Recall(1)], "worker 1 may not have started it"
    assert s.look() == []
    assert assigned(s.finished(1, Recalled())) == [(2, 1)]


class TestSeriesWithoutAWorker:
    def test_a_series_that_no_worker_is_qualified_for_is_reported_once(self) -> None:
        s = Validated()
        s.attach(1, ["a"], ONE)
        assert s.submit(task(1, "b")) == []
        assert s.submit(task(2, "b")) == []
        assert (s.unreviewed, s.unserved) == (True, 2)
        assert s.reviewUnserved() == [Unserved("b", 2)]
        assert not s.unreviewed
        s.submit(task(3, "b"))
        assert s.reviewUnserved() == []
        assert s.unserved == 3

    def test_a_call_that_a_worker_may_run_needs_no_review(self) -> None:
        s = Validated()
        s.attach(1, ["a"], ONE)
        for number in range(1, 4):
            s.submit(task(number, "a"))
            assert (s.unreviewed, s.unserved) == (False, 0)

    def test_a_series_is_reported_again_when_its_worker_has_come_and_gone(self) -> None:
        s = Validated()
        s.submit(task(1, "a"))
        assert s.reviewUnserved() == [Unserved("a", 1)]
        s.attach(1, ["a"], ONE)
        assert (s.unreviewed, s.unserved) == (False, 0)
        s.submit(task(2, "a"))
        s.lost(1)
        assert s.reviewUnserved() == [Unserved("a", 2)]

    def test_a_series_is_reported_again_when_its_worker_was_qualified_later_and_left(self) -> None:
        s = Validated()
        s.attach(1, (), ONE)
        s.submit(task(1, "a"))
        assert s.reviewUnserved() == [Unserved("a", 1)]
        assert assigned(s.qualify(1, "a")) == [(1, 1)]
        s.submit(task(2, "a"))
        s.detach(1, reassign=False)
        assert s.reviewUnserved() == [Unserved("a", 1)]

    def test_a_worker_that_is_away_is_qualified_until_it_is_gone(self) -> None:
        s = Validated()
        s.attach(1, ["a"], ONE)
        s.disconnected(1)
        s.submit(task(1, "a"))
        assert s.unserved == 0
        assert s.reviewUnserved() == []
        s.lost(1)
        assert s.unreviewed
        assert s.reviewUnserved() == [Unserved("a", 1)]

    def test_calls_without_a_series_need_any_worker(self) -> None:
        s = Validated()
        s.submit(task(1))
        assert s.reviewUnserved() == [Unserved(None, 1)]

    def test_a_cancelled_call_is_not_reported(self) -> None:
        s = Validated()
        s.submit(task(1, "a"))
        s.cancel(task(1, "a"))
        assert not s.unreviewed
        assert s.reviewUnserved() == []

    def test_a_series_for_each_call_does_not_fill_the_log(self) -> None:
        s = Validated()
        for number in range(1, 2 * REPORTED):
            s.submit(task(number, f"series {number}"))
        assert len(s.reviewUnserved()) == REPORTED
        s.submit(task(2 * REPORTED, "one more"))
        assert s.reviewUnserved() == []
        assert s.unserved == 2 * REPORTED
