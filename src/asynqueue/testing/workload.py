"""What the kit's calls do, wherever they run.

Each call writes in a *journal*, a file in the kit's own directory PLACE, when it starts and when it ends; so the
kit knows what happened in a worker that cannot be asked any more. A worker has to be able to write there: a process
or a machine that does not share the file system cannot be put through the kit.

Worker processes import this module: it imports next to nothing.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator

MORE = 1000
"""What a keyword adds to a call's number: more than there are calls."""

LOOK = 0.001
"""Seconds between two looks of a call that waits to be released."""


class KitError(Exception):
    """What a call of the kit fails with: the NUMBER of the call, and where it happened."""

    def __init__(self, number: int, where: str) -> None:
        super().__init__(number, where)


class Notebook:
    """An object that updates write in, and calls read."""

    def __init__(self) -> None:
        self.pages: dict[int, int] = {}  # not a list: a worker that returns is told everything again

    def write(self, place: str, number: int) -> int:
        """Keep NUMBER."""
        mark(place, "start", number)
        self.pages[number] = number
        mark(place, "end", number)
        return number

    def read(self, place: str, number: int) -> list[int]:
        """All that was kept."""
        mark(place, "start", number)
        mark(place, "end", number)
        return sorted(self.pages)


def mark(place: str, what: str, number: int) -> None:
    """Write in the journal that WHAT happened to call NUMBER: one write, so that lines never mix."""
    descriptor = os.open(os.path.join(place, "journal"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, f"{what} {number}\n".encode())
    finally:
        os.close(descriptor)


def give(place: str, number: int, /, **more: int) -> int:
    """Return NUMBER, and what MORE there is by whatever keyword."""
    mark(place, "start", number)
    mark(place, "end", number)
    return number + sum(more.values())


def fail(place: str, number: int) -> None:
    """Raise a `KitError`."""
    mark(place, "start", number)
    mark(place, "end", number)
    raise KitError(number, "in a call")


def hold(place: str, number: int) -> int:
    """Return NUMBER once the call is released: or, not to outlive the kit, when its directory is gone."""
    mark(place, "start", number)
    while not os.path.exists(os.path.join(place, f"release-{number}")) and os.path.isdir(place):
        time.sleep(LOOK)
    if os.path.isdir(place):
        mark(place, "end", number)
    return number


def iterate(place: str, number: int, items: int, breaks: bool, portable: bool = False) -> Iterator[int]:
    """An iterator over 0, 1 ... below ITEMS, which then BREAKS with a `KitError` or is exhausted.

    One that is PORTABLE can be pickled, which a generator cannot. It never breaks, and marks nothing.
    """
    mark(place, "start", number)
    mark(place, "end", number)
    return iter(range(items)) if portable else _each(place, number, items, breaks)


def _each(place: str, number: int, items: int, breaks: bool) -> Iterator[int]:
    mark(place, "begun", number)
    try:
        yield from range(items)
        if breaks:
            raise KitError(number, "in an iterator")
    finally:
        if os.path.isdir(place):  # one that is collected later on, elsewhere, tells nobody
            mark(place, "closed", number)


class Journal:
    """Reads what was marked in PLACE."""

    def __init__(self, place: str) -> None:
        self.lines: list[tuple[str, int]] = []
        self._path = os.path.join(place, "journal")
        self._unread = 0

    def read(self) -> deque[tuple[str, int]]:
        """The lines that are new since the last time, each what happened and the number of the call."""
        try:
            with open(self._path, "rb") as file:
                file.seek(self._unread)
                text = file.read()
        except FileNotFoundError:
            return deque()
        self._unread += len(text)
        new = [line.split() for line in text.decode().splitlines()]
        fresh = deque((what, int(number)) for what, number in new)
        self.lines.extend(fresh)
        return fresh

    def first(self, what: str, number: int) -> int | None:
        """The place of the first line that says so, if any does."""
        return next((n for n, line in enumerate(self.lines) if line == (what, number)), None)

    def count(self, what: str, number: int) -> int:
        """How many lines say so."""
        return self.lines.count((what, number))
