"""The palettes: maps from levels to colours. Each goes from black to white and always becomes brighter.

Ember, the first, is black, red, orange, white: red rises first, then green, then blue, as in glowing metal. A little
blue that comes and goes separates similar levels: reds become crimson, and oranges rose, and back. The other palettes
interpolate between their stops. There are far more colours than a screen shows at once, so a smooth level has no
visible steps.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mcmandelbrot.fractal.picture import PALETTES

COLOURS = 6000
BLUE_CYCLES = 5
BLUE_DEPTH = 0.2

STOPS = {
    "ocean": (0x000000, 0x03131F, 0x06263A, 0x0A4058, 0x0F6780, 0x2FA3AE, 0xFFFFFF),
    "dusk": (0x000000, 0x100A26, 0x20124A, 0x431F70, 0x84387F, 0xDE7A78, 0xFFFFFF),
    "moss": (0x000000, 0x08130D, 0x12261A, 0x24422A, 0x4C6B38, 0xA3A354, 0xFFFFFF),
    "ash": (0x000000, 0xFFFFFF),
}
"""The colours of a palette at equal distances, as 0xRRGGBB."""


@lru_cache(maxsize=len(PALETTES))
def colourMap(palette: str = PALETTES[0]) -> NDArray[np.uint8]:
    """Return the colours of PALETTE, darkest first: an array of `COLOURS` rows of red, green and blue."""
    x = np.linspace(0.0, 1.0, COLOURS)
    channels = _through(STOPS[palette], x) if palette in STOPS else _ember(x)
    colours = np.rint(255 * np.stack(channels, axis=1)).astype(np.uint8)
    colours.flags.writeable = False
    return colours


def paint(levels: NDArray[np.float64], palette: str = PALETTES[0]) -> bytes:
    """Return the pixels of LEVELS (each from 0 to 1) in PALETTE: three bytes each, red, green and blue."""
    indices = np.rint(levels * (COLOURS - 1)).astype(np.intp)
    return colourMap(palette)[indices].tobytes()


def _ember(x: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    red = np.clip(x / 0.38, 0.0, 1.0)
    green = np.clip((x - 0.25) / 0.6, 0.0, 1.0) ** 1.1
    blue = np.clip((x - 0.62) / 0.38, 0.0, 1.0) ** 1.2
    # It is 0 at the ends, so that black stays black and white stays white.
    cycle = np.sin(np.pi * BLUE_CYCLES * x) ** 2 * np.sin(np.pi * x)
    return [red, green, np.clip(blue + BLUE_DEPTH * cycle, 0.0, 1.0)]


def _through(stops: tuple[int, ...], x: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    at = np.linspace(0.0, 1.0, len(stops))
    return [np.interp(x, at, [(stop >> shift & 255) / 255 for stop in stops]) for shift in (16, 8, 0)]
