"""The fair order against the textbook: tags given on arrival, the lowest next."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable

import attrs
from hypothesis import given
from hypothesis import strategies as st

from asynqueue.core.records import CallSpec, Task
from asynqueue.core.scheduling.fairness import FAIR, LAST, NEXT, RETURNED, FairQueue, Place, weight

CALL = CallSpec.of(print)
FLOWS = st.tuples(st.sampled_from(("a", "b", None)), st.sampled_from((-20, -10, 0, 20)))


@attrs.define
class Textbook:
    """Self-Clocked Fair Queueing as Golestani defines it: a tag for each task as it arrives."""

    time: int = 0
    last: dict[Hashable, int] = attrs.field(factory=dict)
    queued: dict[Hashable, deque[tuple[int, int]]] = attrs.field(factory=dict)

    def add(self, task: Task) -> None:
        flow = (task.series, task.niceness)
        tag = max(self.last.get(flow, 0), self.time) + weight(task.niceness)
        self.last[flow] = tag
        self.queued.setdefault(flow, deque()).append((tag, task.id))

    def pop(self) -> int:
        flow = min((f for f in self.queued if self.queued[f]), key=lambda f: self.queued[f][0])
        self.time, task = self.queued[flow].popleft()
        return task


@given(st.lists(st.one_of(FLOWS, st.none()), max_size=120))
def test_order_is_that_of_the_textbook(events: list[tuple[str | None, int] | None]) -> None:
    queue, textbook = FairQueue(), Textbook()
    for number, flow in enumerate(events, 1):
        if flow is not None:
            task = Task(number, CALL, *flow)
            queue.add(task)
            textbook.add(task)
        elif queue:
            place, task = queue.pop()
            assert task.id == textbook.pop()
            assert place == (FAIR, textbook.time, task.id)
        queue.validate()


@given(st.data(), st.integers(1, 12))
def test_fair_shares(data: st.DataObject, steps: int) -> None:
    """Golestani's bound for each two flows that are backlogged throughout, beside others that come and go."""
    queue = FairQueue()
    flows = data.draw(st.lists(FLOWS, min_size=2, max_size=5, unique=True))
    number = 0
    served: Counter[Hashable] = Counter()
    history = [dict(served)]
    for _ in range(steps):
        for flow in flows:
            for _ in range(12):
                number += 1
                queue.add(Task(number, CALL, *flow))
        number += 1
        queue.add(Task(number, CALL, "other", data.draw(st.sampled_from((-20, 20)))))
        head = queue.peek()
        assert head is not None
        queue.reached(data.draw(st.sampled_from((queue.time, head.order))))
        for _ in range(data.draw(st.integers(1, 12))):
            _, task = queue.pop()
            served[task.series, task.niceness] += 1
            history.append(dict(served))
            queue.validate()
    for one in flows:
        for two in flows:
            lead = [past.get(one, 0) * weight(one[1]) - past.get(two, 0) * weight(two[1]) for past in history]
            if one != two:
                assert max(lead) - min(lead) <= weight(one[1]) + weight(two[1])


@given(st.data())
def test_nothing_lost_nothing_doubled(data: st.DataObject) -> None:
    """Whatever is added, placed, removed and moved between queues comes out once, or was removed."""
    queue = FairQueue()
    inside: dict[int, Task] = {}
    for number in range(1, data.draw(st.integers(1, 60))):
        what = data.draw(st.sampled_from(("add", "add", "add", "place", "pop", "remove", "remove", "move")))
        if what == "add":
            flow = data.draw(FLOWS)
            queue.add(Task(number, CALL, *flow, doNext=number % 7 == 0, doLast=number % 11 == 0))
            inside[number] = next(t for t in queue if t.id == number)
        elif what == "place":
            inside[number] = Task(number, CALL)
            queue.place(
                Place(data.draw(st.sampled_from((0, NEXT, RETURNED, LAST))), 60 - number, number), inside[number]
            )
        elif what == "pop" and inside:
            first = queue.peek()
            place, task = queue.pop()
            assert place == first
            assert inside.pop(task.id) is task
        elif what == "remove" and inside:
            queue.remove(inside.pop(data.draw(st.sampled_from(sorted(inside)))))
        elif what == "move":
            moved = FairQueue()
            for _, part in queue.split():
                moved.absorb(part, queue.time + 1000)
            queue = moved
        queue.validate()
        assert bool(queue) == bool(inside)
        assert sorted(t.id for t in queue) == sorted(inside)
        for series in ("a", "b", None):
            assert {t.id for t in queue.ofSeries(series)} == {t.id for t in inside.values() if t.series == series}
    while inside:
        del inside[queue.pop()[1].id]
        queue.validate()
    assert queue.peek() is None


@given(st.integers(-20, 19))
def test_weight_grows_with_niceness(niceness: int) -> None:
    assert 100 <= weight(niceness) < weight(niceness + 1) <= 1700


@given(st.lists(st.tuples(st.sampled_from(("add", "pop", "remove")), st.integers(1, 150)), max_size=12), st.data())
def test_what_stands_in_a_flow_is_found_and_nothing_else(steps: list[tuple[str, int]], data: st.DataObject) -> None:
    queue = FairQueue()
    waiting: dict[int, Task] = {}
    every: list[Task] = []
    for step, number in steps:
        if step == "add":
            for _ in range(number):
                task = Task(len(every) + 1, CALL)
                every.append(task)
                waiting[task.id] = task
                queue.add(task)
        elif step == "pop":
            for _ in range(min(number, len(waiting))):
                assert queue.pop()[1] is waiting.pop(next(iter(waiting)))
        else:
            gone = sorted(waiting)
            for taskID in data.draw(st.permutations(gone))[:number] if number % 2 else gone[:number]:
                queue.remove(waiting.pop(taskID))
        queue.validate()
        assert list(queue) == list(waiting.values())
        assert [task for task in every if task in queue] == list(waiting.values())
    assert Task(len(every) + 1, CALL) not in queue
    assert Task(1, CALL, doNext=True) not in queue
    assert Task(1, CALL, "another series") not in queue
