"""The palettes: their length, their ends, and that each grows brighter all the way."""

from __future__ import annotations

import numpy as np
import pytest

from mcmandelbrot.fractal.palette import BLUE_CYCLES, COLOURS, colourMap, paint
from mcmandelbrot.fractal.picture import PALETTES


def test_there_are_about_six_thousand_colours() -> None:
    assert colourMap().shape == (COLOURS, 3)
    assert 5500 <= COLOURS <= 6500


def test_it_goes_from_black_by_red_and_orange_to_white() -> None:
    colours = colourMap().astype(int)
    assert colours[0].tolist() == [0, 0, 0]
    assert colours[-1].tolist() == [255, 255, 255]
    red, orange = colours[int(0.35 * COLOURS)], colours[int(0.6 * COLOURS)]
    assert red[0] > 200 > 60 > max(red[1:])
    assert orange[0] == 255 > 180 > orange[1] > 110 > 80 > orange[2]


@pytest.mark.parametrize("palette", PALETTES)
def test_each_grows_brighter_all_the_way_from_black_to_white(palette: str) -> None:
    colours = colourMap(palette)
    assert colours[0].tolist() == [0, 0, 0]
    assert colours[-1].tolist() == [255, 255, 255]
    brightness = colours @ np.array([0.2126, 0.7152, 0.0722])
    over = 60  # a hundredth of the map: neighbours differ by less than the rounding to bytes
    assert (brightness[over:] > brightness[:-over]).all()


def test_blue_comes_and_goes_slowly() -> None:
    blue = colourMap()[:, 2].astype(int)
    crests, troughs = (
        [blue[int(x * COLOURS / BLUE_CYCLES)] for x in turns] for turns in ((0.5, 1.5, 2.5), (0.0, 1.0, 2.0))
    )
    assert all(crest > trough + 10 for crest, trough in zip(crests, troughs, strict=True))
    assert all(crest > trough + 10 for crest, trough in zip(crests, troughs[1:], strict=False))


@pytest.mark.parametrize("palette", PALETTES)
def test_none_has_visible_steps(palette: str) -> None:
    assert np.abs(np.diff(colourMap(palette).astype(int), axis=0)).max() <= 1


def test_nobody_can_change_it() -> None:
    assert not colourMap().flags.writeable


def test_levels_become_three_bytes_each() -> None:
    colours = colourMap()
    assert paint(np.array([0.0, 1.0, 0.5])) == bytes([0, 0, 0, 255, 255, 255, *colours[(COLOURS - 1) // 2 + 1]])
