"""When a worker that says nothing is stuck, and has to be replaced to be of use again.

Theory of operation. A worker does one thing at a time, and says what has come of it. While it runs a call, or makes an
item that is wanted, there is no telling whether it is stuck or merely long about it: that is for whoever asked for the
call or the item to decide. In two cases it should have been done long ago, and then it is stuck.

- A call that nobody wants any more was sent and has not *started*, though nothing else had to be done first. It takes
  a worker no time to start a call.
- Every iterator it has was told to close, no call has started, and nothing was heard for a whole grace: one of them
  does not come back, from the item it was at or from its ``finally``.

Nothing is lost then but what was not wanted: what has not started keeps its place, and nothing is charged.
"""

from __future__ import annotations

from collections.abc import Hashable

START_GRACE = 0.1
"""Seconds that a worker with nothing else to do has to start a call."""


def neverStarts(seconds: float, started: int, iterations: int) -> bool:
    """Whether a call that was sent SECONDS ago will not start, on a worker with so many STARTED and ITERATIONS."""
    return seconds >= START_GRACE and not started and not iterations


class Closing:
    """Of one worker, the iterators that were told to close and have not said that they are over."""

    __slots__ = ("_heard", "_told")

    def __init__(self) -> None:
        self._told: set[Hashable] = set()
        self._heard = 0

    @property
    def waiting(self) -> bool:
        """True while there is one."""
        return bool(self._told)

    def told(self, iterator: Hashable, heard: int) -> None:
        """ITERATOR was told to close. HEARD is how often anything was heard of the worker so far."""
        self._told.add(iterator)
        self._heard = heard

    def ended(self, iterator: Hashable) -> None:
        """ITERATOR is over."""
        self._told.discard(iterator)

    def looked(self, heard: int, iterations: int) -> bool:
        """A grace has passed. True if, but for a call that has started, the worker is stuck.

        HEARD is as for `told`; ITERATIONS are all that the worker has.
        """
        silent = heard == self._heard
        self._heard = heard
        return silent and self.waiting and iterations == len(self._told)
