"""Draw one picture with a queue into a file: one call per band, the bands in order again, and a PNG writer.

A band is *called* for, *drawn* and *delivered* to the writer. Bands are called and delivered from top to bottom. An
`OrderedItemProducer` delivers them, and notifies when a band is delivered and there is room for more. At most AHEAD
bands are called and not delivered. This limits the memory, and keeps the workers busy while one slow band delays those
below it. A slow disk or a stalled pipe delays the delivery, and so slows the workers down.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from asynqueue import DeferredTracker, OrderedItemProducer, ThreadLooper
from mcmandelbrot.fractal.picture import Band
from mcmandelbrot.fractal.png import Piece, writePicture
from mcmandelbrot.fractal.worker import Rows, drawRows


class BandQueue(Protocol):
    """The part of a `TaskQueue` that a drawing uses."""

    def call(self, f: Callable[[Band], Rows], band: Band, /) -> Deferred[Rows]: ...


class Drawing:
    """Draws BANDS, all of a picture, through QUEUE into FILE, which it closes.

    At most AHEAD bands are under way. DRAWN is called with each band and its rows, in the order in which they are
    drawn.
    """

    def __init__(
        self,
        bands: Sequence[Band],
        queue: BandQueue,
        file: BinaryIO,
        *,
        ahead: int,
        drawn: Callable[[Band, Rows], None],
        reactor: Any,  # Any, because no single interface of Twisted has threads and all else
    ) -> None:
        self._bands = bands
        self._queue = queue
        self._file = file
        self._ahead = ahead
        self._drawn = drawn
        # A thread of its own, because the program waits for the threads of a pool before it ends. If the reader of
        # standard output stalls, the writer is stuck, and the program must still be able to end.
        self._thread = ThreadLooper(reactor=reactor)
        self._pieces = OrderedItemProducer[Piece](limit=max(1, ahead // 4), thread=self._thread, reactor=reactor)
        self._done: Deferred[None] = Deferred(lambda _: self._stop())
        self._ended = False

    def start(self) -> Deferred[None]:
        """Start drawing.

        The Deferred fires when the file is complete. Cancelling it stops the drawing. It fails with the first error, of
        a band or of the writer. After an error or a cancel, no more bands are called, no call is left, and the file is
        being closed, incomplete.
        """
        Deferred.fromCoroutine(self._draw()).addCallbacks(self._finish, self._fail)
        return self._done

    def closed(self) -> Deferred[None]:
        """Accept no more bands. Return a Deferred that fires when the thread that writes has ended."""
        return self._thread.stop()

    async def _draw(self) -> None:
        handingOver = DeferredTracker()
        self._pieces.start(writePicture, self._bands[0].picture.view, self._file)
        for band in self._bands:
            await handingOver.deferUntilFewer(self._ahead)
            if not self._pieces.wanted:
                break
            handingOver.put(self._pieces.produceItem(self._call, band))
        await self._pieces.stop()

    def _call(self, band: Band) -> Deferred[Piece]:
        return self._queue.call(drawRows, band).addCallbacks(self._arrive, self._failBand, (band,))

    def _arrive(self, rows: Rows, band: Band) -> Piece:
        self._drawn(band, rows)
        return rows.piece

    def _failBand(self, reason: Failure) -> Failure:
        if not reason.check(CancelledError):  # a cancelled band is not the cause of the failure
            self._fail(reason)  # at once, without waiting for earlier bands or the writer
        return reason

    def _finish(self, _: None) -> None:
        if not self._ended:
            self._stop()
            self._done.callback(None)

    def _fail(self, reason: Failure) -> None:
        if not self._ended:
            self._stop()
            self._done.errback(reason)

    def _stop(self) -> None:
        self._ended = True
        self._pieces.stop().addErrback(lambda _: None).cancel()
        self._thread.stop()
