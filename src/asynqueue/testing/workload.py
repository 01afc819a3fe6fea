"""The functions that the kit's calls run, in any worker.

Each call writes to a *journal* when it starts and when it ends. The journal is a file in the kit's directory PLACE, so
the kit knows what happened in a worker that has died. A worker that cannot write to this file system cannot be checked.

Child processes import this module, which imports next to nothing.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator

MORE = 1000
"""The value that a keyword argument adds to a call's number. It is more than there are calls."""

LOOK = 0.001
"""The interval at which a held call checks whether it is released, in seconds."""


class KitError(Exception):
    """The error of a failing call: its NUMBER and the place of the failure."""

    def __init__(self, number: int, where: str) -> None:
        super().__init__(number, where)


class Notebook:
    """An object that updates write to and calls read."""

    def __init__(self) -> None:
        self.pages: dict[int, int] = {}  # not a list, because a restarted worker runs the updates again

    def write(self, place: str, number: int) -> int:
        """Record NUMBER."""
        mark(place, "start", number)
        self.pages[number] = number
        mark(place, "end", number)
        return number

    def read(self, place: str, number: int) -> list[int]:
        """Return all recorded numbers."""
        mark(place, "start", number)
        mark(place, "end", number)
        return sorted(self.pages)


def mark(place: str, what: str, number: int) -> None:
    """Write to the journal that WHAT happened to call NUMBER. One write, so that lines never mix."""
    descriptor = os.open(os.path.join(place, "journal"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, f"{what} {number}\n".encode())
    finally:
        os.close(descriptor)


def give(place: str, number: int, /, **more: int) -> int:
    """Return NUMBER plus the sum of the keyword arguments."""
    mark(place, "start", number)
    mark(place, "end", number)
    return number + sum(more.values())


def fail(place: str, number: int) -> None:
    """Raise a `KitError`."""
    mark(place, "start", number)
    mark(place, "end", number)
    raise KitError(number, "in a call")


def hold(place: str, number: int) -> int:
    """Return NUMBER when the call is released, or when the kit's directory is gone."""
    mark(place, "start", number)
    while not os.path.exists(os.path.join(place, f"release-{number}")) and os.path.isdir(place):
        time.sleep(LOOK)
    if os.path.isdir(place):
        mark(place, "end", number)
    return number


def iterate(place: str, number: int, items: int, breaks: bool, portable: bool = False) -> Iterator[int]:
    """Return an iterator over 0, 1 ... below ITEMS. With BREAKS it then raises a `KitError`.

    A PORTABLE iterator can be pickled, unlike a generator. It never breaks and writes nothing.
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
        if os.path.isdir(place):  # the directory is gone if the generator is collected later
            mark(place, "closed", number)


class Journal:
    """Reads the journal in PLACE."""

    def __init__(self, place: str) -> None:
        self.lines: list[tuple[str, int]] = []
        self._path = os.path.join(place, "journal")
        self._unread = 0

    def read(self) -> deque[tuple[str, int]]:
        """Return the new lines, each as what happened and the number of the call."""
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
        """Return the position of the first line about WHAT and NUMBER, or None."""
        return next((n for n, line in enumerate(self.lines) if line == (what, number)), None)

    def count(self, what: str, number: int) -> int:
        """Return the number of lines about WHAT and NUMBER."""
        return self.lines.count((what, number))
