"""Run calls in worker processes of this machine: the queue, the worker, and objects that live in processes."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asynqueue.core.scheduling.statistics import CallTimes as CallTimes
    from asynqueue.core.scheduling.statistics import ProcessStats as ProcessStats
    from asynqueue.process.base import ProcessBase as ProcessBase
    from asynqueue.process.child.main import ProcessUniverse as ProcessUniverse
    from asynqueue.process.cpus import cores as cores
    from asynqueue.process.queue import ProcessQueue as ProcessQueue
    from asynqueue.process.queue import deferToProcess as deferToProcess
    from asynqueue.process.worker import ProcessWorker as ProcessWorker

_HOME = {
    "CallTimes": "asynqueue.core.scheduling.statistics",
    "ProcessStats": "asynqueue.core.scheduling.statistics",
    "ProcessBase": "asynqueue.process.base",
    "ProcessUniverse": "asynqueue.process.child.main",
    "cores": "asynqueue.process.cpus",
    "ProcessQueue": "asynqueue.process.queue",
    "deferToProcess": "asynqueue.process.queue",
    "ProcessWorker": "asynqueue.process.worker",
}

__all__ = [
    "CallTimes",
    "ProcessBase",
    "ProcessQueue",
    "ProcessStats",
    "ProcessUniverse",
    "ProcessWorker",
    "cores",
    "deferToProcess",
]


if not TYPE_CHECKING:  # A type checker would otherwise accept every name.

    def __getattr__(name: str) -> Any:
        home = _HOME.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(home), name)
