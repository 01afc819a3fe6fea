"""The signals that ask a program to end: Ctrl-C, `kill`, a closed terminal.

Those that were ignored when the program started, as by `nohup`, stay ignored.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from mcmandelbrot.errors import Interrupted

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def heeded() -> list[signal.Signals]:
    """Those that are not ignored."""
    return [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]


@contextmanager
def ending() -> Iterator[None]:
    """Meanwhile, one that comes raises `Interrupted`: what is left in the middle is cleared up as after an error."""
    before = {number: signal.signal(number, _end) for number in heeded()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> None:
    raise Interrupted(number)
