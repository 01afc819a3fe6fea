"""When a process is worn out."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from asynqueue.core.scheduling.recycling import Condition, RecycleLimits, RecyclePolicy


def conditions(maxTasks: int, calls: int) -> list[str]:
    """How a process of MAXTASKS is after each of so many CALLS."""
    wear = RecyclePolicy(RecycleLimits(maxTasks))
    seen: list[str] = []
    for _ in range(calls):
        wear.given()
        wear.validate()
        seen.append(wear.condition.name)
    return seen


class TestWear:
    def test_without_limits_nothing_wears_out(self) -> None:
        wear = RecyclePolicy(RecycleLimits())
        for _ in range(10_000):
            wear.given()
        wear.measured(1 << 40)
        assert wear.condition is Condition.FIT

    def test_calls_make_it_age_and_wear_out(self) -> None:
        assert conditions(1, 1) == ["WORN"]
        assert conditions(3, 3) == ["FIT", "AGEING", "WORN"]
        assert Counter(conditions(800, 800)) == {"FIT": 699, "AGEING": 100, "WORN": 1}

    def test_one_that_may_have_a_single_call_wants_its_successor_from_the_first(self) -> None:
        assert RecyclePolicy(RecycleLimits(1)).condition is Condition.AGEING

    def test_what_was_recalled_does_not_count(self) -> None:
        wear = RecyclePolicy(RecycleLimits(2))
        wear.given()
        wear.recalled()
        wear.given()
        assert wear.condition is Condition.AGEING
        wear.recalled()
        with pytest.raises(ValueError, match=r"^no call was given that could be recalled$"):
            wear.recalled()

    def test_memory_makes_it_age_and_wear_out(self) -> None:
        wear = RecyclePolicy(RecycleLimits(maxMemory=80))
        seen = []
        for memory in (70, 71, 80, 81, 10):
            wear.measured(memory)
            seen.append(wear.condition.name)
        assert seen == ["FIT", "AGEING", "AGEING", "WORN", "FIT"]

    @pytest.mark.parametrize("value", [0, -1, 1.5, True, "2"])
    def test_a_limit_that_is_none_is_named(self, value: Any) -> None:
        with pytest.raises(ValueError, match=r"^maxTasks must be a number of calls, 1 or more, or None; got "):
            RecycleLimits(maxTasks=value)
        with pytest.raises(ValueError, match=rf"^maxMemory must be a number of kB, .*; got {value!r}$"):
            RecycleLimits(maxMemory=value)

    def test_there_is_a_limit_if_either_is_set(self) -> None:
        assert not RecycleLimits().any
        assert RecycleLimits(maxTasks=1).any
        assert RecycleLimits(maxMemory=1).any

    def test_either_limit_is_enough(self) -> None:
        wear = RecyclePolicy(RecycleLimits(maxTasks=2, maxMemory=80))
        seen = []
        for memory in (81, 71, 70):
            wear.measured(memory)
            seen.append(wear.condition.name)
        wear.given()
        wear.given()
        seen.append(wear.condition.name)
        assert seen == ["WORN", "AGEING", "FIT", "WORN"]
