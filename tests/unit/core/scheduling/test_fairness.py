"""What the fair order is, in a few sentences."""

from __future__ import annotations

from weakref import ref

import pytest

from asynqueue.core.records import CallSpec, Task
from asynqueue.core.scheduling.fairness import FAIR, FRONT, LAST, NEXT, RETURNED, FairQueue, Place, weight

CALL = CallSpec.of(print)


def queueOf(*tasks: Task) -> FairQueue:
    queue = FairQueue()
    for task in tasks:
        queue.add(task)
    queue.validate()
    return queue


def order(queue: FairQueue) -> list[int]:
    """The numbers of the tasks as they come out."""
    numbers = []
    while queue:
        numbers.append(queue.pop()[1].id)
        queue.validate()
    return numbers


def test_a_weight_is_one_and_a_square() -> None:
    assert [weight(n) for n in (-20, -10, 0, 10, 20)] == [100, 200, 500, 1000, 1700]


def test_one_flow_is_first_in_first_out() -> None:
    assert order(queueOf(*(Task(n, CALL) for n in range(1, 6)))) == [1, 2, 3, 4, 5]


def test_a_flow_of_twice_the_weight_gets_half() -> None:
    a = [Task(n, CALL, "a", 0) for n in range(1, 5)]
    b = [Task(n, CALL, "b", 10) for n in range(5, 7)]
    assert order(queueOf(*a, *b)) == [1, 2, 5, 3, 4, 6]


def test_a_flow_that_comes_later_does_not_wait_for_the_backlog() -> None:
    queue = queueOf(*(Task(n, CALL, "a") for n in range(1, 101)))
    assert [queue.pop()[1].id for _ in range(50)] == list(range(1, 51))
    queue.add(Task(101, CALL, "b"))
    assert [queue.pop()[1].id for _ in range(3)] == [51, 101, 52]


def test_a_flow_with_one_task_at_a_time_does_not_shut_out_another() -> None:
    queue = queueOf(Task(1, CALL, "a", 20))
    favoured = 0
    while True:
        queue.add(Task(2 + favoured, CALL, "b", -20))
        if queue.pop()[1].id == 1:
            break
        favoured += 1
    assert favoured == 16  # and the seventeenth weighs as much as the one task of "a", which came first


def test_the_bands_go_before_and_after_the_fair_order() -> None:
    queue = queueOf(Task(1, CALL, doLast=True), Task(2, CALL), Task(3, CALL, doNext=True))
    queue.place(Place(RETURNED, 1, 4), Task(4, CALL))
    queue.place(Place(FRONT, 1, 5), Task(5, CALL))
    assert order(queue) == [5, 3, 4, 2, 1]


def test_the_place_of_a_task_says_where_it_stood() -> None:
    assert queueOf(Task(1, CALL, doNext=True)).pop()[0] == Place(NEXT, 0, 1)
    assert queueOf(Task(1, CALL)).pop()[0] == Place(FAIR, 500, 1)
    assert queueOf(Task(1, CALL, doLast=True)).pop()[0] == Place(LAST, 0, 1)


def test_a_removed_task_does_not_go() -> None:
    tasks = [Task(n, CALL, doNext=n > 8) for n in range(1, 11)]
    queue = queueOf(*tasks)
    for n in (1, 4, 5, 8, 9):
        queue.remove(tasks[n - 1])
        queue.validate()
    assert order(queue) == [10, 2, 3, 6, 7]


def test_what_was_removed_is_forgotten_while_others_go() -> None:
    """Else a long-lived queue would keep an entry for each call that was ever cancelled."""
    for kw in ({"doNext": True}, {}):
        tasks = [Task(n, CALL, n, **kw) for n in range(1, 101)]
        queue = queueOf(*tasks)
        for task in tasks[45:]:
            queue.remove(task)
            queue.validate()
        assert order(queue) == list(range(1, 46))


def test_what_was_removed_is_let_go_of_though_the_first_of_its_flow_stays() -> None:
    queue = queueOf(Task(0, CALL))
    removed = []
    for number in range(1, 100):
        task = Task(number, CallSpec(max))
        queue.add(task)
        queue.remove(task)
        removed.append(ref(task.call))
        del task
        assert sum(call() is not None for call in removed) <= 1


def test_what_is_left_keeps_its_order_when_others_are_forgotten() -> None:
    tasks = [Task(n, CALL, n, niceness=n * 29 % 41 - 20) for n in range(1, 101)]
    queue = queueOf(*tasks)
    for task in tasks:
        if task.id % 4:
            queue.remove(task)
            queue.validate()
    left = [task for task in tasks if task.id % 4 == 0]
    assert order(queue) == [t.id for t in sorted(left, key=lambda t: (weight(t.niceness), t.id))]


def test_of_two_flows_at_one_time_that_goes_first_whose_task_came_first_not_counting_what_was_removed() -> None:
    tasks = [Task(n, CALL, "b" if n in (2, 4) else "a") for n in (1, 2, 3, 4, 5, 7)]
    queue = queueOf(*tasks)
    queue.remove(tasks[2])
    assert order(queue) == [1, 2, 4, 5, 7]


def test_an_empty_queue_has_nothing_to_give() -> None:
    queue = FairQueue()
    assert queue.peek() is None
    with pytest.raises(IndexError, match=r"^pop from an empty FairQueue$"):
        queue.pop()


def test_only_a_queue_without_flows_starts_over() -> None:
    queue = queueOf(Task(1, CALL, doNext=True))
    queue.joinAt(70)
    queue.add(Task(2, CALL))
    assert [queue.pop()[0] for _ in range(2)] == [Place(NEXT, 0, 1), Place(FAIR, 570, 2)]
    queue.add(Task(3, CALL))
    with pytest.raises(ValueError, match=r"^only a queue without flows can start over$"):
        queue.joinAt(0)


def test_time_that_was_reached_does_not_go_back() -> None:
    queue = FairQueue()
    queue.reached(400)
    queue.reached(300)
    assert queue.time == 400


def test_a_queue_is_split_by_series_and_put_together_at_one_time() -> None:
    queue = queueOf(Task(1, CALL, "a"), Task(2, CALL, "a"), Task(3, CALL, "b", 20), Task(4, CALL, "b", doNext=True))
    assert [queue.pop()[1].id for _ in range(2)] == [4, 1]
    whole = FairQueue()
    for series, part in queue.split():
        part.validate()
        assert {task.series for task in part} == {series}
        whole.absorb(part, 10_000)
    whole.validate()
    assert [whole.pop()[0] for _ in range(2)] == [Place(FAIR, 10_500, 2), Place(FAIR, 11_200, 3)]


def test_what_was_taken_out_is_forgotten_before_it_outnumbers_the_rest() -> None:
    queue = queueOf(*(Task(number, CALL) for number in range(1, 101)))
    (flow,) = queue._flows.values()
    for number in range(2, 101):
        queue.remove(Task(number, CALL))
        assert len(flow.tasks) <= 2 * flow.live
    assert order(queue) == [1]
