"""How a window follows a worker's calls."""

from __future__ import annotations

import pytest

from asynqueue.core.scheduling.window import NEXT_LIMIT, AdaptiveWindow, Window


def test_nothing_is_held_ahead_of_a_worker_of_which_nothing_is_known() -> None:
    assert AdaptiveWindow(Window(2, 64)).size == 2


def test_fast_calls_double_it_each_time_that_it_was_answered() -> None:
    window = AdaptiveWindow(Window(1, 64))
    sizes = []
    for _ in range(63):
        sizes.append(window.size)
        window.answered(1e-6)
    assert sizes == [1] + [2] * 2 + [4] * 4 + [8] * 8 + [16] * 16 + [32] * 32
    assert window.size == 64


def test_it_grows_no_further_than_a_budget_of_work() -> None:
    window = AdaptiveWindow(Window(1, 64))
    for _ in range(100):
        window.answered(0.0003)
    assert window.size == 1 + 3


def test_one_slow_call_shrinks_it_at_once() -> None:
    window = AdaptiveWindow(Window(1, 64))
    for _ in range(63):
        window.answered(1e-6)
    window.answered(0.0004)
    assert window.size == 1 + 2


def test_the_next_call_is_held_while_calls_take_no_more_than_some_budgets() -> None:
    window = AdaptiveWindow(Window(1, 64))
    window.answered(NEXT_LIMIT)
    assert (window.size, window.slow, window.patience) == (2, True, 33)
    window.answered(1.01 * NEXT_LIMIT)
    assert window.size == 1


def test_a_stall_makes_it_forget() -> None:
    window = AdaptiveWindow(Window(1, 64))
    for _ in range(63):
        window.answered(1e-6)
    window.stalled()
    assert window.size == 1
    window.answered(1e-6)
    assert window.size == 2


def test_a_time_that_is_no_number_does_no_harm() -> None:
    window = AdaptiveWindow(Window(1, 2))
    for seconds in (float("nan"), 1.0, float("nan"), float("inf"), -1.0):
        window.answered(seconds)
        window.validate()


def test_a_fixed_window_does_not_move() -> None:
    window = AdaptiveWindow(Window(3, 3))
    window.answered(9.0)
    assert window.size == 3


@pytest.mark.parametrize(("running", "most"), [(0, 1), (2, 1), (-1, -1)])
def test_a_window_that_cannot_be_is_refused(running: int, most: int) -> None:
    with pytest.raises(ValueError, match="a worker"):
        Window(running, most)


def test_a_worker_that_holds_only_what_it_runs_is_not_known_to_be_slow() -> None:
    window = AdaptiveWindow(Window(2, 2))
    window.answered(1.0)
    assert not window.slow


def test_one_that_is_away_holds_nothing_however_fast_it_was() -> None:
    window = AdaptiveWindow(Window(1, 64))
    window.answered(1e-6)
    window.resized(None)
    assert window.size == 0
    window.answered(1e-6)
    assert window.size == 0
    window.resized(Window(2, 64))
    assert window.size == 2


def test_the_estimate_comes_down_by_an_eighth_of_the_way() -> None:
    window = AdaptiveWindow(Window(1, 64))
    sizes = []
    for seconds in (0.00057, 0.0, 0.00049):
        window.answered(seconds)
        sizes.append(window.size)
    assert sizes == [2, 2, 3]


@pytest.mark.parametrize("before", [[0.00051, 0.00051], [1e-6] * 63 + [0.00057]])
def test_only_answers_since_it_last_had_its_size_count_for_more(before: list[float]) -> None:
    window = AdaptiveWindow(Window(1, 64))
    for seconds in before:
        window.answered(seconds)
    window.answered(0.0)
    assert window.size == 2
    window.answered(0.0)
    assert window.size == 3


def test_after_a_stall_a_full_window_has_to_be_answered_for_more() -> None:
    window = AdaptiveWindow(Window(2, 64))
    window.stalled()
    window.answered(1e-6)
    assert window.size == 2
    window.answered(1e-6)
    assert window.size == 4
