"""The name of 0.9: see `asynqueue.queue.taskqueue`."""

from __future__ import annotations

from asynqueue.queue.taskqueue import TaskQueue

__all__ = ["TaskQueue"]
