"""A queue that works in the main loop."""

from __future__ import annotations

from typing_extensions import Unpack

from asynqueue.base import TaskQueue
from asynqueue.options import QueueOptions
from asynqueue.workers import AsyncWorker

__all__ = ["NullQueue"]


class NullQueue(TaskQueue):
    """A queue with one `AsyncWorker`: one call after another in the main loop, in the queue's order.

    The keywords are those of `asynqueue.base.TaskQueue`.
    """

    def __init__(self, **kw: Unpack[QueueOptions]) -> None:
        super().__init__(**kw)
        self.hire(AsyncWorker(reactor=kw.get("reactor")))
