"""Which memories a side keeps to use again: they are lent to the other side, and come back.

Theory of operation. Fresh memory is what costs most of sending something large: the kernel finds it page by page. So
what was filled once is kept, and filled again when the other side has read it. A memory is *lent* from when it is
filled, *free* when it has come back. No more than `MOST` are kept and no more than `LIMIT` bytes of them, lent or free;
what has no room there is used once. A free one gives way to one that is larger than any. What is kept is given back
when nothing large has been sent for a while: `clear`.
"""

from __future__ import annotations

LIMIT = 100 << 20
"""The most bytes of memories that one side keeps."""

KEEP = 1.0
"""Seconds without anything large after which a side is to `clear`."""

MOST = 8
"""The most memories that one side keeps, each of which is a descriptor on either side."""


class BufferPool:
    """The memories that are kept, by number.

    >>> shelf = BufferPool()
    >>> shelf.add(1, 5000)
    []
    >>> shelf.take(4000)  # it is lent
    >>> shelf.back(1)
    >>> shelf.take(4000)
    1
    """

    __slots__ = ("_free", "_limit", "_most", "_sizes", "_total")

    def __init__(self, limit: int = LIMIT, most: int = MOST) -> None:
        self._limit = limit
        self._most = most
        self._sizes: dict[int, int] = {}
        self._free: set[int] = set()
        self._total = 0

    def __contains__(self, number: object) -> bool:
        return number in self._sizes

    def take(self, size: int) -> int | None:
        """Lend the smallest free memory in which SIZE bytes have room, if there is one."""
        fitting = [number for number in self._free if self._sizes[number] >= size]
        if not fitting:
            return None
        number = min(fitting, key=self._sizes.__getitem__)
        self._free.remove(number)
        return number

    def add(self, number: int, size: int) -> list[int] | None:
        """Keep and lend a new memory of SIZE bytes; those that give way to it. None if there is no room for it."""
        lent = sum(self._sizes[n] for n in self._sizes if n not in self._free)
        if lent + size > self._limit or len(self._sizes) - len(self._free) >= self._most:
            return None
        gone: list[int] = []
        for n in sorted(self._free, key=self._sizes.__getitem__):
            if self._total + size <= self._limit and len(self._sizes) < self._most:
                break
            self._forget(n)
            gone.append(n)
        self._sizes[number] = size
        self._total += size
        return gone

    def back(self, number: int) -> None:
        """A memory that was lent is free."""
        if number in self._sizes:
            self._free.add(number)

    def lose(self, number: int) -> None:
        """Keep a memory no more, if it is kept: it never came to the other side."""
        if number in self._sizes:
            self._forget(number)

    def clear(self) -> list[int]:
        """Keep the free ones no more: those."""
        free = sorted(self._free)
        for number in free:
            self._forget(number)
        return free

    def validate(self) -> None:
        """Assert that no more is kept than may be."""
        assert self._total == sum(self._sizes.values()) <= self._limit
        assert len(self._sizes) <= self._most
        assert self._free <= self._sizes.keys()

    def _forget(self, number: int) -> None:
        self._total -= self._sizes.pop(number)
        self._free.discard(number)
