"""Utilities for programs with many Deferreds: count them, lock with them, wait for one."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from asynqueue.placeholders import gone

if TYPE_CHECKING:
    from asynqueue.util.callbacks import callAfterDeferred as callAfterDeferred
    from asynqueue.util.killprocess import killProcess as killProcess
    from asynqueue.util.lock import DeferredLock as DeferredLock
    from asynqueue.util.pickling import CallRunner as CallRunner
    from asynqueue.util.pickling import o2p as o2p
    from asynqueue.util.pickling import p2o as p2o
    from asynqueue.util.tracker import DeferredTracker as DeferredTracker

_HOME = {
    "callAfterDeferred": "asynqueue.util.callbacks",
    "killProcess": "asynqueue.util.killprocess",
    "DeferredLock": "asynqueue.util.lock",
    "CallRunner": "asynqueue.util.pickling",
    "o2p": "asynqueue.util.pickling",
    "p2o": "asynqueue.util.pickling",
    "DeferredTracker": "asynqueue.util.tracker",
}

__all__ = [
    "CallRunner",
    "DeferredLock",
    "DeferredTracker",
    "callAfterDeferred",
    "killProcess",
    "o2p",
    "p2o",
]


if not TYPE_CHECKING:  # a type checker would accept any name because of this function

    def __getattr__(name: str) -> Any:
        home = _HOME.get(name)
        if home is None:
            return gone(__name__, name)
        return getattr(import_module(home), name)
