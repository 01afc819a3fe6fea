"""The map from levels to colours: black, red, orange, white, with a little blue that comes and goes.

Red rises first, then green, then blue, as in glowing metal, so the map grows brighter all the way. The slow
cycle of blue tells levels of the same glow apart: it turns reds to crimson and oranges to rose and back. There are
far more colours than a screen shows at once, so a smooth level has no visible steps.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

COLOURS = 6000
BLUE_CYCLES = 5
BLUE_DEPTH = 0.2


@lru_cache(maxsize=1)
def colourMap() -> NDArray[np.uint8]:
    """The colours, darkest first: an array of `COLOURS` rows of red, green and blue."""
    x = np.linspace(0.0, 1.0, COLOURS)
    red = np.clip(x / 0.38, 0.0, 1.0)
    green = np.clip((x - 0.25) / 0.6, 0.0, 1.0) ** 1.1
    blue = np.clip((x - 0.62) / 0.38, 0.0, 1.0) ** 1.2
    # None of it at the ends, where black must be black and white be white.
    cycle = np.sin(np.pi * BLUE_CYCLES * x) ** 2 * np.sin(np.pi * x)
    blue = np.clip(blue + BLUE_DEPTH * cycle, 0.0, 1.0)
    colours = np.rint(255 * np.stack([red, green, blue], axis=1)).astype(np.uint8)
    colours.flags.writeable = False
    return colours


def paint(levels: NDArray[np.float64]) -> bytes:
    """The pixels of LEVELS, each from 0 to 1: three bytes apiece, red, green and blue."""
    indices = np.rint(levels * (COLOURS - 1)).astype(np.intp)
    return colourMap()[indices].tobytes()
