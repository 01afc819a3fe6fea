"""Staying awake for what is about to come: `asynqueue.core.protocol.spinning` says for how long, and here is what
that takes.

Worker processes read this module.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from time import perf_counter
from typing import Any

from asynqueue.core.protocol.spinning import SpinPolicy

LOOKS = 8
"""How often to look in one turn of a reactor: for some twenty microseconds."""

yieldProcessor: Callable[[], None] = getattr(os, "sched_yield", lambda: None)


class Spinner:
    """Keeps REACTOR from sleeping while a watch says so. LOOK looks, and says whether there was anything.

    NOW tells the time in seconds.
    """

    def __init__(self, reactor: Any, poll: Callable[[], bool], now: Callable[[], float] = perf_counter) -> None:
        self._reactor = reactor
        self._poll = poll
        self._now = now
        self._watch = SpinPolicy()
        self._turn: Any = None  # the reactor's next, if that is not to be slept for

    def begin(self) -> None:
        """Look out from now on, if this is the time for it."""
        if self._watch.begin(self._now()) and self._turn is None:
            self._turn = self._reactor.callLater(0, self._turned)

    def end(self) -> None:
        """Look out no more."""
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None

    def _turned(self) -> None:
        self._turn = None
        for _ in range(LOOKS):
            if self._poll():
                return  # for what is to come after that, it has begun anew
            yieldProcessor()
            if not self._watch.again(self._now()):
                return
        self._turn = self._reactor.callLater(0, self._turned)
