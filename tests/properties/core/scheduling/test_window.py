"""What a window never allows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from asynqueue.core.scheduling.window import BUDGET, NEXT_LIMIT, AdaptiveWindow, Window

SECONDS = st.one_of(st.floats(0, 1e-4), st.floats(1e-4, 10), st.just(float("nan")), st.floats(allow_nan=True))
LIMITS = st.tuples(st.integers(1, 4), st.integers(0, 200)).map(lambda pair: Window(pair[0], sum(pair)))


@given(LIMITS, st.lists(st.one_of(SECONDS, st.none()), max_size=300))
def test_window_holds_what_it_runs_and_a_budget_of_work(limits: Window, events: list[float | None]) -> None:
    """Whatever a peer claims. None stands for a stall."""
    window = AdaptiveWindow(limits)
    for seconds in events:
        if seconds is None:
            window.stalled()
            assert window.size == limits.running
        else:
            window.answered(seconds)
            if seconds >= BUDGET:
                assert window.size <= limits.running + 1
        window.validate()
        assert limits.running <= window.size <= limits.most


@given(LIMITS, st.floats(1e-9, 1e-3), st.integers(1, 400))
def test_window_is_never_more_than_the_slowest_recent_call_allows(limits: Window, fast: float, calls: int) -> None:
    window = AdaptiveWindow(limits)
    for _ in range(calls):
        window.answered(fast)
    assert window.size <= limits.running + BUDGET / fast * (1 + 1e-9)
    window.answered(2 * BUDGET)
    assert window.size <= limits.running + 1
    window.answered(2 * NEXT_LIMIT)
    assert window.size == limits.running


@given(LIMITS, st.floats(1e-9, 1e-3))
def test_window_grows_by_no_more_than_doubling_while_a_full_window_is_answered(limits: Window, fast: float) -> None:
    window = AdaptiveWindow(limits)
    for _ in range(10):
        size = window.size
        for _ in range(size):
            assert window.size == size
            window.answered(fast)
        assert window.size <= 2 * size


@given(LIMITS, st.floats(1e-9, 1e-3), st.floats(1e-3, 10))
def test_window_recovers_from_a_slow_call(limits: Window, fast: float, slow: float) -> None:
    window = AdaptiveWindow(limits)
    window.answered(slow)
    for _ in range(2_000):
        window.answered(fast)
    assert window.size == min(limits.most, limits.running + int(BUDGET / fast)) or window.size >= 0.9 * BUDGET / fast
