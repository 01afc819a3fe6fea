"""The functions that are called in measurements. Every system's workers import this module, so it imports little."""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter
from typing import Any, TypeVar

T = TypeVar("T")


def echo(value: T) -> T:
    """Return VALUE."""
    return value


def spin(seconds: float) -> float:
    """Keep a core busy for SECONDS."""
    end = perf_counter() + seconds
    while perf_counter() < end:
        pass
    return seconds


def count(number: int) -> Iterator[int]:
    """Yield 0, 1 ... below NUMBER."""
    yield from range(number)


def now() -> float:
    """Return the time of a clock that all processes of a machine share."""
    return perf_counter()


def say(far: Any) -> None:
    """Send one object over FAR, the connection of a bare process."""
    far.send(1)
