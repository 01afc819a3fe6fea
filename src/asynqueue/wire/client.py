"""The client side of a wire connection. It accepts nothing from a server that has not authenticated itself."""

from __future__ import annotations

import os
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from asynqueue.core.protocol import messages as m
from asynqueue.core.protocol.chunkedpayload import ChunkedPayload, whole
from asynqueue.core.protocol.clientquota import ClientQuota
from asynqueue.core.protocol.framing import WIRE_FRAME_LIMIT, Decoder, FrameError
from asynqueue.core.protocol.handshake import NONCE, ClientHandshake
from asynqueue.core.records import Interrupted, Raised, Recalled, RunOutcome, Task
from asynqueue.core.results import isA
from asynqueue.errors import AuthenticationError, ImplementationError, SerializationError, WorkerLost
from asynqueue.interfaces import Report
from asynqueue.transport.link import Link
from asynqueue.transport.pickler import dumpsSmall, isLarge
from asynqueue.transport.script.context import using
from asynqueue.transport.script.exports import Exports
from asynqueue.transport.serialization import PIECES
from asynqueue.wire.endpoints import trustFailure
from asynqueue.wire.protocol import WireProtocol
from asynqueue.wire.universe import nameOf, pack

REASON_LIMIT = 1000
"""The most bytes that are read of the reason for which a server ends the connection."""


MESSAGES = 1 << 30
"""The most bytes of incomplete answers that are held, by default."""


def printable(text: str) -> str:
    """Return TEXT of a peer as one line, without characters that control a terminal."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


class ClosedEarly(WorkerLost):
    """The connection was closed before the server had authenticated, and no reason is known."""


class ClientConnection(WireProtocol, Link):
    """A connection to a server, which SERVER names in texts. The server has KEY, or is CERTIFIED by TLS.

    - UNIVERSE is the class that has the methods; with None, any `Method` can be called.
    - RUNNING calls at most are to run at once on the server, in threads with THREAD.
    - The server has PATIENCE seconds to authenticate and to send its terms, to which this side keeps. After that,
      SILENCE seconds without a message end the connection.
    - `established` fires after that, or fails. ONLOST is called when an established connection is lost.
    - REPORT is as for `Link`. At most MESSAGES bytes of incomplete answers are held.
    - ONRECALL is called with True when the server is asked to give calls back, and with False when it has done so.
    - With PLAIN, the connection may be one that others could stand in.
    """

    isServer = False

    def __init__(
        self,
        reactor: IReactorTime,
        server: str,
        universe: type | None,
        key: bytes | None,
        certified: bool,
        running: int,
        thread: bool,
        patience: float,
        silence: float,
        onLost: Callable[[], None],
        report: Report,
        messages: int = MESSAGES,
        onRecall: Callable[[bool], None] = lambda _: None,
        plain: bool = False,
    ) -> None:
        WireProtocol.__init__(self, reactor, patience, silence, plain)
        Link.__init__(self, None, onLost, lambda: None, report, single=False)
        self._decoder = Decoder(WIRE_FRAME_LIMIT, chunked=True, wanted=self._isWanted)
        self._messages = messages
        self._onRecall = onRecall
        self._recalling = False  # the last value that ONRECALL was called with
        self.established: Deferred[None] = Deferred(lambda _: self.abort())
        self.observer: Protocol | None = None  # is notified as well when the connection is lost
        self.reason: str = f"the connection to {server} was lost"
        self._server = server
        self._universe = universe
        self._key = key
        self._certified = certified
        self._running = running
        self._thread = thread
        self._terms: m.Terms | None = None  # the server sends them when it has authenticated
        self._quota = ClientQuota(1, 1)  # by those terms
        self._held: dict[int, m.Call] = {}  # the calls that the quota does not admit yet
        self._aborted = False
        self._exports = Exports()
        self._carrying: set[int] = set()  # the calls that definitions go with

    # What the worker calls.

    def abort(self) -> None:
        """End the connection now. Messages that have not arrived are lost."""
        self._aborted = True
        super().abort()

    def leave(self) -> None:
        """End the connection when all messages have left."""
        if self.open:
            self._writer.close()

    def send(self, message: m.ToRemote) -> None:
        """Send MESSAGE, if the connection is open. A call waits until the quota admits it."""
        if not self.open:
            return
        if isinstance(message, m.Call):
            if self._quota.called(message.id, len(message.payload)):
                self._writer.add(message)
            else:
                self._held[message.id] = message
        else:
            self._writer.add(message)
        if not self._receiving:
            self.flush()

    def recall(self) -> None:
        """Recall the calls that have not started.

        - Calls that were not sent end as `Recalled` at once.
        - The server is asked for the others, and answers soon.
        - If the connection is lost, all calls end, and those that did not start end as `Recalled`.
        """
        if not self.open:
            self.conclude(self.reason)
            return
        outcomes = self._runs.takenBack(self._unsend(list(self._runs.calls)))
        if self._runs.begun:
            self._runs.asked()
            self._notifyRecall()  # before the report, which may bring new calls
            self.send(m.Recall())
        self.answerAll(outcomes)

    # How a wire connection differs from a link to a child process.

    def flush(self) -> None:
        """Send what waits."""
        self._permitted.clear()
        self._writer.flush()

    def revoke(self) -> list[int]:
        """Return the calls that did not start on a connection that is lost. They will never start."""
        if self.open:
            return []
        unsent = self._writer.unsent() | self._held.keys()
        return self._runs.unstarted(unsent, not self._aborted)

    def interrupt(self, number: int) -> None:
        """Cancel call NUMBER, and no other call."""
        ends, outcomes = self._runs.interrupt(number, self._unsend([number]))
        if ends:
            self.send(m.Cancel(number))
        self.answerAll(outcomes)

    def answer(self, number: int, outcome: RunOutcome) -> bool:
        """End call NUMBER with OUTCOME. Return False if it was not pending."""
        if number in self._carrying:
            self._carrying.remove(number)
            refused = isinstance(outcome, Raised) and isA(outcome.error, ImplementationError)
            if refused or isinstance(outcome, Recalled):
                self.definitionsLost()
        leaving = isinstance(outcome, Interrupted)
        if leaving:
            self._decoder.drop(number)  # the parts of its answer that have come are not wanted any more
        self._held.pop(number, None)
        if self.open and (admitted := self._quota.ended(number, leaving and number in self._writer.unsent())):
            self._admit(admitted)
            if not self._receiving:
                self.flush()
        wasPending = super().answer(number, outcome)
        if self._recalling:
            self._notifyRecall()
        return wasPending

    def payloadOf(self, task: Task) -> tuple[bytes | ChunkedPayload, object]:
        """Return the call of TASK as bytes: the name of a method, and its arguments."""
        call = task.call
        name = nameOf(call.f, self._universe)
        exports = self._exports
        passed = call.args, dict(call.kw)
        arguments: bytes | ChunkedPayload | None = None
        definitions = None
        if exports.allowsPlain(None) and not isLarge(passed):
            arguments = dumpsSmall(passed)
        if arguments is None:
            exports.mentions.clear()
            with using(exports):
                arguments = PIECES.dumpCall(passed, None, call.args, call.kw, call.__str__)
                definitions = exports.definitions() if exports.mentions or exports.dead else None
        if definitions is not None:
            self._carrying.add(self._lastNumber + 1)
        payload = pack(name, self._thread, arguments, None if definitions is None else definitions.stream)
        if not self._quota.fits(len(payload)):
            self._carrying.discard(self._lastNumber + 1)
            self.definitionsLost()
            most = 0 if self._terms is None else self._terms.messages
            raise SerializationError(
                f"{call} takes {len(payload)} bytes, and {self._server} takes no more than {most} of a client at once: "
                "send less, or serve with a higher limit messages"
            )
        return payload, None

    def definitionsLost(self) -> None:
        """Send all definitions again when they are needed."""
        self._exports = Exports()

    def receiveOther(self, message: m.Message) -> None:
        """Receive a MESSAGE that only a server sends."""
        if isinstance(message, m.Started):
            self._runs.started(message.id)
            if self._recalling:
                self._notifyRecall()
        elif isinstance(message, m.Recalled):
            self._carrying.discard(message.id)  # The server has the definitions that came with the call.
            self.answer(message.id, Recalled())
        elif isinstance(message, m.Terms):
            self._accept(message)
        elif isinstance(message, m.Ping):
            self.send(m.Pong())
        elif isinstance(message, m.Refused):
            why = printable(bytes(whole(message.payload)[:REASON_LIMIT]).decode(errors="replace"))
            self.reason = f"{self._server} ended the connection: {why}"
        elif not isinstance(message, m.Pong):
            super().receiveOther(message)

    def _receive(self, message: m.Message) -> None:
        if isinstance(message, m.Opened):
            number = message.id
            if number not in self._runs.calls and number not in self._sources and 0 < number <= self._lastNumber:
                return  # the call was cancelled and the server knows by now; or the server sends an iterator of no call
        super()._receive(message)

    def _notifyRecall(self) -> None:
        if self.open and self._recalling != self._runs.recalling:
            self._recalling = self._runs.recalling
            self._onRecall(self._recalling)

    def _isWanted(self, number: int, held: int) -> bool:
        """Return True if more may be held of the answer to call NUMBER, where HELD bytes are held of all answers."""
        if not 0 < number <= self._lastNumber:
            raise FrameError(f"a part of an answer to call {number}, which was never made")
        if number not in self._runs.calls and number not in self._sources:
            return False
        if held <= self._messages:
            return True
        error = SerializationError(
            f"{self._server} answers with more than {self._messages} bytes, which is this worker's limit: "
            "have it answer with less, or with an iterator, or raise the limit by messages="
        )
        if number in self._sources:
            self.closeSource(number)
            self._sources[number].over(error)
        else:
            self.send(m.Cancel(number))
            self.answer(number, Raised(error))
        return False

    # The life of the connection.

    def begin(self) -> None:
        """Send the first message of the handshake."""
        self._handshake = handshake = self.newHandshake()
        self._obey(handshake.begin())

    def newHandshake(self) -> ClientHandshake:
        """Return a handshake."""
        return ClientHandshake(os.urandom(NONCE), self._key, self._certified)

    def authenticated(self) -> None:
        """Wait for the terms of the server."""

    def notAuthenticated(self, why: str) -> None:
        """Fail: the server is not to be trusted, for the reason WHY."""
        self.established.errback(AuthenticationError(f"{self._server} cannot be trusted: {why}"))
        self.abort()

    def timedOut(self, why: str) -> None:
        """Fail: the server may be reached later."""
        if not self.established.called:
            self.established.errback(WorkerLost(f"{self._server} {why}"))
        self.abort()

    def messagesReceived(self, data: bytes) -> None:
        """Receive messages as any link does."""
        Link.dataReceived(self, data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """End what is pending: an established connection by its owner, another one here."""
        self._aborted = self._aborted or reason.check(ConnectionAborted) is not None
        WireProtocol.connectionLost(self, reason)
        if self._terms is None:
            self.open = False
            if not self.established.called:
                self.established.errback(self._whyNotEstablished(reason))
            return
        Link.connectionLost(self, reason)
        self._writer.drop()
        if self.observer is not None:
            self.observer.connectionLost(reason)

    def written(self) -> None:
        """All that was written has left: send the calls that the quota admits now."""
        admitted = self._quota.flushed(self._writer.unsent())
        if admitted:
            self._admit(admitted)
            self._writer.flush()

    def peerIsSilent(self) -> None:
        """Log that the server is silent, and end the connection."""
        hint = "" if self._thread else "; a method that blocks belongs in a thread there, by thread=True"
        self.reason = f"{self._server} was silent for {self._silence:g} seconds{hint}"
        self._log.error("a wire worker disconnects: {why}", why=self.reason)
        self.abort()

    def _whyNotEstablished(self, reason: Failure) -> AuthenticationError | WorkerLost:
        if self._authenticated:
            return WorkerLost(self.reason)
        why = trustFailure(reason, self._session)
        if why is not None:
            return AuthenticationError(f"{self._server} and this client do not trust one another: {why}")
        why = reason.getErrorMessage().rstrip(".")
        return ClosedEarly(f"the connection to {self._server} was lost before it had proved itself: {why}")

    def _accept(self, terms: m.Terms) -> None:
        """Keep to TERMS from now on."""
        if self._terms is not None or min(terms) < 1:
            raise FrameError("the server sends its terms twice, or terms below 1")
        if self._aborted:
            return
        self._stopTimer()
        self._terms = terms
        self._quota = ClientQuota(terms.calls, terms.messages)
        if self._running > terms.running:
            self._log.warn(
                "{server} runs {most} calls at once for a client, and not {wanted}",
                server=self._server, most=terms.running, wanted=self._running,
            )  # fmt: skip
        self.send(m.Begin(min(self._running, terms.running)))
        self.established.callback(None)

    def _admit(self, numbers: list[int]) -> None:
        """Send the calls of NUMBERS at the next flush, except those that were taken back."""
        for number in numbers:
            call = self._held.pop(number, None)
            if call is not None:
                self._writer.add(call)

    def _unsend(self, numbers: list[int]) -> list[int]:
        """Take back those calls of NUMBERS that were not sent, and return them."""
        return [n for n in numbers if self._held.pop(n, None) is not None or self._writer.withdraw(n)]
