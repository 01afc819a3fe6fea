"""A PNG that is written from rows which come when they will.

pypng's writer takes an iterator and blocks: on the iterator while a row is missing, on the file while it cannot take
more. So it is for a thread of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import png

from mcmandelbrot.picture import View

CHUNK = 2**16
"""Bytes of pixels after which what they compress to is written, so that it is on its way soon."""


def writePicture(rows: Iterator[bytes], view: View, file: BinaryIO) -> None:
    """Write the ROWS of VIEW, three bytes for each pixel, to FILE, and close it, also when they end early."""
    with file:
        png.Writer(view.width, view.height, greyscale=False, chunk_limit=CHUNK).write(file, rows)
