"""The calls of `benchmarks.endurance`, which run in a worker process."""

from __future__ import annotations

import mmap
import signal
import time
from collections.abc import Iterator

ITEMS = 20
"""The number of items of an iterator."""

_maps: dict[str, mmap.mmap] = {}


def begin(path: str, number: int) -> None:
    """Count one more start of call NUMBER."""
    starts = _maps.get(path)
    if starts is None:
        with open(path, "r+b") as file:
            starts = _maps[path] = mmap.mmap(file.fileno(), 0)
    starts[number] += 1


def give(path: str, number: int) -> int:
    """Return NUMBER."""
    begin(path, number)
    return number


def dwell(path: str, number: int) -> int:
    """Return NUMBER after a while, so that a kill finds a running call."""
    begin(path, number)
    time.sleep(0.002)
    return number


def fail(path: str, number: int) -> None:
    """Raise an error that names NUMBER."""
    begin(path, number)
    raise LookupError(number)


def hang(path: str, number: int) -> None:
    """Never end."""
    begin(path, number)
    while True:
        signal.pause()


def iterate(path: str, number: int) -> Iterator[int]:
    """An iterator over a few items."""
    begin(path, number)
    return iter(range(ITEMS))
