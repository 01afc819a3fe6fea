"""Records: what they hold, that it stays, and how a call reads."""

from __future__ import annotations

from functools import partial
from typing import NoReturn

import attrs
import pytest

from asynqueue.core.records import CallSpec, Lost, Returned, Task
from asynqueue.core.text import describe


class Awkward:
    """It raises whatever is asked of it."""

    def __repr__(self) -> NoReturn:
        raise RuntimeError("no repr")

    def __getattr__(self, name: str) -> NoReturn:
        raise RuntimeError("no attributes")

    def __call__(self) -> None:
        """Do nothing."""


def test_a_call_holds_its_function_and_arguments() -> None:
    spec = CallSpec.of(round, 2.5, ndigits=1)
    assert (spec.f, spec.args, spec.kw) == (round, (2.5,), {"ndigits": 1})


@pytest.mark.parametrize("record", [CallSpec.of(print), Task(1, CallSpec.of(print)), Lost()])
def test_a_record_does_not_change(record: object) -> None:
    for name in ("f", "niceness", "value", "reason", "other"):
        with pytest.raises((attrs.exceptions.FrozenInstanceError, AttributeError)):
            setattr(record, name, 1)


def test_a_task_is_spent_when_it_was_started_as_often_as_it_may_be() -> None:
    task = Task(1, CallSpec.of(print), series="a", retries=1)
    assert [task.spent, task.again().spent, task.again().again().spent] == [False, False, True]
    assert (task.attempt, task.again().attempt, task.again().series) == (0, 1, "a")


def test_a_task_that_may_not_be_tried_again_is_spent_by_one_start() -> None:
    assert Task(1, CallSpec.of(print), retries=0).again().spent


def test_a_call_reads_as_it_would_be_written() -> None:
    assert describe(divmod, (7, 2)) == "divmod(7, 2)"
    assert describe(Returned.__init__, (), {"value": "x"}) == "Returned.__init__(value='x')"
    assert str(CallSpec.of(print, 1, end="")) == "print(1, end='')"
    assert describe(lambda: None).endswith("<lambda>()")
    assert describe(partial(divmod, 1)).startswith("functools.partial(")


def test_a_call_that_cannot_be_read_is_described_all_the_same() -> None:
    assert "Awkward" in describe(Awkward(), (Awkward(), [Awkward()]))
    assert describe(Awkward()).startswith("<Awkward ")
    assert describe(print, (10**9999,)) == "print(<an integer of 33216 bits>)"


def test_a_description_is_short() -> None:
    many = describe(print, tuple(range(1000)), {f"k{n}": n for n in range(1000)})
    assert many.startswith("print(0, 1, 2, 3, 4, 5, 6, 7, k0=0")
    assert many.endswith("k7=7, ...)")
    huge = "x" * 10_000
    assert len(describe(print, (huge, [huge] * 99, 10**9999), {huge: huge, "n": {huge: huge}})) < 1000


def test_a_description_of_a_function_with_a_long_name_is_short() -> None:
    def f() -> None:
        """Do nothing."""

    f.__qualname__ = "f" * 10_000
    assert len(describe(f)) < 300


def named(name: object) -> object:
    """Something with a __name__ and no __qualname__, as C extensions have them."""
    return type("Something", (), {"__name__": name, "__repr__": lambda self: "something"})()


def test_what_has_a_name_alone_is_called_by_it() -> None:
    assert describe(named("spam")) == "spam()"
    assert describe(named(3)) == "something()"


def test_a_name_is_cut_at_two_hundred() -> None:
    assert describe(named("n" * 201)) == "n" * 200 + "()"


@pytest.mark.parametrize("number", [8, 9])
def test_of_many_arguments_eight_are_told(number: int) -> None:
    told = ", ".join("1" * min(number, 8)) + (", ..." if number > 8 else "")
    assert describe(print, (1,) * number) == f"print({told})"
    keywords = {f"k{n}": 1 for n in range(number)}
    told = ", ".join(f"k{n}=1" for n in range(8)) + (", ..." if number > 8 else "")
    assert describe(print, (), keywords) == f"print({told})"


def test_a_long_keyword_is_cut_at_sixty() -> None:
    assert describe(print, (), {"k" * 61: 1}) == f"print({'k' * 60}=1)"
