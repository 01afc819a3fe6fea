"""What can never happen to a process that wears out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from asynqueue.core.scheduling.recycling import Condition, RecycleLimits, RecyclePolicy

limits = st.one_of(st.none(), st.integers(1, 50))
events = st.lists(st.one_of(st.just("given"), st.just("recalled"), st.integers(0, 60)), max_size=150)


@given(limits, limits, events)
def test_no_process_is_given_more_than_its_limit_and_none_is_replaced_before_it(
    maxTasks: int | None, maxMemory: int | None, happened: list[int | str]
) -> None:
    """Driven as a worker drives it: what is worn is replaced at once; what ages gets a successor, once."""
    wear, held, memory = RecyclePolicy(RecycleLimits(maxTasks, maxMemory)), 0, 0
    aged = False
    for event in happened:
        if event == "given":
            wear.given()
            held += 1
        elif event == "recalled" and held:
            wear.recalled()
            held -= 1
        elif isinstance(event, int):
            wear.measured(event)
            memory = event
        wear.validate()
        assert maxTasks is None or held <= maxTasks
        worn = (maxTasks is not None and held == maxTasks) or (maxMemory is not None and memory > maxMemory)
        assert (wear.condition is Condition.WORN) == worn
        if maxMemory is None and worn:
            assert aged or maxTasks == 1, "there was time to start a successor"
        aged = aged or wear.condition is Condition.AGEING
        if worn:
            wear, held, memory, aged = RecyclePolicy(RecycleLimits(maxTasks, maxMemory)), 0, 0, False
