"""How long a worker may take to close an iterator, and to leave."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol

from asynqueue.core.protocol.liveness import CloseTracker
from asynqueue.interfaces import Clock, DelayedCall

STOP_GRACE = 5.0
"""Seconds that a worker has to close an iterator, or to be gone when it was told to go and has nothing to do. Then its
process is killed, its thread abandoned."""


class Closer(Protocol):
    """Who closes iterators."""

    @property
    def received(self) -> int:
        """How many times something was received from it."""
        raise NotImplementedError

    @property
    def iterations(self) -> int:
        """How many iterators it has."""
        raise NotImplementedError

    def closeTimedOut(self) -> None:
        """Replace it, unless a call has started there."""


class CloseWatchdog:
    """The iterators that CLOSER was told to close: when it is stuck in one, it is to be freed."""

    def __init__(self, closer: Closer, reactor: Clock) -> None:
        self._closer = closer
        self._reactor = reactor
        self._closing = CloseTracker()
        self._timer: DelayedCall | None = None

    def closeSent(self, iterator: Hashable) -> None:
        """ITERATOR was told to close."""
        self._closing.closeSent(iterator, self._closer.received)
        self._wait()

    def ended(self, iterator: Hashable) -> None:
        """ITERATOR is over."""
        self._closing.ended(iterator)
        if not self._closing.waiting:
            self.end()

    def end(self) -> None:
        """Wait for nothing more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self) -> None:
        if self._timer is None:
            self._timer = self._reactor.callLater(STOP_GRACE, self._look)

    def _look(self) -> None:
        self._timer = None
        self._wait()
        if self._closing.graceExpired(self._closer.received, self._closer.iterations):
            self._closer.closeTimedOut()
