"""Whether a peer that says nothing is there: a heartbeat.

Theory of operation. Time is cut into ticks, four to the silence that is allowed. At each tick a peer is asked whether
it is there; it says so, however idle it is. Anything that it says counts. When nothing was heard from one tick to the
next three times in a row, it is not there: that is after three quarters of the silence at least, and after all of it
at most. Ticks are counted and not seconds, so that a pause of this very program is not taken for one of the peer's.
"""

from __future__ import annotations

TICKS = 4
"""Ticks in the silence that is allowed."""


class Pulse:
    """Of one peer, which is there to begin with."""

    __slots__ = ("_silent",)

    def __init__(self) -> None:
        self._silent = 0  # ticks since it was heard

    def heard(self) -> None:
        """The peer has said something."""
        self._silent = 0

    def tick(self) -> bool:
        """One tick has passed. True if the peer is to be asked, False if it is not there."""
        self._silent += 1
        return self._silent < TICKS
