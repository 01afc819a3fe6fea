"""A PNG that is written from bands of rows which come when they will, compressed.

It blocks: on the iterator while a band is missing, on the file while that cannot take more. So it is for a thread of
its own. pypng writes the file's chunks; a chunk of image data has one band, as it came.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from struct import pack
from typing import BinaryIO, NamedTuple

import png
from isal import isal_zlib

from mcmandelbrot.fractal.picture import View

_BITS, _RGB, _DEFLATE, _BY_ROW, _NOT_INTERLACED = 8, 2, 0, 0, 0


def writePicture(bands: Iterator[Piece], view: View, file: BinaryIO) -> None:
    """Write the BANDS of VIEW, as from `mcmandelbrot.fractal.worker.drawRows`, to FILE, and close it.

    It stays incomplete when they end early.
    """
    with file:
        png.write_chunks(file, _chunks(bands, view))


def _chunks(bands: Iterator[Piece], view: View) -> Iterator[tuple[bytes, bytes]]:
    form = _BITS, _RGB, _DEFLATE, _BY_ROW, _NOT_INTERLACED
    yield b"IHDR", pack(">2I5B", view.width, view.height, *form)
    yield b"IDAT", BEGIN
    whole = EMPTY
    for band in bands:
        yield b"IDAT", band.data
        whole = followed(whole, band)
    if whole.length == view.height * (1 + 3 * view.width):
        yield b"IDAT", end(whole)
        yield b"IEND", b""


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
