"""What a queue has done, counted.

Theory of operation. Each event of a call's life is told once, with the time at which it happened, and adds to a few
sums; nothing is kept of a call that has ended. `stats` makes a frozen picture of the sums. What is counted by
series is kept for the `SERIES_KEPT` series that were seen last, so that a queue which makes a series a visitor does
not grow for ever.

Cost: O(1) an event, O(workers + series) a picture.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import attrs

from asynqueue.core.records import Iterating, Lost, Raised, Returned, Settlement, TimedOut

SERIES_KEPT = 1000
"""Of how many series the counts are kept."""


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
    series seen last.
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

    __slots__ = ("cancelled", "done", "failed", "lost", "retried", "run", "wait")

    def __init__(self) -> None:
        self.done = self.failed = self.lost = self.cancelled = self.retried = 0
        self.wait: list[float] = [0, 0.0, 0.0]
        self.run: list[float] = [0, 0.0, 0.0]

    def ended(self, settlement: Settlement, wait: float | None, run: float | None) -> None:
        if isinstance(settlement, (Returned, Iterating)):
            self.done += 1
        elif isinstance(settlement, (Raised, TimedOut)):
            self.failed += 1
        elif isinstance(settlement, Lost):
            self.lost += 1
        else:
            self.cancelled += 1
        for times, seconds in ((self.wait, wait), (self.run, run)):
            if seconds is not None:
                times[0] += 1
                times[1] += seconds
                times[2] = max(times[2], seconds)

    def picture(self) -> Counts:
        return Counts(
            self.done, self.failed, self.lost, self.cancelled, self.retried, _times(self.wait), _times(self.run)
        )


class Ledger:
    """Counts what a queue does.

    >>> ledger = Ledger()
    >>> ledger.ended("mail", 1, Returned(None), wait=0.5, run=1.5)
    >>> stats = ledger.stats(queued=0, running=0)
    >>> stats.done, stats.wait.mean, stats.bySeries["mail"].run.longest
    (1, 0.5, 1.5)
    """

    def __init__(self) -> None:
        self._all = _Sums()
        self._workers: dict[int, _Sums] = {}
        self._series: dict[Hashable, _Sums] = {}

    def again(self, series: Hashable, worker: int) -> None:
        """A call of SERIES that may have started was given to a WORKER again."""
        for sums in (self._all, self._sumsOf(series), self._workers.setdefault(worker, _Sums())):
            sums.retried += 1

    def ended(
        self,
        series: Hashable,
        worker: int | None,
        settlement: Settlement,
        wait: float | None = None,
        run: float | None = None,
    ) -> None:
        """A call of SERIES has ended, on WORKER, after a WAIT and a RUN in seconds; None if it never ran."""
        self._all.ended(settlement, wait, run)
        self._sumsOf(series).ended(settlement, wait, run)
        if worker is not None:
            self._workers.setdefault(worker, _Sums()).ended(settlement, wait, run)

    def stats(self, queued: int, running: int) -> QueueStats:
        """A picture of everything, for a queue with so many calls QUEUED and RUNNING."""
        whole = self._all.picture()
        return QueueStats(
            queued,
            running,
            whole.done,
            whole.failed,
            whole.lost,
            whole.cancelled,
            whole.retried,
            whole.wait,
            whole.run,
            {worker: sums.picture() for worker, sums in self._workers.items()},
            {series: sums.picture() for series, sums in self._series.items()},
        )

    def validate(self) -> None:
        """Assert that what is kept is bounded, and that the parts make the whole."""
        assert len(self._series) <= SERIES_KEPT
        for name in ("done", "failed", "lost"):
            assert sum(getattr(sums, name) for sums in self._workers.values()) <= getattr(self._all, name)

    def _sumsOf(self, series: Hashable) -> _Sums:
        sums = self._series.pop(series, None) or _Sums()
        self._series[series] = sums  # seen last
        if len(self._series) > SERIES_KEPT:
            del self._series[next(iter(self._series))]
        return sums


def _times(sums: list[float]) -> Times:
    return Times(int(sums[0]), sums[1], sums[2])
