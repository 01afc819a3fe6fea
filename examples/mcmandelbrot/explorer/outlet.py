"""A response that is written over time, and for no longer than somebody reads it.

It stands between a producer and a request. The producer is paused and resumed as the connection asks for; a
reader that has not made room for `STALL` seconds is hung up on.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IConsumer, IDelayedCall, IPushProducer
from twisted.web.server import Request
from zope.interface import implementer

from asynqueue.interfaces import Producer

STALL = 20.0
"""Seconds in which a reader has to read something."""


@implementer(IConsumer, IPushProducer)
class Outlet:
    """Writes to REQUEST what a push producer gives it, or whoever has looked whether it is `paused`."""

    def __init__(self, request: Request, reactor: Any, stall: float = STALL) -> None:
        self.paused = False
        self._request = request
        self._reactor = reactor
        self._stall = stall
        self._producer: Producer | None = None
        self._hangUp: IDelayedCall | None = None
        self._open = True
        request.notifyFinish().addBoth(self._closed)
        request.registerProducer(self, True)

    def registerProducer(self, producer: Any, streaming: bool) -> None:  # IConsumer knows no IPushProducer
        """Have PRODUCER write, and pause it when there is no room."""
        self._producer = producer

    def unregisterProducer(self) -> None:
        """There is nothing more to write."""
        self._producer = None

    def write(self, data: bytes) -> None:
        """Write DATA, if anybody is there."""
        if self._open:
            self._request.write(data)

    def finish(self) -> None:
        """That was all."""
        if self._open:
            self._request.unregisterProducer()
            self._request.finish()

    def abort(self) -> None:
        """There is more, and it will not come: end the connection, so that nobody takes it for all."""
        if self._open:
            transport: Any = self._request.transport  # ITransport does not say all that a socket's can do
            transport.abortConnection()

    def pauseProducing(self) -> None:
        """There is no room."""
        self.paused = True
        if self._hangUp is None:
            self._hangUp = self._reactor.callLater(self._stall, self._stalled)
        if self._producer is not None:
            self._producer.pauseProducing()

    def resumeProducing(self) -> None:
        """There is room."""
        self.paused = False
        self._rest()
        if self._producer is not None:
            self._producer.resumeProducing()

    def stopProducing(self) -> None:
        """The connection is lost."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()

    def _stalled(self) -> None:
        self._hangUp = None
        self.abort()

    def _closed(self, _: object) -> None:
        self._open = False
        self._rest()

    def _rest(self) -> None:
        if self._hangUp is not None:
            self._hangUp.cancel()
            self._hangUp = None
