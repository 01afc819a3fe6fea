"""One picture on its way from a queue to a file: a call a band, the bands in order again, a PNG writer fed with them.

How to think about it: bands are *called for*, *drawn*, and *handed over* to the writer, each in its own order but the
first and last from top to bottom. An `OrderedItemProducer` does the handing over, and says of each band when that is
done and there is room for more. At most AHEAD bands are called for and not handed over, wherever in between they are.
That bounds the memory, and keeps the workers busy while one slow band holds up the ones below it. A slow disk or a
stalled pipe lets no more bands be handed over, and so slows the workers down.
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
    """What a drawing needs of a `TaskQueue`."""

    def call(self, f: Callable[[Band], Rows], band: Band, /) -> Deferred[Rows]: ...


class Drawing:
    """Draws BANDS, all of a picture, through QUEUE into FILE, which it closes.

    At most AHEAD of them are under way to the writer, and half as many wait for it at most. DRAWN is called with each
    and what came of it, in the order in which they are drawn.
    """

    def __init__(
        self,
        bands: Sequence[Band],
        queue: BandQueue,
        file: BinaryIO,
        *,
        ahead: int,
        drawn: Callable[[Band, Rows], None],
        reactor: Any,  # a reactor with threads: no one of Twisted's interfaces says all that this takes
    ) -> None:
        self._bands = bands
        self._queue = queue
        self._file = file
        self._ahead = ahead
        self._drawn = drawn
        # Its own thread, not one of a pool that is waited for: where a reader of our standard output has stalled, the
        # writer is stuck, and that must not keep the program from ending.
        self._thread = ThreadLooper(reactor=reactor)
        self._pieces = OrderedItemProducer[Piece](limit=max(1, ahead // 4), thread=self._thread, reactor=reactor)
        self._done: Deferred[None] = Deferred(lambda _: self._stop())
        self._ended = False

    def start(self) -> Deferred[None]:
        """Begin; the Deferred fires when the file is complete. To cancel it is to stop drawing.

        It fails with whatever first went wrong, in a band or in writing. After that, as after a cancel, nothing
        more is called for, no call is left and the file is being closed, incomplete.
        """
        Deferred.fromCoroutine(self._draw()).addCallbacks(self._finish, self._fail)
        return self._done

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
        if not reason.check(CancelledError):  # which has its reason elsewhere
            self._fail(reason)  # at once: neither the bands above it nor the writer are waited for
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
