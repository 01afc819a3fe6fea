"""The compiled kernel: known points, the levels that are seen of them, and how it is compiled."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mcmandelbrot.fractal.kernel import CHANGE, escapeTime, level, rowLevels

LIMIT = 2000


class TestEscapeTime:
    @pytest.mark.parametrize(
        "c",
        [0, -1, 0.25, -0.75, -1.25, -2, 1j, -1j, -0.1226 + 0.7449j, -1.7549, 0.2499, -0.5 + 0.5j],
    )
    def test_a_point_of_the_set_never_escapes(self, c: complex) -> None:
        assert escapeTime(complex(c).real, complex(c).imag, LIMIT) == math.inf

    @pytest.mark.parametrize("c", [0.26, 0.5, -2.001, 1 + 1j, -0.75 + 0.1j, -1.25 + 0.1j, 0.4 + 0.4j])
    def test_a_point_outside_escapes(self, c: complex) -> None:
        assert 0 < escapeTime(complex(c).real, complex(c).imag, LIMIT) < LIMIT

    def test_points_of_the_two_main_bulbs_cost_nothing(self) -> None:
        # A limit that would take minutes for each of them.
        for re, im in [(0.2, 0.3), (-0.7, 0.05), (-1.0, 0.24), (-1.2, 0.0)]:
            assert escapeTime(re, im, 10**11) == math.inf

    def test_a_point_that_comes_to_a_cycle_costs_little(self) -> None:
        for re, im in [(-0.1226, 0.7449), (-1.7549, 0.0), (-1.3107, 0.0), (0.2822, 0.5301)]:
            assert escapeTime(re, im, 10**11) == math.inf

    def test_it_is_smooth(self) -> None:
        times = [escapeTime(0.45 + i * 1e-4, 0.6, LIMIT) for i in range(1000)]
        assert np.abs(np.diff(times)).max() < 0.05
        assert {6, 7, 8} <= {round(time) for time in times}

    def test_a_point_as_far_away_as_can_be_escapes_at_once(self) -> None:
        assert escapeTime(1e6, -1e6, LIMIT) == 0.0


class TestLevel:
    def test_the_set_is_black(self) -> None:
        assert level(-0.1226, 0.7449, LIMIT, 3.0) == 0.0

    def test_far_away_it_is_black_and_close_to_the_set_nearly_white(self) -> None:
        assert level(1e5, 0.0, LIMIT, 3.0) == 0.0
        assert level(0.25 + 1e-5, 0.0, LIMIT, 3.0) > 0.95

    def test_steepness_raises_the_contrast_in_the_middle_alone(self) -> None:
        points = [0.25 + 10.0 ** (-i / 8) for i in range(1, 40)]
        plain = [level(re, 0.0, LIMIT, 1.0) for re in points]
        steep = [level(re, 0.0, LIMIT, 3.0) for re in points]
        assert all((s > p) == (p > 0.5) for s, p in zip(steep, plain, strict=True))
        i = min(range(1, len(plain)), key=lambda i: abs(plain[i] - 0.5))
        assert steep[i] - steep[i - 1] > 2 * (plain[i] - plain[i - 1])


class TestRowLevels:
    def test_a_smooth_row_has_the_levels_of_its_centres(self) -> None:
        levels = rowLevels(1.0, 1.0, 0.001, 50, LIMIT, 3.0)
        assert levels.tolist() == [level(1.0 + i * 0.001, 1.0, LIMIT, 3.0) for i in range(50)]

    def test_a_pixel_where_the_level_changes_has_the_mean_of_five_points(self) -> None:
        left, im, step = -0.76, 0.1, 0.0005
        levels = rowLevels(left, im, step, 50, LIMIT, 3.0)
        centres = [level(left + i * step, im, LIMIT, 3.0) for i in range(50)]

        def corner(i: int, side: int) -> float:
            return level(left + (i - 0.5) * step, im + side * step / 2, LIMIT, 3.0)

        kinds = set()
        for i, here in enumerate(centres):
            changes = any(abs(here - there) > CHANGE for there in centres[max(0, i - 1) : i + 2])
            five = [here, corner(i, 1), corner(i, -1), corner(i + 1, 1), corner(i + 1, -1)]
            assert levels[i] == pytest.approx(sum(five) / 5 if changes else here, abs=1e-12)
            kinds.add((changes, bool(levels[i] == here)))
        assert {(True, False), (False, True)} <= kinds

    def test_a_row_of_one_pixel_is_possible(self) -> None:
        assert rowLevels(-1.0, 0.0, 0.1, 1, LIMIT, 3.0).tolist() == [0.0]


PREPARE = """
import json
from mcmandelbrot.fractal.worker import prepare
ready = prepare()
from mcmandelbrot.fractal.kernel import escapeTime
print(json.dumps([ready.compiling > 0, escapeTime(0.3, 0.6, 100)]))
"""


def preparing(**environment: str) -> subprocess.Popen[str]:
    """A new interpreter that prepares to draw, and then says whether it compiled, and one escape time."""
    return subprocess.Popen(
        [sys.executable, "-c", PREPARE], env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True
    )


def said(process: subprocess.Popen[str]) -> object:
    with process:
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return json.loads(output)


class TestCompiling:
    def test_two_workers_may_compile_at_once_and_a_third_finds_it_on_disk(self, tmp_path: Path) -> None:
        both = [preparing(NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(2)]
        time = escapeTime(0.3, 0.6, 100)
        # The second may well find what the first has just saved.
        assert [True, time] in [said(process) for process in both]
        assert said(preparing(NUMBA_CACHE_DIR=str(tmp_path))) == [False, time]

    def test_it_does_without_a_disk_to_keep_it_on(self) -> None:
        nowhere = preparing(NUMBA_CACHE_DIR="/dev/null/x", NUMBA_CACHE_LOCATOR_CLASSES="UserProvidedCacheLocator")
        assert said(nowhere) == [True, escapeTime(0.3, 0.6, 100)]
