"""Niceness and series -> order: Self-Clocked Fair Queueing, exact and in integers.

Theory of operation. The tasks of one (series, niceness) are a *flow*, first in first out. A flow has a
*weight*, what one of its tasks costs: 1 + ((niceness + 20)/10)**2, kept in hundredths so that every sum here is
an integer and exact. The task at the head of a flow carries a *tag*; the lowest tag goes next. When a flow's
task goes, the next one's tag is higher by the weight; a flow that was empty starts at the *virtual time*, which
is the tag of the task that went last, plus its weight. So a flow's tags grow in proportion to what it was
served times its weight, and no two backlogged flows drift apart by more than the sum of their weights. The
scheme and the bound are S. J. Golestani's (INFOCOM 1994).

Since the tags of one flow grow by its weight, only the head's is kept: a queued task costs a place in a list.

One `FairQueue` holds the flows that *the same workers* may run. SCFQ is defined for a single server; with one
virtual time over flows that different workers serve, a fast worker's flow would push the time ahead and a new
flow would then wait behind flows that only a slow worker serves. The scheduler has a queue for each set of
workers, and brings their times together where they meet (`joinAt`, `reached`, `absorb`).

Around the fair order lie *bands*, in which single tasks are placed: put first after a timeout, next, put back
by a worker that had not started them; and after the fair order, last.

Rules: all order is decided here; O(log flows) a task and O(1) for a flow's further tasks; O(log n) to find one of n
tasks and take it out, which leaves a gap that is skipped, and gaps are swept out before they outnumber the tasks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterator
from heapq import heapify, heappop, heappush, heapreplace
from operator import attrgetter
from typing import NamedTuple

from asynqueue.core.records import NICENESS_MAX, NICENESS_MIN, CallSpec, Task

FRONT, NEXT, RETURNED, FAIR, LAST = range(5)
"""The bands, in the order in which they are served."""


class Place(NamedTuple):
    """Where a task stands: a lower place goes first."""

    band: int
    order: int
    task: int


def weight(niceness: int) -> int:
    """What one task of NICENESS costs its flow, in hundredths: 100 at -20, 500 at 0, 1700 at 20."""
    return 100 + (niceness + 20) ** 2


class _Flow:
    """The queued tasks of one series and niceness, in the order of submission.

    Their numbers go up, so one of them is found by bisection. What went stands before `start`, what was taken out
    leaves a gap.
    """

    __slots__ = ("key", "live", "start", "tag", "tasks", "weight")

    def __init__(self, key: Hashable, weight: int, tag: int) -> None:
        self.key = key
        self.weight = weight
        self.tag = tag
        self.tasks: list[Task] = []
        self.start: int = 0
        self.live: int = 0  # how many wait

    def __contains__(self, number: int) -> bool:
        at = bisect_left(self.tasks, number, key=_number)
        return at < len(self.tasks) and self.tasks[at].id == number and self.tasks[at].call is not _NOTHING

    def __iter__(self) -> Iterator[Task]:
        return (task for task in self.tasks[self.start :] if task.call is not _NOTHING)

    def append(self, task: Task) -> None:
        self.tasks.append(task)
        self.live += 1

    def head(self) -> Task:
        while self.tasks[self.start].call is _NOTHING:
            self._step()
        return self.tasks[self.start]

    def take(self) -> Task:
        task = self.head()
        self.live -= 1
        self._step()
        return task

    def remove(self, task: Task) -> None:
        self.tasks[bisect_left(self.tasks, task.id, key=_number)] = Task(task.id, _NOTHING)
        self.live -= 1
        if len(self.tasks) - self.start > 2 * self.live:
            self.tasks = list(self)
            self.start = 0

    def _step(self) -> None:
        """The first task stands here no more."""
        start = self.start
        self.tasks[start] = _GONE
        self.start = start = start + 1
        if start > 64 and 2 * start > len(self.tasks):
            del self.tasks[:start]
            self.start = 0


_NOTHING = CallSpec(len)
"""The call of what stands for a task that stands there no more, which is kept no longer than it is needed."""

_GONE = Task(0, _NOTHING)
"""Stands for one that went: its number is below that of any task."""

_number: Callable[[Task], int] = attrgetter("id")


class FairQueue:
    """The queued tasks that one set of workers may run, in the order in which they go."""

    __slots__ = ("_fair", "_flows", "_heap", "_places", "time")

    def __init__(self) -> None:
        self.time: int = 0
        self._flows: dict[Hashable, _Flow] = {}
        self._fair: list[tuple[int, int, _Flow]] = []
        self._places: dict[int, tuple[Place, Task]] = {}
        self._heap: list[Place] = []

    def __bool__(self) -> bool:
        return bool(self._flows) or bool(self._places)

    @property
    def backlogged(self) -> bool:
        """True while a task waits in the fair order."""
        return bool(self._flows)

    def __iter__(self) -> Iterator[Task]:
        """Every task, in no particular order."""
        for _, task in self._places.values():
            yield task
        for flow in self._flows.values():
            yield from flow

    def __contains__(self, task: Task) -> bool:
        """Whether TASK stands here."""
        if task.id in self._places:
            return True
        if task.doNext or task.doLast:
            return False
        flow = self._flows.get((task.series, task.niceness))
        return flow is not None and task.id in flow

    def ofSeries(self, series: Hashable) -> list[Task]:
        """Every task of SERIES, in no particular order."""
        tasks = [task for _, task in self._places.values() if task.series == series]
        for niceness in range(NICENESS_MIN, NICENESS_MAX + 1):
            flow = self._flows.get((series, niceness))
            if flow is not None:
                tasks += flow
        return tasks

    def add(self, task: Task) -> None:
        """Take TASK as new: next, last, or at the end of its flow."""
        if task.doNext:
            self.place(Place(NEXT, 0, task.id), task)
        elif task.doLast:
            self.place(Place(LAST, 0, task.id), task)
        else:
            key = (task.series, task.niceness)
            flow = self._flows.get(key)
            if flow is None:
                cost = weight(task.niceness)
                flow = self._flows[key] = _Flow(key, cost, self.time + cost)
                heappush(self._fair, (flow.tag, task.id, flow))
            flow.append(task)

    def place(self, place: Place, task: Task) -> None:
        """Take TASK at PLACE, which is not in the fair band."""
        self._places[task.id] = (place, task)
        heappush(self._heap, place)

    def remove(self, task: Task) -> None:
        """Take TASK out, wherever it stands."""
        if self._places.pop(task.id, None) is None:
            flow = self._flows[task.series, task.niceness]
            flow.remove(task)
            if not flow.live:
                del self._flows[flow.key]
        self._sweep()

    def peek(self) -> Place | None:
        """The place of the task that goes next."""
        placed = self._placedHead()
        fair = self._fairHead()
        if fair is None:
            return placed
        if placed is not None and placed.band < FAIR:
            return placed
        return Place(FAIR, fair.tag, fair.head().id)

    def pop(self) -> tuple[Place, Task]:
        """The task that goes next, with its place; it is taken out, and the virtual time moves with it."""
        placed = self._placedHead() if self._heap else None
        flow = self._fairHead()
        if placed is not None and (flow is None or placed.band < FAIR):
            heappop(self._heap)
            found = self._places.pop(placed.task)
            self._sweep()
            return found
        if flow is None:
            raise IndexError("pop from an empty FairQueue")
        self.time = flow.tag
        task = flow.take()
        place = Place(FAIR, flow.tag, task.id)
        if flow.live:
            flow.tag += flow.weight
            heapreplace(self._fair, (flow.tag, flow.head().id, flow))
        else:
            heappop(self._fair)
            del self._flows[flow.key]
            self._sweep()
        return place, task

    def joinAt(self, time: int) -> None:
        """Start over at virtual TIME: this queue is to have flows again, while others, at TIME, have some."""
        if self._flows:
            raise ValueError("only a queue without flows can start over")
        self.time = time

    def reached(self, time: int) -> None:
        """A worker of this queue has taken a task with the tag TIME from another, as the lowest there was."""
        if self.time < time:
            self.time = time

    def absorb(self, other: FairQueue, time: int) -> None:
        """Take all tasks of OTHER, whose flows keep their lead over its virtual time as a lead over TIME."""
        self.time = time
        for place, task in other._places.values():
            self.place(place, task)
        for key, flow in other._flows.items():
            flow.tag += time - other.time
            self._flows[key] = flow
            heappush(self._fair, (flow.tag, flow.head().id, flow))

    def split(self) -> Iterator[tuple[Hashable, FairQueue]]:
        """This queue's tasks as one queue a series, each at this queue's virtual time."""
        parts: dict[Hashable, FairQueue] = {}

        def part(series: Hashable) -> FairQueue:
            if series not in parts:
                parts[series] = FairQueue()
                parts[series].time = self.time
            return parts[series]

        for place, task in self._places.values():
            part(task.series).place(place, task)
        for flow in self._flows.values():
            queue = part(flow.head().series)
            queue._flows[flow.key] = flow
            queue._fair.append((flow.tag, flow.head().id, flow))
        for queue in parts.values():
            heapify(queue._fair)
        yield from parts.items()

    def validate(self) -> None:
        """Assert that heads lead the virtual time by no more than their weight, and that what went is not kept."""
        for key, flow in self._flows.items():
            assert flow.live, "an empty flow is forgotten"
            tasks = list(flow)
            assert flow.live == len(tasks)
            assert 2 * flow.start <= len(flow.tasks) or flow.start <= 64, "what went is forgotten"
            assert flow.key == key
            assert self.time <= flow.tag <= self.time + flow.weight, (self.time, flow.tag, flow.weight)
            assert all(t is _GONE for t in flow.tasks[: flow.start]), "what went is not kept"
            ids = [t.id for t in tasks]
            assert ids == sorted(ids), "a flow is first in, first out"
        live = [entry[2] for entry in self._fair if entry[2].live]
        assert len(live) == len(self._flows)
        assert all(flow is self._flows[flow.key] for flow in live)
        assert len(self._fair) <= 2 * len(self._flows) + 16
        assert len(self._heap) <= 2 * len(self._places) + 16
        assert all(place.band != FAIR for place, _ in self._places.values())

    def _sweep(self) -> None:
        """Forget the entries of what was removed before they outnumber the others."""
        if len(self._heap) > 2 * len(self._places) + 16:
            self._heap = sorted(place for place, _ in self._places.values())
        if len(self._fair) > 2 * len(self._flows) + 16:
            self._fair = [entry for entry in self._fair if entry[2].live]
            heapify(self._fair)

    def _placedHead(self) -> Place | None:
        while self._heap:
            place = self._heap[0]
            held = self._places.get(place.task)
            if held is not None and held[0] == place:
                return place
            heappop(self._heap)
        return None

    def _fairHead(self) -> _Flow | None:
        while self._fair:
            flow = self._fair[0][2]
            if flow.live:
                return flow
            heappop(self._fair)
        return None
