"""Decide which shared-memory buffers a side keeps for reuse.

Fresh memory is the main cost of sending a large payload, because the kernel has to provide it page by page. So a buffer
that was used once is kept. It is *lent* from when it is filled until the other side has read and returned it. After
that it is *free* and can be filled again.

- At most `MOST` buffers of at most `LIMIT` bytes in all are kept, lent or free. A buffer without room is used once.
- A free buffer is removed if a larger new one needs its room.
- `clear` removes all free buffers. It is called when no large payload was sent for `KEEP` seconds.
"""

from __future__ import annotations

LIMIT = 100 << 20
"""The maximum size of all buffers that one side keeps, in bytes."""

KEEP = 1.0
"""The time without a large payload, in seconds, after which a side calls `clear`."""

MOST = 8
"""The maximum number of buffers that one side keeps. Each needs a file descriptor on both sides."""


class BufferPool:
    """The buffers that are kept, by number.

    >>> pool = BufferPool()
    >>> pool.add(1, 5000)
    []
    >>> pool.take(4000)  # it is lent
    >>> pool.returned(1)
    >>> pool.take(4000)
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
        """Lend the smallest free buffer with room for SIZE bytes. Return its number, or None."""
        fitting = [number for number in self._free if self._sizes[number] >= size]
        if not fitting:
            return None
        number = min(fitting, key=self._sizes.__getitem__)
        self._free.remove(number)
        return number

    def add(self, number: int, size: int) -> list[int] | None:
        """Keep and lend a new buffer of SIZE bytes. Return the buffers removed for it, or None if there is no room."""
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

    def returned(self, number: int) -> None:
        """Record that buffer NUMBER came back and is free."""
        if number in self._sizes:
            self._free.add(number)

    def remove(self, number: int) -> None:
        """Remove buffer NUMBER if it is kept, because it never reached the other side."""
        if number in self._sizes:
            self._forget(number)

    def clear(self) -> list[int]:
        """Remove and return all free buffers."""
        free = sorted(self._free)
        for number in free:
            self._forget(number)
        return free

    def validate(self) -> None:
        """Assert that the limits hold."""
        assert self._total == sum(self._sizes.values()) <= self._limit
        assert len(self._sizes) <= self._most
        assert self._free <= self._sizes.keys()

    def _forget(self, number: int) -> None:
        self._total -= self._sizes.pop(number)
        self._free.discard(number)
