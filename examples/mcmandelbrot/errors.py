"""What ends `mcm` before its picture is whole: each error with its message and the exit status it means."""

from __future__ import annotations

import signal


class McmError(Exception):
    """Something that `mcm` says in one line, and ends with STATUS."""

    status = 1


class PictureError(McmError, ValueError):
    """No such picture can be drawn; the message says why, and what could be."""

    status = 2


class TargetError(McmError):
    """A picture cannot go there; the message says why."""

    status = 2


class DrawingError(McmError):
    """A good picture could not be drawn or written."""


class ServingError(McmError):
    """The explorer could not be served; the message says why."""


class Interrupted(McmError):
    """The program is to end as by the signal of this NUMBER. There is nothing to say about it."""

    def __init__(self, number: int) -> None:
        super().__init__("")
        self.number = number
        self.status = 128 + number

    def __repr__(self) -> str:
        return f"Interrupted({signal.Signals(self.number).name})"
