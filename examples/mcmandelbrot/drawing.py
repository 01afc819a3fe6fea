"""One picture on its way from a queue to a file: a call a row, the rows in order again, a PNG writer fed with them.

How to think about it: rows are *called for*, *drawn*, and *handed over* to the writer, each in its own order but the
first and last from top to bottom. An `OrderedItemProducer` does the handing over, and says of each row when that is
done and there is room for more. At most AHEAD rows are called for and not handed over, wherever in between they are.
That bounds the memory, and keeps the workers busy while one slow row holds up the ones below it. A slow disk or a
stalled pipe lets no more rows be handed over, and so slows the workers down.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, BinaryIO, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from asynqueue import DeferredTracker, OrderedItemProducer, ThreadLooper
from mcmandelbrot.picture import Picture
from mcmandelbrot.worker import Row, drawRow
from mcmandelbrot.writer import writePicture


class RowQueue(Protocol):
    """What a drawing needs of a `TaskQueue`."""

    def call(self, f: Callable[[Picture, int], Row], picture: Picture, row: int, /) -> Deferred[Row]: ...


class Drawing:
    """Draws PICTURE through QUEUE into FILE, which it closes, with at most AHEAD rows under way to the writer.

    Half as many wait for the writer at most. DRAWN is called with each row, in the order in which they are drawn.
    """

    def __init__(
        self,
        picture: Picture,
        queue: RowQueue,
        file: BinaryIO,
        *,
        ahead: int,
        drawn: Callable[[Row], None],
        reactor: Any,  # a reactor with threads: no one of Twisted's interfaces says all that this takes
    ) -> None:
        self._picture = picture
        self._queue = queue
        self._file = file
        self._ahead = ahead
        self._drawn = drawn
        # Its own thread, not one of a pool that is waited for: where a reader of our standard output has stalled, the
        # writer is stuck, and that must not keep the program from ending.
        self._thread = ThreadLooper(reactor=reactor)
        self._rows = OrderedItemProducer[bytes](limit=max(1, ahead // 4), thread=self._thread, reactor=reactor)
        self._done: Deferred[None] = Deferred(lambda _: self._stop())
        self._ended = False

    def start(self) -> Deferred[None]:
        """Begin; the Deferred fires when the file is complete. To cancel it is to stop drawing.

        It fails with whatever first went wrong, in a row or in writing. After that, as after a cancel, nothing
        more is called for, no call is left and the file is being closed, incomplete.
        """
        Deferred.fromCoroutine(self._draw()).addCallbacks(self._finish, self._fail)
        return self._done

    async def _draw(self) -> None:
        handingOver = DeferredTracker()
        self._rows.start(writePicture, self._picture.view, self._file)
        for row in range(self._picture.view.height):
            await handingOver.deferUntilFewer(self._ahead)
            if not self._rows.wanted:
                break
            handingOver.put(self._rows.produceItem(self._call, row))
        await self._rows.stop()

    def _call(self, row: int) -> Deferred[bytes]:
        return self._queue.call(drawRow, self._picture, row).addCallbacks(self._arrive, self._failRow)

    def _arrive(self, row: Row) -> bytes:
        self._drawn(row)
        return row.pixels

    def _failRow(self, reason: Failure) -> Failure:
        if not reason.check(CancelledError):  # which has its reason elsewhere
            self._fail(reason)  # at once: neither the rows above it nor the writer are waited for
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
        self._rows.stop().addErrback(lambda _: None).cancel()
        self._thread.stop()
