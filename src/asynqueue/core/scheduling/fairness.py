"""Order the queued tasks of one set of workers: bands, and between them Self-Clocked Fair Queueing.

The tasks of one (series, niceness) are a *flow*, first in first out. A flow has a *weight*: what one of its tasks
costs, 1 + ((niceness + 20)/10)**2, kept in hundredths so that every sum is an exact integer.

- The task at the head of a flow carries a *tag*. The lowest tag goes next.
- When a flow's task goes, the tag of its next task is higher by the weight.
- The *virtual time* is the tag of the task that went last. A flow that was empty starts at the virtual time plus its
  weight.

So a flow's tags grow in proportion to what it was served times its weight. Two backlogged flows never drift apart by
more than the sum of their weights. The scheme and the bound are from S. J. Golestani (INFOCOM 1994). Only the head's
tag is kept: a further queued task costs one place in a list.

One `FairQueue` holds the flows that *the same workers* may run, because the scheme is defined for a single server.
With one virtual time for all workers, the flow of a fast worker would push the time ahead, and a new flow would wait
behind flows that only a slow worker serves. `asynqueue.core.scheduling.matching` has a queue for each set of
workers. It brings their times together where the sets meet (`joinAt`, `reached`, `absorb`).

Single tasks stand in *bands* around the fair order. Before it: tasks whose time ran out, doNext tasks, and tasks that
came back from a worker, unstarted or because it died. After it: doLast tasks.

Cost: O(log flows) a task, and O(1) for further tasks of a flow; O(log n) to find and remove one of n tasks. A removed
task leaves a gap, which is skipped. Gaps are removed before they outnumber the tasks.
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
    """The place of a task: a lower place goes first."""

    band: int
    order: int
    task: int


def weight(niceness: int) -> int:
    """Return what one task costs its flow, in hundredths: 100 at niceness -20, 500 at 0, 1700 at 20."""
    return 100 + (niceness + 20) ** 2


class _Flow:
    """The queued tasks of one series and niceness, in the order of submission.

    Their numbers increase, so a task is found by bisection. Tasks that went stand before `start`. A removed task
    leaves a gap.
    """

    __slots__ = ("key", "live", "start", "tag", "tasks", "weight")

    def __init__(self, key: Hashable, weight: int, tag: int) -> None:
        self.key = key
        self.weight = weight
        self.tag = tag
        self.tasks: list[Task] = []
        self.start: int = 0
        self.live: int = 0  # the number of queued tasks

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
        task = self.tasks[self.start]
        if task.call is _NOTHING:
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
        """Move the start past the first task."""
        start = self.start
        self.tasks[start] = _GONE
        self.start = start = start + 1
        if start > 64 and 2 * start > len(self.tasks):
            del self.tasks[:start]
            self.start = 0


_NOTHING = CallSpec(len)
"""The call of a placeholder for a removed task, so that the task's own call is not kept."""

_GONE = Task(0, _NOTHING)
"""A placeholder for a task that went: its number is below that of any task."""

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
        """True while a task is in the fair order."""
        return bool(self._flows)

    def __iter__(self) -> Iterator[Task]:
        """Iterate over all tasks, in no particular order."""
        for _, task in self._places.values():
            yield task
        for flow in self._flows.values():
            yield from flow

    def __contains__(self, task: Task) -> bool:
        """Return whether a task is in this queue."""
        if task.id in self._places:
            return True
        if task.doNext or task.doLast:
            return False
        flow = self._flows.get((task.series, task.niceness))
        return flow is not None and task.id in flow

    def ofSeries(self, series: Hashable) -> list[Task]:
        """Return the tasks of a series, in no particular order."""
        tasks = [task for _, task in self._places.values() if task.series == series]
        for niceness in range(NICENESS_MIN, NICENESS_MAX + 1):
            flow = self._flows.get((series, niceness))
            if flow is not None:
                tasks += flow
        return tasks

    def add(self, task: Task) -> None:
        """Add a new task: to the band of doNext or doLast, or at the end of its flow."""
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
        """Add a task at a place that is not in the fair band."""
        self._places[task.id] = (place, task)
        heappush(self._heap, place)

    def remove(self, task: Task) -> None:
        """Remove a task."""
        if self._places.pop(task.id, None) is None:
            flow = self._flows[task.series, task.niceness]
            flow.remove(task)
            if not flow.live:
                del self._flows[flow.key]
        self._sweep()

    def peek(self) -> Place | None:
        """Return the place of the task that goes next, or None."""
        placed = self._placedHead()
        fair = self._fairHead()
        if fair is None:
            return placed
        if placed is not None and placed.band < FAIR:
            return placed
        return Place(FAIR, fair.tag, fair.head().id)

    def pop(self) -> tuple[Place, Task]:
        """Remove and return the task that goes next, with its place. The virtual time moves to its tag."""
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
        """Restart at the virtual time of other queues that have flows: this one is about to have flows again."""
        if self._flows:
            raise ValueError("only a queue without flows can start over")
        self.time = time

    def reached(self, time: int) -> None:
        """Note that a worker has taken a task with the tag `time` from another queue, as the lowest tag of all."""
        if self.time < time:
            self.time = time

    def absorb(self, other: FairQueue, time: int) -> None:
        """Add all tasks of another queue. The lead of its flows over its virtual time becomes a lead over `time`."""
        self.time = time
        for place, task in other._places.values():
            self.place(place, task)
        for key, flow in other._flows.items():
            flow.tag += time - other.time
            self._flows[key] = flow
            heappush(self._fair, (flow.tag, flow.head().id, flow))

    def bySeries(self) -> dict[Hashable, int]:
        """Return the number of tasks of each series. O(flows and places)."""
        counts: dict[Hashable, int] = {}
        for _, task in self._places.values():
            counts[task.series] = counts.get(task.series, 0) + 1
        for flow in self._flows.values():
            series = flow.head().series
            counts[series] = counts.get(series, 0) + flow.live
        return counts

    def split(self) -> Iterator[tuple[Hashable, FairQueue]]:
        """Return the tasks as one queue for each series, each at this queue's virtual time."""
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
        """Assert that heads lead the virtual time by at most their weight, and that no task that went is kept."""
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
        """Remove the entries of removed tasks before they outnumber the others."""
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
