"""Asynchronous, prioritised task queueing for Twisted: in the main loop, in threads, in processes, on other machines.

    >>> from asynqueue import ProcessQueue
    >>> queue = ProcessQueue(2)                       # doctest: +SKIP
    >>> d = queue.call(pow, 2, 100, niceness=5)       # doctest: +SKIP

Every public name is here. A name is imported from its module when it is first used: importing `asynqueue` imports
neither Twisted nor a reactor, and a worker process never pays for them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "1.0.0.dev0"

if TYPE_CHECKING:
    from asynqueue.bridges.base import IterationGetter as IterationGetter
    from asynqueue.bridges.consumerator import Consumerator as Consumerator
    from asynqueue.bridges.consumerator import Filerator as Filerator
    from asynqueue.bridges.ordered import OrderedItemProducer as OrderedItemProducer
    from asynqueue.bridges.threadpool import PoolUser as PoolUser
    from asynqueue.core.records import CallSpec as CallSpec
    from asynqueue.core.records import Task as Task
    from asynqueue.dask.worker import DaskWorker as DaskWorker
    from asynqueue.errors import AsynQueueError as AsynQueueError
    from asynqueue.errors import AuthenticationError as AuthenticationError
    from asynqueue.errors import ImplementationError as ImplementationError
    from asynqueue.errors import InvariantError as InvariantError
    from asynqueue.errors import NotReadyError as NotReadyError
    from asynqueue.errors import ProcessError as ProcessError
    from asynqueue.errors import QueueRunError as QueueRunError
    from asynqueue.errors import SerializationError as SerializationError
    from asynqueue.errors import ThreadError as ThreadError
    from asynqueue.errors import TimeoutError as TimeoutError
    from asynqueue.errors import WorkerError as WorkerError
    from asynqueue.errors import WorkerLost as WorkerLost
    from asynqueue.info.conversion import Converter as Converter
    from asynqueue.info.conversion import hashIt as hashIt
    from asynqueue.info.decorators import showResult as showResult
    from asynqueue.info.decorators import whichThread as whichThread
    from asynqueue.info.info import Info as Info
    from asynqueue.interfaces import Clock as Clock
    from asynqueue.interfaces import Consumer as Consumer
    from asynqueue.interfaces import Producer as Producer
    from asynqueue.interfaces import Serializer as Serializer
    from asynqueue.interfaces import Tracker as Tracker
    from asynqueue.interfaces import Worker as Worker
    from asynqueue.iteration.deferator import Deferator as Deferator
    from asynqueue.iteration.deferator import Prefetcherator as Prefetcherator
    from asynqueue.iteration.delay import Delay as Delay
    from asynqueue.iteration.delay import deferToDelay as deferToDelay
    from asynqueue.iteration.producers import IterationProducer as IterationProducer
    from asynqueue.iteration.producers import ListConsumer as ListConsumer
    from asynqueue.iteration.producers import iteratorToProducer as iteratorToProducer
    from asynqueue.mainloop import AsyncWorker as AsyncWorker
    from asynqueue.mainloop import NullQueue as NullQueue
    from asynqueue.process.base import ProcessBase as ProcessBase
    from asynqueue.process.child.main import ProcessUniverse as ProcessUniverse
    from asynqueue.process.cpus import cores as cores
    from asynqueue.process.queue import ProcessQueue as ProcessQueue
    from asynqueue.process.queue import deferToProcess as deferToProcess
    from asynqueue.process.worker import ProcessWorker as ProcessWorker
    from asynqueue.queue.taskqueue import TaskQueue as TaskQueue
    from asynqueue.threads.looper import ThreadLooper as ThreadLooper
    from asynqueue.threads.looper import deferToThread as deferToThread
    from asynqueue.threads.worker import ThreadQueue as ThreadQueue
    from asynqueue.threads.worker import ThreadWorker as ThreadWorker
    from asynqueue.util.callbacks import callAfterDeferred as callAfterDeferred
    from asynqueue.util.killprocess import killProcess as killProcess
    from asynqueue.util.lock import DeferredLock as DeferredLock
    from asynqueue.util.pickling import CallRunner as CallRunner
    from asynqueue.util.pickling import o2p as o2p
    from asynqueue.util.pickling import p2o as p2o
    from asynqueue.util.tracker import DeferredTracker as DeferredTracker
    from asynqueue.wire import WireQueue as WireQueue
    from asynqueue.wire import WireWorker as WireWorker

_HOMES = {
    "asynqueue.base": ("TaskQueue",),
    "asynqueue.bridges": (
        "Consumerator",
        "Filerator",
        "IterationGetter",
        "OrderedItemProducer",
        "PoolUser",
    ),
    "asynqueue.core.records": (
        "CallSpec",
        "Task",
    ),
    "asynqueue.dask": ("DaskWorker",),
    "asynqueue.iteration.delay": (
        "Delay",
        "deferToDelay",
    ),
    "asynqueue.errors": (
        "AsynQueueError",
        "AuthenticationError",
        "ImplementationError",
        "InvariantError",
        "NotReadyError",
        "ProcessError",
        "QueueRunError",
        "SerializationError",
        "ThreadError",
        "TimeoutError",
        "WorkerError",
        "WorkerLost",
    ),
    "asynqueue.info": (
        "Converter",
        "Info",
        "hashIt",
        "showResult",
        "whichThread",
    ),
    "asynqueue.interfaces": (
        "Clock",
        "Consumer",
        "Producer",
        "Serializer",
        "Tracker",
        "Worker",
    ),
    "asynqueue.iteration": (
        "Deferator",
        "IterationProducer",
        "ListConsumer",
        "Prefetcherator",
        "iteratorToProducer",
    ),
    "asynqueue.null": ("NullQueue",),
    "asynqueue.process": (
        "ProcessQueue",
        "ProcessUniverse",
        "ProcessWorker",
        "cores",
    ),
    "asynqueue.process.base": ("ProcessBase",),
    "asynqueue.process.queue": ("deferToProcess",),
    "asynqueue.threads": (
        "ThreadLooper",
        "ThreadQueue",
        "ThreadWorker",
        "deferToThread",
    ),
    "asynqueue.util": (
        "CallRunner",
        "DeferredLock",
        "DeferredTracker",
        "callAfterDeferred",
        "killProcess",
        "o2p",
        "p2o",
    ),
    "asynqueue.wire": (
        "WireQueue",
        "WireWorker",
    ),
    "asynqueue.workers": ("AsyncWorker",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

# The protocols are left out: a star import must not replace a program's own Worker, Clock or Consumer.
__all__ = [
    "AsynQueueError",
    "AsyncWorker",
    "AuthenticationError",
    "CallRunner",
    "CallSpec",
    "Consumerator",
    "Converter",
    "DaskWorker",
    "Deferator",
    "DeferredLock",
    "DeferredTracker",
    "Delay",
    "Filerator",
    "ImplementationError",
    "Info",
    "InvariantError",
    "IterationGetter",
    "IterationProducer",
    "ListConsumer",
    "NotReadyError",
    "NullQueue",
    "OrderedItemProducer",
    "PoolUser",
    "Prefetcherator",
    "ProcessBase",
    "ProcessError",
    "ProcessQueue",
    "ProcessUniverse",
    "ProcessWorker",
    "QueueRunError",
    "SerializationError",
    "Task",
    "TaskQueue",
    "ThreadError",
    "ThreadLooper",
    "ThreadQueue",
    "ThreadWorker",
    "TimeoutError",
    "WireQueue",
    "WireWorker",
    "WorkerError",
    "WorkerLost",
    "__version__",
    "callAfterDeferred",
    "cores",
    "deferToDelay",
    "deferToProcess",
    "deferToThread",
    "hashIt",
    "iteratorToProducer",
    "killProcess",
    "o2p",
    "p2o",
    "showResult",
    "whichThread",
]


if not TYPE_CHECKING:  # else a type checker would take every name for a public one

    def __getattr__(name: str) -> Any:
        """Import a public name from its module, and keep it."""
        home = _HOME.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(home), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
