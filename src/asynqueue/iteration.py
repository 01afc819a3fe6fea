"""Iterations as Twisted programs want them: items as Deferreds, or fed to a consumer.

A `Deferator` stands for an iterator that lives somewhere else, in a process say, or in a thread that may block; a
`Prefetcherator` fetches one item ahead, and tells with each whether more are left. An `IterationProducer` feeds the
items to an `IConsumer`, which may pause it; a `ListConsumer` is one that makes a list of them.
"""

from __future__ import annotations

from asynqueue.deferator import Deferator, Prefetcherator
from asynqueue.delay import Delay, deferToDelay
from asynqueue.feeding import IterationProducer, ListConsumer, iteratorToProducer

__all__ = [
    "Deferator",
    "Delay",
    "IterationProducer",
    "ListConsumer",
    "Prefetcherator",
    "deferToDelay",
    "iteratorToProducer",
]
