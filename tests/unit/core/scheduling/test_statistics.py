"""What is counted, and of how many series."""

from __future__ import annotations

import pytest

from asynqueue.core.records import Cancelled, Iterating, Lost, Raised, Refused, Returned, Settlement, TimedOut
from asynqueue.core.scheduling.statistics import DEPARTED_KEPT, SERIES_KEPT, StatsCollector, Times


@pytest.mark.parametrize(
    ("settlement", "counted"),
    [
        (Returned(1), "done"),
        (Iterating(None), "done"),
        (Raised(ValueError()), "failed"),
        (TimedOut(1.0), "failed"),
        (Lost(), "lost"),
        (Cancelled(), "cancelled"),
        (Refused("late"), "cancelled"),
    ],
)
def test_each_way_to_end_is_counted_as_what_it_is(settlement: Settlement, counted: str) -> None:
    statistics = StatsCollector()
    statistics.ended("a", None, settlement)
    stats = statistics.stats(0, 0)
    assert {name for name in ("done", "failed", "lost", "cancelled") if getattr(stats, name)} == {counted}
    assert list(stats.bySeries) == ["a"]
    assert getattr(stats.bySeries["a"], counted) == 1
    assert stats.byWorker == {}
    statistics.validate()


def test_each_is_counted_as_often_as_it_happens() -> None:
    statistics = StatsCollector()
    for settlement in (Returned(1), Raised(ValueError()), Lost(), Cancelled()):
        for _ in range(3):
            statistics.ended("a", 1, settlement)
    for _ in range(3):
        statistics.again("a", 1)
    for stats in (statistics.stats(0, 0), statistics.stats(0, 0).bySeries["a"], statistics.stats(0, 0).byWorker[1]):
        assert (stats.done, stats.failed, stats.lost, stats.cancelled, stats.retried) == (3, 3, 3, 3, 3)


def test_one_time_without_the_other_is_none() -> None:
    statistics = StatsCollector()
    statistics.ended(None, 1, Returned(None), 1.0, None)
    statistics.ended(None, 1, Returned(None), None, 1.0)
    assert (statistics.stats(0, 0).wait, statistics.stats(0, 0).run) == (Times(), Times())


def test_as_many_series_as_are_kept_are_all_kept() -> None:
    statistics = StatsCollector()
    for visitor in range(SERIES_KEPT):
        statistics.ended(visitor, 1, Returned(None))
    statistics.validate()
    assert len(statistics.stats(0, 0).bySeries) == SERIES_KEPT


def test_times_add_up_and_the_longest_is_kept() -> None:
    statistics = StatsCollector()
    for wait, run in ((1.0, 5.0), (3.0, 2.0)):
        statistics.ended(None, 1, Returned(None), wait, run)
    statistics.ended(None, 2, Returned(None), 2.0, 0.5)
    stats = statistics.stats(queued=4, running=2)
    assert (stats.queued, stats.running, stats.done) == (4, 2, 3)
    assert stats.wait == Times(3, 6.0, 3.0)
    assert stats.run == Times(3, 7.5, 5.0)
    assert stats.run.mean == 2.5
    assert stats.byWorker[1].run == Times(2, 7.0, 5.0)
    assert stats.byWorker[2].wait == Times(1, 2.0, 2.0)


def test_what_never_ran_has_no_times() -> None:
    statistics = StatsCollector()
    statistics.ended(None, None, Cancelled())
    assert statistics.stats(0, 0).wait == Times()
    assert Times().mean == 0.0


def test_a_call_that_is_started_again_is_counted_where_it_is() -> None:
    statistics = StatsCollector()
    statistics.again("a", 2)
    stats = statistics.stats(0, 1)
    assert (stats.retried, stats.byWorker[2].retried, stats.bySeries["a"].retried) == (1, 1, 1)


def test_a_series_for_every_visitor_is_not_remembered_for_ever_but_still_counts() -> None:
    statistics = StatsCollector()
    for visitor in range(2 * SERIES_KEPT):
        statistics.ended(visitor, 1, Returned(None), 0.0, 1.0)
        statistics.validate()
    stats = statistics.stats(0, 0)
    assert list(stats.bySeries) == list(range(SERIES_KEPT, 2 * SERIES_KEPT))
    assert stats.done == stats.byWorker[1].done == 2 * SERIES_KEPT
    assert stats.run.total == 2 * SERIES_KEPT


def test_the_counts_of_a_departed_worker_are_kept_until_a_hundred_others_left() -> None:
    statistics = StatsCollector()
    for worker in range(1, DEPARTED_KEPT + 2):
        statistics.ended("a", worker, Returned(None), 1.0, 1.0)
        statistics.workerLeft(worker)
        statistics.validate()
    stats = statistics.stats(0, 0)
    assert sorted(stats.byWorker) == list(range(2, DEPARTED_KEPT + 2))
    assert stats.done == stats.bySeries["a"].done == DEPARTED_KEPT + 1
