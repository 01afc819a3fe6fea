"""Results in any order in, items in call order out.

Theory of operation. Whoever starts the calls numbers them 0, 1, 2 ...; whoever gets an answer puts it here
with its number. An item comes out as soon as every item of a lower number has come out, so what goes out is
always an unbroken run that starts where the last run ended. What waits here is exactly what came early; the
caller bounds it by bounding how many calls are under way.

Cost: O(1) an item. Everything that affects the order lives here.
"""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class Reorder(Generic[T]):
    """Puts numbered items back in the order of their numbers.

    >>> r = Reorder[str]()
    >>> r.put(1, "b")
    []
    >>> r.put(0, "a")
    ['a', 'b']
    """

    __slots__ = ("_early", "_next")

    def __init__(self) -> None:
        self._early: dict[int, T] = {}
        self._next = 0

    def __len__(self) -> int:
        """The number of items that came early and wait for one of a lower number."""
        return len(self._early)

    @property
    def next(self) -> int:
        """The number of the item that goes out next."""
        return self._next

    def put(self, index: int, item: T) -> list[T]:
        """The items that may go out now that ITEM, of number INDEX (0 or more), is here.

        Raises `ValueError` for a number that was put before.
        """
        if index < self._next or index in self._early:
            raise ValueError(f"item number {index} was put before")
        self._early[index] = item
        ready = []
        while self._next in self._early:
            ready.append(self._early.pop(self._next))
            self._next += 1
        return ready

    def validate(self) -> None:
        """Assert that nothing which could go out is held back, and nothing that went out is held."""
        assert all(index > self._next for index in self._early)
