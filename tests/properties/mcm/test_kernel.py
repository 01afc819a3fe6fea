"""What the kernel's shortcuts can never do: change a value."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mcmandelbrot.fractal.kernel import ESCAPE_RADIUS, escapeTime, level, rowLevels

reals = st.floats(-2.1, 0.6)
imaginaries = st.floats(-1.3, 1.3)
limits = st.integers(10, 3000)
steepnesses = st.floats(1.0, 25.0)


@st.composite
def pointsNearTheBoundary(draw: st.DrawFn) -> tuple[float, float]:
    """Points close to the main cardioid or to one of the discs and buds on the real axis, on either side."""
    angle = draw(st.floats(0.0, 2 * math.pi))
    off = draw(st.sampled_from([-1, 1])) * 10 ** draw(st.floats(-6.0, -1.5))
    turn = complex(math.cos(angle), math.sin(angle))
    c = draw(
        st.sampled_from(
            [turn / 2 - turn * turn / 4, -1 + turn / 4, -1.3107 + 0.0589 * turn, -0.1226 + 0.7449j + 0.094 * turn]
        )
    )
    c += off * turn
    return c.real, c.imag


points = st.tuples(reals, imaginaries) | pointsNearTheBoundary()


def plainEscapeTime(re: float, im: float, limit: int) -> float:
    """The definition, with no shortcut."""
    zr, zi = re, im
    for n in range(limit):
        r2 = zr * zr + zi * zi
        if r2 > ESCAPE_RADIUS**2:
            return max(0.0, n + 1 - math.log2(0.5 * math.log(r2) / math.log(ESCAPE_RADIUS)))
        zr, zi = zr * zr - zi * zi + re, 2.0 * zr * zi + im
    return math.inf


@given(points, limits)
@example((0.25, 0.0), 3000)
@example((0.25001, 0.0), 3000)  # it creeps past where the cardioid ends
@example((-0.75, 0.002), 3000)
@example((0.099314, 0.602831), 3000)  # just outside the cardioid
@example((-0.75, 0.0), 3000)
@example((-1.25, 0.0), 3000)
@example((-0.1226, 0.7449), 3000)
def test_no_shortcut_changes_a_value(point: tuple[float, float], limit: int) -> None:
    assert escapeTime(*point, limit) == pytest.approx(plainEscapeTime(*point, limit), abs=1e-9)


@given(points, limits, steepnesses)
def test_a_level_is_from_0_to_1(point: tuple[float, float], limit: int, steepness: float) -> None:
    assert 0.0 <= level(*point, limit, steepness) <= 1.0


@given(points, points, limits, steepnesses)
def test_what_escapes_more_slowly_is_never_darker(
    one: tuple[float, float], other: tuple[float, float], limit: int, steepness: float
) -> None:
    slow, fast = (one, other) if escapeTime(*one, limit) > escapeTime(*other, limit) else (other, one)
    if escapeTime(*slow, limit) < math.inf:
        assert level(*slow, limit, steepness) >= level(*fast, limit, steepness)
    else:
        assert level(*slow, limit, steepness) == 0.0


@given(reals, imaginaries, st.floats(1e-9, 0.1), st.integers(1, 40), limits, steepnesses)
def test_a_picture_is_as_symmetric_as_the_set(
    left: float, im: float, step: float, width: int, limit: int, steepness: float
) -> None:
    above = rowLevels(left, im, step, width, limit, steepness)
    below = rowLevels(left, -im, step, width, limit, steepness)
    assert np.array_equal(above, below)


@given(reals, imaginaries, st.floats(1e-9, 0.1), st.integers(1, 40), limits, steepnesses)
def test_every_level_of_a_row_is_from_0_to_1(
    left: float, im: float, step: float, width: int, limit: int, steepness: float
) -> None:
    levels = rowLevels(left, im, step, width, limit, steepness)
    assert levels.shape == (width,)
    assert ((levels >= 0.0) & (levels <= 1.0)).all()
