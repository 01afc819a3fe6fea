"""What a queue has done, counted.

Theory of operation. Each event of a call's life is told once, with the time at which it happened, and adds to a few
sums; nothing is kept of a call that has ended. `stats` makes a frozen picture of the sums. What is counted by
series is kept for the `SERIES_KEPT` series that came last, so that a queue which makes a series a visitor does not
grow for ever; what is forgotten of a series still counts in the whole and by worker.

Cost: O(1) an event, O(workers + series) a picture.
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
    """How long something took, in seconds: how often it happened, the sum and the longest."""

    number: int = 0
    total: float = 0.0
    longest: float = 0.0

    @property
    def mean(self) -> float:
        """The mean, 0 if it never happened."""
        return self.total / self.number if self.number else 0.0


@attrs.frozen
class Counts:
    """How calls ended.

    DONE returned, FAILED raised or ran out of time, LOST had their workers die under them, CANCELLED were not wanted
    any more or refused; RETRIED counts the times that one was started again. WAIT is from submission to the last
    start, RUN from the last start to the end, as the queue saw it.
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
    """A picture of a queue: how many calls are QUEUED and RUNNING now, and how all that ended did.

    BYWORKER has the counts by worker ID, for the workers that are or were attached; BYSERIES those by series, for the
    series that came last.
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


class _Sums:
    """Counts that grow."""

    __slots__ = ("cancelled", "done", "failed", "lost", "ran", "retried", "run", "runLongest", "wait", "waitLongest")

    def __init__(self) -> None:
        self.done = self.failed = self.lost = self.cancelled = self.retried = self.ran = 0
        self.wait = self.waitLongest = self.run = self.runLongest = 0.0

    def add(self, other: _Sums) -> None:
        """Count what OTHER has counted too."""
        for name in ("done", "failed", "lost", "cancelled", "retried", "ran", "wait", "run"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.waitLongest = max(self.waitLongest, other.waitLongest)
        self.runLongest = max(self.runLongest, other.runLongest)

    def picture(self) -> Counts:
        """The counts as they are now."""
        wait = Times(self.ran, self.wait, self.waitLongest)
        run = Times(self.ran, self.run, self.runLongest)
        return Counts(self.done, self.failed, self.lost, self.cancelled, self.retried, wait, run)


class StatsCollector:
    """Counts what a queue does.

    >>> ledger = StatsCollector()
    >>> ledger.ended("mail", 1, Returned(None), wait=0.5, run=1.5)
    >>> stats = ledger.stats(queued=0, running=0)
    >>> stats.done, stats.wait.mean, stats.bySeries["mail"].run.longest
    (1, 0.5, 1.5)
    """

    def __init__(self) -> None:
        self._sums: dict[Hashable, dict[int | None, _Sums]] = {}  # by series, then by worker
        self._forgotten: dict[int | None, _Sums] = {}  # of all series that are not kept, by worker
        self._departed: deque[int] = deque()  # the workers that have left and are kept

    def again(self, series: Hashable, worker: int) -> None:
        """A call of SERIES that may have started was given to a WORKER again."""
        self._sumsOf(series, worker).retried += 1

    def ended(
        self,
        series: Hashable,
        worker: int | None,
        settlement: Settlement,
        wait: float | None = None,
        run: float | None = None,
    ) -> None:
        """A call of SERIES has ended, on WORKER, after a WAIT and a RUN in seconds; None if it never ran."""
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
        """Note that a worker has left. Its counts are kept until DEPARTED_KEPT others have left after it."""
        self._departed.append(worker)
        if len(self._departed) > DEPARTED_KEPT:
            oldest = self._departed.popleft()
            for workers in (self._forgotten, *self._sums.values()):
                sums = workers.pop(oldest, None)
                if sums is not None:
                    workers.setdefault(None, _Sums()).add(sums)

    def stats(self, queued: int, running: int) -> QueueStats:
        """A picture of everything, for a queue with so many calls QUEUED and RUNNING."""
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
        )

    def validate(self) -> None:
        """Assert that what is kept is bounded, and that nothing is counted that has not run."""
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


# How long each call took, on this side and over there.
#
# The last `CALLS_KEPT` calls of a worker are kept, so that one which works for a year does not grow for a year.

CALLS_KEPT = 100_000
"""Of how many calls a worker keeps the times: those that ended last."""


class CallTimes(NamedTuple):
    """The seconds for which the WORKER waited for a call, and those for which its PROCESS was at it.

    The difference is what the way took, there and back: pickling, waiting behind other calls of the same batch, and
    for the main loop to be free.
    """

    worker: float
    process: float


@attrs.frozen
class ProcessStats(QueueStats):
    """A picture of a process queue: what `QueueStats` has, and the times of its CALLS, worker by worker.

    So how many calls are QUEUED and RUNNING; how many are DONE, FAILED, LOST, CANCELLED and were RETRIED; how long they
    had to WAIT and to RUN; and all that BYWORKER and BYSERIES.

    There are none of those unless the queue was made with ``callStats=True``. To iterate over a picture is to iterate
    over them, as in 0.9:

        for worker, process in queue.stats(): ...
    """

    calls: tuple[CallTimes, ...] = ()

    @classmethod
    def of(cls, stats: QueueStats, calls: Iterable[CallTimes]) -> ProcessStats:
        """STATS with CALLS."""
        fields: dict[str, Any] = {field.name: getattr(stats, field.name) for field in attrs.fields(QueueStats)}
        return cls(**fields, calls=tuple(calls))

    def __iter__(self) -> Iterator[CallTimes]:
        return iter(self.calls)


def callLog() -> deque[CallTimes]:
    """Where a worker keeps the times of its calls."""
    return deque(maxlen=CALLS_KEPT)
