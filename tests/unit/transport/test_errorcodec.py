"""Errors that pickle alone would not carry, or not as themselves."""

from __future__ import annotations

import builtins
import copyreg
import sys
from typing import Any, NoReturn

import pytest

from asynqueue import ProcessQueue
from asynqueue.transport.errorcodec import dumpError, loadError
from tests.support.calls import failureOf, inLoop


class TwoArguments(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")
        self.a, self.b = a, b


class Outer(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(a)
        self.causes: list[Exception] = [TwoArguments(a, b)]


def carried(error: BaseException) -> Any:
    """Return ERROR as it arrives."""
    return loadError(dumpError(error))


def localError() -> NoReturn:
    class LocalError(ValueError):
        def __init__(self, a: int, b: int) -> None:
            super().__init__(a)
            self.b = b

    raise LocalError(1, 2)


def localClass() -> type:
    class Nested:
        pass

    return Nested


def group(*errors: Exception) -> Any:
    return getattr(builtins, "ExceptionGroup")("several", errors)  # noqa: B009  # Python 3.10 has none


needsGroups = pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 has no exception groups")


@needsGroups
def test_a_group_arrives_with_errors_whose_constructors_have_arguments_of_their_own() -> None:
    came = carried(group(KeyError(1), TwoArguments(2, 3), group(TwoArguments(4, 5))))
    assert str(came) == "several (3 sub-exceptions)"
    first, second, third = came.exceptions
    assert (type(first), first.args) == (KeyError, (1,))
    assert (type(second), str(second), second.a, second.b) == (TwoArguments, "2 and 3", 2, 3)
    assert type(third) is type(came)
    assert third.exceptions[0].b == 5
    assert not hasattr(came, "__notes__")


def test_an_error_in_a_part_of_another_arrives_as_itself() -> None:
    came = carried(Outer(1, 2))
    (cause,) = came.causes
    assert (type(came), type(cause), cause.a, cause.b) == (Outer, TwoArguments, 1, 2)


def test_errors_that_are_in_parts_of_each_other_arrive_without_that(monkeypatch: pytest.MonkeyPatch) -> None:
    # Dask, which other tests import, has tblib register a way for each class of errors that there is by then.
    monkeypatch.delitem(copyreg.dispatch_table, TwoArguments, raising=False)
    one: Any = TwoArguments(1, 2)
    other: Any = TwoArguments(3, 4)
    one.first = one.second = other
    other.first = other.second = one
    came = carried(one)
    assert (came.a, came.first.a, came.second.b) == (1, 3, 4)
    assert not hasattr(came.first, "first")
    (note,) = came.first.__notes__
    assert note.startswith("this error arrived without first")


@inLoop
async def test_an_error_of_a_class_that_the_call_has_made_arrives_as_itself() -> None:
    async with ProcessQueue(1) as queue:
        error: Any = await failureOf(queue.call(localError))
        assert issubclass(type(error), ValueError)
        assert type(error).__qualname__ == "localError.<locals>.LocalError"
        assert (error.args, error.b) == ((1,), 2)
        made = await queue.call(localClass)
        assert (made.__module__, made.__qualname__) == (__name__, "localClass.<locals>.Nested")
