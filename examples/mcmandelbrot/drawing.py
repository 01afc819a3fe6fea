"""One picture on its way from a queue to a file: a call a row, the rows put in order again, the writer fed.

How to think about it: rows are *called for*, *drawn*, and *taken* by the writer, each in its own order but the
first and last from top to bottom. At most AHEAD rows are called for and not yet taken, wherever in between they
are. That bounds the memory, and keeps the workers busy while one slow row holds up the ones below it. What lets
the next row be called for is the writer taking one, so a slow disk or a stalled pipe slows the workers down.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

from asynqueue.core.reorder import Reorder
from mcmandelbrot.picture import Picture
from mcmandelbrot.worker import Row, drawRow
from mcmandelbrot.writer import RowWriter


class RowQueue(Protocol):
    """What a drawing needs of a `TaskQueue`."""

    def call(self, f: Callable[[Picture, int], Row], picture: Picture, row: int, /) -> Deferred[Row]: ...


class Drawing:
    """Draws PICTURE through QUEUE into FILE, which it closes, with at most AHEAD rows under way.

    DRAWN is called with each row, in the order in which they are drawn.
    """

    def __init__(
        self,
        picture: Picture,
        queue: RowQueue,
        file: BinaryIO,
        *,
        ahead: int,
        drawn: Callable[[Row], None],
        reactor: IReactorFromThreads,
    ) -> None:
        self._picture = picture
        self._queue = queue
        self._ahead = ahead
        self._drawn = drawn
        self._writer = RowWriter(picture.view, file, self._take, reactor)
        self._order = Reorder[bytes]()
        self._called = 0
        self._taken = 0
        self._calls: dict[int, Deferred[Row]] = {}
        self._done: Deferred[None] | None = Deferred(lambda _: self._stop())

    def start(self) -> Deferred[None]:
        """Begin; the Deferred fires when the file is complete. To cancel it is to stop drawing.

        It fails with whatever first went wrong, in a row or in writing. After that, as after a cancel, nothing
        more is called for, no call is left and the file is being closed, incomplete.
        """
        assert self._done is not None, "a drawing starts once"
        done = self._done
        self._writer.start().addCallbacks(self._finish, self._fail)
        self._callAhead()
        return done

    def _callAhead(self) -> None:
        while self._done and self._called < min(self._taken + self._ahead, self._picture.view.height):
            row = self._called
            self._called += 1
            d = self._calls[row] = self._queue.call(drawRow, self._picture, row)
            d.addCallback(self._arrive, row).addErrback(self._fail)

    def _arrive(self, row: Row, index: int) -> None:
        if not self._done:
            return
        del self._calls[index]
        self._drawn(row)
        for pixels in self._order.put(index, row.pixels):
            self._writer.put(pixels)

    def _take(self) -> None:
        self._taken += 1
        self._callAhead()

    def _finish(self, _: None) -> None:
        if self._done:
            done, self._done = self._done, None
            done.callback(None)

    def _fail(self, failure: Failure) -> None:
        if self._done:
            done = self._done
            self._stop()
            done.errback(failure)

    def _stop(self) -> None:
        self._done = None
        self._writer.abandon()
        # The last first: a call that waits must not start because the one before it is gone.
        while self._calls:
            _, d = self._calls.popitem()
            d.cancel()
