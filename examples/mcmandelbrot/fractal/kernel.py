"""The functions that numba compiles: from a point to its value, from a row of pixels to its levels.

- A point c has the *escape time* at which z ← z² + c, from 0, leaves a large circle. The distance at that time makes it
  smooth. Points of the set never leave the circle.
- A *level* is the brightness of a point. It grows on a logarithmic scale from 0, for points that escape at once, to 1,
  for points that almost stay. An odd curve gives the middle the most contrast. Points of the set get 0, so the set is
  black inside the glow around it.
- A pixel has the level of its centre. Where the level changes from pixel to pixel, it is the mean of the centre and the
  four corners.

A point of the set costs the whole limit, so three tests find most of them early: formulas for the two largest parts of
the set, and a check whether the orbit returns to an earlier point. Only exact equality counts, so no value changes.

Compiling takes some seconds. numba caches the result on disk if possible, and then importing this module is as fast as
importing numba. Import it only in a worker. The compiled code releases the GIL, and no floating-point rule is relaxed.
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
"""The radius of the circle. It is large, because the smooth escape time is exact only for an infinite radius."""

LIFT = 0.25
"""How much brighter the dark half of the scale becomes: the most interesting points are a little dark."""

CHANGE = 1 / 256
"""The visible difference between neighbours' levels, from which the corners are drawn too."""

_ESCAPE_RADIUS_2 = ESCAPE_RADIUS**2
_LOG_LOG_RADIUS = math.log(math.log(ESCAPE_RADIUS))
_LOG_2 = math.log(2)
_UNKNOWN = -1.0


def _compiled(signature: str) -> Callable[[Callable[P, T]], Dispatcher[P, T]]:
    """Compile a function for SIGNATURE now, or load it from the cache."""

    def compiled(f: Callable[P, T]) -> Dispatcher[P, T]:
        try:
            return njit(signature, cache=True, nogil=True, error_model="numpy")(f)
        except (RuntimeError, OSError):
            # No directory for the cache is writable, or the disk is full.
            return njit(signature, nogil=True, error_model="numpy")(f)

    return compiled


@_compiled("float64(float64, float64, int64)")
def escapeTime(re: float, im: float, limit: int) -> float:
    """Return the smooth number of iterations, 0 to LIMIT, after which RE + IM·i escapes, or infinity."""
    im2 = im * im
    x = re - 0.25
    q = x * x + im2
    if q * (q + x) <= 0.25 * im2:  # in the main cardioid
        return math.inf
    if (re + 1.0) * (re + 1.0) + im2 <= 0.0625:  # in the disc of period 2
        return math.inf
    zr, zi = re, im
    # Brent's cycle detection: compare with one earlier point, and replace it at each power of two.
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
    """Return the level of the point RE + IM·i: 0 for the set, and up to 1 the more slowly it escapes.

    The curve is odd about the middle, and STEEPNESS times as steep there as a straight line.
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
    """Return the levels of WIDTH pixels with sides of STEP, whose centres are at IM and from LEFT on.

    Where the level changes between two centres, both pixels get the mean of five points. Neighbours share their
    corners.
    """
    centres = np.empty(width)
    for i in range(width):
        centres[i] = level(left + i * step, im, limit, steepness)
    levels = centres.copy()
    corners = np.full(width + 1, _UNKNOWN)  # the sum of the upper and the lower corner
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
    """Return whether importing this module compiled anything that was not in the cache."""
    return any(f.stats.cache_misses for f in (escapeTime, level, rowLevels))
