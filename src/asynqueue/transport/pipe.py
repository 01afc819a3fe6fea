"""The transport of a link to a child process: the parent's end of a socket pair.

Data is written at once, in the same turn of the reactor, as far as the socket takes it. A call that waited until the
reactor finds the socket writable would lose half of its round trip. The rest is written when the socket takes more.
One read takes all answers of a busy worker in one turn.
"""

from __future__ import annotations

import socket
from collections import deque
from typing import Any

from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

READ_SIZE = 1 << 18
"""The most bytes that one read takes."""


@implementer(IReadWriteDescriptor)
class Pipe:
    """Connects END, a socket that it then owns, to PROTOCOL. REACTOR is an `IReactorFDSet`."""

    def __init__(self, end: socket.socket, protocol: Protocol, reactor: Any) -> None:
        end.setblocking(False)
        self._end = end
        self._protocol = protocol
        self._reactor = reactor
        self._unsent: deque[memoryview] = deque()
        self._room = memoryview(bytearray(READ_SIZE))  # Allocated once: a new buffer for each read is slow.
        self._connected = True
        reactor.addReader(self)
        protocol.makeConnection(self)

    def write(self, data: bytes) -> None:
        """Send DATA, now if possible."""
        if not self._connected or not data:
            return
        idle = not self._unsent
        self._unsent.append(memoryview(data))
        if idle and not self._push():
            self._reactor.addWriter(self)

    def abortConnection(self) -> None:
        """Close the connection in the next turn of the reactor. Unsent data is lost."""
        if self._connected:
            self._detach()
            self._reactor.callLater(0, self._lost, Failure(ConnectionAborted()))

    def pauseProducing(self) -> None:
        """Stop reading until `resumeProducing`."""
        self._reactor.removeReader(self)

    def resumeProducing(self) -> None:
        """Continue reading."""
        if self._connected:
            self._reactor.addReader(self)

    def fileno(self) -> int:
        """Return the descriptor of the socket, -1 when it is closed."""
        return self._end.fileno()

    # For the reactor. Its interface requires a Failure from the first two, but an exception is correct: hence Any.

    def doRead(self) -> Any:
        """Read data, or find that the other end is closed."""
        try:
            received = bytes(self._room[: self._end.recv_into(self._room)])
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if not received:
            return CONNECTION_DONE
        self._protocol.dataReceived(received)
        return None

    def doWrite(self) -> Any:
        """Write data that is not sent yet."""
        if self._push():
            self._reactor.removeWriter(self)
        return None

    def connectionLost(self, reason: Failure) -> None:
        """Notify the protocol that the other end is closed."""
        if self._connected:
            self._detach()
            self._lost(reason)

    def logPrefix(self) -> str:
        """Return the name for the log of the reactor."""
        return "asynqueue"

    def _push(self) -> bool:
        """Write as much as the socket takes. Return whether that was all."""
        while self._unsent:
            piece = self._unsent[0]
            try:
                sent = self._end.send(piece)
            except BlockingIOError:
                return False
            except OSError:  # The other end is closed. Reading reports that, after the data that came before.
                self._unsent.clear()
                break
            if sent < len(piece):
                self._unsent[0] = piece[sent:]
                return False
            self._unsent.popleft()
        return True

    def _detach(self) -> None:
        self._connected = False
        self._unsent.clear()
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)

    def _lost(self, reason: Failure) -> None:
        self._end.close()
        self._protocol.connectionLost(reason)
