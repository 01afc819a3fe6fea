"""What a run says of itself at its end."""

from __future__ import annotations

import pytest

from mcmandelbrot.cli.progress import Tally, summary
from mcmandelbrot.fractal.picture import View
from mcmandelbrot.fractal.png import EMPTY
from mcmandelbrot.fractal.worker import Ready, Rows

VIEW = View(1000, 500, 0.0, 0.0, 0.1)


def tally(workers: int, *bands: tuple[int, float]) -> Tally:
    """A tally of bands, each drawn by a process in some seconds."""
    counted = Tally(workers)
    for pid, seconds in bands:
        counted.count(Rows(EMPTY, pid, seconds))
    return counted


def test_a_workers_share_is_its_time_in_bands() -> None:
    assert tally(2, (7, 1.0), (8, 2.5), (7, 0.5)).shares(5.0) == [0.5, 0.3]


def test_a_worker_that_drew_nothing_has_no_share() -> None:
    assert tally(3, (7, 1.0)).shares(2.0) == [0.5, 0.0, 0.0]


def test_the_overhead_is_what_bands_cost_beyond_themselves() -> None:
    assert tally(2, (7, 1.0), (8, 2.0), (7, 1.0)).overhead(2.3) == pytest.approx(0.2)


def test_an_overhead_is_never_negative() -> None:
    assert tally(1, (7, 1.0)).overhead(0.9) == 0.0


def test_a_summary_tells_pixels_seconds_workers_shares_and_overhead() -> None:
    lines = summary(VIEW, tally(2, (7, 1.8), (8, 1.0)), [Ready(7, 0.0), Ready(8, 0.0)], 0.5, 2.0)
    assert lines == [
        "500,000 pixels in 2.00 s with 2 workers, after 0.50 s to start",
        "busy: 90%, 50%; overhead: 600.000 ms a call, of 2 calls",
    ]


def test_a_summary_says_that_the_kernel_was_compiled() -> None:
    lines = summary(VIEW, tally(1, (7, 1.0)), [Ready(7, 2.25), Ready(8, 0.0)], 0.5, 2.0)
    assert lines[0] == "compiled the kernel in 2.2 s; it is cached on disk if possible"
    assert lines[1] == "500,000 pixels in 2.00 s with 1 worker, after 0.50 s to start"
