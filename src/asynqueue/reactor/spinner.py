"""Poll for an answer that is about to come. `asynqueue.core.protocol.spinning` decides for how long.

Worker processes import this module.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from time import perf_counter
from typing import Any

from asynqueue.capabilities import has
from asynqueue.core.protocol.spinning import SpinPolicy

POLLS = 8
"""How many times to poll in one turn of a reactor, which takes about 20 µs."""

yieldProcessor: Callable[[], None] = os.sched_yield if has("sched_yield") else lambda: None


class Spinner:
    """Polls in the turns of REACTOR, which does not sleep meanwhile.

    POLL returns whether something came. NOW returns the time in seconds.
    """

    def __init__(self, reactor: Any, poll: Callable[[], bool], now: Callable[[], float] = perf_counter) -> None:
        self._reactor = reactor
        self._poll = poll
        self._now = now
        self._policy = SpinPolicy()
        self._turn: Any = None  # the delayed call of the next turn

    def begin(self) -> None:
        """Start to poll, unless spinning is suspended."""
        if self._policy.begin(self._now()) and self._turn is None:
            self._turn = self._reactor.callLater(0, self._turned)

    def end(self) -> None:
        """Stop polling."""
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None

    def _turned(self) -> None:
        self._turn = None
        for _ in range(POLLS):
            if self._poll():
                return  # The answer has started the next poll, if one is needed.
            yieldProcessor()
            if not self._policy.again(self._now()):
                return
        self._turn = self._reactor.callLater(0, self._turned)
