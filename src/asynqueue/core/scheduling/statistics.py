"""Count what a queue has done.

Each event of a call adds to a few sums. Nothing is kept of a call that has ended. `stats` makes a frozen record of the
sums. Two bounds keep a queue that runs for years small:

- Counts by series are kept for the latest `SERIES_KEPT` series.
- Counts by worker are kept for all attached workers and the latest `DEPARTED_KEPT` others.

A series or worker that is forgotten still counts in the totals.

Cost: O(1) an event, O(workers + series) a record.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import attrs

from asynqueue.core.records import Iterating, Lost, Raised, Returned, Settlement, TimedOut

SERIES_KEPT = 1000
"""The number of series whose counts are kept: the latest ones."""

DEPARTED_KEPT = 100
"""The number of detached workers whose counts are kept: the latest ones."""


@attrs.frozen
class Times:
    """Durations in seconds: their number, sum and maximum."""

    number: int = 0
    total: float = 0.0
    longest: float = 0.0

    @property
    def mean(self) -> float:
        """The mean duration in seconds; 0 if there is none."""
        return self.total / self.number if self.number else 0.0


@attrs.frozen
class Counts:
    """How calls ended.

    Attributes:
        done: Calls that returned.
        failed: Calls that raised, or ran out of time.
        lost: Calls whose workers died.
        cancelled: Calls that were cancelled or refused.
        retried: How often a call was started again.
        wait: Seconds from submission to the last start.
        run: Seconds from the last start to the end, as seen by the queue.
    """

    done: int = 0
    failed: int = 0
    lost: int = 0
    cancelled: int = 0
    retried: int = 0
    wait: Times = Times()
    run: Times = Times()


@attrs.frozen
class QueueStats:
    """A queue's counts of finished and unfinished calls.

    Attributes:
        queued: Calls that are queued now.
        running: Calls that workers hold now.
        done, failed, lost, cancelled, retried, wait, run: Of all calls that ended, as in `Counts`.
        byWorker: `Counts` by worker ID, for attached workers and the latest hundred detached ones.
        bySeries: `Counts` by series, for the latest thousand series.
        unserved: Calls that are queued now and for whose series no worker is qualified. They wait for one.
    """

    queued: int
    running: int
    done: int
    failed: int
    lost: int
    cancelled: int
    retried: int
    wait: Times
    run: Times
    byWorker: Mapping[int, Counts]
    bySeries: Mapping[Hashable, Counts]
    unserved: int = 0


class _Sums:
    """Counts that grow."""

    __slots__ = ("cancelled", "done", "failed", "lost", "ran", "retried", "run", "runLongest", "wait", "waitLongest")

    def __init__(self) -> None:
        self.done = self.failed = self.lost = self.cancelled = self.retried = self.ran = 0
        self.wait = self.waitLongest = self.run = self.runLongest = 0.0

    def add(self, other: _Sums) -> None:
        """Add the counts of another."""
        for name in ("done", "failed", "lost", "cancelled", "retried", "ran", "wait", "run"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.waitLongest = max(self.waitLongest, other.waitLongest)
        self.runLongest = max(self.runLongest, other.runLongest)

    def picture(self) -> Counts:
        """Return the counts as a frozen record."""
        wait = Times(self.ran, self.wait, self.waitLongest)
        run = Times(self.ran, self.run, self.runLongest)
        return Counts(self.done, self.failed, self.lost, self.cancelled, self.retried, wait, run)


class StatsCollector:
    """Counts what a queue does.

    >>> statistics = StatsCollector()
    >>> statistics.ended("mail", 1, Returned(None), wait=0.5, run=1.5)
    >>> stats = statistics.stats(queued=0, running=0)
    >>> stats.done, stats.wait.mean, stats.bySeries["mail"].run.longest
    (1, 0.5, 1.5)
    """

    def __init__(self) -> None:
        self._sums: dict[Hashable, dict[int | None, _Sums]] = {}  # by series, then by worker
        self._forgotten: dict[int | None, _Sums] = {}  # of all series that are forgotten, by worker
        self._departed: deque[int] = deque()  # the workers that have left and are kept

    def again(self, series: Hashable, worker: int) -> None:
        """Count that a call which may have started is given to a worker again."""
        self._sumsOf(series, worker).retried += 1

    def ended(
        self,
        series: Hashable,
        worker: int | None,
        settlement: Settlement,
        wait: float | None = None,
        run: float | None = None,
    ) -> None:
        """Count a call that has ended. `wait` and `run` are in seconds; None if it never ran."""
        workers = self._sums.get(series)
        sums = None if workers is None else workers.get(worker)
        if sums is None:
            sums = self._sumsOf(series, worker)
        if isinstance(settlement, (Returned, Iterating)):
            sums.done += 1
        elif isinstance(settlement, (Raised, TimedOut)):
            sums.failed += 1
        elif isinstance(settlement, Lost):
            sums.lost += 1
        else:
            sums.cancelled += 1
        if wait is not None and run is not None:
            sums.ran += 1
            sums.wait += wait
            sums.run += run
            if wait > sums.waitLongest:
                sums.waitLongest = wait
            if run > sums.runLongest:
                sums.runLongest = run

    def workerLeft(self, worker: int) -> None:
        """Note that a worker has left. Its counts are kept until `DEPARTED_KEPT` others have left after it."""
        self._departed.append(worker)
        if len(self._departed) > DEPARTED_KEPT:
            oldest = self._departed.popleft()
            for workers in (self._forgotten, *self._sums.values()):
                sums = workers.pop(oldest, None)
                if sums is not None:
                    workers.setdefault(None, _Sums()).add(sums)

    def stats(self, queued: int, running: int, unserved: int = 0) -> QueueStats:
        """Return the record for a queue that has so many calls queued, running, and queued but `unserved`."""
        whole = _Sums()
        byWorker: dict[int, _Sums] = {}
        bySeries: dict[Hashable, _Sums] = {}
        for workers in (self._forgotten, *self._sums.values()):
            for worker, sums in workers.items():
                whole.add(sums)
                if worker is not None:
                    byWorker.setdefault(worker, _Sums()).add(sums)
        for series, workers in self._sums.items():
            for sums in workers.values():
                bySeries.setdefault(series, _Sums()).add(sums)
        counts = whole.picture()
        return QueueStats(
            queued,
            running,
            counts.done,
            counts.failed,
            counts.lost,
            counts.cancelled,
            counts.retried,
            counts.wait,
            counts.run,
            {worker: sums.picture() for worker, sums in byWorker.items()},
            {series: sums.picture() for series, sums in bySeries.items()},
            unserved,
        )

    def validate(self) -> None:
        """Assert that what is kept is bounded, and that only calls that ended have run times."""
        assert len(self._sums) <= SERIES_KEPT
        assert len(self._departed) <= DEPARTED_KEPT
        for workers in (self._forgotten, *self._sums.values()):
            for sums in workers.values():
                assert sums.ran <= sums.done + sums.failed + sums.lost + sums.cancelled

    def _sumsOf(self, series: Hashable, worker: int | None) -> _Sums:
        workers = self._sums.get(series)
        if workers is None:
            workers = self._sums[series] = {}
            if len(self._sums) > SERIES_KEPT:
                oldest = next(iter(self._sums))
                for worker_, sums in self._sums.pop(oldest).items():
                    self._forgotten.setdefault(worker_, _Sums()).add(sums)
        found = workers.get(worker)
        if found is None:
            found = workers[worker] = _Sums()
        return found


# The duration of each call, in the parent and in the child.

CALLS_KEPT = 100_000
"""The number of calls whose durations a worker keeps: the latest ones."""


class CallTimes(NamedTuple):
    """Durations of one call, in seconds: as the worker in this process saw it, and in the child process.

    The difference is the cost of the way there and back: pickling, waiting behind other calls of the batch, and
    waiting for the main loop.
    """

    worker: float
    process: float


@attrs.frozen
class ProcessStats(QueueStats):
    """The counts of a process queue: `QueueStats`, and the durations of its calls.

    Attributes:
        queued, running, done, failed, lost, cancelled, retried, wait, run, byWorker, bySeries, unserved: As in
            `QueueStats`.
        calls: A `CallTimes` for each of the latest calls, worker by worker. Empty without ``callStats=True``.

    Iterating over a record iterates over its `calls`, as in 0.9:

        for worker, process in queue.stats(): ...
    """

    calls: tuple[CallTimes, ...] = ()

    @classmethod
    def of(cls, stats: QueueStats, calls: Iterable[CallTimes]) -> ProcessStats:
        """Return `stats` with `calls` added."""
        fields: dict[str, Any] = {field.name: getattr(stats, field.name) for field in attrs.fields(QueueStats)}
        return cls(**fields, calls=tuple(calls))

    def __iter__(self) -> Iterator[CallTimes]:
        return iter(self.calls)


def callLog() -> deque[CallTimes]:
    """Return an empty log of durations, which keeps the latest `CALLS_KEPT`."""
    return deque(maxlen=CALLS_KEPT)
