"""Staying awake for what is about to come.

Whoever waits for the other side of a link sleeps and is woken, which takes longer than a quick call does. So a side
that expects something at once *looks out* for it first. Each time that it looks it lets others have the processor, the
other side above all, that may have no other. But whoever gives the processor away to one that has work to do has it
back when a slice of time has gone by, which is milliseconds: when that has happened, or a reactor was busy with other
things for as long, there is no looking out for a while. Worker processes read this module.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from time import perf_counter
from typing import Any

LOOKOUT = 0.00012
"""Seconds for which to look out. Whoever calls one thing at a time has the answer, and calls again, in less."""

LATE = 0.0005
"""Seconds between one look and the next in which something else has had the processor: more than `LOOKOUT`."""

LOOKS = 8
"""How often to look in one turn of a reactor: for some twenty microseconds."""

REST_LEAST, REST_MOST = 0.01, 1.0
"""Seconds from when that was noticed until one looks out again: twice as many as the last time, between these."""

EASE = 0.998
"""What they get less by each time that one looks out. So they stay low while one in three hundred times is late."""

_letOthersRun: Callable[[], None] = getattr(os, "sched_yield", lambda: None)


class Watch:
    """Says for how long to look out. NOW tells the time in seconds."""

    def __init__(self, now: Callable[[], float] = perf_counter) -> None:
        self._now = now
        self._looking = False
        self._looked = 0.0
        self._until = 0.0
        self._rest = REST_LEAST
        self._rested = 0.0  # when it looks out again

    def begin(self) -> bool:
        """Look out from now on. False if this is no time for it."""
        now = self._look()
        self._looking = now >= self._rested
        if self._looking:
            self._until = now + LOOKOUT
            self._rest = max(REST_LEAST, EASE * self._rest)
        return self._looking

    def again(self) -> bool:
        """Let others have the processor; then, whether to look again."""
        _letOthersRun()
        now = self._look()
        self._looking = now < self._until
        return self._looking

    def _look(self) -> float:
        now = self._now()
        if self._looking and now - self._looked > LATE:
            self._rested = now + self._rest
            self._rest = min(REST_MOST, 2 * self._rest)
        self._looked = now
        return now


class Lookout:
    """Keeps REACTOR from sleeping while a watch says so. LOOK looks, and says whether there was anything."""

    def __init__(self, reactor: Any, look: Callable[[], bool], now: Callable[[], float] = perf_counter) -> None:
        self._reactor = reactor
        self._look = look
        self._watch = Watch(now)
        self._turn: Any = None  # the reactor's next, if that is not to be slept for

    def begin(self) -> None:
        """Look out from now on, if this is the time for it."""
        if self._watch.begin() and self._turn is None:
            self._turn = self._reactor.callLater(0, self._turned)

    def end(self) -> None:
        """Look out no more."""
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None

    def _turned(self) -> None:
        self._turn = None
        for _ in range(LOOKS):
            if self._look() or not self._watch.again():
                return  # for what is to come after that, it has begun anew
        self._turn = self._reactor.callLater(0, self._turned)
