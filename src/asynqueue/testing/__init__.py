"""How anybody checks a worker: the machine that holds ours to their guarantees, for yours.

`WorkerConformance` is a Hypothesis state machine. Subclass it, say how to make your worker, and pytest or unittest
puts it through everything that may happen to one::

    from asynqueue.testing import WorkerConformance

    class MyWorkerConformance(WorkerConformance):
        def makeWorker(self, series):
            return MyWorker(series)

    TestMyWorker = MyWorkerConformance.TestCase

What it finds is a `GuaranteeBroken`, which names the `Guarantee` and tells the story. `MemoryWorker` is a worker
that obeys a `twisted.internet.task.Clock` and fails when told to, for tests of programs that have a queue.

All this needs Hypothesis: ``pip install 'AsynQueue[testing]'``. Worker processes import `asynqueue.testing.workload`
from here, so this module itself imports nothing before it is asked for.
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
    "Guarantee": "guarantees",
    "GuaranteeBroken": "guarantees",
    "MemoryWorker": "memory",
    "Model": "model",
    "Wish": "model",
    "WorkerConformance": "conformance",
    "options": "strategies",
    "schedules": "strategies",
    "specs": "strategies",
    "wishes": "strategies",
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

if not TYPE_CHECKING:  # or a type checker would take every name for one of ours

    def __getattr__(name: str) -> Any:
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{home}"), name)
