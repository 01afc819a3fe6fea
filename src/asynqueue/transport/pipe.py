"""The near end of a socket pair, as the transport of a link to a process on this machine.

What is written goes out at once, in the turn that wrote it, as far as the socket takes it: a call that waits for the
reactor to find its socket writable has lost half of its time on the way. What the socket does not take follows when
it can. What comes is read in pieces large enough for what a busy worker answers in a turn.
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
"""The most bytes read at once."""


@implementer(IReadWriteDescriptor)
class Pipe:
    """Joins END, which it owns from then on, to PROTOCOL, by REACTOR (an `IReactorFDSet`)."""

    def __init__(self, end: socket.socket, protocol: Protocol, reactor: Any) -> None:
        end.setblocking(False)
        self._end = end
        self._protocol = protocol
        self._reactor = reactor
        self._unsent: deque[memoryview] = deque()
        self._room = memoryview(bytearray(READ_SIZE))  # else each read would have the system find so much anew
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
        """End the connection without a word, soon."""
        if self._connected:
            self._detach()
            self._reactor.callLater(0, self._lost, Failure(ConnectionAborted()))

    def pauseProducing(self) -> None:
        """Read nothing until told to resume."""
        self._reactor.removeReader(self)

    def resumeProducing(self) -> None:
        """Go on reading."""
        if self._connected:
            self._reactor.addReader(self)

    def fileno(self) -> int:
        """The socket's descriptor, -1 when it is closed."""
        return self._end.fileno()

    # For the reactor. (It takes exceptions from these two, though its interface says it wants Failures: hence Any.)

    def doRead(self) -> Any:
        """There is something to read, or nobody to write it any more."""
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
        """What was not sent yet can be."""
        if self._push():
            self._reactor.removeWriter(self)
        return None

    def connectionLost(self, reason: Failure) -> None:
        """The other end is closed."""
        if self._connected:
            self._detach()
            self._lost(reason)

    def logPrefix(self) -> str:
        """What the reactor's log calls it."""
        return "asynqueue"

    def _push(self) -> bool:
        """Send what the socket takes; True if that was all."""
        while self._unsent:
            piece = self._unsent[0]
            try:
                sent = self._end.send(piece)
            except BlockingIOError:
                return False
            except OSError:  # there is nobody any more, which is noticed when what was said before has been read
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
