"""What runs in a worker, and what it answers.

The program that names these functions never runs them, so numba and numpy are imported inside them: the worker
pays for them once, the program that waits for it never.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

from mcmandelbrot.fractal.picture import PALETTES, Band, Picture, View
from mcmandelbrot.fractal.png import Piece, compressed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PIXEL = Band(Picture(View(1, 1, 0.0, 0.0, 1.0)), 0, 1)
"""The least that can be drawn."""


class Ready(NamedTuple):
    """A worker that can draw: the process, and the seconds it took to compile the kernel, 0 if it was on disk."""

    pid: int
    compiling: float


COMPRESSION = 2
"""How hard ISA-L tries, from 0 to 3, with a picture's rows. At 2, as at 1, it takes 1.5 % of the time in which the
kernel draws the whole set; at 3, 3.4 %, for files that are smaller by 4 %. zlib takes 5 % for such as are smaller by a
sixth, and 9 % by a third."""

_UNFILTERED = b"\0"
"""Stands before each row of a PNG: its bytes are the pixels."""


class Rows(NamedTuple):
    """A band's rows as a PIECE of a PNG's image data; the process that drew them, and for how long it was busy."""

    piece: Piece
    pid: int
    seconds: float


def prepare() -> Ready:
    """Load what `drawRows` needs, and draw once, which takes longer the first time: no band has to wait for it."""
    import numba  # noqa: F401  # loaded first, because only compiling is to be timed

    from mcmandelbrot.fractal import palette as colour  # noqa: F401  # likewise: it loads numpy

    started = perf_counter()
    from mcmandelbrot.fractal import kernel

    seconds = perf_counter() - started
    drawRows(PIXEL)
    return Ready(os.getpid(), seconds if kernel.wasCompiled() else 0.0)


def drawRows(band: Band) -> Rows:
    """BAND, row after row, three bytes a pixel, compressed: a tenth of it, mostly, has to travel."""
    return _drawn(band, _UNFILTERED)


def drawOn(band: Band) -> Rows:
    """BAND, which is of one row and goes on with one that was begun, as `drawRows` has it."""
    return _drawn(band, b"")


def paintRows(band: Band) -> Iterator[bytes]:
    """The pixels of each row of BAND, three bytes each."""
    from mcmandelbrot.fractal.palette import paint

    return (paint(levels, band.picture.palette) for levels in _levels(band))


def drawLevels(band: Band) -> bytes:
    """The levels of BAND, in 65535ths as two bytes each, low byte first, row after row: a piece of a deflate stream.

    Pieces can be put one after another.
    """
    import numpy as np

    return compressed((np.rint(levels * 65535).astype("<u2").tobytes() for levels in _levels(band)), level=1).data


def _drawn(band: Band, begin: bytes) -> Rows:
    started = perf_counter()
    piece = compressed((begin + pixels for pixels in paintRows(band)), COMPRESSION)
    return Rows(piece, os.getpid(), perf_counter() - started)


def palettes() -> dict[str, bytes]:
    """Every palette: its colours, darkest first, three bytes each."""
    from mcmandelbrot.fractal.palette import colourMap

    return {palette: colourMap(palette).tobytes() for palette in PALETTES}


def _levels(band: Band) -> Iterator[NDArray[np.float64]]:
    from mcmandelbrot.fractal.kernel import rowLevels

    picture, view = band.picture, band.picture.view
    for row in range(band.first, band.first + band.rows):
        yield rowLevels(view.left, view.level(row), view.step, view.width, picture.limit, picture.steepness)
