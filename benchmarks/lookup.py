"""What stands for a script: a large global, a class, and functions that use them. See `benchmarks.script`."""

from __future__ import annotations

TABLE = list(range(2_000_000))


class Place:
    """A place in the table."""

    def __init__(self, number: int) -> None:
        self.number = number


def look(number: int) -> int:
    """Return what is at NUMBER."""
    return TABLE[number]


def lookAt(place: Place) -> Place:
    """Return the place after PLACE."""
    return Place(TABLE[place.number] + 1)
