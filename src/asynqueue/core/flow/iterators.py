"""What an iterator is, and how long one may run at a time."""

from __future__ import annotations

SLICE = 0.001
"""Seconds for which an iterator may go on before its items are sent and something else has its turn."""


def isIterator(x: object) -> bool:
    """True for what has items to come: an object with ``__iter__`` and ``__next__``."""
    return hasattr(type(x), "__next__") and hasattr(type(x), "__iter__")
