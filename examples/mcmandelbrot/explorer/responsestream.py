"""An HTTP response that is written over time.

It is between a producer and a request. It pauses and resumes the producer as the connection needs. If the client has
not read anything for `STALL` seconds, the connection is closed.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IConsumer, IDelayedCall, IPushProducer
from twisted.web.server import Request
from zope.interface import implementer

from asynqueue.interfaces import Producer

STALL = 20.0
"""The time within which a client has to read something, in seconds."""


@implementer(IConsumer, IPushProducer)
class ResponseStream:
    """Writes to REQUEST what a push producer sends. Other code may write if it is not `paused`."""

    def __init__(self, request: Request, reactor: Any, stall: float = STALL) -> None:
        self.paused = False
        self._request = request
        self._reactor = reactor
        self._stall = stall
        self._producer: Producer | None = None
        self._timer: IDelayedCall | None = None
        self._open = True
        request.notifyFinish().addBoth(self._closed)
        request.registerProducer(self, True)

    def registerProducer(self, producer: Any, streaming: bool) -> None:  # Any, as in IConsumer
        """Register PRODUCER, and pause it when there is no room."""
        self._producer = producer

    def unregisterProducer(self) -> None:
        """Forget the producer."""
        self._producer = None

    def write(self, data: bytes) -> None:
        """Write DATA, unless the connection is closed."""
        if self._open:
            self._request.write(data)

    def finish(self) -> None:
        """Finish the response."""
        if self._open:
            self._request.unregisterProducer()
            self._request.finish()

    def abort(self) -> None:
        """Close the connection, so that the client knows that the response is incomplete."""
        if self._open:
            transport: Any = self._request.transport  # Any, because ITransport lacks abortConnection
            transport.abortConnection()

    def pauseProducing(self) -> None:
        """Pause: there is no room."""
        self.paused = True
        if self._timer is None:
            self._timer = self._reactor.callLater(self._stall, self._stalled)
        if self._producer is not None:
            self._producer.pauseProducing()

    def resumeProducing(self) -> None:
        """Resume: there is room."""
        self.paused = False
        self._rest()
        if self._producer is not None:
            self._producer.resumeProducing()

    def stopProducing(self) -> None:
        """Stop: the connection is lost."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()

    def _stalled(self) -> None:
        self._timer = None
        self.abort()

    def _closed(self, _: object) -> None:
        self._open = False
        self._rest()

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
