"""The near side of a wire: a link that trusts nobody before it has proved itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IDelayedCall, IReactorTime, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from asynqueue.core.protocol import messages as m
from asynqueue.core.protocol.admission import ClientQuota
from asynqueue.core.protocol.framing import WIRE_FRAME_LIMIT, Decoder, FrameError
from asynqueue.core.protocol.handshake import NONCE, ClientHandshake, Command, Proved, Refuse, Say
from asynqueue.core.protocol.payload import ChunkedPayload, whole
from asynqueue.core.protocol.startlog import StartLog
from asynqueue.core.records import Interrupted, Raised, Recalled, RunOutcome, Task
from asynqueue.errors import AuthenticationError, SerializationError, WorkerLost
from asynqueue.interfaces import Report
from asynqueue.transport.link import Link
from asynqueue.transport.serialization import PIECES
from asynqueue.wire.endpoints import trustFailure
from asynqueue.wire.heartbeat import Heartbeat
from asynqueue.wire.universe import nameOf, pack
from asynqueue.wire.writer import MessageWriter

MOST = 1000
"""How many bytes are heard of what a server says when it ends the connection."""


MESSAGES = 1 << 30
"""The most bytes that are held of answers that are not complete, unless told."""


def printable(text: str) -> str:
    """TEXT of a peer's as one line, in which nothing but the text is for a terminal."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


class Ended(WorkerLost):
    """A connection ended before the server had proved itself, and nobody said why."""


class _NoPermits:
    """On a wire, no permits are needed: `asynqueue.core.protocol.startlog` says what they are replaced with."""

    def give(self, numbers: Sequence[int]) -> None:
        """They are not needed."""

    def takeBack(self) -> list[int]:
        """There were none."""
        return []

    def close(self) -> None:
        """There are none."""


class ClientConnection(Link):
    """Speaks to a server, which SERVER names for people, and which has to prove KEY or is CERTIFIED by TLS.

    RUNNING calls are to run there at once, in threads if THREAD, each a method of UNIVERSE (or of any, with None). The
    server has PATIENCE seconds to prove itself and to tell its terms, to which this side keeps; then, silence of
    SILENCE seconds ends the connection. `proved` fires when it has, or fails. ONLOST is called when there is nobody to
    speak to any more, if it had; REPORT as by `Link`. Of answers that are not complete, no more than MESSAGES bytes are
    held. ONRECALL is called with True when the server was asked to give calls back, and with False when it has.
    """

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
        report: Report | None,
        messages: int = MESSAGES,
        onRecall: Callable[[bool], None] = lambda _: None,
    ) -> None:
        super().__init__(_NoPermits(), onLost, lambda: None, report)
        self._decoder = Decoder(WIRE_FRAME_LIMIT, piecemeal=True, wanted=self._isWanted)
        self._messages = messages
        self._onRecall = onRecall
        self._recalling = False  # as ONRECALL was told
        self.proved: Deferred[None] = Deferred(lambda _: self.hangUp())
        self.shadow: Protocol | None = None  # what is told, too, that the connection is lost
        self.reason: str = f"the connection to {server} was lost"
        self._reactor = reactor
        self._server = server
        self._universe = universe
        self._running = running
        self._thread = thread
        self._patience = patience
        self._silence = silence
        self._shake: ClientHandshake | None = ClientHandshake(os.urandom(NONCE), key, certified)
        self._hurry: IDelayedCall | None = None
        self._heart = Heartbeat(reactor, silence, self._ask, self._silent)
        self._outbox = MessageWriter(self._cleared)
        self._starts = StartLog()
        self._terms: m.Terms | None = None  # they come when the server has proved itself
        self._allowance = ClientQuota(1, 1)  # by those
        self._held: dict[int, m.Call] = {}  # what may not be sent yet
        self._cut = False

    # What the worker wants.

    def hangUp(self) -> None:
        """End the connection now: what is on its way is lost."""
        self._cut = True
        super().hangUp()

    def leave(self) -> None:
        """End the connection when all that was said has left."""
        if self.open:
            self._outbox.close()

    def say(self, message: m.ToFar) -> None:
        """Send MESSAGE when its turn has come, if there is anybody to hear it."""
        if not self.open:
            return
        if isinstance(message, m.Call):
            self._held[message.id] = message
            self._go(self._allowance.called(message.id, len(message.payload)))
        else:
            self._outbox.add(message)
        if not self._hearing:
            self.send()

    def recall(self) -> None:
        """Have the server give back what it has not started; what was not sent is back now.

        When the connection is lost, all that did not start is.
        """
        if not self.open:
            super().recall()
            return
        for number in list(self._held):
            self.answer(number, Recalled())
        for number in self.numbers:
            if self._outbox.withdraw(number):
                self.answer(number, Recalled())
        if self.numbers:
            self._starts.recalled(self.numbers)
            self._tellOfRecall()
            self.say(m.Recall())

    # How a wire differs from a pipe.

    def send(self) -> None:
        """Send what was said."""
        self._permitted.clear()
        self._outbox.flush()

    def takeBack(self) -> list[int]:
        """The calls that, the connection being lost, did not start and never will."""
        if self.open:
            return []
        unsent = self._outbox.unsent() | self._held.keys()
        return self._starts.unstarted(self.numbers, unsent, not self._cut)

    def interrupt(self, number: int) -> None:
        """A call is not wanted any more: the server lets go of it, and of nothing else."""
        if number in self._held or self._outbox.withdraw(number):
            self.answer(number, Recalled())
        else:
            self.say(m.Cancel(number))
            self.answer(number, Interrupted())

    def answer(self, number: int, outcome: RunOutcome) -> bool:
        """End call NUMBER with OUTCOME. False if it was not pending."""
        self._starts.answered(number)
        if isinstance(outcome, Interrupted):
            self._decoder.drop(number)  # what has come of an answer that is not wanted
        self._held.pop(number, None)
        if self.open:
            leaving = isinstance(outcome, Interrupted) and number in self._outbox.unsent()
            going = self._allowance.ended(number, leaving)
            self._go(going)
            if going and not self._hearing:
                self.send()
        wasPending = super().answer(number, outcome)
        self._tellOfRecall()
        return wasPending

    def payloadOf(self, task: Task) -> tuple[bytes | ChunkedPayload, object]:
        """The call of TASK as bytes: the name of a method, and what it is passed."""
        call = task.call
        name = nameOf(call.f, self._universe)
        arguments = PIECES.dumpCall((call.args, dict(call.kw)), None, call.args, call.kw, call.__str__)
        payload = pack(name, self._thread, arguments)
        if not self._allowance.fits(len(payload)):
            most = 0 if self._terms is None else self._terms.messages
            raise SerializationError(
                f"{call} takes {len(payload)} bytes, and {self._server} takes no more than {most} of a client at once: "
                "send less, or serve with a higher limit messages"
            )
        return payload, None

    def hearOther(self, message: m.Message) -> None:
        """Hear what only a server says."""
        if isinstance(message, m.Started):
            self._starts.started(message.id)
            self._tellOfRecall()
        elif isinstance(message, m.Recalled):
            self.answer(message.id, Recalled())
        elif isinstance(message, m.Terms):
            self._agree(message)
        elif isinstance(message, m.Ping):
            self.say(m.Pong())
        elif isinstance(message, m.Refused):
            why = printable(bytes(whole(message.payload)[:MOST]).decode(errors="replace"))
            self.reason = f"{self._server} ended the connection: {why}"
        elif not isinstance(message, m.Pong):
            super().hearOther(message)

    def _hear(self, message: m.Message) -> None:
        if isinstance(message, m.Opened):
            number = message.id
            if number not in self._pending and number not in self._sources and 0 < number <= self._lastNumber:
                return  # the server has heard by now that it is not wanted; or it is none, whatever the server says
        super()._hear(message)

    def _tellOfRecall(self) -> None:
        if self.open and self._recalling != self._starts.recalling:
            self._recalling = self._starts.recalling
            self._onRecall(self._recalling)

    def _isWanted(self, number: int, held: int) -> bool:
        """Whether more may be held of the answer to call NUMBER, where HELD bytes are of all."""
        if not 0 < number <= self._lastNumber:
            raise FrameError(f"a part of an answer to call {number}, which was never made")
        if number not in self._pending and number not in self._sources:
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
            self.say(m.Cancel(number))
            self.answer(number, Raised(error))
        return False

    # What happens.

    def connectionMade(self) -> None:
        """Prove who is here, and have the server do so."""
        transport: Any = self.transport
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
        self._hurry = self._reactor.callLater(self._patience, self._tooLate)
        if self._shake is not None:
            self._obey(self._shake.begin())

    def dataReceived(self, data: bytes) -> None:
        """Hear what came: the proof first."""
        if self._shake is not None:
            self._obey(self._shake.received(data))
        elif data:
            self._heart.heard()
            super().dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """There is nobody to speak to any more."""
        self._cut = self._cut or reason.check(ConnectionAborted) is not None
        self._heart.stop()
        self._calm()
        if self._terms is not None:
            super().connectionLost(reason)
            self._outbox.drop()
            if self.shadow is not None:
                self.shadow.connectionLost(reason)
            return
        self.open = False
        if not self.proved.called:
            self.proved.errback(self._unproved(reason))

    def _unproved(self, reason: Failure) -> AuthenticationError | WorkerLost:
        if self._shake is None:
            return WorkerLost(self.reason)
        why = trustFailure(reason)
        if why is not None:
            return AuthenticationError(f"{self._server} and this client do not trust one another: {why}")
        why = reason.getErrorMessage().rstrip(".")
        return Ended(f"the connection to {self._server} was lost before it had proved itself: {why}")

    def _obey(self, commands: list[Command]) -> None:
        transport: Any = self.transport
        for command in commands:
            if isinstance(command, Say):
                transport.write(command.words)
            elif isinstance(command, Refuse):
                self.proved.errback(AuthenticationError(f"{self._server} cannot be trusted: {command.why}"))
                self.hangUp()
            elif isinstance(command, Proved):
                self._shake = None
                self._heart.start()
                self._outbox.open(transport)
                self.dataReceived(command.rest)

    def _agree(self, terms: m.Terms) -> None:
        """Keep to TERMS."""
        if self._terms is not None or min(terms) < 1:
            raise FrameError("terms that are none")
        if self._cut:
            return
        self._calm()
        self._terms = terms
        self._allowance = ClientQuota(terms.calls, terms.messages)
        if self._running > terms.running:
            self._log.warn(
                "{server} runs {most} calls at once for a client, and not {wanted}",
                server=self._server, most=terms.running, wanted=self._running,
            )  # fmt: skip
        self.say(m.Begin(min(self._running, terms.running)))
        self.proved.callback(None)

    def _go(self, numbers: list[int]) -> None:
        """The calls of NUMBERS may be sent."""
        for number in numbers:
            self._outbox.add(self._held.pop(number))

    def _cleared(self) -> None:
        """What had been said has left."""
        going = self._allowance.left(self._outbox.unsent())
        if going:
            self._go(going)
            self._outbox.flush()

    def _calm(self) -> None:
        if self._hurry is not None and self._hurry.active():
            self._hurry.cancel()

    def _tooLate(self) -> None:
        if not self.proved.called:
            why = f"{self._server} did not prove itself within {self._patience:g} seconds"
            self.proved.errback(WorkerLost(why))
        self.hangUp()

    def _ask(self) -> None:
        self.say(m.Ping())

    def _silent(self) -> None:
        hint = "" if self._thread else "; a method that blocks belongs in a thread there, by thread=True"
        self.reason = f"{self._server} was silent for {self._silence:g} seconds{hint}"
        self._log.error("the connection is given up: {why}", why=self.reason)
        self.hangUp()
