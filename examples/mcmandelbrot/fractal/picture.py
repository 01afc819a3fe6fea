"""What to draw: a rectangle of the complex plane, cut into pixels, and how to look at it.

A picture is drawn in *bands* of whole rows, each by one call: as many rows as make it worth a call, and no more than
are drawn in a short while, whatever is in them.

Pixels are square. A view is given by its centre and its half-width; its pixels' size follows from their number
across, and the number of rows from the half-height. A sample belongs to the centre of its pixel. Rows count
from the top, where the imaginary part is greatest.

All that can be wrong with a picture is found here, before any work is done, and is a `PictureError` that says
what would be right.
"""

from __future__ import annotations

import math

from attrs import frozen

from mcmandelbrot.errors import PictureError

MAX_SIDE = 65_500
"""The most pixels across or down: what common PNG readers still open."""

MAX_COORDINATE = 1e6
"""How far from the origin a view may reach. The set itself lies within 2 of it."""

MIN_LIMIT, MAX_LIMIT = 10, 10_000_000
MIN_STEEPNESS, MAX_STEEPNESS = 1.0, 25.0

MAX_WORK = 2**29
"""Iterations that a band of more than a row may cost, in which a point counts once: a second and a half, if they are
all of them needed, and seldom a tenth of that."""

MAX_PIXELS = 2**18
"""The most pixels of a band of more than a row. What surrounds a call costs the two processes some 0.8 ms
together, when each has other things to do in between; so many pixels of the whole set, 25 to 80 ms."""

MIN_WORK, MIN_PIXELS = 2**24, 2**13
"""What a band may cost in any case, and have: less is not worth a call."""

SHARES, SHARE_PIXELS = 8, 2**15
"""Into how many bands for each worker a picture is cut, for some may cost far more than others; but not for that into
smaller ones than of so many pixels."""

DEFAULT_LIMIT = 2000
DEFAULT_STEEPNESS = 3.0

PALETTES = ("ember", "ocean", "dusk", "moss", "ash")
"""The maps from levels to colours that there are; the first is the default."""


@frozen
class View:
    """WIDTH × HEIGHT square pixels with sides of STEP, centred on the complex number RE + IM·i.

    >>> View.around(2000, -0.63, 0.0, 1.4, 1.2).height
    1714
    """

    width: int
    height: int
    re: float
    im: float
    step: float

    @classmethod
    def around(cls, width: int, re: float, im: float, halfWidth: float, halfHeight: float | None = None) -> View:
        """The view of WIDTH pixels across, HALFWIDTH to each side of (RE, IM) and HALFHEIGHT up and down.

        HALFHEIGHT is HALFWIDTH where it is not given. Raises `PictureError` for what is no number, has no extent,
        is absurdly large or far away, or is so deep that double precision cannot tell its pixels apart.
        """
        if halfHeight is None:
            halfHeight = halfWidth
        if not 1 <= width <= MAX_SIDE:
            raise PictureError(f"Nx must be from 1 to {MAX_SIDE} pixels, got {width}")
        for name, value in (("CR", re), ("CI", im), ("CRPM", halfWidth), ("CIPM", halfHeight)):
            if not abs(value) <= MAX_COORDINATE:
                raise PictureError(f"{name} must be a number within ±{MAX_COORDINATE:,.0f}, got {value}")
        for name, value in (("CRPM", halfWidth), ("CIPM", halfHeight)):
            if not value > 0:
                raise PictureError(f"{name} must be more than 0, got {value}")
        step = 2 * halfWidth / width
        finest = 4 * math.ulp(max(1.0, abs(re) + halfWidth, abs(im) + halfHeight))
        if step < finest:
            raise PictureError(
                f"double precision cannot tell these pixels apart, {step:.2g} from one to the next:"
                f" with {width} across, CRPM must be at least {finest * width / 2:.2g}"
            )
        height = max(1, round(width * (halfHeight / halfWidth)))
        if height > MAX_SIDE:
            raise PictureError(f"CIPM makes the picture {height} pixels high, {MAX_SIDE} at most are possible")
        return cls(width, height, re, im, step)

    @property
    def left(self) -> float:
        """The real part at the centres of the first column."""
        return self.re - (self.width - 1) / 2 * self.step

    def level(self, row: int) -> float:
        """The imaginary part at the centres of row number ROW. Exactly opposite for opposite rows about IM 0."""
        return self.im + ((self.height - 1) / 2 - row) * self.step


@frozen
class Picture:
    """A VIEW of the set, its points followed for LIMIT iterations, its contrast raised by STEEPNESS, in PALETTE."""

    view: View
    limit: int = DEFAULT_LIMIT
    steepness: float = DEFAULT_STEEPNESS
    palette: str = PALETTES[0]

    def __attrs_post_init__(self) -> None:
        if not MIN_LIMIT <= self.limit <= MAX_LIMIT:
            raise PictureError(f"-N must be from {MIN_LIMIT} to {MAX_LIMIT:,} iterations, got {self.limit}")
        if not MIN_STEEPNESS <= self.steepness <= MAX_STEEPNESS:
            raise PictureError(f"-s must be from {MIN_STEEPNESS:g} to {MAX_STEEPNESS:g}, got {self.steepness:g}")
        if self.palette not in PALETTES:
            raise PictureError(f"the palette must be one of {', '.join(PALETTES)}; got {self.palette!r}")

    @property
    def rowWork(self) -> int:
        """The iterations that a row may cost, in which a point counts once."""
        return self.view.width * self.limit

    def bands(self, workers: int, work: int = MAX_WORK) -> list[Band]:
        """What it is drawn in by so many WORKERS, from top to bottom; none costs more than WORK, or it is one row.

        Towards the end they get smaller, so that the workers end at about the same time: each is no more than half of
        what is left for a worker then, or hardly worth a call.

        >>> picture = Picture(View.around(2000, -0.63, 0.0, 1.4, 1.2))
        >>> [band.rows for band in picture.bands(workers=2)][-18:]
        [107, 107, 107, 80, 60, 45, 34, 26, 19, 14, 11, 8, 6, 5, 4, 4, 4, 3]
        """
        width, height = self.view.width, self.view.height
        share = max(height // (SHARES * workers), SHARE_PIXELS // width)
        most = min(work // self.rowWork, MAX_PIXELS // width, share)
        least = max(1, min(min(work, MIN_WORK) // self.rowWork, MIN_PIXELS // width))
        bands: list[Band] = []
        first, left = 0, height
        while left:
            rows = min(left, max(least, min(most, left // (2 * workers))))
            bands.append(Band(self, first, rows))
            first, left = first + rows, left - rows
        return bands


@frozen
class Band:
    """ROWS rows of PICTURE, from number FIRST on."""

    picture: Picture
    first: int
    rows: int

    @property
    def work(self) -> int:
        """The iterations that it may cost."""
        return self.rows * self.picture.rowWork
