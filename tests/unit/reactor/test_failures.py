"""Errors and results that Twisted, a coroutine or a log cannot look at."""

from __future__ import annotations

import traceback
from typing import Any, NoReturn

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from asynqueue.errors import ImplementationError
from asynqueue.reactor.calling import make, run, whenFired
from asynqueue.reactor.failures import deliverable, failureOf, printable
from tests.support.deferreds import errorOf


def refuse(*_: object) -> NoReturn:
    raise SystemExit("hostile")


def hostile(base: type, name: str, meta: bool = False) -> Any:
    """Return an object of a class derived from BASE that raises for its attribute NAME, or for that of its class."""
    namespace = {name: property(refuse)}
    if meta:
        return type("Meta", (type,), namespace)("Hostile", (base,), {})("why")
    return type("Hostile", (base,), namespace)("why") if base is not object else type("Hostile", (), namespace)()


def raiseIt(error: BaseException) -> NoReturn:
    raise error


def caught(error: BaseException) -> BaseException:
    """Return ERROR after it was raised, with its traceback."""
    try:
        raiseIt(error)
    except BaseException as raised:
        return raised


@pytest.mark.parametrize(("name", "meta"), [("__class__", False), ("with_traceback", False), ("__module__", True)])
def test_an_error_that_twisted_cannot_look_at_is_replaced_by_one_that_names_it(name: str, meta: bool) -> None:
    failure = failureOf(caught(hostile(ValueError, name, meta)))
    assert type(failure.value) is ImplementationError
    assert "Hostile: why, cannot be passed on: SystemExit: hostile" in str(failure.value)
    assert "in raiseIt" in failure.getTraceback()


@pytest.mark.parametrize("name", ["__cause__", "__traceback__", "args", "__notes__", "__len__", "__bool__"])
def test_an_error_that_twisted_can_look_at_is_passed_on_as_itself(name: str) -> None:
    error = caught(hostile(ValueError, name))
    assert deliverable(error) is error
    assert failureOf(error).value is error


def test_an_error_whose_traceback_cannot_be_formatted_is_logged_by_name() -> None:
    error = caught(hostile(ValueError, "__cause__"))
    failure = printable(error)
    assert "Hostile: why, cannot be formatted: SystemExit: hostile" in str(failure.value)
    assert "in raiseIt" in "".join(traceback.format_exception(failure.value))
    plain = KeyError()
    assert printable(plain).value is plain


def test_a_coroutine_ends_with_any_result_and_any_error() -> None:
    async def returning() -> Any:
        return hostile(object, "__class__")

    async def raising() -> NoReturn:
        raise hostile(ValueError, "__class__")

    assert "Hostile" in str(errorOf(run(returning()), TypeError))
    assert "Hostile" in str(errorOf(run(raising()), ImplementationError))
    assert "Hostile" in str(errorOf(make(raising, (), {}), ImplementationError))


def test_a_deferred_with_a_result_that_it_cannot_look_at_fails() -> None:
    got: list[Any] = []
    d: Deferred[Any] = succeed(1)
    d.result = hostile(object, "__class__")  # as a callback returns it
    whenFired(d, got.append)
    (failure,) = got
    assert type(failure) is Failure
    assert failure.check(SystemExit) is SystemExit
    whenFired(succeed(2), got.append)
    assert got[1:] == [2]
