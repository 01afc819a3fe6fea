"""Work in threads: workers with one thread each, and single threads.

The bridges of `asynqueue.bridges` can be imported from here, too.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asynqueue.bridges.base import IterationGetter as IterationGetter
    from asynqueue.bridges.consumerator import Consumerator as Consumerator
    from asynqueue.bridges.consumerator import Filerator as Filerator
    from asynqueue.bridges.ordered import OrderedItemProducer as OrderedItemProducer
    from asynqueue.bridges.threadpool import PoolUser as PoolUser
    from asynqueue.threads.looper import ThreadLooper as ThreadLooper
    from asynqueue.threads.looper import deferToThread as deferToThread
    from asynqueue.threads.worker import ThreadQueue as ThreadQueue
    from asynqueue.threads.worker import ThreadWorker as ThreadWorker

_HOME = {
    "IterationGetter": "asynqueue.bridges.base",
    "Consumerator": "asynqueue.bridges.consumerator",
    "Filerator": "asynqueue.bridges.consumerator",
    "OrderedItemProducer": "asynqueue.bridges.ordered",
    "PoolUser": "asynqueue.bridges.threadpool",
    "ThreadLooper": "asynqueue.threads.looper",
    "deferToThread": "asynqueue.threads.looper",
    "ThreadQueue": "asynqueue.threads.worker",
    "ThreadWorker": "asynqueue.threads.worker",
}

__all__ = [
    "Consumerator",
    "Filerator",
    "IterationGetter",
    "OrderedItemProducer",
    "PoolUser",
    "ThreadLooper",
    "ThreadQueue",
    "ThreadWorker",
    "deferToThread",
]


if not TYPE_CHECKING:  # else a type checker would accept any name

    def __getattr__(name: str) -> Any:
        home = _HOME.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(home), name)
