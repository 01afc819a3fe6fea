"""Hypothesis strategies for calls, their options, and whole schedules of them.

>>> from hypothesis import given
>>> @given(schedules())
... def test_my_program(schedule):
...     for spec, options in schedule:
...         ...
"""

from __future__ import annotations

import operator
from typing import Any

from hypothesis import strategies as st

from asynqueue.core.records import NICENESS_MAX, NICENESS_MIN, CallSpec
from asynqueue.testing.model import QUALIFIED, UNQUALIFIED, CallRequest

KEYWORDS = ("more", "f", "self", "task")
"""Names of keyword arguments, including some that a worker may use for itself."""


def specs() -> st.SearchStrategy[CallSpec[Any]]:
    """Return a strategy for calls that return a value, raise an error, or return an iterator. All can be pickled."""
    number = st.integers(-9, 9)
    return st.one_of(
        st.builds(lambda x: CallSpec.of(abs, x), number),
        st.builds(lambda x, y: CallSpec.of(max, x, y), number, number),
        st.builds(lambda x: CallSpec.of(divmod, x, 0), number),  # raises ZeroDivisionError
        st.builds(lambda x: CallSpec.of(int, "ff", base=x), st.sampled_from((16, 10))),  # or ValueError
        st.builds(lambda xs: CallSpec.of(map, operator.neg, xs), st.lists(number, max_size=5)),
    )


def options(series: tuple[str | None, ...] = (None,)) -> st.SearchStrategy[dict[str, Any]]:
    """Return a strategy for options of `asynqueue.TaskQueue.call`, without those that have their default.

    Args:
        series: The series to choose from.
    """
    place = st.sampled_from(({}, {}, {"doNext": True}, {"doLast": True}))
    return st.builds(
        lambda where, rest: {**where, **rest},
        place,
        st.fixed_dictionaries(
            {},
            optional={
                "niceness": st.integers(NICENESS_MIN, NICENESS_MAX),
                "series": st.sampled_from(series),
                "retries": st.integers(0, 3),
            },
        ),
    )


def schedules(
    most: int = 20, series: tuple[str | None, ...] = (None,)
) -> st.SearchStrategy[list[tuple[CallSpec[Any], dict[str, Any]]]]:
    """Return a strategy for lists of calls with their options, to be submitted one after another.

    Args:
        most: The maximum number of calls.
        series: The series to choose from.
    """
    return st.lists(st.tuples(specs(), options(series)), max_size=most)


@st.composite
def callRequests(draw: st.DrawFn) -> CallRequest:
    """Return a strategy for calls that the kit asks a worker to run. The simplest is to give a number."""
    do = draw(st.sampled_from(("give", "fail", "hold", "iterate")))
    retries = draw(st.sampled_from((1, 1, 0, 2)))
    if do == "hold":
        return CallRequest(do, series=draw(st.sampled_from((None, QUALIFIED[0]))), retries=retries)
    if do == "iterate":
        items, breaks, fed = draw(st.sampled_from((0, 1, 2, 5, 20))), draw(st.booleans()), draw(st.booleans())
        raw = draw(st.sampled_from((None, None, None, True, False)))
        if raw is not None:  # the result is portable, and does not break
            return CallRequest(do, items, fed=fed and not raw, raw=raw, retries=retries)
        return CallRequest(do, items, breaks, fed, retries=retries)
    series = draw(st.sampled_from((None, None, *QUALIFIED, UNQUALIFIED)))
    niceness = draw(st.sampled_from((0, 0, -20, 20)))
    where = draw(st.sampled_from((None, None, "doNext", "doLast")))
    keyword = draw(st.sampled_from((None, None, *KEYWORDS))) if do == "give" else None
    return CallRequest(do, series=series, niceness=niceness, where=where, retries=retries, keyword=keyword)
