"""What numba compiles: from a point to its value, from a row of pixels to its levels.

Theory of operation. A point c has the *escape time* at which z ← z² + c, from 0, leaves a large circle, made
smooth by how far it leaves it; the points of the set never do. A *level* is what is seen of a point. It grows
from 0 for points that escape at once to 1 for those that nearly do not, on a logarithmic scale, through an odd
curve that gives the middle the most contrast. The set, which would be brightest of all, is turned to 0: it is black
before the glow around it. A pixel's level is its centre's, or the mean of its centre's and its four corners' where
the level changes from pixel to pixel.

Points of the set cost the whole limit, so three things find them early: the two largest parts of the set have
formulas; and an orbit that comes back to where it was, bit by bit, repeats for ever. Since only exact
repetition counts, none of this changes a value.

Compiling takes some seconds. The outcome is kept on disk, where numba finds a place for it; then importing this
module takes no longer than importing numba. Import it in a worker only. No lock of Python's is held while any of
this runs, and no floating-point rule is relaxed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

if TYPE_CHECKING:
    from numba.core.dispatcher import Dispatcher

P = ParamSpec("P")
T = TypeVar("T")

ESCAPE_RADIUS = 256.0
"""Large, because the smooth escape time is exact only in the limit of a large radius."""

LIFT = 0.25
"""How much of the scale's dark half is given to its bright one: the most interesting points are a little dark."""

CHANGE = 1 / 256
"""How much neighbours' levels must differ for a closer look: a change that can be seen."""

_ESCAPE_RADIUS_2 = ESCAPE_RADIUS**2
_LOG_LOG_RADIUS = math.log(math.log(ESCAPE_RADIUS))
_LOG_2 = math.log(2)
_UNKNOWN = -1.0


def _compiled(signature: str) -> Callable[[Callable[P, T]], Dispatcher[P, T]]:
    """Compile a function for SIGNATURE, now; from disk if it was compiled before."""

    def compiled(f: Callable[P, T]) -> Dispatcher[P, T]:
        try:
            return njit(signature, cache=True, nogil=True, error_model="numpy")(f)
        except (RuntimeError, OSError):
            # No directory for the cache can be written, or its disk is full.
            return njit(signature, nogil=True, error_model="numpy")(f)

    return compiled


@_compiled("float64(float64, float64, int64)")
def escapeTime(re: float, im: float, limit: int) -> float:
    """The smooth number of iterations, 0 to LIMIT, in which RE + IM·i escapes; infinite if LIMIT do not suffice."""
    im2 = im * im
    x = re - 0.25
    q = x * x + im2
    if q * (q + x) <= 0.25 * im2:  # in the main cardioid
        return math.inf
    if (re + 1.0) * (re + 1.0) + im2 <= 0.0625:  # in the disc of period 2
        return math.inf
    zr, zi = re, im
    # Brent's way to find a cycle: compare with one earlier point, and take a new one at each power of two.
    earlierR, earlierI, renewal = 0.0, 0.0, 8
    for n in range(limit):
        zr2 = zr * zr
        zi2 = zi * zi
        r2 = zr2 + zi2
        if r2 > _ESCAPE_RADIUS_2:
            overshoot = (math.log(0.5 * math.log(r2)) - _LOG_LOG_RADIUS) / _LOG_2
            return max(0.0, n + 1 - overshoot)
        zi = 2.0 * zr * zi + im
        zr = zr2 - zi2 + re
        if zr == earlierR and zi == earlierI:
            return math.inf
        if n == renewal:
            earlierR, earlierI = zr, zi
            renewal *= 2
    return math.inf


@_compiled("float64(float64, float64, int64, float64)")
def level(re: float, im: float, limit: int, steepness: float) -> float:
    """What is seen of the point RE + IM·i: 0 for the set, and up to 1 the more slowly it escapes.

    The curve is odd about the middle, and STEEPNESS times as steep there as a straight line would be.
    """
    time = escapeTime(re, im, limit)
    if time == math.inf:
        return 0.0
    slowness = math.log1p(time) / math.log1p(limit)
    slowness += LIFT * slowness * (1.0 - slowness)
    x = 2.0 * slowness - 1.0
    return 0.5 + 0.5 * math.copysign(1.0 - (1.0 - abs(x)) ** steepness, x)


@_compiled("float64[::1](float64, float64, float64, int64, int64, float64)")
def rowLevels(left: float, im: float, step: float, width: int, limit: int, steepness: float) -> NDArray[np.float64]:
    """The levels of WIDTH pixels with sides of STEP, whose centres are at IM and from LEFT on.

    Where the level changes from one centre to the next, both pixels have the mean of five points. Neighbours share
    their corners.
    """
    centres = np.empty(width)
    for i in range(width):
        centres[i] = level(left + i * step, im, limit, steepness)
    levels = centres.copy()
    corners = np.full(width + 1, _UNKNOWN)  # the one above and the one below together
    for i in range(width):
        change = 0.0
        if i > 0:
            change = abs(centres[i] - centres[i - 1])
        if i + 1 < width:
            change = max(change, abs(centres[i] - centres[i + 1]))
        if change > CHANGE:
            for k in (i, i + 1):
                if corners[k] == _UNKNOWN:
                    re = left + (k - 0.5) * step
                    above = level(re, im + 0.5 * step, limit, steepness)
                    corners[k] = above + level(re, im - 0.5 * step, limit, steepness)
            levels[i] = (centres[i] + corners[i] + corners[i + 1]) / 5.0
    return levels


def wasCompiled() -> bool:
    """Whether importing this module compiled anything, rather than finding it all on disk."""
    return any(f.stats.cache_misses for f in (escapeTime, level, rowLevels))
