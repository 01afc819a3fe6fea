"""The name of 0.9: every worker by name."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from asynqueue.mainloop import AsyncWorker

if TYPE_CHECKING:
    from asynqueue.dask.worker import DaskWorker as DaskWorker
    from asynqueue.process.worker import ProcessWorker as ProcessWorker
    from asynqueue.threads.worker import ThreadWorker as ThreadWorker
    from asynqueue.wire import WireWorker as WireWorker

__all__ = ["AsyncWorker", "DaskWorker", "ProcessWorker", "ThreadWorker", "WireWorker"]

_HOME = {
    "DaskWorker": "asynqueue.dask",
    "ProcessWorker": "asynqueue.process",
    "ThreadWorker": "asynqueue.threads",
    "WireWorker": "asynqueue.wire",
}


if not TYPE_CHECKING:  # or a type checker would take every name for one of ours

    def __getattr__(name: str) -> Any:
        home = _HOME.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(home), name)
