"""The errors that end `mcm`, each with a message and an exit status."""

from __future__ import annotations

import signal


class McmError(Exception):
    """An error that `mcm` prints in one line. STATUS is the exit status."""

    status = 1


class PictureError(McmError, ValueError):
    """The picture cannot be drawn. The message has the reason and the valid range."""

    status = 2


class TargetError(McmError):
    """The picture cannot be written to this target. The message has the reason."""

    status = 2


class DrawingError(McmError):
    """A valid picture could not be drawn or written."""


class ServingError(McmError):
    """The explorer could not be served. The message has the reason."""


class Interrupted(McmError):
    """The program ends because of the signal NUMBER. No message is printed."""

    def __init__(self, number: int) -> None:
        super().__init__("")
        self.number = number
        self.status = 128 + number

    def __repr__(self) -> str:
        return f"Interrupted({signal.Signals(self.number).name})"
