"""What runs in a worker, and what it answers.

The program that names these functions never runs them, so numba and numpy are imported inside them: the worker
pays for them once, the program that waits for it never.
"""

from __future__ import annotations

import os
import zlib
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

from mcmandelbrot.picture import PALETTES, Picture

if TYPE_CHECKING:
    from mcmandelbrot.explorer.tile import Band


class Ready(NamedTuple):
    """A worker that can draw: the process, and the seconds it took to compile the kernel, 0 if it was on disk."""

    pid: int
    compiling: float


class Row(NamedTuple):
    """A row's PIXELS, three bytes each; the process that drew them, and for how long it was busy with them."""

    pixels: bytes
    pid: int
    seconds: float


def prepare() -> Ready:
    """Load what `drawRow` needs, so that no row has to wait for it."""
    import numba  # noqa: F401  # loaded first, because only compiling is to be timed

    from mcmandelbrot import colour

    started = perf_counter()
    from mcmandelbrot import kernel

    seconds = perf_counter() - started
    colour.colourMap()
    return Ready(os.getpid(), seconds if kernel.wasCompiled() else 0.0)


def drawRow(picture: Picture, row: int) -> Row:
    """Draw row number ROW of PICTURE."""
    from mcmandelbrot.colour import paint
    from mcmandelbrot.kernel import rowLevels

    started = perf_counter()
    view = picture.view
    levels = rowLevels(view.left, view.level(row), view.step, view.width, picture.limit, picture.steepness)
    pixels = paint(levels, picture.palette)
    return Row(pixels, os.getpid(), perf_counter() - started)


def drawBand(band: Band) -> bytes:
    """The levels of BAND, in 65535ths as two bytes each, low byte first, row after row: a piece of a deflate stream.

    Pieces can be put one after another.
    """
    import numpy as np

    from mcmandelbrot.kernel import rowLevels

    picture, view = band.picture, band.picture.view
    deflate = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    pieces: list[bytes] = []
    for row in range(band.first, band.first + band.rows):
        levels = rowLevels(view.left, view.level(row), view.step, view.width, picture.limit, picture.steepness)
        pieces.append(deflate.compress(np.rint(levels * 65535).astype("<u2").tobytes()))
    pieces.append(deflate.flush(zlib.Z_SYNC_FLUSH))
    return b"".join(pieces)


def palettes() -> dict[str, bytes]:
    """Every palette: its colours, darkest first, three bytes each."""
    from mcmandelbrot.colour import colourMap

    return {palette: colourMap(palette).tobytes() for palette in PALETTES}
