"""The plane in tiles: squares of equal size in pixels, numbered by level, column and row.

The tiles of level 0 have sides of `SPAN`. Each further level halves them. Columns count to the right from the imaginary
axis, and rows down from the real axis. Either may be negative. So a tile is four integers, none of which can be NaN.
The coordinates of its pixels are exact until double precision ends, which is at the deepest level.

A tile is drawn in *bands* of whole rows. Their number depends only on the limit, so that no band costs more than about
`BAND_WORK` iterations. So a visitor occupies a worker only for a short time, and a cancelled tile soon frees it.
"""

from __future__ import annotations

import math

from attrs import frozen

from mcmandelbrot.errors import PictureError
from mcmandelbrot.fractal.picture import Band, Picture, View

SIDE = 256
"""The width and height of a tile, in pixels."""

SPAN = 4.0
"""The side of a tile of level 0, in the plane."""

REACH = 4.0
"""The distance from the axes up to which there are tiles. The set itself lies within 2 of the origin."""

MAX_LEVEL = 44
"""The deepest level. The distance of its pixels is four times that of double-precision numbers near 1."""

MIN_LIMIT, MAX_LIMIT = 10, 50_000
"""The range of iterations per point."""

BAND_WORK = 2**24
"""The maximum cost of a band, in iterations: some hundredths of a second."""


@frozen
class Tile:
    """A square of the plane at LEVEL, with up to LIMIT iterations per point.

    Raise `PictureError` for a tile that does not exist.
    """

    level: int
    column: int
    row: int
    limit: int

    def __attrs_post_init__(self) -> None:
        if self.level > MAX_LEVEL:
            raise PictureError(
                f"double precision cannot distinguish the pixels of level {self.level}; the deepest is {MAX_LEVEL}"
            )
        if self.level < 0:
            raise PictureError(f"a level is from 0 to {MAX_LEVEL}, got {self.level}")
        last = int(REACH / SPAN) << self.level
        for name, value in (("column", self.column), ("row", self.row)):
            if not -last <= value < last:
                raise PictureError(f"a {name} of level {self.level} is from {-last} to {last - 1}, got {value}")
        if not MIN_LIMIT <= self.limit <= MAX_LIMIT:
            raise PictureError(f"limit must be from {MIN_LIMIT} to {MAX_LIMIT:,} iterations, got {self.limit}")

    @property
    def side(self) -> float:
        """The side of the tile, in the plane."""
        return math.ldexp(SPAN, -self.level)

    @property
    def picture(self) -> Picture:
        """The picture of the tile."""
        side = self.side
        return Picture(View(SIDE, SIDE, (self.column + 0.5) * side, -(self.row + 0.5) * side, side / SIDE), self.limit)

    def bands(self) -> list[Band]:
        """Return the bands in which the tile is drawn, from top to bottom."""
        rows = 1
        while rows < SIDE and 2 * rows * SIDE * self.limit <= BAND_WORK:
            rows *= 2
        picture = self.picture
        return [Band(picture, first, rows) for first in range(0, SIDE, rows)]
