"""A large image, sent while it is drawn.

A `mcmandelbrot.fractal.rendering.Drawing` draws bands and writes a PNG in a thread. Its file is a `Filerator`, which
the producer of the response reads in the loop. A slow client therefore delays that thread, the thread delays the bands,
and memory stays limited. No call costs more than one for a tile. If a row costs more, each band is one row, drawn in
strips.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, BinaryIO, cast

from attrs import evolve
from twisted.internet.defer import Deferred, gatherResults

from asynqueue import IterationProducer, TaskQueue
from asynqueue.bridges import Filerator
from mcmandelbrot.explorer.responsestream import ResponseStream
from mcmandelbrot.explorer.tile import BAND_WORK
from mcmandelbrot.explorer.visitor import RINGS, Visitor
from mcmandelbrot.fractal.picture import Band, Picture
from mcmandelbrot.fractal.png import joined
from mcmandelbrot.fractal.rendering import Drawing
from mcmandelbrot.fractal.worker import Rows, drawOn

RING = RINGS - 1
"""The ring of an image's calls: the lowest priority, so that an image waits for all tiles."""

AHEAD = 16
"""The maximum number of bands under way."""

WRITES = 16
"""The maximum number of pieces of the file that wait to be read."""


def strips(picture: Picture) -> list[Picture]:
    """Return PICTURE in parts side by side, so that a row of each costs at most as much as a band of a tile."""
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
        """Draw BAND with F."""
        series, niceness = self._visitor.series, self._visitor.niceness(RING)
        parts = [evolve(band, picture=strip) for strip in self._strips]
        calls = [  # if there are several parts, each has one row, and the first begins it
            self._queue.call(drawOn if n else f, part, series=series, niceness=niceness) for n, part in enumerate(parts)
        ]
        return gatherResults(calls, consumeErrors=True).addCallback(_joined)


def _joined(parts: list[Rows]) -> Rows:
    """Join PARTS, which are side by side."""
    return Rows(joined(part.piece for part in parts), parts[0].pid, sum(part.seconds for part in parts))


async def stream(picture: Picture, queue: TaskQueue, visitor: Visitor, response: ResponseStream, reactor: Any) -> None:
    """Write PICTURE to RESPONSE as a PNG for VISITOR.

    Return when it is complete or the client has left, and the thread of the drawing has ended.
    """
    file = Filerator[bytes](limit=WRITES, reactor=reactor)
    drawing = Drawing(
        picture.bands(max(1, len(queue)), BAND_WORK),
        StripQueue(queue, picture, visitor),
        cast(BinaryIO, file),  # cast: it has the methods of a file that a writer of PNGs uses
        ahead=AHEAD,
        drawn=lambda band, rows: None,
        reactor=reactor,
    )
    drawn = drawing.start()
    producer = IterationProducer(file.deferator(), response)
    try:
        await producer.run()
        await drawn
    finally:
        drawn.cancel()
        drawn.addErrback(lambda _: None)  # the producer has raised its error already
        producer.stop()
        await drawing.closed()
