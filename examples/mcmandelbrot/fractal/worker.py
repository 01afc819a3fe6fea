"""The functions that run in a worker, and their results.

The program that names these functions never runs them. So numba and numpy are imported inside the functions: only the
workers load them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

from mcmandelbrot.fractal.picture import PALETTES, Band, Picture, View
from mcmandelbrot.fractal.png import COMPRESSION, Piece, compressed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PIXEL = Band(Picture(View(1, 1, 0.0, 0.0, 1.0)), 0, 1)
"""The smallest band."""


class Ready(NamedTuple):
    """A worker that can draw: its process, and the time to compile the kernel in seconds (0 if it was cached)."""

    pid: int
    compiling: float


_UNFILTERED = b"\0"
"""The byte before each row of a PNG: its bytes are the pixels."""


class Rows(NamedTuple):
    """A band's rows as a PIECE of a PNG's image data, the process that drew them, and the time it took in seconds."""

    piece: Piece
    pid: int
    seconds: float


def prepare() -> Ready:
    """Load what `drawRows` needs, and draw once, because the first time is slow.

    Then no band has to wait for it.
    """
    import numba  # noqa: F401  # loaded first, so that only compiling is timed

    from mcmandelbrot.fractal import palette as colour  # noqa: F401  # likewise: it loads numpy

    started = perf_counter()
    from mcmandelbrot.fractal import kernel

    seconds = perf_counter() - started
    drawRows(PIXEL)
    return Ready(os.getpid(), seconds if kernel.wasCompiled() else 0.0)


def drawRows(band: Band) -> Rows:
    """Draw BAND, row after row, three bytes a pixel, compressed, mostly to a tenth."""
    return _drawn(band, _UNFILTERED)


def drawOn(band: Band) -> Rows:
    """Draw BAND, which has one row and continues one that was begun, as `drawRows`."""
    return _drawn(band, b"")


def paintRows(band: Band) -> Iterator[bytes]:
    """Return the pixels of each row of BAND, three bytes each."""
    from mcmandelbrot.fractal.palette import paint

    return (paint(levels, band.picture.palette) for levels in _levels(band))


def drawLevels(band: Band) -> bytes:
    """Return the levels of BAND, row after row, as a piece of a deflate stream. Pieces can be joined.

    A level is a number from 0 to 65535 in two bytes, the low byte first.
    """
    import numpy as np

    return compressed((np.rint(levels * 65535).astype("<u2").tobytes() for levels in _levels(band)), level=1).data


def _drawn(band: Band, begin: bytes) -> Rows:
    started = perf_counter()
    piece = compressed((begin + pixels for pixels in paintRows(band)), COMPRESSION)
    return Rows(piece, os.getpid(), perf_counter() - started)


def palettes() -> dict[str, bytes]:
    """Return every palette: its colours, darkest first, three bytes each."""
    from mcmandelbrot.fractal.palette import colourMap

    return {palette: colourMap(palette).tobytes() for palette in PALETTES}


def _levels(band: Band) -> Iterator[NDArray[np.float64]]:
    from mcmandelbrot.fractal.kernel import rowLevels

    picture, view = band.picture, band.picture.view
    for row in range(band.first, band.first + band.rows):
        yield rowLevels(view.left, view.level(row), view.step, view.width, picture.limit, picture.steepness)
