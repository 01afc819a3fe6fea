"""Guarantees of restarts: neither a busy loop, nor restarts without end, nor a worker that is lost too early."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from asynqueue.core.scheduling.restarts import (
    ATTEMPTS,
    FIRST_PAUSE,
    LONGEST_PAUSE,
    OUTSIDE_ATTEMPTS,
    PROVED,
    RestartPolicy,
)

seconds = st.floats(0, 2 * PROVED)
endings = st.tuples(st.sampled_from(["failed", "ended", "ended ready"]), st.booleans(), seconds)


@given(st.lists(endings, max_size=3 * OUTSIDE_ATTEMPTS))
def test_failures_in_a_row_pause_longer_and_end_only_at_a_limit(happened: list[tuple[str, bool, float]]) -> None:
    restarts = RestartPolicy()
    now, failures, own, last = 0.0, 0, 0, 0.0
    for what, outside, lived in happened:
        restarts.started()
        if what == "failed":
            pause = restarts.failed(outside)
        else:
            since = now
            if what == "ended ready":
                restarts.ready(since)
            now += lived
            pause = restarts.ended(now, outside)
        restarts.validate()
        if what == "ended ready" and now - since >= PROVED:
            failures, own, last = 0, 0, 0.0
            assert (pause, restarts.failures) == (0.0, 0)
            continue
        failures, own = failures + 1, own + (not outside)
        assert restarts.failures == failures
        assert (pause is None) == (own >= ATTEMPTS or failures >= OUTSIDE_ATTEMPTS)
        if pause is None:
            return
        assert FIRST_PAUSE <= pause <= LONGEST_PAUSE
        assert pause >= last, "no pause is shorter than the one before"
        assert pause == LONGEST_PAUSE or pause >= 2 * last
        now, last = now + pause, pause


@given(st.lists(st.booleans(), max_size=1000))
def test_deaths_in_calls_and_proved_processes_never_end_the_attempts(inCall: list[bool]) -> None:
    restarts, now = RestartPolicy(), 0.0
    for each in inCall:
        restarts.started()
        restarts.ready(now)
        now += 0.01 if each else PROVED + 1
        assert restarts.ended(now, inCall=each) == 0.0
        assert restarts.failures == 0


@given(st.lists(st.tuples(st.booleans(), st.floats(0, PROVED / 2)), min_size=ATTEMPTS, max_size=50))
def test_a_process_that_dies_once_it_is_ready_is_not_restarted_without_limit(
    happened: list[tuple[bool, float]],
) -> None:
    restarts, now, pauses = RestartPolicy(), 0.0, list[float]()
    for isReady, lived in happened:
        restarts.started()
        if isReady:
            restarts.ready(now)
        now += lived
        pause = restarts.ended(now)
        if pause is None:
            break
        pauses.append(pause)
        now += pause
    assert len(pauses) == ATTEMPTS - 1


@given(st.floats(0.1, 2.0), st.integers(1, 100))
def test_a_fork_server_that_is_killed_again_and_again_costs_no_worker(every: float, times: int) -> None:
    restarts, now = RestartPolicy(), 0.0
    for n in range(times):
        restarts.started()
        if n % 2:
            restarts.ready(now)
        now += every
        pause = restarts.ended(now, outside=True)
        assert pause is not None
        assert pause <= LONGEST_PAUSE, "the worker is back this soon after the last kill"
        now += pause


@given(st.integers(0, ATTEMPTS - 1))
def test_a_process_that_proves_itself_clears_the_failures_before_it(before: int) -> None:
    restarts = RestartPolicy()
    for _ in range(before):
        restarts.failed()
    restarts.proved()
    assert restarts.failures == 0
    assert [restarts.failed() is None for _ in range(ATTEMPTS)] == [False] * (ATTEMPTS - 1) + [True]
