"""Checks of arguments."""

from __future__ import annotations


def checkCallable(f: object) -> None:
    """Raise `TypeError` if F cannot be called."""
    if not callable(f):
        raise TypeError(f"what is called must be callable, got {f!r}")
