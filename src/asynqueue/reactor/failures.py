"""The errors with which the Deferreds of calls fail.

Twisted and coroutines look at each result and each error on their way: which class it has, and the name of that. An
object of a user may raise anything then. So each result that goes to them passes through `undeliverable` or `delivered`
first, and each error through `deliverable` or `failureOf`.
"""

from __future__ import annotations

import traceback
from types import CoroutineType
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import LogLevel
from twisted.python.failure import Failure
from typing_extensions import assert_never

from asynqueue.core.records import CallSpec, Cancelled, Iterating, Lost, Raised, Refused, Returned, Settlement, TimedOut
from asynqueue.core.results import PLAIN
from asynqueue.core.text import errorMessage, errorText, fullClassName
from asynqueue.errors import ImplementationError, QueueRunError, TimeoutError, WorkerLost

ERROR: Any = LogLevel.error  # Any, because some type checkers do not see a LogLevel in it
"""The level at which errors are logged."""

_TRACEBACK: Any = BaseException.__dict__["__traceback__"]  # it works where an error has a property of that name


def failureOf(error: BaseException) -> Failure:
    """Return ERROR as a Failure, with its traceback. It never raises. The error is that of `deliverable`."""
    error = deliverable(error)
    return Failure(error, type(error), _TRACEBACK.__get__(error))


def deliverable(error: BaseException) -> BaseException:
    """Return ERROR, or an error that names it, with its traceback, if Twisted cannot pass it on. It never raises."""
    where = _TRACEBACK.__get__(error)
    cls = type(error)
    try:
        isinstance(error, (Failure, Deferred))
        Failure(error, cls, where).check(CancelledError)  # This asks the class for its bases and their names.
        if error.with_traceback(where) is error and issubclass(cls, BaseException):
            return error
        refusal: BaseException = TypeError("its with_traceback returns another object")
    except BaseException as raised:
        refusal = raised
    return _replacement(error, "passed on", refusal)


def printable(error: BaseException) -> Failure:
    """Return ERROR as a Failure for the log, or an error that names it, if its traceback cannot be formatted.

    It never raises. An observer of the log that formats an error lets a SystemExit out, even that of a property.
    """
    failure = failureOf(error)
    try:
        traceback.format_exception(failure.type, failure.value, failure.tb)
    except BaseException as refusal:
        return failureOf(_replacement(error, "formatted", refusal))
    return failure


def errorIn(failure: Failure) -> BaseException:
    """Return the error in FAILURE. It is not asked whether it is true, because an error of a user may raise then."""
    return Exception("a Failure without an error") if failure.value is None else failure.value


def undeliverable(value: object) -> TypeError | None:
    """Return the error that a Deferred fails with if it cannot fire with VALUE, else None.

    Twisted asks each result whether it is a Failure. An object of a user may raise anything then: a dead
    `weakref.proxy` does.
    """
    if id(type(value)) in PLAIN:
        return None
    try:
        isinstance(value, Failure)
        if type(type(value)) is not type:  # Twisted compares the class with others, too.
            isinstance(value, Deferred)
            type(value) in (Deferred, Failure)  # noqa: B015  # it is only asked
    except BaseException as error:
        name = fullClassName(value)
        return TypeError(f"an object of the type {name} cannot be a result: isinstance of it raised {errorText(error)}")
    return None


def delivered(value: Any) -> Any:
    """Return VALUE, which may be anything, or if a Deferred cannot fire with it, a Failure that says so."""
    refusal = undeliverable(value)
    return value if refusal is None else failureOf(refusal)


def errorOf(settlement: Settlement, call: CallSpec[Any]) -> BaseException:
    """Return the error with which the Deferred of CALL fails. Raises `TypeError` if SETTLEMENT is a success."""
    if isinstance(settlement, Raised):
        return settlement.error
    if isinstance(settlement, Lost):
        return WorkerLost(f"{call} was lost: {settlement.reason}")
    if isinstance(settlement, TimedOut):
        return TimeoutError(f"{call} took more than {settlement.seconds:g} seconds")
    if isinstance(settlement, Cancelled):
        return CancelledError(f"{call} was cancelled")
    if isinstance(settlement, Refused):
        return QueueRunError(f"{call} was not run: {settlement.reason}")
    if isinstance(settlement, (Returned, Iterating)):
        raise TypeError(f"{settlement!r} is no error")
    assert_never(settlement)


def _replacement(error: BaseException, what: str, refusal: BaseException) -> ImplementationError:
    """Return an error with the name, the text and the traceback of ERROR, which REFUSAL says cannot be WHAT."""
    text = f"the error {fullClassName(error)}: {errorMessage(error)}, cannot be {what}: {errorText(refusal)}"
    return ImplementationError(text).with_traceback(_TRACEBACK.__get__(error))


def awaitableError(value: Deferred[Any] | CoroutineType[Any, Any, Any], call: CallSpec[Any]) -> TypeError:
    """Return the error of a CALL that has returned VALUE, for which its worker does not wait.

    A coroutine is closed, so that Python does not warn that it was never awaited.
    """
    if not isinstance(value, CoroutineType):
        return TypeError(f"{call} returned a Deferred, which its worker does not wait for")
    value.close()
    return TypeError(f"{call} returned a coroutine, which its worker does not wait for")
