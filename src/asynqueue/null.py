"""The name of 0.9: see `asynqueue.mainloop`."""

from __future__ import annotations

from asynqueue.mainloop import NullQueue

__all__ = ["NullQueue"]
