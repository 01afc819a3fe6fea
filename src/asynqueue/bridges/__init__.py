"""Bridges between the reactor's thread and blocking code in other threads."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asynqueue.bridges.base import IterationGetter as IterationGetter
    from asynqueue.bridges.consumerator import Consumerator as Consumerator
    from asynqueue.bridges.consumerator import Filerator as Filerator
    from asynqueue.bridges.ordered import OrderedItemProducer as OrderedItemProducer
    from asynqueue.bridges.threadpool import PoolUser as PoolUser

_HOME = {
    "IterationGetter": "asynqueue.bridges.base",
    "Consumerator": "asynqueue.bridges.consumerator",
    "Filerator": "asynqueue.bridges.consumerator",
    "OrderedItemProducer": "asynqueue.bridges.ordered",
    "PoolUser": "asynqueue.bridges.threadpool",
}

__all__ = [
    "Consumerator",
    "Filerator",
    "IterationGetter",
    "OrderedItemProducer",
    "PoolUser",
]


if not TYPE_CHECKING:  # a type checker would accept any name because of this function

    def __getattr__(name: str) -> Any:
        home = _HOME.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(home), name)
