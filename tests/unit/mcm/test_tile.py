"""The plane in tiles: that they fit together, what one may cost, and where they end."""

from __future__ import annotations

import itertools
import math

import pytest

from mcmandelbrot.errors import PictureError
from mcmandelbrot.explorer.imagestream import strips
from mcmandelbrot.explorer.tile import BAND_WORK, MAX_LEVEL, MAX_LIMIT, MIN_LIMIT, SIDE, Tile
from mcmandelbrot.fractal.picture import Picture, View


@pytest.mark.parametrize("level", [1, 3, 20, MAX_LEVEL])
def test_a_tile_ends_where_the_next_begins(level: int) -> None:
    tile, right, below = Tile(level, -1, 0, 100), Tile(level, 0, 0, 100), Tile(level, -1, 1, 100)
    view = tile.picture.view
    assert view.left + SIDE * view.step == right.picture.view.left
    assert view.level(SIDE) == below.picture.view.level(0)


def test_a_tile_is_four_finer_ones() -> None:
    coarse, fine = Tile(4, -3, 2, 100), [Tile(5, -6, 4, 100), Tile(5, -5, 5, 100)]
    assert coarse.side == 2 * fine[0].side
    corners = [(tile.picture.view.re, tile.picture.view.im) for tile in fine]
    assert (coarse.picture.view.re, coarse.picture.view.im) == tuple(
        sum(pair) / 2 for pair in zip(*corners, strict=True)
    )


def test_the_pixels_of_the_deepest_level_are_numbers_apart() -> None:
    view = Tile(MAX_LEVEL, -(2**MAX_LEVEL) // 4, 0, 100).picture.view
    assert view.re == pytest.approx(-1)
    assert view.step >= 4 * math.ulp(1.0)
    columns = [view.left + n * view.step for n in range(SIDE)]
    assert len(set(columns)) == SIDE
    with pytest.raises(PictureError, match="double precision cannot distinguish the pixels of level 45"):
        Tile(MAX_LEVEL + 1, 0, 0, 100)


@pytest.mark.parametrize("limit", [MIN_LIMIT, 100, 500, 1000, 4000, MAX_LIMIT])
def test_bands_make_up_a_tile_and_each_is_cheap(limit: int) -> None:
    bands = Tile(5, 0, 0, limit).bands()
    assert [band.first for band in bands] == list(range(0, SIDE, bands[0].rows))
    assert all(band.rows == bands[0].rows for band in bands)
    assert bands[0].rows * SIDE * limit <= BAND_WORK
    if len(bands) > 1:
        assert 2 * bands[0].rows * SIDE * limit > BAND_WORK


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((-1, 0, 0, 100), "a level is from 0 to 44, got -1"),
        ((0, 1, 0, 100), "a column of level 0 is from -1 to 0, got 1"),
        ((3, 0, -9, 100), "a row of level 3 is from -8 to 7, got -9"),
        ((0, 0, 0, 9), "limit must be from 10 to 50,000 iterations, got 9"),
        ((0, 0, 0, 10**15), "limit must be from 10 to 50,000 iterations"),
    ],
)
def test_a_tile_that_is_not_there_says_why(arguments: tuple[int, int, int, int], reason: str) -> None:
    with pytest.raises(PictureError, match=reason):
        Tile(*arguments)


@pytest.mark.parametrize(("width", "limit"), [(1, 10), (2048, 1000), (16384, 50_000), (5001, 1999)])
def test_strips_make_up_a_picture_and_none_of_their_rows_is_dear(width: int, limit: int) -> None:
    picture = Picture(View.around(width, -0.5, 0.0, 1.0), limit)
    parts = [part.view for part in strips(picture)]
    assert sum(part.width for part in parts) == width
    assert all(part.width * limit <= BAND_WORK for part in parts)
    assert parts[0].left == pytest.approx(picture.view.left, abs=1e-12)
    for part, following in itertools.pairwise(parts):
        assert part.left + part.width * part.step == pytest.approx(following.left, abs=1e-12)
