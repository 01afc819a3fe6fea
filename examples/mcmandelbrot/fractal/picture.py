"""The description of a picture: a rectangle of the complex plane, cut into pixels, and its colours.

A picture is drawn in *bands* of whole rows, one call each. A band has enough rows to be worth a call, and few enough to
be drawn in a short time, whatever is in them.

Pixels are square. A view has a centre and a half-width. The number of pixels across gives their size, and the
half-height gives the number of rows. A sample is at the centre of its pixel. Rows count from the top, where the
imaginary part is greatest.

Every error of a picture is found here, before any work is done. It is a `PictureError` with the valid range.
"""

from __future__ import annotations

import math

from attrs import frozen

from mcmandelbrot.errors import PictureError

MAX_SIDE = 65_500
"""The maximum number of pixels across or down, which common PNG readers still open."""

MAX_COORDINATE = 1e6
"""How far from the origin a view may extend. The set itself lies within 2 of it."""

MIN_LIMIT, MAX_LIMIT = 10, 10_000_000
MIN_STEEPNESS, MAX_STEEPNESS = 1.0, 25.0

MAX_WORK = 2**29
"""The maximum cost of a band with more than one row, in iterations.

That is 1.5 seconds if every point needs all iterations, and rarely a tenth of that.
"""

MAX_PIXELS = 2**18
"""The maximum number of pixels of a band with more than one row.

The overhead of a call is about 0.8 ms of both processes together. So many pixels of the whole set take 25 to 80 ms.
"""

MIN_WORK, MIN_PIXELS = 2**24, 2**13
"""The cost and the pixels that a band may always have: less is not worth a call."""

SHARES, SHARE_PIXELS = 8, 2**15
"""The number of bands per worker into which a picture is cut at least, because bands differ in cost.

A band is not cut below `SHARE_PIXELS` pixels for that.
"""

DEFAULT_LIMIT = 2000
DEFAULT_STEEPNESS = 3.0

PALETTES = ("ember", "ocean", "dusk", "moss", "ash")
"""The names of the palettes. The first is the default."""


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
        """Return the view of WIDTH pixels across around (RE, IM).

        HALFWIDTH is its extent to each side, and HALFHEIGHT up and down.

        HALFHEIGHT defaults to HALFWIDTH. Raise `PictureError` if a value is not a number, the extent is not above 0,
        the view is too large or too far away, or double precision cannot distinguish its pixels.
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
        """Return the imaginary part at the centres of row ROW.

        Opposite rows about IM 0 have exactly opposite values.
        """
        return self.im + ((self.height - 1) / 2 - row) * self.step


@frozen
class Picture:
    """A VIEW of the set with up to LIMIT iterations per point, its contrast raised by STEEPNESS, in PALETTE."""

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
        """The maximum cost of a row, in iterations."""
        return self.view.width * self.limit

    def bands(self, workers: int, work: int = MAX_WORK) -> list[Band]:
        """Return the bands for WORKERS workers, from top to bottom.

        None costs more than WORK, unless it is a single row.

        The last bands are smaller, so that the workers finish at about the same time. Each is at most half of a
        worker's share of the remaining rows, or hardly worth a call.

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
    """ROWS rows of PICTURE, from row FIRST on."""

    picture: Picture
    first: int
    rows: int

    @property
    def work(self) -> int:
        """The maximum cost of the band, in iterations."""
        return self.rows * self.picture.rowWork
