"""Checks of arguments."""

from __future__ import annotations

from asynqueue.core.text import valueText


def checkCallable(f: object) -> None:
    """Raise `TypeError` if F cannot be called."""
    if not callable(f):
        raise TypeError(f"what is called must be callable, got {valueText(f)}")
