"""The keywords of queues and of calls, and the checks of their values."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from math import isfinite
from typing import Any, NamedTuple, TypedDict

from asynqueue.core.records import NICENESS_MAX, NICENESS_MIN, CallSpec
from asynqueue.core.results import isA
from asynqueue.core.serieskey import seriesKey
from asynqueue.core.text import valueText
from asynqueue.interfaces import Clock, Consumer
from asynqueue.reactor.checks import checkCallable


class QueueOptions(TypedDict, total=False):
    """The keywords of every queue."""

    timeout: float | None
    callTimeout: float | None
    warn: bool
    verbose: bool
    spew: bool
    returnFailure: bool
    maxQueued: int | None
    reactor: Clock | None


_MARK = object()
"""Makes a `ByName` unequal to every tuple of a user."""


class CallOptions(TypedDict, total=False):
    """The keywords of every call."""

    niceness: int
    series: Hashable
    doNext: bool
    doLast: bool
    timeout: float | None
    retries: int | None
    returnFailure: bool | None


class ByName(NamedTuple):  # a tuple, because its hash is computed several times for each call
    """The series of calls by name that are of SERIES, or of none. Only workers of wires are qualified for it."""

    series: Hashable = None
    mark: object = _MARK

    def __repr__(self) -> str:
        return f"{valueText(self.series)}, by name"


BY_NAME = ByName()
"""The series of calls by name that are of no series."""


def plainSeries(series: Hashable) -> Hashable:
    """Return the series that the caller has given to a call of SERIES."""
    return series.series if type(series) is ByName else series


def checkCall(
    spec: CallSpec[Any],  # Any: calls of every type are checked alike
    niceness: int,
    series: Hashable,
    doNext: bool,
    doLast: bool,
    timeout: float | None,
    retries: int | None,
    consumer: Consumer | None,
    raw: bool | None,
) -> None:
    """Raise `ValueError` or `TypeError` if an option of a call has a wrong value or type. The message says which and
    why.
    """
    if not callable(spec.f):
        checkCallable(spec.f)
    if type(niceness) is not int or not NICENESS_MIN <= niceness <= NICENESS_MAX:
        raise ValueError(
            f"niceness must be an integer from {NICENESS_MIN} to {NICENESS_MAX}, got {valueText(niceness)}"
        )
    if series is not None and type(series) is not ByName:
        checkSeries(series)
    if doNext or doLast:
        _checkPlace(doNext, doLast)
    if timeout is not None:
        checkTimeout(timeout)
    if retries is not None and (type(retries) is not int or retries < 0):
        raise ValueError(f"retries must be an integer of 0 or more, got {valueText(retries)}")
    if consumer is not None:
        checkConsumer(consumer)
    if raw is not None:
        checkRaw(raw, consumer)


def checkOptions(
    spec: CallSpec[Any], options: Mapping[str, Any]
) -> None:  # it may be anything: that is what is checked
    """Raise what `checkCall` raises, for those of OPTIONS that are options of a call."""
    niceness, series, timeout = options.get("niceness", 0), options.get("series"), options.get("timeout")
    doNext, doLast, retries = options.get("doNext", False), options.get("doLast", False), options.get("retries")
    checkCall(spec, niceness, series, doNext, doLast, timeout, retries, None, options.get("raw"))


def checkSeries(series: object) -> None:
    """Raise `TypeError` if SERIES is not hashable."""
    seriesKey(series)


def checkRaw(raw: bool, consumer: Consumer | None) -> None:
    """Raise `TypeError` if RAW is not a bool, `ValueError` if it is True and there is a CONSUMER."""
    if type(raw) is not bool:
        raise TypeError(f"raw must be True, False, or None for the worker's own; got {raw!r}")
    if raw and consumer is not None:
        raise ValueError("a raw call has no items to feed a consumer: leave out raw=True, or the consumer")


def seriesOf(worker: Iterable[Hashable], series: Iterable[Hashable]) -> frozenset[Hashable]:
    """Return the qualifications of a worker: the series of its kind (WORKER) and those in SERIES.

    Raise `TypeError` if SERIES is no iterable of series. A string is none, although its letters would be series.
    """
    if isinstance(series, (str, bytes)):
        raise TypeError(f"a worker's series are several: series=[{series!r}], not series={series!r}")
    try:
        return frozenset(worker) | frozenset(series)
    except TypeError as error:
        raise TypeError(f"a worker's series must be a collection of what is hashable, got {series!r}") from error


class Qualified:
    """The series of a worker: those of its kind in `cQualified`, and all of them in `qualifications`."""

    cQualified: tuple[str, ...] = ()
    qualifications: frozenset[Hashable]

    @property
    def iQualified(self) -> list[Hashable]:
        """The series of the worker beside those of its kind. (0.9 has them under this name.)"""
        return [series for series in self.qualifications if series not in self.cQualified]


def checkConsumer(consumer: Consumer) -> None:
    """Raise `TypeError` if CONSUMER lacks a method of `IConsumer`."""
    try:
        fits = not isA(consumer, type) and hasattr(consumer, "registerProducer")
    except BaseException:  # a user's `__getattr__` may raise anything
        fits = False
    if not fits:
        raise TypeError(f"consumer must provide IConsumer, got {valueText(consumer)}")


def checkTimeout(timeout: float | None) -> None:
    """Raise `ValueError` if TIMEOUT is not a number of seconds above 0."""
    if timeout is None:
        return
    try:
        fits = isA(timeout, int, float) and not isA(timeout, bool) and isfinite(timeout) and timeout > 0
    except BaseException:  # An integer may be too large for a float, and a number of a user may raise anything.
        fits = False
    if not fits:
        raise ValueError(f"timeout must be a number of seconds above 0, or None; got {valueText(timeout)}")


def _checkPlace(doNext: bool, doLast: bool) -> None:
    for name, value in (("doNext", doNext), ("doLast", doLast)):
        if type(value) is not bool:
            raise TypeError(f"{name} must be True or False, got {value!r}")
    if doNext and doLast:
        raise ValueError("a call cannot be both doNext and doLast")
