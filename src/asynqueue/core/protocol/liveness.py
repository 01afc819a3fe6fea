"""Decide whether a silent worker is stuck, and whether a silent peer is lost.

**A stuck worker** (processes and threads). A worker does one thing at a time and reports each result. While it runs a
call, or makes an item, it may be stuck or only slow. The caller decides that, with a timeout. But when every iterator
of the worker was closed, no call has started, and no message has come for a whole grace period, it should have been
ready long ago: one of the iterators hangs, in its current item or in its ``finally``. The worker is then replaced. Only
unwanted work is lost: calls that have not started keep their place without a charge.
(`asynqueue.core.protocol.runqueue` has the rule for a worker that does not start a call.)

**A lost peer** (wires): a heartbeat. The peer timeout is divided into `TICKS` ticks. At each tick a ping is sent, which
an idle peer answers as well. Any message counts as a sign of life. If no message comes between two ticks for three
intervals in a row, the peer is lost. That is after 75 to 100 % of the peer timeout. Ticks are counted, not seconds, so
that a pause of this program is not mistaken for a pause of the peer.
"""

from __future__ import annotations

from collections.abc import Hashable

TICKS = 4
"""The number of ticks in the peer timeout."""


class CloseTracker:
    """The iterators of one worker that were closed and have not confirmed it."""

    __slots__ = ("_closing", "_received")

    def __init__(self) -> None:
        self._closing: set[Hashable] = set()
        self._received = 0

    @property
    def waiting(self) -> bool:
        """True while an iterator has not confirmed its end."""
        return bool(self._closing)

    def closeSent(self, iterator: Hashable, received: int) -> None:
        """Record a request to close ITERATOR. RECEIVED counts the messages received from the worker so far."""
        self._closing.add(iterator)
        self._received = received

    def ended(self, iterator: Hashable) -> None:
        """Record that ITERATOR has ended."""
        self._closing.discard(iterator)

    def graceExpired(self, received: int, iterations: int) -> bool:
        """Return whether the worker is stuck, after one grace period. A worker with a started call is not.

        RECEIVED is as for `closeSent`. ITERATIONS is the number of all open iterators of the worker.
        """
        silent = received == self._received
        self._received = received
        return silent and self.waiting and iterations == len(self._closing)


class HeartbeatCounter:
    """Counts the ticks without a message from one peer, which is alive at first."""

    __slots__ = ("_silent",)

    def __init__(self) -> None:
        self._silent = 0  # ticks since the last message

    def received(self) -> None:
        """Record that a message has come from the peer."""
        self._silent = 0

    def tick(self) -> bool:
        """Count one tick. Return True if a ping has to be sent, False if the peer is lost."""
        self._silent += 1
        return self._silent < TICKS
