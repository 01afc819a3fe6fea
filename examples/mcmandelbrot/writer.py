"""A PNG that is written from bands of rows which come when they will, compressed.

It blocks: on the iterator while a band is missing, on the file while that cannot take more. So it is for a thread of
its own. pypng writes the file's chunks; a chunk of image data has one band, as it came.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import pack
from typing import BinaryIO

import png

from mcmandelbrot.deflate import BEGIN, EMPTY, Piece, end, followed
from mcmandelbrot.picture import View

_BITS, _RGB, _DEFLATE, _BY_ROW, _NOT_INTERLACED = 8, 2, 0, 0, 0


def writePicture(bands: Iterator[Piece], view: View, file: BinaryIO) -> None:
    """Write the BANDS of VIEW, as from `mcmandelbrot.worker.drawRows`, to FILE, and close it.

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
