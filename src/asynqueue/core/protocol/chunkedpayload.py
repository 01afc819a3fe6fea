"""A large payload in pieces, so that it is never in memory twice.

When sending, the pieces are what pickle wrote. Large bytes are the original objects, not copies. Frames are cut from
the beginning, and the cut pieces are released.

When receiving, the pieces are blocks of `BLOCK` bytes, in memory that returns to the system as soon as it is read.
Unpickling reads the payload like a file: it copies large bytes from the blocks to their final place, and each block is
released before the next is read. So the payload is in memory only once at any time, part in blocks and part in objects.

Taking or reading removes the bytes: a payload is used once. Child processes import this module.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

BLOCK = 1 << 20
"""The size of a block of received bytes."""


class ChunkedPayload:
    """The bytes of all PIECES, one after another."""

    __slots__ = ("_pieces", "_size")

    def __init__(self, pieces: Iterable[bytes | memoryview] = ()) -> None:
        self._pieces: deque[memoryview] = deque()
        self._size = 0
        for piece in pieces:
            self.append(piece)

    def __len__(self) -> int:
        """Return how many bytes are left."""
        return self._size

    def append(self, piece: bytes | memoryview) -> None:
        """Add PIECE at the end. It must not be changed afterwards."""
        if piece:
            self._pieces.append(memoryview(piece))
            self._size += len(piece)

    def prepend(self, piece: bytes) -> None:
        """Add PIECE at the beginning."""
        self._pieces.appendleft(memoryview(piece))
        self._size += len(piece)

    def take(self, size: int) -> list[memoryview]:
        """Remove and return the next SIZE bytes, or fewer at the end, in as many pieces as necessary."""
        taken: list[memoryview] = []
        while size > 0 and self._pieces:
            piece = self._pieces[0]
            if len(piece) <= size:
                self._pieces.popleft()
            else:
                self._pieces[0] = piece[size:]
                piece = piece[:size]
            size -= len(piece)
            self._size -= len(piece)
            taken.append(piece)
        return taken

    # The methods of a file that pickle needs.

    def read(self, size: int = -1) -> bytes:
        """Remove and return the next SIZE bytes, or all if SIZE is negative."""
        return b"".join(self.take(self._size if size < 0 else size))

    def readinto(self, room: bytearray | memoryview) -> int:
        """Fill ROOM with the next bytes, and return how many."""
        start = 0
        while start < len(room) and self._pieces:
            (piece,) = self.take(min(len(room) - start, len(self._pieces[0])))
            room[start : start + len(piece)] = piece
            start += len(piece)
        return start

    def readline(self) -> bytes:
        """Remove and return the next bytes up to and including a line end."""
        line = bytearray()
        while self._pieces and not line.endswith(b"\n"):
            piece = self._pieces[0]
            ends = next((n for n, byte in enumerate(piece, 1) if byte == 10), len(piece))
            line += self.take(ends)[0]
        return bytes(line)


def anonymousCopy(block: bytearray) -> memoryview:
    """Return a copy of BLOCK in anonymous memory, which returns to the system as soon as it is unused."""
    import mmap

    flags = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}  # none on Windows
    memory = mmap.mmap(-1, len(block), **flags)
    memory[:] = block
    return memoryview(memory)


def joined(payloads: Sequence[bytes | ChunkedPayload]) -> bytes | ChunkedPayload:
    """Return PAYLOADS one after another: chunked if one of them is."""
    whole = [payload for payload in payloads if not isinstance(payload, ChunkedPayload)]
    if len(whole) == len(payloads):
        return b"".join(whole)
    pieces = ChunkedPayload()
    for payload in payloads:
        for piece in payload.take(len(payload)) if isinstance(payload, ChunkedPayload) else (payload,):
            pieces.append(piece)
    return pieces


def whole(payload: bytes | bytearray | ChunkedPayload) -> bytes | bytearray:
    """Return PAYLOAD in one piece."""
    return payload.read() if isinstance(payload, ChunkedPayload) else payload
