"""What a worker process prints: line by line, and to the last of it.

Several processes write to one standard output, each when it likes. A line stays whole if it is one write to the
kernel, as long as a pipe takes it in one piece (4096 bytes everywhere, and in practice more). So a line is held back,
for each thread that prints one, until it is complete, or flushed, or the process exits.

Worker processes read this module: it imports next to nothing.
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
"""So many bytes without an end of line are written as they are."""

_PIECE = getattr(select, "PIPE_BUF", 512)

_replaced: list[Any] = []  # streams that would close their descriptor if nobody kept them


class LineWriter(io.BufferedIOBase):
    """Writes whole lines to DESCRIPTOR, which stays open when this is closed."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._begun: dict[int, bytes] = {}  # by thread

    def write(self, buffer: Buffer, /) -> int:
        """Write what BUFFER completes, and keep the rest."""
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
        """Write the line that this thread has begun, and those of threads that have ended."""
        present = {thread.ident for thread in threading.enumerate()} - {threading.get_ident()}
        for thread in [thread for thread in list(self._begun) if thread not in present]:
            self._write(self._begun.pop(thread, b""))

    def flushAll(self) -> None:
        """Write every line that was begun."""
        for thread in list(self._begun):
            self._write(self._begun.pop(thread, b""))

    @property
    def name(self) -> int:
        """The descriptor, as a file that has no name calls itself."""
        return self._descriptor

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """True if it is a terminal's."""
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        """It is."""
        return True

    def _writeLines(self, lines: bytes) -> None:
        """Write LINES, as many at once as stay whole, or else one."""
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
            except BlockingIOError:  # whoever has the other end does not block, and so neither do we: wait for room
                select.select([], [self._descriptor], [])


def installLineWriters() -> None:
    """Have what this process prints go by lines from now on, where it goes to a descriptor at all."""
    for name in ("stdout", "stderr"):
        stream: Any = getattr(sys, name)  # a program may have put anything there
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
    """Write all that was begun, by code that is not Python's too: a process that is forked exits without."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
            if isinstance(stream.buffer, LineWriter):
                stream.buffer.flushAll()
        except (AttributeError, OSError, ValueError):
            pass  # there is none, or nobody is left to read it
    try:
        import ctypes

        ctypes.CDLL(None).fflush(None)
    except (ImportError, OSError, AttributeError):
        pass
