"""A large image, streamed while it is drawn: the bands in order, the response as fast as it is read.

A `mcmandelbrot.fractal.rendering.Drawing` calls for bands and writes a PNG in a thread. Its file is a `Filerator`,
read in the loop by the producer of the response. So a reader who is slow holds up that thread, it holds up the bands,
and nothing piles up. No call costs more than one for a tile: where a row would, each band is a row, drawn in strips.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, BinaryIO, cast

from attrs import evolve
from twisted.internet.defer import Deferred, gatherResults

from asynqueue import IterationProducer, TaskQueue
from asynqueue.bridges import Filerator
from mcmandelbrot.explorer.outlet import Outlet
from mcmandelbrot.explorer.tile import BAND_WORK
from mcmandelbrot.explorer.visitor import RINGS, Visitor
from mcmandelbrot.fractal.picture import Band, Picture
from mcmandelbrot.fractal.png import joined
from mcmandelbrot.fractal.rendering import Drawing
from mcmandelbrot.fractal.worker import Rows, drawOn

RING = RINGS - 1
"""An image can wait for the tiles that somebody looks at, as the furthest of those can."""

AHEAD = 16
"""How many bands may be under way."""

WRITES = 16
"""How many pieces of the file may wait to be read."""


def strips(picture: Picture) -> list[Picture]:
    """PICTURE in parts side by side, none of which costs more than a band of a tile in any row."""
    view = picture.view
    across = max(16, min(view.width, BAND_WORK // picture.limit))
    parts: list[Picture] = []
    for first in range(0, view.width, across):
        width = min(across, view.width - first)
        re = view.left + (first + (width - 1) / 2) * view.step
        parts.append(evolve(picture, view=evolve(view, width=width, re=re)))
    return parts


class StripQueue:
    """Draws the bands of PICTURE through QUEUE, for VISITOR, strip by strip."""

    def __init__(self, queue: TaskQueue, picture: Picture, visitor: Visitor) -> None:
        self._queue = queue
        self._strips = strips(picture)
        self._visitor = visitor

    def call(self, f: Callable[[Band], Rows], band: Band, /) -> Deferred[Rows]:
        """Have BAND drawn by F."""
        series, niceness = self._visitor.series, self._visitor.niceness(RING)
        parts = [evolve(band, picture=strip) for strip in self._strips]
        calls = [  # of several parts, each is of one row, which begins with the first
            self._queue.call(drawOn if n else f, part, series=series, niceness=niceness) for n, part in enumerate(parts)
        ]
        return gatherResults(calls, consumeErrors=True).addCallback(_joined)


def _joined(parts: list[Rows]) -> Rows:
    """What PARTS side by side are."""
    return Rows(joined(part.piece for part in parts), parts[0].pid, sum(part.seconds for part in parts))


async def stream(picture: Picture, queue: TaskQueue, visitor: Visitor, outlet: Outlet, reactor: Any) -> None:
    """Write PICTURE to OUTLET, as a PNG for VISITOR. Ends when all of it has been written, or nobody wants any more."""
    file = Filerator[bytes](limit=WRITES, reactor=reactor)
    drawing = Drawing(
        picture.bands(max(1, len(queue)), BAND_WORK),
        StripQueue(queue, picture, visitor),
        cast(BinaryIO, file),  # it has all of a file that a writer of PNGs uses
        ahead=AHEAD,
        drawn=lambda band, rows: None,
        reactor=reactor,
    ).start()
    producer = IterationProducer(file.deferator(), outlet)
    try:
        await producer.run()
        await drawing
    finally:
        drawing.cancel()
        drawing.addErrback(lambda _: None)  # what went wrong with it, the producer has told
        producer.stop()
