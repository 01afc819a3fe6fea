"""What runs in a worker, and what it answers.

The program that names these functions never runs them, so numba and numpy are imported inside them: the worker
pays for them once, the program that waits for it never.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

from mcmandelbrot.picture import PALETTES, Band

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Ready(NamedTuple):
    """A worker that can draw: the process, and the seconds it took to compile the kernel, 0 if it was on disk."""

    pid: int
    compiling: float


class Rows(NamedTuple):
    """A band's PIXELS, three bytes each; the process that drew them, and for how long it was busy with them."""

    pixels: bytes
    pid: int
    seconds: float


def prepare() -> Ready:
    """Load what `drawRows` needs, so that no band has to wait for it."""
    import numba  # noqa: F401  # loaded first, because only compiling is to be timed

    from mcmandelbrot import colour

    started = perf_counter()
    from mcmandelbrot import kernel

    seconds = perf_counter() - started
    colour.colourMap()
    return Ready(os.getpid(), seconds if kernel.wasCompiled() else 0.0)


def drawRows(band: Band) -> Rows:
    """The pixels of BAND, row after row."""
    from mcmandelbrot.colour import paint

    started = perf_counter()
    pixels = b"".join([paint(levels, band.picture.palette) for levels in _levels(band)])
    return Rows(pixels, os.getpid(), perf_counter() - started)


def drawLevels(band: Band) -> bytes:
    """The levels of BAND, in 65535ths as two bytes each, low byte first, row after row: a piece of a deflate stream.

    Pieces can be put one after another.
    """
    import numpy as np

    deflate = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    pieces = [deflate.compress(np.rint(levels * 65535).astype("<u2").tobytes()) for levels in _levels(band)]
    pieces.append(deflate.flush(zlib.Z_SYNC_FLUSH))
    return b"".join(pieces)


def palettes() -> dict[str, bytes]:
    """Every palette: its colours, darkest first, three bytes each."""
    from mcmandelbrot.colour import colourMap

    return {palette: colourMap(palette).tobytes() for palette in PALETTES}


def _levels(band: Band) -> Iterator[NDArray[np.float64]]:
    from mcmandelbrot.kernel import rowLevels

    picture, view = band.picture, band.picture.view
    for row in range(band.first, band.first + band.rows):
        yield rowLevels(view.left, view.level(row), view.step, view.width, picture.limit, picture.steepness)
