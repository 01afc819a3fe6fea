"""The signals that ask a program to end: Ctrl-C, `kill`, a closed terminal.

A signal that was ignored when the program started, as by `nohup`, stays ignored.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from mcmandelbrot.errors import Interrupted

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def notIgnored() -> list[signal.Signals]:
    """Return the signals that are not ignored."""
    return [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]


@contextmanager
def ending() -> Iterator[None]:
    """Raise `Interrupted` if such a signal comes in this context, so that the program cleans up as after an error."""
    before = {number: signal.signal(number, _end) for number in notIgnored()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> None:
    raise Interrupted(number)
