"""Write the output of a worker process in whole lines, and lose none of it at the exit.

Several processes write to one standard output at any time. A line stays whole if it is one write to the kernel that a
pipe takes in one piece. The limit is `PIPE_BUF`: 4096 bytes on Linux, and at least 512. So the text of each thread is
buffered until the line is complete, or flushed, or the process exits.

Worker processes import this module: it imports almost nothing.
"""

from __future__ import annotations

import io
import os
import select
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Buffer

LINE_LIMIT = 1 << 20
"""A line of this many bytes is written before it is complete."""

_PIECE = getattr(select, "PIPE_BUF", 512)

_replaced: list[Any] = []  # kept, because a stream that is collected closes its descriptor


class LineWriter(io.BufferedIOBase):
    """Writes whole lines to DESCRIPTOR, which stays open when the writer is closed."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._begun: dict[int, bytes] = {}  # incomplete lines, by thread

    def write(self, buffer: Buffer, /) -> int:
        """Write the lines that BUFFER completes, and keep the rest."""
        new = bytes(buffer)
        thread = threading.get_ident()
        text = self._begun.pop(thread, b"") + new
        end = text.rfind(b"\n") + 1
        if len(text) - end >= LINE_LIMIT:
            end = len(text)
        if end < len(text):
            self._begun[thread] = text[end:]
        self._writeLines(text[:end])
        return len(new)

    def flush(self) -> None:
        """Write the incomplete lines of this thread, and of threads that have ended."""
        present = {thread.ident for thread in threading.enumerate()} - {threading.get_ident()}
        for thread in [thread for thread in list(self._begun) if thread not in present]:
            self._write(self._begun.pop(thread, b""))

    def flushAll(self) -> None:
        """Write all incomplete lines."""
        for thread in list(self._begun):
            self._write(self._begun.pop(thread, b""))

    @property
    def name(self) -> int:
        """The descriptor, which is the name of a file without a path."""
        return self._descriptor

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Return whether the descriptor is a terminal."""
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        """Return True."""
        return True

    def _writeLines(self, lines: bytes) -> None:
        """Write LINES, as many at once as stay whole, or else one by one."""
        start = 0
        while start < len(lines):
            end = len(lines)
            if end - start > _PIECE:
                end = lines.rfind(b"\n", start, start + _PIECE) + 1 or lines.find(b"\n", start) + 1 or end
            self._write(lines[start:end])
            start = end

    def _write(self, piece: bytes) -> None:
        while piece:
            try:
                piece = piece[os.write(self._descriptor, piece) :]
            except BlockingIOError:  # Another process has made the descriptor non-blocking: wait for room.
                room = select.poll()
                room.register(self._descriptor, select.POLLOUT)
                room.poll()


def installLineWriters() -> None:
    """Write standard output and standard error in whole lines from now on, where they have a descriptor."""
    for name in ("stdout", "stderr"):
        stream: Any = getattr(sys, name)  # The program may have replaced it by anything.
        try:
            stream.flush()
            writer = LineWriter(stream.fileno())
        except (AttributeError, OSError, ValueError):
            continue
        lines = io.TextIOWrapper(
            writer, encoding=stream.encoding, errors=stream.errors, newline="\n", write_through=True
        )
        setattr(sys, name, lines)
        _replaced.append(stream)


def finish() -> None:
    """Write all buffered output, of C libraries too: a forked process exits without that."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
            if isinstance(stream.buffer, LineWriter):
                stream.buffer.flushAll()
        except (AttributeError, OSError, ValueError):
            pass  # There is no stream, or its reader is gone.
    try:
        import ctypes

        ctypes.CDLL(None).fflush(None)
    except (ImportError, OSError, AttributeError):
        pass
