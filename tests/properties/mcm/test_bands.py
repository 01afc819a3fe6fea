"""What the bands of a picture are, for whatever picture and however many workers."""

from __future__ import annotations

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from mcmandelbrot.fractal.picture import (
    MAX_LIMIT,
    MAX_PIXELS,
    MAX_SIDE,
    MIN_LIMIT,
    MIN_PIXELS,
    MIN_WORK,
    SHARE_PIXELS,
    SHARES,
    Band,
    Picture,
    View,
)

pictures = st.builds(
    lambda width, height, limit: Picture(View(width, height, -0.6, 0.0, 1e-5), limit),
    st.integers(1, MAX_SIDE),
    st.integers(1, 3000),
    st.integers(MIN_LIMIT, MAX_LIMIT),
)
workers = st.integers(1, 100)
works = st.integers(1, 2**40)


@given(pictures, workers, works)
def test_every_row_is_in_one_band_and_they_are_in_order(picture: Picture, workers: int, work: int) -> None:
    bands = picture.bands(workers, work)
    assert all(band.picture == picture for band in bands)
    rows = [row for band in bands for row in range(band.first, band.first + band.rows)]
    assert rows == list(range(picture.view.height))


@given(pictures, workers, works)
def test_a_band_has_a_row_or_is_within_its_bounds(picture: Picture, workers: int, work: int) -> None:
    view = picture.view
    for band in picture.bands(workers, work):
        assert band.rows >= 1
        assert band.work == band.rows * view.width * picture.limit
        if band.rows > 1:
            assert band.work <= work
            assert band.rows * view.width <= MAX_PIXELS
            assert isSmall(band) or isFair(band, workers)


@given(pictures, workers, works)
def test_a_band_has_as_many_rows_as_it_may(picture: Picture, workers: int, work: int) -> None:
    *bands, last = picture.bands(workers, work)
    for band in bands:
        more = evolve(band, rows=band.rows + 1)
        isLarge = more.work > work or more.rows * picture.view.width > MAX_PIXELS
        assert isLarge or not (isSmall(more) or isFair(more, workers))
    assert isFair(last, workers) or isSmall(last) or last.rows == 1


def isSmall(band: Band) -> bool:
    """Whether it is hardly worth a call."""
    return band.work <= MIN_WORK and band.rows * band.picture.view.width <= MIN_PIXELS


def isFair(band: Band, workers: int) -> bool:
    """Whether so many WORKERS may still end at the same time."""
    view = band.picture.view
    isShare = band.rows * SHARES * workers <= view.height or band.rows * view.width <= SHARE_PIXELS
    return isShare and band.rows * 2 * workers <= view.height - band.first
