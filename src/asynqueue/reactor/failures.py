"""How a call ended -> what its Deferred fails with."""

from __future__ import annotations

from types import CoroutineType
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import LogLevel
from twisted.python.failure import Failure
from typing_extensions import assert_never

from asynqueue.core.records import CallSpec, Cancelled, Iterating, Lost, Raised, Refused, Returned, Settlement, TimedOut
from asynqueue.errors import QueueRunError, TimeoutError, WorkerLost

ERROR: Any = LogLevel.error  # which to some checkers is of a type of its own, and no LogLevel
"""The level at which what went wrong is logged."""


def failureOf(error: BaseException) -> Failure:
    """ERROR as a Failure, with the traceback it has."""
    return Failure(error, type(error), error.__traceback__)


def errorOf(settlement: Settlement, call: CallSpec[Any]) -> BaseException:
    """What the Deferred of CALL fails with."""
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


def awaitableError(value: Deferred[Any] | CoroutineType[Any, Any, Any], call: CallSpec[Any]) -> TypeError:
    """What is wrong with the result of CALL, which would come later.

    (A coroutine is closed: it is not told of as forgotten.)
    """
    if isinstance(value, Deferred):
        return TypeError(f"{call} returned a Deferred, which its worker does not wait for")
    value.close()
    return TypeError(f"{call} returned a coroutine, which its worker does not wait for")
