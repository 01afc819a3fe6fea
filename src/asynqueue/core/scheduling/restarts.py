"""Decide when a worker starts its next process, and when it stops trying.

Theory of operation. A worker whose process has ended starts another. Two things must not happen: a process that
cannot live is started without pause or without end; and a worker is lost because something else kills its processes
for a while.

Each process that ends before it has *proved* itself, and each failed start, is a *failure*. A process has proved
itself when it has answered a call, or has been ready for `PROVED` seconds. Then the failures before it are forgotten.

- Each failure doubles the pause before the next start, from `FIRST_PAUSE` to `LONGEST_PAUSE`.
- A process that ends while it runs a call is no failure: the call is charged with that.
- After `ATTEMPTS` failures in a row, the worker stops trying.
- A failure has an *outside* cause if the fork server died, or the process was killed. Such failures do not count for
  `ATTEMPTS`. The worker stops trying only after `OUTSIDE_ATTEMPTS` failures in a row, of either kind.

Times are in seconds on any monotonic clock. Cost: O(1) per event.
"""

from __future__ import annotations

__all__ = ["ATTEMPTS", "FIRST_PAUSE", "LONGEST_PAUSE", "OUTSIDE_ATTEMPTS", "PROVED", "RestartPolicy"]

FIRST_PAUSE = 0.05
"""Seconds between the first failure and the next start. A fork server that was killed is replaced in that time."""

LONGEST_PAUSE = 1.0
"""The most seconds between a failure and the next start."""

PROVED = 5.0
"""Seconds after which a process that is ready has proved itself."""

ATTEMPTS = 6
"""How many failures in a row, without an outside cause, end the attempts."""

OUTSIDE_ATTEMPTS = 120
"""How many failures in a row, of any cause, end the attempts: two minutes or more."""


class RestartPolicy:
    """The failures in a row of one worker's processes, and the pause that they require.

    >>> restarts = RestartPolicy()
    >>> restarts.ended(0.0)
    0.05
    >>> restarts.ended(0.2)
    0.1
    >>> restarts.ready(1.0)
    >>> restarts.ended(60.0)    # it had proved itself
    0.0
    """

    __slots__ = ("_failures", "_own", "_readySince")

    def __init__(self) -> None:
        self._failures = 0
        self._own = 0  # those without an outside cause
        self._readySince: float | None = None

    @property
    def failures(self) -> int:
        """The number of failures since a process has proved itself."""
        return self._failures

    def started(self) -> None:
        """Note that a process was started in the place of the one before, which may not have ended."""
        self._readySince = None

    def ready(self, now: float) -> None:
        """Note that the process can start calls."""
        self._readySince = now

    def proved(self) -> None:
        """Note that the process has proved itself: forget the failures before it."""
        self._failures = self._own = 0

    def failed(self, outside: bool = False) -> float | None:
        """Return the seconds until the next start after one that failed, or None to stop trying."""
        return self._failure(outside)

    def ended(self, now: float, outside: bool = False, inCall: bool = False) -> float | None:
        """Return the seconds until the next start after the process has ended, or None to stop trying.

        OUTSIDE says that something else has ended it, and INCALL that it was running a call.
        """
        since, self._readySince = self._readySince, None
        if since is not None and now - since >= PROVED:
            self.proved()
            return 0.0
        return 0.0 if inCall else self._failure(outside)

    def validate(self) -> None:
        """Assert that the failures are consistent."""
        assert 0 <= self._own <= self._failures

    def _failure(self, outside: bool) -> float | None:
        self._failures += 1
        if not outside:
            self._own += 1
        if self._own >= ATTEMPTS or self._failures >= OUTSIDE_ATTEMPTS:
            return None
        return float(min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(self._failures - 1, 30)))
