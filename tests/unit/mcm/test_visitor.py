"""Who explores: tokens, seats, and who is forgotten."""

from __future__ import annotations

import pytest

from asynqueue.core.scheduling.fairness import weight
from mcmandelbrot.explorer.visitor import (
    ABSENCE,
    MOST,
    PER_ADDRESS,
    RING_WEIGHTS,
    RINGS,
    SERIES,
    SERIES_COUNT,
    SERIES_PER_ADDRESS,
    Visitors,
    nicenessOf,
)

HERE, THERE = "192.0.2.1", "192.0.2.2"


def test_a_token_is_valid_only_from_its_own_address() -> None:
    visitors = Visitors()
    visitor = visitors.register(HERE, 0.0)
    assert visitor.token
    assert visitors.find(visitor.token, HERE, 1.0) is visitor
    assert visitors.find(visitor.token, THERE, 1.0) is not visitor


def test_to_meet_one_with_a_token_made_up_is_to_greet_one() -> None:
    visitors = Visitors()
    visitor = visitors.identify("made up", HERE, 0.0)
    assert visitor.token not in (None, "made up")
    assert visitors.identify(visitor.token, HERE, 1.0) is visitor
    assert len(visitors) == 1


def test_all_without_a_token_of_ours_are_one_visitor_for_each_address() -> None:
    visitors = Visitors()
    nobody = visitors.find(None, HERE, 0.0)
    assert visitors.find("made up", HERE, 0.0) is nobody
    assert visitors.find("also made up", HERE, 0.0) is nobody
    assert visitors.find(None, THERE, 0.0) is not nobody
    assert len(visitors) == 2


def test_each_has_a_series_of_its_own_until_all_are_taken() -> None:
    visitors = Visitors()
    series = [visitors.register(f"192.0.2.{n}", 0.0).series for n in range(2 * SERIES_COUNT)]
    assert set(series[:SERIES_COUNT]) == set(SERIES)
    assert sorted(series) == sorted(SERIES * 2)


def test_a_seat_is_free_again_when_its_visitor_is_forgotten() -> None:
    visitors = Visitors()
    first = visitors.register(HERE, 0.0)
    busy = visitors.register(HERE, 0.0)
    busy.tiles = 1
    visitors.register(THERE, ABSENCE + 1)
    assert len(visitors) == 2
    assert visitors.find(first.token, HERE, ABSENCE + 1) is not first
    assert visitors.find(busy.token, HERE, ABSENCE + 1) is busy


def test_a_new_visitor_replaces_an_idle_one_of_a_full_address() -> None:
    visitors = Visitors()
    known = [visitors.register(HERE, 0.0) for _ in range(PER_ADDRESS)]
    known[0].streams = 1
    newcomer = visitors.register(HERE, 1.0)
    assert newcomer.token
    assert visitors.find(known[0].token, HERE, 1.0) is known[0]
    assert visitors.find(known[1].token, HERE, 1.0) is not known[1]
    for visitor in [*known, newcomer]:
        visitor.streams = 1
    assert visitors.register(HERE, 1.0).token is None


def test_there_are_never_more_than_so_many() -> None:
    visitors = Visitors()
    for n in range(2 * MOST):
        visitors.find(None, str(n), 0.0)
    assert len(visitors) <= MOST


def test_a_network_of_version_6_is_one_address() -> None:
    visitors = Visitors()
    assert visitors.find(None, "2001:db8::1", 0.0) is visitors.find(None, "2001:db8::ffff:2", 0.0)
    assert visitors.find(None, "2001:db8:1::1", 0.0) is not visitors.find(None, "2001:db8::1", 0.0)
    assert visitors.find(None, "::ffff:192.0.2.1", 0.0) is visitors.find(None, HERE, 0.0)
    assert visitors.find(None, "", 0.0).address.host == ""


def test_an_address_has_so_many_seats_and_its_visitors_share_them_evenly() -> None:
    visitors = Visitors()
    known = [visitors.register(HERE, 0.0).series for _ in range(PER_ADDRESS)]
    assert set(known) == set(known[:SERIES_PER_ADDRESS])
    assert {known.count(series) for series in known} == {PER_ADDRESS // SERIES_PER_ADDRESS}
    assert visitors.register(THERE, 0.0).series not in known


def test_all_visitors_from_one_address_together_get_what_one_alone_does() -> None:
    def share(number: int, ring: int) -> float:
        visitors = Visitors()
        here = [visitors.register(HERE, 0.0) for _ in range(number)]
        flows = {(visitor.series, visitor.niceness(ring)) for visitor in here}
        return sum(100 / weight(niceness) for _, niceness in flows)

    for ring in range(RINGS):
        alone = share(1, ring)
        assert alone == pytest.approx(1 / RING_WEIGHTS[ring])
        for number in (2, 3, 4, PER_ADDRESS):
            assert share(number, ring) == pytest.approx(alone, rel=0.2)


def test_the_furthest_ring_is_the_nicest_and_none_is_too_nice_for_a_queue() -> None:
    for sharers in range(1, SERIES_PER_ADDRESS + 1):
        each = [nicenessOf(ring, sharers) for ring in range(RINGS)]
        assert each == sorted(set(each))
        assert min(each) >= -20
        assert max(each) <= 20
