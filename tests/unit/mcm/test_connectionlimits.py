"""Who gives way to whom: connections by number, from addresses by letter."""

from __future__ import annotations

import pytest

from mcmandelbrot.explorer.connectionlimits import Activity, ConnectionLimits, LimitReached


def limits(*here: tuple[str, Activity], most: int, perAddress: int = 100) -> ConnectionLimits[int]:
    """Those who are HERE, numbered from 1 in the order in which they began to do what they do."""
    limits = ConnectionLimits[int](most, perAddress)
    for number, (address, doing) in enumerate(here, 1):
        limits.add(number, address)
        limits.setActivity(number, doing)
    return limits


W, A, S = Activity.WAITING, Activity.ANSWERED, Activity.STREAMING


@pytest.mark.parametrize(
    ("here", "leaving"),
    [
        ([("a", A), ("b", A)], None),
        ([("a", A), ("b", W), ("a", W)], 2),
        ([("a", A), ("a", S), ("a", A)], 2),
        ([("a", A), ("a", A), ("a", A)], 3),
        ([("a", A), ("a", A), ("b", S)], 2),
        ([("a", S), ("b", S), ("d", A)], 1),
        ([("a", A), ("b", S), ("d", A)], 2),
    ],
    ids=[
        "none, while there is room",
        "who has waited longest",
        "a stream of the address that has most",
        "what the address that has most asked for last",
        "that address before a stream of another",
        "a stream, where all have the same",
        "any stream, where all have the same",
    ],
)
def test_at_the_limit_one_connection_is_closed(here: list[tuple[str, Activity]], leaving: int | None) -> None:
    assert limits(*here, most=3).add(9, "c") == leaving


def test_where_all_are_answered_and_have_their_share_nobody_gives_way() -> None:
    full = limits(("a", A), ("a", A), ("b", A), most=3)
    assert full.add(4, "c") == 2
    full.setActivity(4, A)
    for address in "abcd":
        with pytest.raises(LimitReached, match="too many visitors") as refusal:
            full.add(5, address)
        assert refusal.value.status == 503


def test_an_address_has_so_many_and_only_its_own_give_way_to_it() -> None:
    full = limits(("b", W), ("a", S), ("a", W), ("a", A), most=9, perAddress=3)
    assert full.add(5, "a") == 3
    full.setActivity(5, A)
    assert full.add(6, "a") == 2
    full.setActivity(6, A)
    with pytest.raises(LimitReached, match="3 connections from one address are enough") as refusal:
        full.add(7, "a")
    assert refusal.value.status == 429
    assert full.add(8, "b") is None


def test_who_has_left_leaves_room_and_does_nothing_any_more() -> None:
    full = limits(("a", A), most=1)
    full.remove(1)
    full.setActivity(1, W)
    assert full.add(2, "b") is None


def test_an_address_that_reconnects_often_never_takes_the_share_of_another() -> None:
    full = limits(*[("b", A)] * 3, most=6, perAddress=6)
    for number in range(10, 30):
        try:
            leaving = full.add(number, "a")
        except LimitReached:
            continue
        full.setActivity(number, A)
        assert leaving is None
    assert full.add(40, "c") is not None


def test_who_has_just_come_does_not_go_for_the_next_one_of_many() -> None:
    full = limits(*[("a", A)] * 3, *[("b", A)] * 3, most=6)
    assert full.add(7, "c") == 3
    for address in "aaabbb":
        with pytest.raises(LimitReached, match="too many visitors"):
            full.add(8, address)
    assert full.add(8, "c") == 7, "but for another from there"
    assert full.add(9, "d") == 8, "and for one from where nobody is"
