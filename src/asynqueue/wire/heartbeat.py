"""The heartbeat of a wire: asks the peer whether it is there, and tells when it is not."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from asynqueue.core.protocol.liveness import TICKS, HeartbeatCounter

SILENCE = 30.0
"""Seconds after which a peer that says nothing is taken to be gone, unless told."""


def checked(silence: float) -> float:
    """SILENCE, or a `ValueError` if it is no number of seconds above 0."""
    if not silence > 0:
        raise ValueError(f"silence must be a number of seconds above 0, got {silence!r}")
    return silence


class Heartbeat:
    """Beats until it is stopped: calls ASK to ask the peer, and ONSILENT once, when it has been silent for SILENCE."""

    def __init__(
        self, reactor: IReactorTime, silence: float, ask: Callable[[], None], onSilent: Callable[[], None]
    ) -> None:
        self._reactor = reactor
        self._interval = silence / TICKS
        self._ask = ask
        self._onSilent = onSilent
        self._pulse = HeartbeatCounter()
        self.heard: Callable[[], None] = self._pulse.heard
        self._next: IDelayedCall | None = None

    def start(self) -> None:
        """Begin."""
        self._next = self._reactor.callLater(self._interval, self._tick)

    def stop(self) -> None:
        """Beat no more."""
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _tick(self) -> None:
        self._next = None
        if self._pulse.tick():
            self._next = self._reactor.callLater(self._interval, self._tick)
            self._ask()
        else:
            self._onSilent()
