"""A zlib stream in pieces: each is compressed where its bytes come to be, and all are put together where it is written.

A piece is a run of deflate blocks that ends at a byte and looks back at nothing before it. So pieces can stand one
after another, whoever made them (RFC 1951). Around them a zlib stream has two bytes at its beginning and, at its end,
an empty last block and a checksum of all that was compressed, which is found from those of the pieces (RFC 1950).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from isal import isal_zlib

BEGIN = b"\x78\x01"
"""Begins a zlib stream, before its first piece."""

_LAST_BLOCK = b"\x03\x00"
_ADLER_BASE = 65521


class Piece(NamedTuple):
    """DATA, which came of compressing LENGTH bytes, whose Adler-32 is CHECKSUM."""

    data: bytes
    length: int
    checksum: int


EMPTY = Piece(b"", 0, 1)


def compressed(parts: Iterable[bytes], level: int) -> Piece:
    """What PARTS, one after another, are as a piece; ISA-L tries as hard as LEVEL says, from 0 to 3."""
    deflate = isal_zlib.compressobj(level, isal_zlib.DEFLATED, -isal_zlib.MAX_WBITS)
    data, length, checksum = [], 0, 1
    for part in parts:
        data.append(deflate.compress(part))
        length += len(part)
        checksum = isal_zlib.adler32(part, checksum)
    data.append(deflate.flush(isal_zlib.Z_SYNC_FLUSH))
    return Piece(b"".join(data), length, checksum)


def joined(pieces: Iterable[Piece]) -> Piece:
    """PIECES one after another, as a piece."""
    data, whole = [], EMPTY
    for piece in pieces:
        data.append(piece.data)
        whole = followed(whole, piece)
    return whole._replace(data=b"".join(data))


def followed(first: Piece, second: Piece) -> Piece:
    """What FIRST and SECOND are together, without their data.

    An Adler-32 has two sums: of all bytes and 1, and of what the first was after each byte.
    """
    high, low = divmod(first.checksum, 1 << 16)
    more, added = divmod(second.checksum, 1 << 16)
    high += more + second.length * (low - 1)
    low += added - 1
    return Piece(b"", first.length + second.length, high % _ADLER_BASE << 16 | low % _ADLER_BASE)


def end(whole: Piece) -> bytes:
    """Ends a zlib stream, after its last piece, when all pieces together are WHOLE."""
    return _LAST_BLOCK + whole.checksum.to_bytes(4, "big")
