"""Measure the program `mcm` beside the same kernel alone."""

from __future__ import annotations

import os
from time import perf_counter

from benchmarks.systems import System


async def mcm(_: System) -> dict[str, float]:
    """Draw two pictures, each on one worker and on two, and their bands one after another in this process."""
    from mcmandelbrot.fractal.picture import Picture, View
    from mcmandelbrot.fractal.worker import paintRows, prepare

    prepare()
    figures = {}
    for name, view in (
        ("the whole set", View.around(2_000, -0.63, 0.0, 1.4, 1.2)),  # half a millisecond a row
        ("a deeper look", View.around(1_000, -0.7436, 0.1318, 0.006)),  # some milliseconds a row
    ):
        picture = Picture(view)
        begun = perf_counter()
        for band in picture.bands(1):
            b"".join(paintRows(band))
        bare = perf_counter() - begun
        one, two = await _drawn(picture, 1), await _drawn(picture, 2)
        figures[f"mcm, {name}, two workers to one, times"] = one / two
        figures[f"mcm, {name}, two workers beside half the kernel's time, % over"] = 100 * (2 * two / bare - 1)
    return figures


async def _drawn(picture: object, workers: int) -> float:
    from twisted.internet import reactor

    from asynqueue import ProcessQueue
    from mcmandelbrot.cli.draw import AHEAD
    from mcmandelbrot.fractal.picture import Picture
    from mcmandelbrot.fractal.rendering import Drawing
    from mcmandelbrot.fractal.worker import prepare

    assert isinstance(picture, Picture)
    async with ProcessQueue(workers) as queue:
        await queue.update(prepare, ephemeral=True)
        begun = perf_counter()
        file = open(os.devnull, "wb")  # noqa: SIM115  # the drawing closes it
        bands, ahead = picture.bands(workers), AHEAD * workers
        await Drawing(bands, queue, file, ahead=ahead, drawn=lambda band, rows: None, reactor=reactor).start()
        return perf_counter() - begun
