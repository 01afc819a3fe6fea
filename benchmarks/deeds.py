"""What the calls do that are measured. Every system's workers import this, so it imports next to nothing."""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter
from typing import Any, TypeVar

T = TypeVar("T")


def echo(value: T) -> T:
    """Give VALUE back."""
    return value


def spin(seconds: float) -> float:
    """Keep a core busy for SECONDS."""
    end = perf_counter() + seconds
    while perf_counter() < end:
        pass
    return seconds


def count(number: int) -> Iterator[int]:
    """0, 1 ... below NUMBER, one by one."""
    yield from range(number)


def now() -> float:
    """The time, by a clock that all processes of a machine share."""
    return perf_counter()


def say(far: Any) -> None:
    """Say one thing over FAR, the connection of a bare process."""
    far.send(1)
