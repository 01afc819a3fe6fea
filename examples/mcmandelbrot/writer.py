"""A PNG that is written in a thread, from rows that arrive in the main loop.

pypng's writer takes an iterator and blocks: on the iterator while a row is missing, on the file while it cannot
take more. So it has a thread of its own. Rows go in through `put`, which never blocks; whenever the writer comes
for the next row, it is done with the one before, and `taken` is called in the main loop. Whoever puts rows counts
on that to stay only so far ahead, which bounds what waits here.

The thread owns its file, and closes it. It is a daemon: where a reader of our standard output has stalled, the
thread stays blocked in `write`, and that must not keep the program from ending.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from queue import SimpleQueue
from threading import Thread
from typing import BinaryIO

import png
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

from mcmandelbrot.picture import View

CHUNK = 2**16
"""Bytes of pixels after which what they compress to is written, so that it is on its way soon."""


class Abandoned(Exception):
    """No more rows will come: what the writer's thread ends with after `RowWriter.abandon`."""


class RowWriter:
    """Writes the rows of VIEW to FILE, and calls TAKEN, in the main loop, each time it has taken one."""

    def __init__(self, view: View, file: BinaryIO, taken: Callable[[], None], reactor: IReactorFromThreads) -> None:
        self._view = view
        self._file = file
        self._taken = taken
        self._reactor = reactor
        self._rows: SimpleQueue[bytes | None] = SimpleQueue()
        self._written: Deferred[None] = Deferred()

    def start(self) -> Deferred[None]:
        """Begin; the Deferred fires when the file is complete and closed, or with what went wrong in writing it."""
        Thread(target=self._write, name="mcm PNG writer", daemon=True).start()
        return self._written

    def put(self, row: bytes) -> None:
        """Write the next ROW: three bytes for each pixel."""
        self._rows.put(row)

    def abandon(self) -> None:
        """Write nothing more, and close the file as it is."""
        self._rows.put(None)

    def _write(self) -> None:
        try:
            with self._file as file:
                writer = png.Writer(self._view.width, self._view.height, greyscale=False, chunk_limit=CHUNK)
                writer.write(file, self._iterate())
        except BaseException:
            self._reactor.callFromThread(self._written.errback, Failure())
        else:
            self._reactor.callFromThread(self._written.callback, None)

    def _iterate(self) -> Iterator[bytes]:
        for _ in range(self._view.height):
            row = self._rows.get()
            if row is None:
                raise Abandoned
            yield row
            self._reactor.callFromThread(self._taken)
