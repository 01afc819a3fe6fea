"""The messages that wait to be sent on a wire connection.

The writer passes frames to the transport one chunk at a time, and the next chunk when the last one has left. So

- waiting messages are held once, however slowly the peer reads;
- later messages take their turn between the frames of earlier ones;
- the writer knows when all that the transport had has left for the network: it is `clear` then.
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
"""About how many bytes are passed to the transport at a time."""


@implementer(IPushProducer)
class MessageWriter:
    """Sends messages. ONCLEAR is called each time that all the transport had has left, even if that is at once."""

    def __init__(self, onClear: Callable[[], None]) -> None:
        self._onClear = onClear
        self._outgoing = SendQueue(WIRE_FRAME_LIMIT)
        self._transport: Any = None  # no interface has all methods of a connection's transport
        self._socket: Any = None  # the transport under TLS, or the same
        self._flushing = False
        self._closing = False
        self.clear: bool = True

    @property
    def size(self) -> int:
        """The number of bytes that wait, approximately."""
        return self._outgoing.size

    @property
    def small(self) -> int:
        """The number of bytes that wait in messages of one frame."""
        return self._outgoing.small

    @property
    def large(self) -> int:
        """The number of waiting messages of several frames."""
        return self._outgoing.large

    def open(self, transport: Any) -> None:
        """Send to TRANSPORT from now on."""
        self._transport = self._socket = transport
        while isinstance(self._socket, ProtocolWrapper):
            self._socket = self._socket.transport
        if hasattr(self._socket, "writeSomeData"):
            self._socket.writeSomeData = _SilentWriter(self._socket.writeSomeData)
        transport.registerProducer(self, True)
        self._pause()  # bytes that were written before leave first
        self._socket.startWriting()

    def add(self, message: m.Message) -> None:
        """Send MESSAGE at the next `flush`."""
        self._outgoing.add(message)

    def withdraw(self, number: int) -> bool:
        """Drop the waiting message of call NUMBER. Return False if there is none, or a part of it has left."""
        return self._outgoing.withdraw(number)

    def unsent(self) -> set[int]:
        """Return the calls that have waiting messages."""
        return self._outgoing.unsent()

    def flush(self) -> None:
        """Send as much as the transport accepts now."""
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
        elif sent:  # everything, and the transport does not notify of that
            self._onClear()

    def close(self) -> None:
        """End the connection when all messages have left."""
        self._closing = True
        self.flush()

    def drop(self) -> None:
        """Drop all waiting messages: the connection is lost."""
        self._outgoing = SendQueue(WIRE_FRAME_LIMIT)

    def pauseProducing(self) -> None:
        """Wait: the transport has bytes that have not left. (Called by the transport.)"""
        self.clear = False

    def resumeProducing(self) -> None:
        """Send more: all that the transport had has left. (Called by the transport.)"""
        self.clear = True
        if not self._flushing:
            self._onClear()
            self.flush()

    def stopProducing(self) -> None:
        """Send nothing more: the connection is lost. (Called by the transport.)"""
        self._transport = None
        self.clear = False

    def _writeNow(self, chunk: bytes) -> bytes:
        """Write CHUNK to the socket now, since nothing else waits. Return the rest that the socket does not accept."""
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
        """Wait until all bytes have left: pause as if the transport's buffer were full, so that it resumes this."""
        self.clear = False
        if self._socket.producer is not None:
            self._socket.producerPaused = True
            self._socket.producer.pauseProducing()

    def _lose(self) -> None:
        transport, self._transport = self._transport, None
        transport.unregisterProducer()
        transport.loseConnection()


class _SilentWriter:
    """A function like WRITE that does not report a lost connection.

    A failed write means that the peer has disconnected. Messages that it sent before may still have to be read. To end
    the connection now would lose them; reading reports the end after them.
    """

    def __init__(self, write: Callable[[bytes], int | BaseException]) -> None:
        self._write = write

    def __call__(self, data: bytes) -> int | BaseException:
        written = self._write(data)
        return 0 if written is CONNECTION_LOST else written
