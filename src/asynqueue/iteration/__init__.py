"""Iterations for Twisted programs: items as Deferreds, or written to a consumer. Waiting for time or an event."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asynqueue.core.results import isIterator as isIterator
    from asynqueue.iteration.deferator import Deferator as Deferator
    from asynqueue.iteration.deferator import Prefetcherator as Prefetcherator
    from asynqueue.iteration.delay import Delay as Delay
    from asynqueue.iteration.delay import deferToDelay as deferToDelay
    from asynqueue.iteration.producers import IterationProducer as IterationProducer
    from asynqueue.iteration.producers import ListConsumer as ListConsumer
    from asynqueue.iteration.producers import iteratorToProducer as iteratorToProducer

_HOME = {
    "isIterator": "asynqueue.core.results",
    "Deferator": "asynqueue.iteration.deferator",
    "Prefetcherator": "asynqueue.iteration.deferator",
    "Delay": "asynqueue.iteration.delay",
    "deferToDelay": "asynqueue.iteration.delay",
    "IterationProducer": "asynqueue.iteration.producers",
    "ListConsumer": "asynqueue.iteration.producers",
    "iteratorToProducer": "asynqueue.iteration.producers",
}

__all__ = [
    "Deferator",
    "Delay",
    "IterationProducer",
    "ListConsumer",
    "Prefetcherator",
    "deferToDelay",
    "iteratorToProducer",
]


if not TYPE_CHECKING:  # else a type checker would accept any name

    def __getattr__(name: str) -> Any:
        home = _HOME.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(home), name)
