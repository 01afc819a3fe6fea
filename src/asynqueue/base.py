"""The name of 0.9: see `asynqueue.queue.taskqueue`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asynqueue.placeholders import gone
from asynqueue.queue.taskqueue import TaskQueue

__all__ = ["TaskQueue"]


if not TYPE_CHECKING:  # else a type checker would accept any name

    def __getattr__(name: str) -> Any:
        return gone(__name__, name)
