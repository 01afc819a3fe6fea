"""A module of AsynQueue 0.9 whose names are gone: see `asynqueue.placeholders`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asynqueue.placeholders import gone

if not TYPE_CHECKING:  # else a type checker would accept any name

    def __getattr__(name: str) -> Any:
        return gone(__name__, name)
