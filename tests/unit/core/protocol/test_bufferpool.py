"""Which memories are used again, and which give way."""

from __future__ import annotations

from asynqueue.core.protocol.bufferpool import BufferPool


def pool(*sizes: int, limit: int = 100, most: int = 4) -> BufferPool:
    """A pool with free memories 1, 2 ... of SIZES."""
    made = BufferPool(limit, most)
    for number, size in enumerate(sizes, 1):
        assert made.add(number, size) == []
    for number in range(1, len(sizes) + 1):
        made.returned(number)
    return made


def test_the_smallest_that_is_large_enough_is_lent() -> None:
    it = pool(30, 10, 20)
    assert [it.take(15), it.take(5), it.take(5), it.take(5)] == [3, 2, 1, None]


def test_the_smallest_give_way_and_no_more_than_have_to() -> None:
    it = pool(50, 10, 20)
    assert it.add(4, 40) == [2, 3]
    it.validate()


def test_none_gives_way_to_what_just_fits() -> None:
    assert pool(50, 10).add(3, 40) == []
    assert pool(50, 10).add(3, 41) == [2]


def test_one_gives_way_when_there_are_as_many_as_may_be() -> None:
    it = pool(3, 2, 1, most=3)
    assert it.add(4, 5) == [3]
    it.validate()


def test_what_is_lent_gives_way_to_nothing() -> None:
    it = pool(20, 20, 20, most=3)
    lent = [it.take(20), it.take(20)]
    assert it.add(4, 61) is None
    (free,) = {1, 2, 3} - set(lent)
    assert it.add(4, 60) == [free]
    assert it.add(5, 0) is None
