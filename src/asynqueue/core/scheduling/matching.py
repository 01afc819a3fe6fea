"""Match workers that have room with queued tasks: which worker takes a task next, and which task.

Workers with the same qualifications form a *class*. Series that the same classes may run form a *group*, with one
`FairQueue`. Two rules make a match:

1. *The worker*: of those with room, the one with the fewest unfinished tasks. Of several, one that is warm (it has
   worked and is idle now), and of these the last one that became idle. Else the one that has waited longest.
2. *The task*: the one with the lowest place in the worker's groups.

To a worker, its groups are the flows of a single server, so their virtual times meet:

- When a worker takes a task with some tag, no group of the worker has a lower one. The virtual time of each becomes
  that tag.
- A group that had no flow starts at the time of the most advanced group that has flows and shares a worker with it.
  From there on they share that worker. From an earlier start, the group would shut the other out until it caught up.
- Without such a group, it starts at the highest time of all.
- When the classes change, all groups restart at one time.

Cost: O(log n) a task with n queued, times the number of classes and groups, which are few.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Hashable, Iterator, Mapping
from heapq import heapify, heappop, heappush, heapreplace
from itertools import chain

from asynqueue.core.records import Task
from asynqueue.core.scheduling.commands import Unserved
from asynqueue.core.scheduling.fairness import FAIR, FairQueue, Place
from asynqueue.core.scheduling.states import WorkerState
from asynqueue.core.scheduling.window import AdaptiveWindow, Window

UNSERVED = 5.0
"""Seconds from when a task is queued for which no worker is qualified until its series is reported."""

REPORTED = 100
"""The most series that are reported while no worker for any of them comes."""

SERIES_KNOWN = 10_000
"""The number of series for which the group is remembered. For a forgotten series it is computed again."""


class Assignment:
    """One task or update given to one worker. The outcome of an abandoned one is dropped."""

    __slots__ = ("abandoned", "armed", "place", "task", "ticket", "worker")

    def __init__(self, ticket: int, worker: WorkerEntry, task: Task, place: Place | None) -> None:
        self.ticket: int = ticket
        self.worker: WorkerEntry = worker
        self.task: Task = task
        self.place: Place | None = place
        self.armed: bool = False
        self.abandoned: bool = False


class WorkerEntry:
    """The state of a worker that decides which tasks it gets."""

    __slots__ = (
        "announced",
        "answered",
        "asked",
        "cls",
        "granted",
        "held",
        "id",
        "iterations",
        "qualifications",
        "silent",
        "stamp",
        "state",
        "stopping",
        "ticked",
        "updates",
        "window",
    )

    def __init__(self, workerID: int, qualifications: frozenset[Hashable], window: Window) -> None:
        self.id: int = workerID
        self.qualifications: frozenset[Hashable] = qualifications
        self.window: AdaptiveWindow = AdaptiveWindow(window)
        self.granted: int = 0  # the largest number of tasks that it could hold at its last assignment
        self.state: WorkerState = WorkerState.JOINING
        self.held: dict[int, Assignment] = {}  # by ticket, in the order of assignment
        self.updates: deque[Task] = deque()
        self.iterations: set[int] = set()
        self.cls: WorkerClass | None = None  # None while it is away or leaves
        self.announced: bool = False  # the queue knows that it has run the saved updates
        self.stopping: bool = False
        self.stamp: int = 0
        self.answered: int = 0  # the number of outcomes so far
        self.ticked: int = -1  # the same at the last tick
        self.silent: int = 0  # ticks since the last outcome
        self.asked: int = 0  # its last ticket when it was last asked for what it has not started

    @property
    def warm(self) -> bool:
        """True if it has answered before, and is idle: it has no task and no iteration."""
        return self.answered > 0 and not self.held and not self.iterations

    @property
    def rank(self) -> tuple[int, int]:
        """The sort key among workers with room, lowest first: unfinished tasks, then the stamp of `Matcher.hasRoom`."""
        return len(self.held), self.stamp

    @property
    def ahead(self) -> int:
        """The number of tasks that it holds and cannot have started."""
        return len(self.held) - self.window.limits.running

    def mayRun(self, task: Task) -> bool:
        """Return whether the worker is qualified for a task."""
        return self.isQualified(task.series)

    def isQualified(self, series: Hashable) -> bool:
        """Return whether the worker is qualified for a series; None is that of calls of no series."""
        return series is None or series in self.qualifications

    def renew(self, window: Window) -> None:
        """Forget how fast it answered: it is another process, or another connection."""
        self.window = AdaptiveWindow(window)
        self.silent = 0

    def validate(self) -> None:
        """Assert every invariant."""
        self.window.validate()
        assert (self.cls is None) == (self.state in (WorkerState.LEAVING, WorkerState.AWAY))
        assert self.cls is None or self.id in self.cls.members
        for assignment in self.held.values():
            task = assignment.task
            assert self.mayRun(task), "a worker is qualified"
            assert task.attempt <= task.retries, "no task is started more often than it may be"
        assert len(self.held) <= self.granted, "a worker is assigned no more than its window"
        if self.state is WorkerState.FULL:
            assert len(self.held) >= self.window.size or (self.window.slow and self.ahead >= 0)
        if self.state is WorkerState.OPEN:
            assert len(self.held) < self.window.size
            assert not self.updates, "an update goes before any task"
        if self.state is WorkerState.JOINING:
            assert self.held or self.updates, "a worker without an update to run is open"
        if any(assignment.task.update for assignment in self.held.values()):
            assert len(self.held) == 1, "an update runs alone"


class WorkerClass:
    """The workers with one set of qualifications, and the groups of tasks that they may run."""

    __slots__ = ("_idle", "groups", "members", "qualifications", "room")

    def __init__(self, qualifications: frozenset[Hashable]) -> None:
        self.qualifications: frozenset[Hashable] = qualifications
        self.members: set[int] = set()
        self.groups: list[TaskGroup] = []
        self._idle: dict[int, WorkerEntry] = {}  # those that were idle when they last had room
        self.room: list[tuple[int, int, WorkerEntry]] = []  # a heap; an entry is valid while it has its worker's stamp

    def enter(self, worker: WorkerEntry) -> None:
        """Note that a worker has room."""
        if not worker.held:
            self._idle[worker.id] = worker
        if len(self.room) > 2 * len(self.members) + 16:
            self.room = [entry for entry in self.room if self._counts(entry[1], entry[2])]
            heapify(self.room)
        entry = (len(worker.held), worker.stamp, worker)
        if self.room and self.room[0][2] is worker:  # its old entry is used up by the last assignment
            heapreplace(self.room, entry)
        else:
            heappush(self.room, entry)

    def freest(self) -> WorkerEntry | None:
        """Return the worker of this class that takes a task next, or None."""
        while self.room:
            _, stamp, worker = self.room[0]
            if stamp == worker.stamp and worker.state is WorkerState.OPEN and worker.cls is self:
                return worker
            heappop(self.room)
        return None

    def idle(self, but: Collection[int] = ()) -> WorkerEntry | None:
        """Return an idle worker that is not in `but`, or None. O(1) amortised, times the size of `but`."""
        stale: list[int] = []
        found: WorkerEntry | None = None
        for worker in self._idle.values():
            if worker.held or worker.state is not WorkerState.OPEN or worker.cls is not self:
                stale.append(worker.id)
            elif worker.id not in but:
                found = worker
                break
        for workerID in stale:
            del self._idle[workerID]
        return found

    def _counts(self, stamp: int, worker: WorkerEntry) -> bool:
        return stamp == worker.stamp and worker.state is WorkerState.OPEN and worker.cls is self


class TaskGroup(FairQueue):
    """The queued tasks that the workers of some classes, and no others, may run."""

    __slots__ = ("classes",)

    def __init__(self, classes: list[WorkerClass]) -> None:
        super().__init__()
        self.classes: list[WorkerClass] = classes


class Matcher:
    """The workers that take tasks, and the queued tasks."""

    def __init__(self) -> None:
        self._waiting = 0
        self._classes: dict[frozenset[Hashable], WorkerClass] = {}
        self._groups: dict[frozenset[frozenset[Hashable]], TaskGroup] = {}
        self._groupOf: dict[Hashable, TaskGroup] = {}  # by series
        self._time = 0  # the highest virtual time of any group
        self._lastStamp = 0
        self.unreviewed: bool = False
        """True if a queued task may be stranded that was not at the last `reviewed`. (An attribute, as it is hot.)"""

    def __len__(self) -> int:
        """Return the number of queued tasks."""
        return self._waiting

    def __contains__(self, task: Task) -> bool:
        return task in self._groupFor(task.series)

    def __iter__(self) -> Iterator[Task]:
        """Iterate over the queued tasks, in no particular order."""
        return chain.from_iterable(self._groups.values())

    # Tasks.

    def add(self, task: Task) -> None:
        """Queue a new task."""
        group = self._groupOf.get(task.series)
        if group is None:
            group = self._groupFor(task.series)
        if not group.backlogged:
            times = (other.time for cls in group.classes for other in cls.groups if other.backlogged)
            group.joinAt(max(times, default=self._time))
        if not group.classes:
            self.unreviewed = True
        self._waiting += 1
        group.add(task)

    def putBack(self, task: Task, place: Place) -> None:
        """Queue a task at a place that is not in the fair band."""
        group = self._groupFor(task.series)
        if not group.classes:
            self.unreviewed = True
        self._waiting += 1
        group.place(place, task)

    def remove(self, task: Task) -> None:
        """Remove a queued task."""
        self._waiting -= 1
        self._groupFor(task.series).remove(task)

    def ofSeries(self, series: Hashable) -> list[Task]:
        """Return the queued tasks of a series."""
        return self._groupFor(series).ofSeries(series)

    def stranded(self) -> list[Task]:
        """Return the queued tasks that no worker may run."""
        group = self._groups.get(frozenset())
        return [] if group is None else list(group)

    def strandedBySeries(self) -> dict[Hashable, int]:
        """Return the number of queued tasks that no worker may run, by series."""
        group = self._groups.get(frozenset())
        return {} if group is None else group.bySeries()

    def isStranding(self) -> bool:
        """Return whether there is a queued task that no worker may run. Workers that are away do not count."""
        return bool(self._groups.get(frozenset()))

    def reviewed(self) -> None:
        """Note that the queued tasks that no worker may run are known."""
        self.unreviewed = False

    def gone(self) -> None:
        """Note that a worker that was away does not come back."""
        self.unreviewed = self.unreviewed or self.isStranding()

    # Workers.

    def join(self, worker: WorkerEntry) -> None:
        """Have a worker take tasks when it has room."""
        cls = self._classes.get(worker.qualifications)
        if cls is None:
            cls = self._classes[worker.qualifications] = WorkerClass(worker.qualifications)
            self._regroup()
        cls.members.add(worker.id)
        worker.cls = cls

    def unjoin(self, worker: WorkerEntry) -> None:
        """Have a worker take no more tasks."""
        cls = worker.cls
        assert cls is not None
        worker.cls = None
        cls.members.remove(worker.id)
        if not cls.members:
            del self._classes[cls.qualifications]
            self._regroup()

    def hasRoom(self, worker: WorkerEntry) -> None:
        """Note that a worker has room, or holds another number of tasks than before."""
        assert worker.cls is not None
        self._lastStamp += 1
        worker.stamp = -self._lastStamp if worker.warm else self._lastStamp
        worker.cls.enter(worker)

    def idle(self) -> bool:
        """Return whether any worker is idle."""
        return any(cls.idle() for cls in self._classes.values())

    def idleFor(self, task: Task, but: Collection[int]) -> WorkerEntry | None:
        """Return an idle worker that may run a task and is not in `but`, or None."""
        return next(filter(None, (cls.idle(but) for cls in self._groupFor(task.series).classes)), None)

    # Matches.

    def next(self) -> tuple[WorkerEntry, Place, Task] | None:
        """Remove and return the task that goes next, with its place and its worker. None if nothing matches."""
        if not self._waiting:
            return None
        freest: WorkerEntry | None = None
        oneGroup = len(self._groups) == 1  # what waits is in it
        for cls in self._classes.values():
            worker = cls.freest() if cls.room else None
            if worker is None or not (cls.groups if oneGroup else any(cls.groups)):
                continue
            if freest is None or worker.rank < freest.rank:
                freest = worker
        if freest is None or freest.cls is None:
            return None
        groups = freest.cls.groups
        group = groups[0] if len(groups) == 1 else min((g for g in groups if g), key=_nextPlace)
        place, task = group.pop()
        if place.band == FAIR:
            time = place.order
            if self._time < time:
                self._time = time
            if len(groups) > 1:
                for other in groups:
                    other.reached(time)
        self._waiting -= 1
        return freest, place, task

    def validate(self) -> None:
        """Assert every invariant."""
        numbers = [task.id for task in self]
        assert len(set(numbers)) == len(numbers) == self._waiting, "a task that waits stands in one group"
        for group in self._groups.values():
            group.validate()
            for task in group:
                assert task in group, "it is found where it stands"
                fit = {c for c in self._classes if task.series is None or task.series in c}
                assert fit == {c.qualifications for c in group.classes}, "a group is for one set of workers"
        for cls in self._classes.values():
            assert cls.members, "a class has members"
            assert len({id(g) for g in cls.groups}) == len(cls.groups)
            assert cls.freest() is None or not any(cls.groups), "no worker with room idles beside what it may run"

    def _groupFor(self, series: Hashable) -> TaskGroup:
        group = self._groupOf.get(series)
        if group is None:
            classes = [c for c in self._classes.values() if series is None or series in c.qualifications]
            key = frozenset(c.qualifications for c in classes)
            group = self._groups.get(key)
            if group is None:
                group = self._groups[key] = TaskGroup(classes)
                for cls in classes:
                    cls.groups.append(group)
            if len(self._groupOf) >= SERIES_KNOWN:
                self._groupOf.clear()
            self._groupOf[series] = group
        return group

    def _regroup(self) -> None:
        """Sort the queued tasks into groups anew, all at one virtual time: the classes have changed."""
        old = list(self._groups.values())
        self._groups.clear()
        self._groupOf.clear()
        for cls in self._classes.values():
            cls.groups.clear()
        for group in old:
            for series, part in group.split():
                self._groupFor(series).absorb(part, self._time)
        self.unreviewed = self.isStranding()


def _nextPlace(group: FairQueue) -> Place:
    place = group.peek()
    assert place is not None  # only groups that have tasks are asked
    return place


class UnservedSeries:
    """The series of queued tasks for which no worker is qualified, so that each is reported once.

    Such tasks wait until a worker for them comes, perhaps for ever: the series may be misspelt. A worker that is away
    is qualified, because it may come back. A series is reported again only after a worker for it has come and gone. At
    most `REPORTED` are remembered, and so reported: a series for each call must not fill the log.

    Cost: nothing while each queued task has a worker for it; O(flows) a review.
    """

    def __init__(self, matcher: Matcher, workers: Mapping[int, WorkerEntry]) -> None:
        self._matcher = matcher
        self._workers = workers
        self._reported: set[Hashable] = set()

    @property
    def number(self) -> int:
        """The number of queued tasks for which no worker is qualified."""
        return sum(self._counts().values())

    def review(self) -> list[Unserved]:
        """Return a report for each series without a worker that was not reported yet."""
        self._matcher.reviewed()
        reports: list[Unserved] = []
        for series, tasks in self._counts().items():
            if series not in self._reported and len(self._reported) < REPORTED:
                self._reported.add(series)
                reports.append(Unserved(series, tasks))
        return reports

    def served(self, worker: WorkerEntry) -> None:
        """Forget that the series of WORKER were reported: it has come, or is qualified for more of them."""
        if self._reported:
            self._reported = {series for series in self._reported if not worker.isQualified(series)}

    def validate(self) -> None:
        """Assert that no series with a worker counts as reported, and that none is forgotten."""
        assert len(self._reported) <= REPORTED
        counts = self._counts()
        stranded = self._matcher.stranded()
        assert sum(counts.values()) == sum(1 for task in stranded if not self._isServed(task.series))

    def _counts(self) -> dict[Hashable, int]:
        counts = self._matcher.strandedBySeries()
        return {series: number for series, number in counts.items() if not self._isServed(series)}

    def _isServed(self, series: Hashable) -> bool:
        return any(w.isQualified(series) for w in self._workers.values() if w.state is not WorkerState.LEAVING)
