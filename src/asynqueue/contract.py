"""What a queue wants to know of an object that is to be its worker."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from asynqueue.core.window import Window
from asynqueue.errors import ImplementationError


def missing(worker: object) -> list[str]:
    """What of the `Worker` protocol WORKER lacks."""
    lacking = [name for name in ("run", "stop", "crash", "setResignator") if not callable(getattr(worker, name, None))]
    if not any(hasattr(worker, name) for name in ("qualifications", "cQualified", "iQualified")):
        lacking.append("qualifications")
    return lacking


def qualifications(worker: Any) -> set[Hashable]:
    """The series a worker names, in whichever way it does: hence Any."""
    named: set[Hashable] = set()
    for name in ("qualifications", "cQualified", "iQualified"):
        named.update(getattr(worker, name, ()))
    return named


def window(worker: object) -> Window:
    """The window of a worker; one written for 0.9 names none."""
    given = getattr(worker, "window", Window())
    if not isinstance(given, Window):
        raise ImplementationError(f"{type(worker).__name__}.window must be a Window, got {given!r}")
    return given
