"""Check a worker of your own against the guarantees that AsynQueue's workers keep.

`WorkerConformance` is a Hypothesis state machine. Make a subclass that creates your worker. pytest or unittest then
puts the worker through everything that may happen to one::

    from asynqueue.testing import WorkerConformance

    class MyWorkerConformance(WorkerConformance):
        def makeWorker(self, series):
            return MyWorker(series)

    TestMyWorker = MyWorkerConformance.TestCase

A failure is a `GuaranteeBroken`, which names the `Guarantee` and lists the events that led to it. `MemoryWorker` is a
worker that runs on a `twisted.internet.task.Clock` and fails on demand, for tests of programs that have a queue.

This needs Hypothesis: ``pip install 'AsynQueue[testing]'``. Child processes import `asynqueue.testing.workload`, so
this module imports other modules only when a name is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asynqueue.testing.conformance import WorkerConformance as WorkerConformance
    from asynqueue.testing.guarantees import Guarantee as Guarantee
    from asynqueue.testing.guarantees import GuaranteeBroken as GuaranteeBroken
    from asynqueue.testing.memory import MemoryWorker as MemoryWorker
    from asynqueue.testing.model import CallRequest as CallRequest
    from asynqueue.testing.model import Model as Model
    from asynqueue.testing.strategies import callRequests as callRequests
    from asynqueue.testing.strategies import options as options
    from asynqueue.testing.strategies import schedules as schedules
    from asynqueue.testing.strategies import specs as specs

_HOMES = {
    "CallRequest": "model",
    "Guarantee": "guarantees",
    "GuaranteeBroken": "guarantees",
    "MemoryWorker": "memory",
    "Model": "model",
    "WorkerConformance": "conformance",
    "callRequests": "strategies",
    "options": "strategies",
    "schedules": "strategies",
    "specs": "strategies",
}

__all__ = [
    "CallRequest",
    "Guarantee",
    "GuaranteeBroken",
    "MemoryWorker",
    "Model",
    "WorkerConformance",
    "callRequests",
    "options",
    "schedules",
    "specs",
]

if not TYPE_CHECKING:  # a type checker would accept any name because of this function

    def __getattr__(name: str) -> Any:
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{home}"), name)
