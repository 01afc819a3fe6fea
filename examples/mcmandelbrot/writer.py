"""A PNG that is written from bands of rows which come when they will.

pypng's writer takes an iterator and blocks: on the iterator while a band is missing, on the file while it cannot take
more. So it is for a thread of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import png

from mcmandelbrot.picture import View

CHUNK = 2**16
"""Bytes of pixels after which what they compress to is written, so that it is on its way soon."""

COMPRESSION = 2
"""How hard zlib tries, from 1 to 9. What it takes, this process takes from the workers: of the time in which the kernel
draws the whole set, 5 % up to level 3 and 9 % at 6, zlib's own choice; of a deeper look, 1.3 % at 2, 1.9 % at 3, and
5.4 % at 6. Files are larger than at 6 by a quarter to a third, those of level 1 by a third to almost a half."""


def writePicture(bands: Iterator[bytes], view: View, file: BinaryIO) -> None:
    """Write the BANDS of VIEW, three bytes for each pixel, to FILE, and close it, also when they end early."""
    with file:
        writer = png.Writer(view.width, view.height, greyscale=False, compression=COMPRESSION, chunk_limit=CHUNK)
        writer.write(file, _rows(bands, 3 * view.width))


def _rows(bands: Iterator[bytes], length: int) -> Iterator[memoryview]:
    for band in bands:
        pixels = memoryview(band)
        for start in range(0, len(pixels), length):
            yield pixels[start : start + length]
