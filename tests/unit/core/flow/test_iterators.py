"""Unit tests of one slice of an iterator."""

from collections.abc import Iterator
from functools import partial
from itertools import count

from asynqueue.core.flow.iteration import Outflow
from asynqueue.core.flow.iterators import SLICE, Slice, takeSlice


def granted(items: int) -> Outflow:
    flow = Outflow()
    flow.granted(items)
    return flow


def still() -> float:
    return 0.0


def test_a_slice_has_at_most_as_many_items_as_were_granted() -> None:
    assert takeSlice(partial(next, count()), granted(3), still) == Slice([0, 1, 2], False, None)
    assert takeSlice(partial(next, count()), granted(0), still) == Slice([], False, None)


def test_a_slice_ends_with_the_first_item_after_its_time() -> None:
    times = iter([0.0, SLICE / 2, SLICE, SLICE * 1.1])
    assert takeSlice(partial(next, count()), granted(9), partial(next, times)) == Slice([0, 1, 2], False, None)


def test_an_exhausted_iterator_is_over_without_an_error() -> None:
    assert takeSlice(partial(next, iter("ab")), granted(9), still) == Slice(["a", "b"], True, None)


def test_an_error_comes_after_the_items_before_it() -> None:
    error = SystemExit(1)

    def items() -> Iterator[int]:
        yield 1
        raise error

    assert takeSlice(partial(next, items()), granted(9), still) == Slice([1], True, error)


def test_an_iterator_that_ends_its_own_iteration_produces_nothing_more() -> None:
    flow = granted(9)

    def items() -> Iterator[int]:
        yield 1
        flow.end()
        flow.granted(9)
        yield 2
        yield 3

    assert takeSlice(partial(next, items()), flow, still) == Slice([1, 2], False, None)
