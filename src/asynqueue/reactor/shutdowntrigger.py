"""A call when a reactor shuts down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class ShutdownTrigger:
    """Calls F once, in PHASE of the shutdown of a reactor ("before" or "during"), from `add` until `remove`."""

    def __init__(self, f: Callable[[], object], phase: str = "during") -> None:
        self._f = f
        self._phase = phase
        self._reactor: Any = None
        self._trigger: object = None

    def add(self, reactor: Any) -> None:
        """Wait for the shutdown of REACTOR, unless this waits already, or the reactor has no such events."""
        if self._trigger is None and hasattr(reactor, "addSystemEventTrigger"):
            self._reactor = reactor
            self._trigger = reactor.addSystemEventTrigger(self._phase, "shutdown", self._fire)

    def remove(self) -> None:
        """Wait no longer. This has no effect if `add` was not called, or F was called."""
        trigger, self._trigger = self._trigger, None
        if trigger is not None:
            self._reactor.removeSystemEventTrigger(trigger)

    def _fire(self) -> object:
        self._trigger = None
        return self._f()
