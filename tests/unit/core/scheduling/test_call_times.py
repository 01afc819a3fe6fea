"""What is kept of how long calls took."""

from __future__ import annotations

import attrs

from asynqueue.core.records import Returned
from asynqueue.core.scheduling.statistics import CALLS_KEPT, CallTimes, Counts, ProcessStats, StatsCollector, callLog


def test_the_picture_of_a_process_queue_has_what_that_of_a_queue_has_and_the_times_of_its_calls() -> None:
    ledger = StatsCollector()
    ledger.ended("mail", 1, Returned(None), wait=0.5, run=1.5)
    stats = ledger.stats(queued=2, running=3)
    picture = ProcessStats.of(stats, [CallTimes(2.0, 1.0), CallTimes(4.0, 3.0)])
    for field in attrs.fields(type(stats)):
        assert getattr(picture, field.name) == getattr(stats, field.name)
    assert list(picture) == [(2.0, 1.0), (4.0, 3.0)]
    assert picture.byWorker[1] == Counts(done=1, wait=stats.wait, run=stats.run)


def test_of_many_calls_the_last_are_kept() -> None:
    log = callLog()
    log.extend(CallTimes(n, n) for n in range(CALLS_KEPT + 5))
    assert len(log) == CALLS_KEPT
    assert log[0] == (5, 5)
