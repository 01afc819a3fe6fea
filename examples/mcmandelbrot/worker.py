"""What runs in a worker, and what it answers.

The program that names these functions never runs them, so numba and numpy are imported inside them: the worker
pays for them once, the program that waits for it never.
"""

from __future__ import annotations

import os
from time import perf_counter
from typing import NamedTuple

from mcmandelbrot.picture import Picture


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
    pixels = paint(levels)
    return Row(pixels, os.getpid(), perf_counter() - started)
