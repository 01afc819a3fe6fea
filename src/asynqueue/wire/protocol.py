"""The common part of both sides of a wire connection: the handshake, its timeout, the heartbeat and the writer.

A connection goes through three phases:

1. *Handshake*: both sides authenticate. `asynqueue.core.protocol.handshake` decides; no message is read before its end.
2. *Open*: messages are sent by a `MessageWriter` and received by the subclass. A `Heartbeat` watches for a silent peer.
3. *Lost*: the timers are stopped.

`WireProtocol` runs these phases. The two sides differ in what follows from each event, and have a method for each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from asynqueue.core.protocol import messages as m
from asynqueue.core.protocol.handshake import ClientHandshake, Command, Refuse, Send, ServerHandshake
from asynqueue.core.protocol.liveness import TICKS, HeartbeatCounter
from asynqueue.reactor import forks
from asynqueue.transport.lifeline import disown
from asynqueue.wire.trust.kinds import sessionOf, whyOpen
from asynqueue.wire.writer import MessageWriter

SILENCE = 30.0
"""Seconds without any message after which a peer counts as lost, by default."""


def checked(silence: float) -> float:
    """Return SILENCE. Raise `ValueError` if it is not a number of seconds above 0."""
    if not silence > 0:
        raise ValueError(f"silence must be a number of seconds above 0, got {silence!r}")
    return silence


class WireProtocol(Protocol):
    """One side of a wire connection. The peer has PATIENCE seconds to authenticate, then SILENCE seconds per message.

    An open connection (see `asynqueue.wire.trust.kinds`) ends at once, unless it is PLAIN, that is permitted.

    A subclass has the methods without an underscore that raise NotImplementedError here.
    """

    isServer: bool

    def __init__(self, reactor: IReactorTime, patience: float, silence: float, plain: bool) -> None:
        self._reactor = reactor
        self._patience = patience
        self._silence = silence
        self._plain = plain
        self._session: Any = None  # of TLS, if there is any: pyOpenSSL is an extra
        self._handshake: ClientHandshake | ServerHandshake | None = None
        self._authenticated = False
        self._timer: IDelayedCall | None = None  # the end of patience
        self._heartbeat = Heartbeat(reactor, silence, self._ping, self.peerIsSilent)
        self._writer = MessageWriter(self.written)

    def connectionMade(self) -> None:
        """Start the time in which the peer has to authenticate."""
        transport: Any = self.transport
        forks.watch(self._disown)
        self._session = sessionOf(transport)
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
        self._timer = self._reactor.callLater(self._patience, self._timedOut)
        why = None if self._plain else whyOpen(transport)
        if why is None:
            self.begin()
        else:
            self.notAuthenticated(why)

    def dataReceived(self, data: bytes) -> None:
        """Receive DATA: a part of the handshake, or messages."""
        if not self._authenticated:
            if self._handshake is None:
                self._handshake = self.newHandshake()
            self._obey(self._handshake.received(data, self._channel()))
        elif data:
            self._heartbeat.received()
            self.messagesReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Stop the timers."""
        self._heartbeat.stop()
        self._stopTimer()

    def _disown(self) -> None:
        """Leave the connection to the program, of which this process is a fork."""
        descriptor: int = getattr(self.transport, "fileno", lambda: -1)()  # one in memory has none
        if descriptor >= 0:
            forks.keep(self)
            disown(descriptor)

    def begin(self) -> None:
        """Begin the handshake: send its first message, if it is this side's."""

    def newHandshake(self) -> ClientHandshake | ServerHandshake:
        """Return the handshake of this side."""
        raise NotImplementedError

    def authenticated(self) -> None:
        """The peer has authenticated: send the first messages."""
        raise NotImplementedError

    def notAuthenticated(self, why: str) -> None:
        """End the connection: the peer failed to authenticate, for the reason WHY."""
        raise NotImplementedError

    def timedOut(self, why: str) -> None:
        """End the connection: the peer did not authenticate in time. WHY is a text that follows its name."""
        raise NotImplementedError

    def messagesReceived(self, data: bytes) -> None:
        """Receive DATA, a part of the stream of messages."""
        raise NotImplementedError

    def written(self) -> None:
        """All that was written has left for the network: send what waited for that."""
        raise NotImplementedError

    def peerIsSilent(self) -> None:
        """End the connection: nothing was received for the time that is allowed."""
        raise NotImplementedError

    def _obey(self, commands: list[Command]) -> None:
        transport: Any = self.transport
        for command in commands:
            if isinstance(command, Send):
                transport.write(command.data)
            elif isinstance(command, Refuse):
                self.notAuthenticated(command.why)
            else:
                self._handshake = None
                self._authenticated = True
                self._heartbeat.start()
                self._writer.open(transport)
                self.authenticated()
                self.dataReceived(command.rest)

    def _channel(self) -> bytes:
        """Return what identifies the TLS session; nothing without TLS."""
        if self._session is None:
            return b""
        from asynqueue.wire.trust.tls import channel  # the extra for TLS is there, as there is a session

        return channel(self._session, self.isServer)

    def _timedOut(self) -> None:
        self._timer = None
        self.timedOut(f"did not prove itself within {self._patience:g} seconds")

    def _stopTimer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ping(self) -> None:
        self._writer.add(m.Ping())
        self._writer.flush()


class Heartbeat:
    """Pings the peer by calling PING. Calls ONSILENT once, when nothing was received for SILENCE seconds."""

    def __init__(
        self, reactor: IReactorTime, silence: float, ping: Callable[[], None], onSilent: Callable[[], None]
    ) -> None:
        self._reactor = reactor
        self._interval = silence / TICKS
        self._ping = ping
        self._onSilent = onSilent
        self._counter = HeartbeatCounter()
        self.received: Callable[[], None] = self._counter.received
        self._next: IDelayedCall | None = None

    def start(self) -> None:
        """Start the first interval."""
        self._next = self._reactor.callLater(self._interval, self._tick)

    def stop(self) -> None:
        """Stop, if it was started."""
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _tick(self) -> None:
        self._next = None
        if self._counter.tick():
            self._next = self._reactor.callLater(self._interval, self._tick)
            self._ping()
        else:
            self._onSilent()
