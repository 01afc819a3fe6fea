"""The server side of a wire connection: one client of a server.

`asynqueue.core.protocol.admission` decides what the client may do and when its calls start. A `CallRunner` runs the
calls; what they return is sent from here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from asynqueue.core.flow.iterators import SLICE
from asynqueue.core.protocol import messages as m
from asynqueue.core.protocol.admission import CallAdmission
from asynqueue.core.protocol.framing import WIRE_FRAME_LIMIT, Decoder, FrameError
from asynqueue.core.protocol.handshake import NONCE, ServerHandshake
from asynqueue.core.protocol.serverlimits import LimitExceeded, Limits
from asynqueue.core.records import Iterating, Raised, Returned, RunOutcome
from asynqueue.errors import SerializationError, WorkerError, WorkerLost
from asynqueue.transport.errorcodec import dumpError
from asynqueue.transport.script.context import using
from asynqueue.transport.serialization import PIECES
from asynqueue.wire.calls import CallRunner, ServedIteration
from asynqueue.wire.endpoints import trustFailure
from asynqueue.wire.protocol import WireProtocol
from asynqueue.wire.universe import WireWorkerUniverse

if TYPE_CHECKING:
    from asynqueue.wire.server import WireServer


HURRY = 0.05
"""Seconds that a connection has to show that it has the key when there are too many that have not."""


class ServerConnection(WireProtocol):
    """The connection of SERVER to one client, which is a stranger until it has authenticated."""

    isServer = True
    _log = Logger(namespace="asynqueue")
    _runner: CallRunner  # from `connectionMade` on

    def __init__(
        self,
        server: WireServer,
        reactor: Any,  # a reactor has a clock and threads, and there is no one interface for both
        universe: WireWorkerUniverse,
        methods: Mapping[str, Callable[..., Any]],  # a user's method takes and returns anything
        limits: Limits,
        silence: float,
        plain: bool,
    ) -> None:
        super().__init__(reactor, limits.patience, silence, plain)
        self._server = server
        self._universe = universe
        self._methods = methods
        self._limits = limits
        self._decoder = Decoder(WIRE_FRAME_LIMIT, limits.messages, chunked=True)
        self._admission: CallAdmission | None = None  # from the client's `Begin` on
        self._calls: dict[int, m.Call] = {}  # those that have not started
        self._iterations: dict[int, ServedIteration] = {}
        self._whyHurried: str | None = None
        self._over = False  # nothing is received any more
        self._leaving = False  # the client has sent `Goodbye`
        self._recalling = False
        self._receiving = False
        self._proceeding = False
        self._later: IDelayedCall | None = None
        self.peer: str = "a client"
        self.host: str = ""  # the client's address; empty for one on this machine

    # The life of the connection.

    def connectionMade(self) -> None:
        """Register a stranger."""
        transport: Any = self.transport
        self.peer = _describe(transport)
        self.host = getattr(transport.getPeer(), "host", "")
        self._runner = CallRunner(self._reactor, self._universe, self._methods, self.peer, self._ended)
        super().connectionMade()
        self._server.connected(self)

    def newHandshake(self) -> ServerHandshake:
        """Return a handshake. The transport has the client's certificate from the first bytes on."""
        transport: Any = self.transport
        certified = self._server.certified and transport.getPeerCertificate() is not None
        return ServerHandshake(os.urandom(NONCE), self._server.key, certified)

    def authenticated(self) -> None:
        """Send the terms, or refuse a client that is one too many."""
        self._stopTimer()
        if self._server.authenticated(self):
            limits = self._limits
            self.send(m.Terms(limits.calls, limits.messages, limits.running))
            self.send(m.Ready(os.getpid()))
        else:
            most = self._limits.connections
            self._turnAway(
                f"the server takes {most} clients at once, by its limit connections (--limit connections={most})"
            )

    def notAuthenticated(self, why: str) -> None:
        """Log the reason WHY, and end the connection when the refusal is sent."""
        self._log.warn("refused {peer}: {why}", peer=self.peer, why=why)
        self._over = True
        transport: Any = self.transport
        transport.loseConnection()

    def timedOut(self, why: str) -> None:
        """Refuse the client."""
        self.refuse(self._whyHurried or f"it {why}")
        self.abort()

    def hurry(self, why: str) -> None:
        """Give the client `HURRY` seconds to show that it has the key, else refuse it for the reason WHY."""
        self._whyHurried = why
        if self._timer is not None:
            self._timer.reset(HURRY)

    def peerIsSilent(self) -> None:
        """Refuse the client."""
        self.refuse(f"it was silent for {self._silence:g} seconds")

    def refuse(self, why: str) -> None:
        """End the connection now, for the reason WHY."""
        if self._over:
            return
        self._log.warn("refused {peer}: {why}", peer=self.peer, why=why)
        if self._authenticated:
            self._writer.add(m.Refused(0, why.encode()))
            self._writer.flush()
        self.abort()

    def _turnAway(self, why: str) -> None:
        """End the connection for the reason WHY. The client has done nothing wrong, so it has time to read that."""
        self._log.warn("refused {peer}: {why}", peer=self.peer, why=why)
        self._over = True
        self._timer = self._reactor.callLater(self._limits.patience, self._timedOut)
        self._writer.add(m.Refused(0, why.encode()))
        self._writer.close()

    def abort(self) -> None:
        """End the connection now."""
        self._over = True
        transport: Any = self.transport
        transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Cancel the calls of the client, and close its iterators."""
        super().connectionLost(reason)
        if not self._authenticated and not self._over:
            self._logUnauthenticated(reason)
        self._over = True
        if self._later is not None:
            self._later.cancel()
            self._later = None
        self._calls.clear()
        self._writer.drop()
        self._decoder = Decoder()  # with no incomplete messages
        for iteration in list(self._iterations.values()):
            iteration.close()
        self._runner.stop()
        self._server.disconnected(self)

    def _logUnauthenticated(self, reason: Failure) -> None:
        why = trustFailure(reason, self._session)
        if why is not None:
            self._log.warn("refused {peer}: {why}", peer=self.peer, why=why)
        else:
            why = reason.getErrorMessage().rstrip(".")
            self._log.warn("{peer} left before it had proved itself: {why}", peer=self.peer, why=why)

    # Messages.

    def send(self, message: m.ToLocal) -> None:
        """Send MESSAGE, now or at the end of what is being done."""
        self._writer.add(message)
        if not self._proceeding and not self._receiving:
            self._writer.flush()

    def dataReceived(self, data: bytes) -> None:
        """Receive DATA, unless the connection ends."""
        if self._over:
            return
        handshake = self._handshake
        super().dataReceived(data)
        if handshake is None and isinstance(self._handshake, ServerHandshake):
            handshake = self._handshake
        if isinstance(handshake, ServerHandshake) and handshake.claimed and not self._authenticated:
            self._server.claimed(self)
            if self._whyHurried is not None and self._timer is not None:
                self._whyHurried = None
                self._timer.reset(self._limits.patience)

    def messagesReceived(self, data: bytes) -> None:
        """Receive messages, then start the calls that may start. A client that breaks the rules is refused."""
        self._receiving = True
        try:
            for message in self._decoder.feed(data):
                self._receive(message)
                if self._over:
                    return
        except (FrameError, LimitExceeded) as error:
            self.refuse(str(error))
        except ValueError as error:  # a message that cannot be decoded
            self.refuse(f"it makes no sense: {error}")
        finally:
            self._receiving = False
        self._proceed()

    def _receive(self, message: m.Message) -> None:
        if isinstance(message, m.Call) and self._admission is not None:
            self._admission.called(message.id, len(message.payload))
            self._calls[message.id] = message
        elif isinstance(message, m.Ping):
            if self._writer.clear:  # else the client receives other messages, if it reads at all
                self.send(m.Pong())
        elif isinstance(message, m.Pong):
            self._server.claimed(self)
        elif isinstance(message, m.Begin):
            if self._admission is not None:
                raise LimitExceeded("it begins twice")
            self._admission = CallAdmission(message.running, self._limits)
        elif self._admission is None:
            raise LimitExceeded("it has not begun")
        elif isinstance(message, m.Grant):
            if message.id in self._iterations:
                self._iterations[message.id].granted(message.items)
        elif isinstance(message, m.Close):
            if message.id in self._iterations:
                self._iterations[message.id].close()
        elif isinstance(message, m.Recall):
            self._recalling = True
            self._giveBack(self._admission)
        elif isinstance(message, m.Cancel):
            self._cancel(self._admission, message.id)
        elif isinstance(message, m.Goodbye):
            self._leaving = True
        else:
            raise FrameError(f"a {type(message).__name__} from a client")

    def _giveBack(self, admission: CallAdmission) -> None:
        """Give recalled calls back: now, or later if the client does not read what was sent to it."""
        if self._recalling and self._writer.small < self._limits.backlog:
            self._recalling = False
            for number in admission.recalled():
                self._runner.discard(self._calls.pop(number))
                self.send(m.Recalled(number))

    def _cancel(self, admission: CallAdmission, number: int) -> None:
        call = self._calls.pop(number, None)
        if call is not None:
            self._runner.discard(call)
        if number in self._iterations:
            self._iterations[number].close()
        if admission.cancelled(number):
            self._runner.cancel(number)

    # Calls.

    def written(self) -> None:
        """All that was written has left: send more items, and start announced calls."""
        for iteration in list(self._iterations.values()):
            iteration.draw()
        if not self._proceeding and not self._receiving:
            self._proceed()

    def _proceed(self) -> None:
        """Start the calls that may start, for at most one slice of time, and write what is to be sent."""
        admission = self._admission
        if self._proceeding or self._over or admission is None:
            self._writer.flush()
            return
        self._proceeding = True
        deadline = perf_counter() + SLICE
        try:
            while self._writer.clear and not self._over:
                if not admission.announced:
                    number = self._next(admission)
                    if number is None:
                        break
                    self._writer.add(m.Started(number))
                    # In one write with the last answer. If it does not leave at once, `written` is called when it has.
                    self._writer.flush()
                elif perf_counter() > deadline:
                    if self._later is None:
                        self._later = self._reactor.callLater(0, self._proceedLater)
                    break
                elif (number := admission.flushed()) is not None:
                    self._runner.run(self._calls.pop(number))
            self._writer.flush()
        finally:
            self._proceeding = False
        if self._leaving and admission.idle and not self._iterations:
            self._over = True
            self._writer.close()

    def _next(self, admission: CallAdmission) -> int | None:
        """Return the call to be announced now, if any."""
        self._giveBack(admission)
        number = admission.next(self._writer.small, self._writer.large)
        if number is None and self._writer.size:
            self._writer.flush()  # what leaves at once makes room
            if self._writer.clear:
                number = admission.next(self._writer.small, self._writer.large)
        return number

    def _proceedLater(self) -> None:
        self._later = None
        self._proceed()

    def _ended(self, number: int, outcome: RunOutcome) -> None:
        """Send the OUTCOME of call NUMBER."""
        assert self._admission is not None
        self._admission.ended(number)
        if isinstance(outcome, Iterating) and len(self._iterations) >= self._limits.iterations:
            self._log.warn("refused {peer} an iteration: it has as many as it may", peer=self.peer)
            outcome.source.close()
            why = f"no more than {self._limits.iterations} iterators may be open on this connection"
            outcome = Raised(WorkerError(why), outcome.seconds)
        with using(self._runner.namespace):
            answer = self._answer(number, outcome)
        self._writer.add(answer)
        if not self._proceeding:
            self._proceed()

    def _answer(self, number: int, outcome: RunOutcome) -> m.ToLocal:
        if isinstance(outcome, Returned):
            try:
                answer: m.ToLocal = m.Returned(number, outcome.seconds, PIECES.dumpResult(outcome.value))
            except SerializationError as error:
                answer = m.Raised(number, outcome.seconds, dumpError(error))
        elif isinstance(outcome, Iterating):
            self._iterations[number] = ServedIteration(
                self, number, outcome.source, self._limits.backlog, self._runner.namespace
            )
            answer = m.Opened(number, outcome.seconds)
        elif isinstance(outcome, Raised):
            answer = m.Raised(number, outcome.seconds, dumpError(outcome.error))
        else:
            answer = m.Raised(number, 0.0, dumpError(WorkerLost("the thread of this call was abandoned")))
        return answer

    # For the iterations.

    def backlog(self) -> int:
        """Return how many bytes wait to be sent."""
        return self._writer.size

    def sendOfIteration(self, message: m.ToLocal) -> None:
        """Send MESSAGE, unless the connection ends."""
        if not self._over:
            self.send(message)

    def iterationEnded(self, number: int) -> None:
        """Forget the iteration of call NUMBER."""
        self._iterations.pop(number, None)
        if self._leaving:
            self._proceed()


def _describe(transport: Any) -> str:
    """Return the peer of TRANSPORT as text."""
    peer = transport.getPeer()
    host, port = getattr(peer, "host", None), getattr(peer, "port", None)
    if host is not None:
        return f"{host}:{port}"
    name = getattr(transport.getHost(), "name", None) or peer
    return f"a client of {os.fsdecode(name) if isinstance(name, bytes) else name}"
