"""What `mcm` can be asked to draw, and what it refuses."""

from __future__ import annotations

import math
import pickle

import pytest

from mcmandelbrot.errors import PictureError
from mcmandelbrot.fractal.picture import MAX_SIDE, Picture, View


class TestView:
    def test_pixels_are_square_and_the_rows_follow_from_the_half_height(self) -> None:
        view = View.around(2000, -0.63, 0.0, 1.4, 1.2)
        assert (view.width, view.height) == (2000, 1714)
        assert view.step == 2.8 / 2000

    def test_it_is_square_without_a_half_height(self) -> None:
        view = View.around(17, 0.0, 0.0, 1.0)
        assert view.height == 17

    def test_samples_lie_at_the_centres_of_pixels(self) -> None:
        view = View.around(4, 10.0, 20.0, 2.0, 1.0)
        assert view.left == 8.5
        assert [view.level(row) for row in range(view.height)] == [20.5, 19.5]

    def test_a_flat_view_has_one_row_all_the_same(self) -> None:
        assert View.around(10, 0.0, 0.0, 1.0, 1e-6).height == 1

    def test_the_widest_and_the_highest_are_possible(self) -> None:
        assert View.around(MAX_SIDE, 0.0, 0.0, 1.0).height == MAX_SIDE

    @pytest.mark.parametrize(
        ("arguments", "reason"),
        [
            ((0, 0.0, 0.0, 1.0), "Nx must be from 1 to 65500 pixels, got 0"),
            ((-5, 0.0, 0.0, 1.0), "Nx"),
            ((MAX_SIDE + 1, 0.0, 0.0, 1.0), "Nx"),
            ((9, math.nan, 0.0, 1.0), "CR must be a number within ±1,000,000, got nan"),
            ((9, 0.0, -math.inf, 1.0), "CI must be a number"),
            ((9, 0.0, 1e300, 1.0), "CI must be a number"),
            ((9, 0.0, 0.0, math.nan), "CRPM must be a number"),
            ((9, 0.0, 0.0, 0.0), "CRPM must be more than 0, got 0.0"),
            ((9, 0.0, 0.0, -1.0), "CRPM must be more than 0"),
            ((9, 0.0, 0.0, 1.0, 0.0), "CIPM must be more than 0"),
            ((9, 0.0, 0.0, 1.0, math.inf), "CIPM must be a number"),
            ((9, 0.0, 0.0, 1.0, 1e5), "CIPM makes the picture 900000 pixels high"),
            ((9, 0.0, 0.0, 5e-324, 1e6), "double precision cannot tell these pixels apart"),
        ],
    )
    def test_it_refuses(self, arguments: tuple[int, float, float, float], reason: str) -> None:
        with pytest.raises(PictureError) as caught:
            View.around(*arguments)
        assert reason in str(caught.value)

    def test_what_it_offers_for_a_view_too_deep_is_possible(self) -> None:
        with pytest.raises(PictureError, match="CRPM must be at least") as caught:
            View.around(100, -0.75, 0.1, 1e-17)
        offered = float(str(caught.value).rsplit(" ", 1)[1])
        assert View.around(100, -0.75, 0.1, 1.1 * offered).step < 1e-15

    def test_pixels_differ_at_the_deepest_view(self) -> None:
        view = View.around(100, -0.75, 0.1, 4.6e-14)
        columns = {view.left + i * view.step for i in range(view.width)}
        corners = {view.left + (i - 0.5) * view.step for i in range(view.width)}
        assert len(columns | corners) == 200
        with pytest.raises(PictureError):
            View.around(100, -0.75, 0.1, 4.3e-14)


class TestPicture:
    @pytest.mark.parametrize("limit", [9, 0, -1, 10_000_001])
    def test_it_refuses_a_limit_out_of_range(self, limit: int) -> None:
        with pytest.raises(PictureError, match="-N must be from 10 to 10,000,000 iterations"):
            Picture(View.around(9, 0.0, 0.0, 1.0), limit)

    @pytest.mark.parametrize("steepness", [0.99, 25.1, math.nan, math.inf])
    def test_it_refuses_a_steepness_out_of_range(self, steepness: float) -> None:
        with pytest.raises(PictureError, match="-s must be from 1 to 25"):
            Picture(View.around(9, 0.0, 0.0, 1.0), steepness=steepness)

    def test_it_travels_to_a_worker_and_is_small(self) -> None:
        picture = Picture(View.around(2000, -0.63, 0.0, 1.4, 1.2))
        sent = pickle.dumps(picture)
        assert pickle.loads(sent) == picture
        assert len(sent) < 300
