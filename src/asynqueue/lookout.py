"""Staying awake for what is about to come.

Whoever waits for the other side of a link sleeps and is woken, which takes longer than a quick call does. So a side
that expects something at once *looks out* for it first, for a tenth of a millisecond or so, and gives the processor to
any other that wants it each time that it has looked. Worker processes read this module.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from time import perf_counter
from typing import Any

LOOKOUT = 0.00012
"""Seconds for which to look out. Whoever calls one thing at a time has the answer, and calls again, in less."""

letOthersRun: Callable[[], None] = getattr(os, "sched_yield", lambda: None)


class Lookout:
    """Keeps REACTOR from sleeping, for `LOOKOUT` at a time: it goes on looking whether anything has happened.

    NOW tells the time in seconds.
    """

    def __init__(self, reactor: Any, now: Callable[[], float] = perf_counter) -> None:
        self._reactor = reactor
        self._now = now
        self._until = 0.0
        self._turn: Any = None  # the reactor's next, if that is not to be slept for

    def begin(self) -> None:
        """Look out from now on."""
        self._until = self._now() + LOOKOUT
        if self._turn is None:
            self._turn = self._reactor.callLater(0, self._turned)

    def end(self) -> None:
        """Look out no more."""
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None

    def _turned(self) -> None:
        self._turn = None
        if self._now() < self._until:
            letOthersRun()
            self._turn = self._reactor.callLater(0, self._turned)
