"""What waits to be sent on a connection, on either side of a wire.

Frames are made and handed to the transport a chunk at a time, the next when the last has gone: so what waits is held
once, however slowly the peer reads, and what is said later takes its turn between the frames of what was said before.
It is known when what the transport had has left for the network: `clear`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IPushProducer
from twisted.internet.main import CONNECTION_LOST
from twisted.protocols.policies import ProtocolWrapper
from zope.interface import implementer

from asynqueue.core.protocol import messages as m
from asynqueue.core.protocol.framing import WIRE_FRAME_LIMIT
from asynqueue.core.protocol.sendqueue import SendQueue

CHUNK = 1 << 17
"""About how many bytes are handed to the transport at a time."""


@implementer(IPushProducer)
class MessageWriter:
    """Sends messages. ONCLEAR is called whenever what the transport had has left, be it at once: there is room."""

    def __init__(self, onClear: Callable[[], None]) -> None:
        self._onClear = onClear
        self._outgoing = SendQueue(WIRE_FRAME_LIMIT)
        self._transport: Any = None  # no interface says all that a connection's transport can do
        self._socket: Any = None  # the transport under TLS, or the same
        self._flushing = False
        self._closing = False
        self.clear: bool = True

    @property
    def size(self) -> int:
        """About how many bytes wait."""
        return self._outgoing.size

    @property
    def small(self) -> int:
        """How many bytes wait of messages that take no more than a frame."""
        return self._outgoing.small

    @property
    def large(self) -> int:
        """How many messages wait that take more than a frame."""
        return self._outgoing.large

    def open(self, transport: Any) -> None:
        """Send to TRANSPORT."""
        self._transport = self._socket = transport
        while isinstance(self._socket, ProtocolWrapper):
            self._socket = self._socket.transport
        if hasattr(self._socket, "writeSomeData"):
            self._socket.writeSomeData = _SilentWriter(self._socket.writeSomeData)
        transport.registerProducer(self, True)
        self._pause()  # what was written before goes first
        self._socket.startWriting()

    def add(self, message: m.Message) -> None:
        """Send MESSAGE at the next `flush`."""
        self._outgoing.add(message)

    def withdraw(self, number: int) -> bool:
        """Do not send what there is of call NUMBER. False if there is nothing, or its beginning has gone."""
        return self._outgoing.withdraw(number)

    def unsent(self) -> set[int]:
        """The calls of which there is something to be sent."""
        return self._outgoing.unsent()

    def flush(self) -> None:
        """Send what can be sent now."""
        if self._flushing or self._transport is None:
            return
        self._flushing = True
        sent = False
        try:
            while self.clear and (chunk := self._outgoing.take(CHUNK)):
                sent = True
                rest = self._writeNow(chunk)
                if rest:
                    self._transport.write(rest)
                    self._pause()
        finally:
            self._flushing = False
        if not self.clear or self._transport is None:
            return
        if self._closing:
            self._lose()
        elif sent:  # all of it, and the transport will not say so
            self._onClear()

    def close(self) -> None:
        """End the connection when everything has left."""
        self._closing = True
        self.flush()

    def drop(self) -> None:
        """Hold nothing more: nobody is there to be sent anything, or to ask what was not."""
        self._outgoing = SendQueue(WIRE_FRAME_LIMIT)

    def pauseProducing(self) -> None:
        """The transport has something to pass on."""
        self.clear = False

    def resumeProducing(self) -> None:
        """The transport has passed everything on."""
        self.clear = True
        if not self._flushing:
            self._onClear()
            self.flush()

    def stopProducing(self) -> None:
        """The connection is lost."""
        self._transport = None
        self.clear = False

    def _writeNow(self, chunk: bytes) -> bytes:
        """Write CHUNK in this very turn, nothing else being on its way; what the socket does not take."""
        if self._socket is not self._transport or not hasattr(self._socket, "writeSomeData"):
            return chunk
        start = 0
        while start < len(chunk):
            written: int = self._socket.writeSomeData(memoryview(chunk)[start:] if start else chunk)
            if not written:
                break
            start += written
        return chunk[start:]

    def _pause(self) -> None:
        """Anything that the transport has to pass on is too much: so it says when all has gone."""
        self.clear = False
        if self._socket.producer is not None:
            self._socket.producerPaused = True
            self._socket.producer.pauseProducing()

    def _lose(self) -> None:
        transport, self._transport = self._transport, None
        transport.unregisterProducer()
        transport.loseConnection()


class _SilentWriter:
    """Writes as WRITE does, but does not say that it failed.

    A write that fails tells that the peer has gone. What the peer said before it went may be still to be read, and
    then the end, which comes in its turn. To end the connection now would be to lose it.
    """

    def __init__(self, write: Callable[[bytes], int | BaseException]) -> None:
        self._write = write

    def __call__(self, data: bytes) -> int | BaseException:
        written = self._write(data)
        return 0 if written is CONNECTION_LOST else written
