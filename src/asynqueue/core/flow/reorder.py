"""Put results back into the order of their calls.

The caller numbers its calls 0, 1, 2 ..., and puts each result in with the number of its call. An item comes out as soon
as all items with lower numbers have come out. Items that came early are held. The caller limits their number by
limiting how many calls are under way.

Cost: O(1) per item.
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
        """Return the number of items that are held until an item with a lower number comes."""
        return len(self._early)

    @property
    def next(self) -> int:
        """The number of the item that comes out next."""
        return self._next

    def put(self, index: int, item: T) -> list[T]:
        """Add ITEM with number INDEX (0 or more). Return the items that are now in order.

        Raise `ValueError` for a number that was put before.
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
        """Assert that no item is held that could come out, or that came out before."""
        assert all(index > self._next for index in self._early)
