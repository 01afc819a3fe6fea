"""What a queue wants to know of an object that is to be its worker."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from asynqueue.core.window import Window
from asynqueue.errors import ImplementationError


def missing(worker: object) -> list[str]:
    """What of the `Worker` protocol WORKER lacks. Raises `ImplementationError` for the class of a worker."""
    if isinstance(worker, type):
        name = worker.__name__
        raise ImplementationError(f"a worker is an instance of its class, got the class: not {name} but {name}(...)")
    lacking = [name for name in ("run", "stop", "crash", "setResignator") if not callable(getattr(worker, name, None))]
    if not any(hasattr(worker, name) for name in ("qualifications", "cQualified", "iQualified")):
        lacking.append("qualifications")
    return lacking


def qualifications(worker: Any) -> set[Hashable]:
    """The series a worker names, in whichever way it does: hence Any."""
    named: set[Hashable] = set()
    for name in ("qualifications", "cQualified", "iQualified"):
        series = getattr(worker, name, ())
        try:
            if isinstance(series, (str, bytes)):
                raise TypeError("which has letters and no series")
            named.update(series)
        except TypeError as error:
            raise ImplementationError(
                f"{type(worker).__name__}.{name} must be a collection of series, got {series!r}: {error}"
            ) from error
    return named


def window(worker: object) -> Window:
    """The window of a worker; one written for 0.9 names none."""
    given = getattr(worker, "window", Window())
    if not isinstance(given, Window):
        raise ImplementationError(f"{type(worker).__name__}.window must be a Window, got {given!r}")
    return given
