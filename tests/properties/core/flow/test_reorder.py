"""Reordering never loses, doubles, misorders or holds back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from asynqueue.core.flow.reorder import Reorder


@given(st.permutations(range(40)), st.integers(0, 40))
def test_order(arrivals: list[int], count: int) -> None:
    """What went out is always 0, 1, 2 ... as far as it has come unbroken; the rest is held."""
    r = Reorder[str]()
    out: list[str] = []
    come: set[int] = set()
    for number in arrivals[:count]:
        out += r.put(number, str(number))
        come.add(number)
        r.validate()
        unbroken = next(n for n in range(41) if n not in come)
        assert out == [str(n) for n in range(unbroken)]
        assert r.next == unbroken
        assert len(r) == len(come) - unbroken
