"""The keywords of queues and of calls, and what they may be."""

from __future__ import annotations

from collections.abc import Hashable
from math import isfinite
from typing import Any, TypedDict

from asynqueue.core.records import NICENESS_MAX, NICENESS_MIN, CallSpec
from asynqueue.interfaces import Clock, Consumer


class QueueOptions(TypedDict, total=False):
    """The keywords of every queue."""

    timeout: float | None
    warn: bool
    verbose: bool
    spew: bool
    returnFailure: bool
    maxQueued: int | None
    reactor: Clock | None


class CallOptions(TypedDict, total=False):
    """The keywords of every call."""

    niceness: int
    series: Hashable
    doNext: bool
    doLast: bool
    timeout: float | None
    retries: int | None
    returnFailure: bool | None


def checkCall(
    spec: CallSpec[Any],  # calls of every type are checked alike
    niceness: int,
    series: Hashable,
    doNext: bool,
    doLast: bool,
    timeout: float | None,
    retries: int | None,
    consumer: Consumer | None,
) -> None:
    """Raise `ValueError` or `TypeError`, which says what is wrong, if a call cannot be as it is asked for."""
    if not callable(spec.f):
        raise TypeError(f"what is called must be callable, got {spec.f!r}")
    if type(niceness) is not int or not NICENESS_MIN <= niceness <= NICENESS_MAX:
        raise ValueError(f"niceness must be an integer from {NICENESS_MIN} to {NICENESS_MAX}, got {niceness!r}")
    if series is not None and not _hashes(series):
        raise TypeError(f"series must be hashable, got {series!r}")
    if doNext and doLast:
        raise ValueError("a call cannot be both doNext and doLast")
    if timeout is not None:
        checkTimeout(timeout)
    if retries is not None and (type(retries) is not int or retries < 0):
        raise ValueError(f"retries must be an integer of 0 or more, got {retries!r}")
    if consumer is not None:
        checkConsumer(consumer)


def checkConsumer(consumer: Consumer) -> None:
    """Raise `TypeError` if CONSUMER is none."""
    if isinstance(consumer, type) or not hasattr(consumer, "registerProducer"):
        raise TypeError(f"consumer must provide IConsumer, got {consumer!r}")


def checkTimeout(timeout: float | None) -> None:
    """Raise `ValueError` if TIMEOUT is no number of seconds above 0."""
    if timeout is None:
        return
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not isfinite(timeout) or timeout <= 0:
        raise ValueError(f"timeout must be a number of seconds above 0, or None; got {timeout!r}")


def _hashes(series: object) -> bool:
    try:
        hash(series)
    except TypeError:
        return False
    return True
