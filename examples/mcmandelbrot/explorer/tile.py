"""The plane in tiles: squares of so many pixels, numbered by level, column and row.

The tiles of level 0 have sides of `SPAN`, those of each further level half of that. Columns count to the right from
the imaginary axis, rows down from the real one, and either may be negative. So a tile is four integers, of which
nothing can be NaN; its pixels' coordinates are exact until double precision ends, which is where the levels do.

A tile is drawn in *bands* of whole rows. How many follows from its limit alone, so that no band can cost more than
about `BAND_WORK` iterations: workers are never lost to one visitor for long, and what scrolls away is let go soon.
"""

from __future__ import annotations

import math

from attrs import frozen

from mcmandelbrot.errors import PictureError
from mcmandelbrot.fractal.picture import Band, Picture, View

SIDE = 256
"""Pixels across and down."""

SPAN = 4.0
"""The side of a tile of level 0."""

REACH = 4.0
"""How far from the axes there are tiles. The set itself lies within 2 of the origin."""

MAX_LEVEL = 44
"""The deepest level: its pixels are four times as far apart as the numbers around 1 are."""

MIN_LIMIT, MAX_LIMIT = 10, 50_000
"""How many iterations a visitor may ask for."""

BAND_WORK = 2**24
"""Iterations that a band may cost, in which a point counts once: some hundredths of a second."""


@frozen
class Tile:
    """A square of the plane at LEVEL, its points followed for LIMIT iterations.

    Raises `PictureError` for a tile that there is not.
    """

    level: int
    column: int
    row: int
    limit: int

    def __attrs_post_init__(self) -> None:
        if self.level > MAX_LEVEL:
            raise PictureError(
                f"double precision cannot tell the pixels of level {self.level} apart; the deepest is {MAX_LEVEL}"
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
        """What it is across, and down."""
        return math.ldexp(SPAN, -self.level)

    @property
    def picture(self) -> Picture:
        """What there is to draw."""
        side = self.side
        return Picture(View(SIDE, SIDE, (self.column + 0.5) * side, -(self.row + 0.5) * side, side / SIDE), self.limit)

    def bands(self) -> list[Band]:
        """The parts in which it is drawn, from top to bottom."""
        rows = 1
        while rows < SIDE and 2 * rows * SIDE * self.limit <= BAND_WORK:
            rows *= 2
        picture = self.picture
        return [Band(picture, first, rows) for first in range(0, SIDE, rows)]
