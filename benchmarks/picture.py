"""The program `mcm` drawing a picture, beside the same kernel with nothing around it."""

from __future__ import annotations

import os
from time import perf_counter

from benchmarks.systems import System


async def mcm(_: System) -> dict[str, float]:
    """A picture on one worker and on two, and its rows drawn one after another in this process."""
    from mcmandelbrot.picture import Picture, View
    from mcmandelbrot.worker import drawRow, prepare

    picture = Picture(View.around(1_000, -0.63, 0.0, 1.4, 1.2))
    prepare()
    begun = perf_counter()
    for row in range(picture.view.height):
        drawRow(picture, row)
    bare = perf_counter() - begun
    one, two = await _drawn(picture, 1), await _drawn(picture, 2)
    return {
        "mcm, two workers to one, times": one / two,
        "mcm, two workers beside half the kernel's time, % over": 100 * (2 * two / bare - 1),
    }


async def _drawn(picture: object, workers: int) -> float:
    from twisted.internet import reactor

    from asynqueue import ProcessQueue
    from mcmandelbrot.drawing import Drawing
    from mcmandelbrot.picture import Picture
    from mcmandelbrot.worker import prepare

    assert isinstance(picture, Picture)
    async with ProcessQueue(workers) as queue:
        await queue.update(prepare, ephemeral=True)
        begun = perf_counter()
        file = open(os.devnull, "wb")  # noqa: SIM115  # the drawing closes it
        await Drawing(picture, queue, file, ahead=16 * workers, drawn=lambda row: None, reactor=reactor).start()
        return perf_counter() - begun
