"""A large payload in pieces, so that nobody has to hold it twice.

On its way out, the pieces are what pickle wrote: large bytes are the very objects that they were, not a copy. Frames
are cut from the beginning, and what was cut is let go of.

On its way in, the pieces are what has come, a `BLOCK` at a time, in memory that the system has back as soon as it is
read. Whoever unpickles it reads it like a file: large bytes go from the blocks to where they stay, and each block is
let go of before the next is read. So at any time there is the payload once, part of it here and part of it there.

What was taken or read is gone: a payload is used once. Worker processes read this module.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

BLOCK = 1 << 20
"""The bytes of what came that are put by together."""


class ChunkedPayload:
    """The bytes of all PIECES, one after another."""

    __slots__ = ("_pieces", "_size")

    def __init__(self, pieces: Iterable[bytes | memoryview] = ()) -> None:
        self._pieces: deque[memoryview] = deque()
        self._size = 0
        for piece in pieces:
            self.append(piece)

    def __len__(self) -> int:
        """How many bytes are left."""
        return self._size

    def append(self, piece: bytes | memoryview) -> None:
        """Have PIECE, of which nobody changes anything any more, at the end."""
        if piece:
            self._pieces.append(memoryview(piece))
            self._size += len(piece)

    def begin(self, piece: bytes) -> None:
        """Have PIECE at the beginning."""
        self._pieces.appendleft(memoryview(piece))
        self._size += len(piece)

    def take(self, size: int) -> list[memoryview]:
        """The next SIZE bytes, or what there is, in as many pieces as it takes."""
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

    # As a file is read. (For pickle.)

    def read(self, size: int = -1) -> bytes:
        """The next SIZE bytes, or what there is; all of it if SIZE is below 0."""
        return b"".join(self.take(self._size if size < 0 else size))

    def readinto(self, room: bytearray | memoryview) -> int:
        """The next bytes into ROOM, as many as fit; how many those are."""
        start = 0
        while start < len(room) and self._pieces:
            (piece,) = self.take(min(len(room) - start, len(self._pieces[0])))
            room[start : start + len(piece)] = piece
            start += len(piece)
        return start

    def readline(self) -> bytes:
        """The next bytes up to the end of a line, that included."""
        line = bytearray()
        while self._pieces and not line.endswith(b"\n"):
            piece = self._pieces[0]
            ends = next((n for n, byte in enumerate(piece, 1) if byte == 10), len(piece))
            line += self.take(ends)[0]
        return bytes(line)


def anonymousCopy(block: bytearray) -> memoryview:
    """What is in BLOCK, in memory that is the system's again when nobody has it."""
    from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap

    memory = mmap(-1, len(block), flags=MAP_PRIVATE | MAP_ANONYMOUS)
    memory[:] = block
    return memoryview(memory)


def joined(payloads: Sequence[bytes | ChunkedPayload]) -> bytes | ChunkedPayload:
    """PAYLOADS one after another, in pieces if one of them is."""
    whole = [payload for payload in payloads if not isinstance(payload, ChunkedPayload)]
    if len(whole) == len(payloads):
        return b"".join(whole)
    pieces = ChunkedPayload()
    for payload in payloads:
        for piece in payload.take(len(payload)) if isinstance(payload, ChunkedPayload) else (payload,):
            pieces.append(piece)
    return pieces


def whole(payload: bytes | bytearray | ChunkedPayload) -> bytes | bytearray:
    """PAYLOAD in one piece."""
    return payload.read() if isinstance(payload, ChunkedPayload) else payload
