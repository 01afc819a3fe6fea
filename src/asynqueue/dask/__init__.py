"""Run calls on a Dask cluster, through a `distributed.Client`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asynqueue.dask.worker import DaskWorker as DaskWorker

_HOME = {
    "DaskWorker": "asynqueue.dask.worker",
}

__all__ = [
    "DaskWorker",
]


if not TYPE_CHECKING:  # a type checker would accept any name because of this function

    def __getattr__(name: str) -> Any:
        home = _HOME.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(home), name)
