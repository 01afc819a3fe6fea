"""Limit the time that a worker has to close its iterators."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol

from asynqueue.core.protocol.liveness import CloseTracker
from asynqueue.interfaces import Clock, DelayedCall

STOP_GRACE = 5.0
"""Seconds that a worker has to close an iterator, or to end when it is stopped and idle.

After that, its process is killed, or its thread abandoned."""


class Closer(Protocol):
    """A worker that closes iterators."""

    @property
    def received(self) -> int:
        """How many times data was received from it."""
        raise NotImplementedError

    @property
    def iterations(self) -> int:
        """The number of its iterators."""
        raise NotImplementedError

    def closeTimedOut(self) -> None:
        """Replace the worker, which is stuck, unless a call has started there."""


class CloseWatchdog:
    """Watches the iterators that CLOSER has to close, and calls its `closeTimedOut` if it is stuck in one."""

    def __init__(self, closer: Closer, reactor: Clock) -> None:
        self._closer = closer
        self._reactor = reactor
        self._closing = CloseTracker()
        self._timer: DelayedCall | None = None

    def closeSent(self, iterator: Hashable) -> None:
        """Note that the request to close ITERATOR was sent."""
        self._closing.closeSent(iterator, self._closer.received)
        self._wait()

    def ended(self, iterator: Hashable) -> None:
        """Note that ITERATOR has ended."""
        self._closing.ended(iterator)
        if not self._closing.waiting:
            self.end()

    def end(self) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self) -> None:
        if self._timer is None:
            self._timer = self._reactor.callLater(STOP_GRACE, self._check)

    def _check(self) -> None:
        self._timer = None
        self._wait()
        if self._closing.graceExpired(self._closer.received, self._closer.iterations):
            self._closer.closeTimedOut()
