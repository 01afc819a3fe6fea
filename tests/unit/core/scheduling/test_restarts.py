"""`RestartPolicy`: the pauses between the starts of a worker's processes, and when no other is started."""

from __future__ import annotations

import pytest

from asynqueue.core.scheduling.restarts import (
    ATTEMPTS,
    FIRST_PAUSE,
    LONGEST_PAUSE,
    OUTSIDE_ATTEMPTS,
    PROVED,
    RestartPolicy,
)


def test_the_pause_doubles_until_the_last_attempt() -> None:
    policy = RestartPolicy()
    assert [policy.failed() for _ in range(ATTEMPTS)] == [0.05, 0.1, 0.2, 0.4, 0.8, None]
    policy.validate()


def test_failures_from_outside_pause_for_the_longest_and_end_much_later() -> None:
    policy = RestartPolicy()
    pauses = [policy.failed(outside=True) for _ in range(OUTSIDE_ATTEMPTS)]
    assert pauses[0] == FIRST_PAUSE
    assert pauses[-2] == max(pause for pause in pauses if pause is not None) == LONGEST_PAUSE
    assert pauses.index(None) == OUTSIDE_ATTEMPTS - 1
    assert policy.failures == OUTSIDE_ATTEMPTS


@pytest.mark.parametrize(("seconds", "pause"), [(PROVED, 0.0), (PROVED * 2, 0.0), (PROVED * 0.99, 0.1)])
def test_a_process_that_was_ready_for_long_enough_has_proved_itself(seconds: float, pause: float) -> None:
    policy = RestartPolicy()
    policy.failed()
    policy.ready(100.0)
    assert policy.ended(100.0 + seconds) == pause


def test_a_process_that_never_was_ready_has_not_proved_itself() -> None:
    policy = RestartPolicy()
    policy.ready(0.0)
    policy.started()
    assert policy.ended(1000.0) == FIRST_PAUSE


def test_a_death_in_a_call_neither_counts_nor_forgives() -> None:
    policy = RestartPolicy()
    policy.failed()
    policy.ready(0.0)
    assert policy.ended(1.0, inCall=True) == 0.0
    assert policy.failures == 1
    policy.proved()
    assert policy.failures == 0
