"""Describe calls and their results as text for people."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asynqueue.info.conversion import Converter as Converter
    from asynqueue.info.conversion import hashIt as hashIt
    from asynqueue.info.decorators import showResult as showResult
    from asynqueue.info.decorators import whichThread as whichThread
    from asynqueue.info.info import Info as Info
    from asynqueue.info.info import InfoHolder as InfoHolder

_HOME = {
    "Converter": "asynqueue.info.conversion",
    "hashIt": "asynqueue.info.conversion",
    "showResult": "asynqueue.info.decorators",
    "whichThread": "asynqueue.info.decorators",
    "Info": "asynqueue.info.info",
    "InfoHolder": "asynqueue.info.info",
}

__all__ = [
    "Converter",
    "Info",
    "InfoHolder",
    "hashIt",
    "showResult",
    "whichThread",
]


if not TYPE_CHECKING:  # a type checker would accept any name because of this function

    def __getattr__(name: str) -> Any:
        home = _HOME.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(home), name)
