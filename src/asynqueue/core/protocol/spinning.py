"""Decide when to spin instead of sleep while an answer is expected.

Waking a sleeping process takes about 30 µs, longer than a short call. A side that expects an answer at once therefore
*spins*: it polls without blocking for at most `SPIN` seconds, and yields the processor between polls. The peer may have
no other processor to run on.

On a busy machine spinning harms: a process that yields may get the processor back only after a whole time slice
(milliseconds). The sign is a poll that comes more than `LATE` seconds after the previous one. A reactor that is busy
with other work causes the same. Spinning is then suspended, for twice as long each time (from `REST_LEAST` to
`REST_MOST`), and each timely poll shortens that again. The effect: if more than one poll in three hundred is late,
spinning stops almost entirely and costs next to nothing.

Cost: O(1) per call. Times are in seconds on any monotonic clock.
"""

from __future__ import annotations

SPIN = 0.00012
"""The maximum time of spinning, in seconds. A program that makes one call at a time gets its answer in less."""

LATE = 0.0005
"""The time between two polls, in seconds, after which the second is late.

It is more than `SPIN`, so a late poll is the last.
"""

REST_LEAST, REST_MOST = 0.01, 1.0
"""The minimum and the maximum time of suspension, in seconds. Within these it doubles each time."""

EASE = 0.998
"""The factor by which each spin shortens the next suspension."""


class SpinPolicy:
    """Decides whether to poll, and whether to poll again."""

    __slots__ = ("_pause", "_polledAt", "_spinning", "_suspendedUntil", "_until")

    def __init__(self) -> None:
        self._spinning = False
        self._polledAt = 0.0
        self._until = 0.0
        self._pause = REST_LEAST  # the length of the next suspension
        self._suspendedUntil = 0.0  # the end of the last one

    def begin(self, now: float) -> bool:
        """Start spinning at NOW. Return False if spinning is suspended."""
        self._poll(now)
        self._spinning = now >= self._suspendedUntil
        if self._spinning:
            self._until = now + SPIN
            self._pause = max(REST_LEAST, EASE * self._pause)
        return self._spinning

    def again(self, now: float) -> bool:
        """Return whether to poll again at NOW, after a poll and a yield of the processor."""
        self._poll(now)
        self._spinning = now < self._until
        return self._spinning

    def _poll(self, now: float) -> None:
        if self._spinning and now - self._polledAt > LATE:
            self._suspendedUntil = now + self._pause
            self._pause = min(REST_MOST, 2 * self._pause)
        self._polledAt = now
