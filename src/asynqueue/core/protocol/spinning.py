"""For how long to stay awake for what is about to come.

Theory of operation. Whoever waits for the other side of a link sleeps and is woken, which takes longer than a quick
call does. So a side that expects something at once *looks out* for it first, again and again, and each time that it
has looked it lets others have the processor: the other side above all, that may have no other. But who gives the
processor away to somebody with work to do has it back when a slice of time has gone by, which is milliseconds. A look
that is late tells of that, or of a reactor that is busy with other things. From then on there is no looking out for a
while, for longer each time; and for less again as looks are in time. So lookouts are given up where more than one in
three hundred is late, and cost next to nothing there.

Rules: O(1) everything. Times are in seconds, from any beginning, and never go down.
"""

from __future__ import annotations

LOOKOUT = 0.00012
"""Seconds for which to look out. Whoever calls one thing at a time has the answer, and calls again, in less."""

LATE = 0.0005
"""Seconds from one look to the next after which it is late. More than `LOOKOUT`, so that a late look is the last."""

REST_LEAST, REST_MOST = 0.01, 1.0
"""The fewest and the most seconds without looking out; twice as many as the last time, between these."""

EASE = 0.998
"""What those seconds get less by each time that one looks out."""


class SpinPolicy:
    """Says whether to look, and whether to look again."""

    __slots__ = ("_looked", "_looking", "_rest", "_rested", "_until")

    def __init__(self) -> None:
        self._looking = False
        self._looked = 0.0
        self._until = 0.0
        self._rest = REST_LEAST  # how long the next rest is
        self._rested = 0.0  # when the last one is over

    def begin(self, now: float) -> bool:
        """Look out from NOW on. False if this is no time for it."""
        self._look(now)
        self._looking = now >= self._rested
        if self._looking:
            self._until = now + LOOKOUT
            self._rest = max(REST_LEAST, EASE * self._rest)
        return self._looking

    def again(self, now: float) -> bool:
        """Whether to look again, NOW that one has looked and others have had the processor."""
        self._look(now)
        self._looking = now < self._until
        return self._looking

    def _look(self, now: float) -> None:
        if self._looking and now - self._looked > LATE:
            self._rested = now + self._rest
            self._rest = min(REST_MOST, 2 * self._rest)
        self._looked = now
