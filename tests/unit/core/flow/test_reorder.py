"""Items in any order in, and in the order of their numbers out."""

from __future__ import annotations

import pytest

from asynqueue.core.flow.reorder import Reorder


def test_what_comes_in_order_goes_straight_through() -> None:
    r = Reorder[str]()
    assert [r.put(n, x) for n, x in enumerate("abc")] == [["a"], ["b"], ["c"]]
    assert (len(r), r.next) == (0, 3)


def test_what_comes_early_waits_for_all_before_it() -> None:
    r = Reorder[str]()
    assert r.put(2, "c") == r.put(1, "b") == []
    assert (len(r), r.next) == (2, 0)
    assert r.put(0, "a") == ["a", "b", "c"]
    r.validate()


@pytest.mark.parametrize("number", [0, 2])
def test_a_number_is_put_once(number: int) -> None:
    r = Reorder[None]()
    r.put(0, None)
    r.put(2, None)
    with pytest.raises(ValueError, match=f"item number {number} was put before"):
        r.put(number, None)
