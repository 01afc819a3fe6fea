"""The far side of a wire: one client of a server, its calls and its iterators.

What a client may do, and when its calls start, `asynqueue.core.protocol.admission` decides. Methods run in the main
loop, or each in a thread of its own when the client wants it so.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from functools import partial
from inspect import iscoroutine
from time import perf_counter
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from asynqueue.core.flow.iterators import SLICE, isIterator
from asynqueue.core.protocol import messages as m
from asynqueue.core.protocol.admission import CallAdmission, ItemThrottle, LimitExceeded, Limits
from asynqueue.core.protocol.framing import WIRE_FRAME_LIMIT, Decoder, FrameError
from asynqueue.core.protocol.handshake import NONCE, Command, Proved, Refuse, Say, ServerHandshake
from asynqueue.core.protocol.payload import ChunkedPayload, joined
from asynqueue.core.records import CallSpec, Iterating, Raised, Returned, RunOutcome, Task
from asynqueue.errors import ImplementationError, SerializationError, WorkerError, WorkerLost
from asynqueue.interfaces import ItemSource
from asynqueue.iteration.sources import FetchSource, LocalSource, closeNext, fetchNext
from asynqueue.threads.worker import ThreadWorker
from asynqueue.transport.serialization import PIECES, dumpError, loads
from asynqueue.wire.endpoints import trustFailure
from asynqueue.wire.heartbeat import Heartbeat
from asynqueue.wire.universe import WireWorkerUniverse, unpack
from asynqueue.wire.writer import MessageWriter

if TYPE_CHECKING:
    from asynqueue.wire.server import WireServer


class ServerConnection(Protocol):
    """One client of SERVER, a stranger until it has proved itself."""

    _log = Logger(namespace="asynqueue")

    def __init__(
        self,
        server: WireServer,
        reactor: Any,  # it has a clock and threads, and no one interface for both
        universe: WireWorkerUniverse,
        methods: Mapping[str, Callable[..., Any]],  # its own, by name; they take and give anything
        limits: Limits,
        silence: float,
    ) -> None:
        self._server = server
        self._reactor = reactor
        self._universe = universe
        self._methods = methods
        self._limits = limits
        self._silence = silence
        self._shake: ServerHandshake | None = None
        self._proved = False
        self._over = False
        self._hurry: IDelayedCall | None = None
        self._heart = Heartbeat(reactor, silence, lambda: self._say(m.Ping()), self._silent)
        self._decoder = Decoder(WIRE_FRAME_LIMIT, limits.messages, piecemeal=True)
        self._outbox = MessageWriter(self._cleared)
        self._serving: CallAdmission | None = None
        self._calls: dict[int, m.Call] = {}  # those that have not started
        self._running: dict[int, Deferred[Any]] = {}  # what ends with an outcome, or with a user's result
        self._iterations: dict[int, _Iteration] = {}
        self._lanes: list[ThreadWorker] = []  # those that run nothing
        self._busyLanes: dict[int, ThreadWorker] = {}
        self._leaving = False
        self._recalling = False
        self._hearing = False
        self._proceeding = False
        self._later: IDelayedCall | None = None
        self.peer: str = "a client"
        self.host: str = ""  # where it is; nothing, if that is here

    # How a client comes and goes.

    def connectionMade(self) -> None:
        """A stranger is there."""
        transport: Any = self.transport
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
        self.peer = _describe(transport)
        self.host = getattr(transport.getPeer(), "host", "")
        self._hurry = self._reactor.callLater(self._limits.patience, self._tooLate)
        self._server.came(self)

    def dataReceived(self, data: bytes) -> None:
        """Hear what came: the proof first."""
        if self._over:
            return
        if not self._proved:
            if self._shake is None:
                self._shake = ServerHandshake(os.urandom(NONCE), self._server.key, self._certified())
            self._obey(self._shake.received(data))
            return
        self._heart.heard()
        self._hearing = True
        try:
            for message in self._decoder.feed(data):
                self._hear(message)
                if self._over:
                    return
        except (FrameError, LimitExceeded) as error:
            self.refuse(str(error))
        except ValueError as error:  # of a call that is none
            self.refuse(f"it makes no sense: {error}")
        finally:
            self._hearing = False
        self._proceed()

    def refuse(self, why: str) -> None:
        """End the connection for the reason WHY."""
        if self._over:
            return
        self._log.warn("refused {peer}: {why}", peer=self.peer, why=why)
        if self._proved:
            self._outbox.add(m.Refused(0, why.encode()))
            self._outbox.flush()
        self.hangUp()

    def _turnAway(self, why: str) -> None:
        """End the connection for the reason WHY, which the client, that has done nothing wrong, has time to hear."""
        self._log.warn("refused {peer}: {why}", peer=self.peer, why=why)
        self._over = True
        self._hurry = self._reactor.callLater(self._limits.patience, self.hangUp)
        self._outbox.add(m.Refused(0, why.encode()))
        self._outbox.close()

    def hangUp(self) -> None:
        """End the connection now."""
        self._over = True
        transport: Any = self.transport
        transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is gone: nothing of it goes on."""
        if not self._proved and not self._over:
            self._leftUnproved(reason)
        self._over = True
        self._heart.stop()
        for call in self._hurry, self._later:
            if call is not None and call.active():
                call.cancel()
        self._calls.clear()
        self._outbox.drop()
        self._decoder = Decoder()  # with none of what was on its way
        running, self._running = self._running, {}
        for number, ending in running.items():
            if number not in self._busyLanes:
                ending.cancel()
        for iteration in list(self._iterations.values()):
            iteration.close()
        for lane in [*self._lanes, *self._busyLanes.values()]:
            lane.crash()
        self._server.went(self)

    def _leftUnproved(self, reason: Failure) -> None:
        why = trustFailure(reason)
        if why is not None:
            self._log.warn("refused {peer}: {why}", peer=self.peer, why=why)
        else:
            why = reason.getErrorMessage().rstrip(".")
            self._log.warn("{peer} left before it had proved itself: {why}", peer=self.peer, why=why)

    def _certified(self) -> bool:
        transport: Any = self.transport
        return self._server.certified and transport.getPeerCertificate() is not None

    def _obey(self, commands: list[Command]) -> None:
        transport: Any = self.transport
        for command in commands:
            if isinstance(command, Say):
                transport.write(command.words)
            elif isinstance(command, Refuse):
                self._log.warn("refused {peer}: {why}", peer=self.peer, why=command.why)
                self._over = True
                transport.loseConnection()
            elif isinstance(command, Proved):
                self._shake = None
                self._proved = True
                if self._hurry is not None:
                    self._hurry.cancel()
                self._outbox.open(transport)
                self._heart.start()
                if self._server.proved(self):
                    limits = self._limits
                    self._say(m.Terms(limits.calls, limits.messages, limits.running))
                    self._say(m.Ready(os.getpid()))
                else:
                    self._turnAway("the server has as many clients as it takes")

    def _tooLate(self) -> None:
        self._hurry = None
        self.refuse(f"it did not prove itself within {self._limits.patience:g} seconds")
        self.hangUp()

    def _silent(self) -> None:
        self.refuse(f"it was silent for {self._silence:g} seconds")

    # What the client says.

    def _say(self, message: m.ToNear) -> None:
        self._outbox.add(message)
        if not self._proceeding and not self._hearing:
            self._outbox.flush()

    def _hear(self, message: m.Message) -> None:
        if isinstance(message, m.Call) and self._serving is not None:
            self._serving.called(message.id, len(message.payload))
            self._calls[message.id] = message
        elif isinstance(message, m.Ping):
            if self._outbox.clear:  # else there is something to be heard of this side, for who reads at all
                self._say(m.Pong())
        elif isinstance(message, m.Pong):
            pass
        elif isinstance(message, m.Begin):
            if self._serving is not None:
                raise LimitExceeded("it begins twice")
            self._serving = CallAdmission(message.running, self._limits)
        elif self._serving is None:
            raise LimitExceeded("it has not begun")
        elif isinstance(message, m.Grant):
            if message.id in self._iterations:
                self._iterations[message.id].granted(message.items)
        elif isinstance(message, m.Close):
            if message.id in self._iterations:
                self._iterations[message.id].close()
        elif isinstance(message, m.Recall):
            self._recalling = True
            self._giveBack(self._serving)
        elif isinstance(message, m.Cancel):
            self._letGo(self._serving, message.id)
        elif isinstance(message, m.Goodbye):
            self._leaving = True
        else:
            raise FrameError(f"a {type(message).__name__} from a client")

    def _giveBack(self, serving: CallAdmission) -> None:
        """Give back what was recalled: soon, when the client is in the way of reading it."""
        if self._recalling and self._outbox.small < self._limits.backlog:
            self._recalling = False
            for number in serving.recalled():
                del self._calls[number]
                self._say(m.Recalled(number))

    def _letGo(self, serving: CallAdmission, number: int) -> None:
        """Call NUMBER is not wanted."""
        self._calls.pop(number, None)
        if number in self._iterations:
            self._iterations[number].close()
        if not serving.cancelled(number):
            return
        ending = self._running.pop(number)
        lane = self._busyLanes.pop(number, None)
        ending.cancel()
        if lane is not None:  # its thread was abandoned, and has been replaced
            self._lanes.append(lane)

    # What runs.

    def _cleared(self) -> None:
        """What had been said has left."""
        for iteration in list(self._iterations.values()):
            iteration.draw()
        if not self._proceeding and not self._hearing:
            self._proceed()

    def _proceed(self) -> None:
        """Start what may start, for as long as a slice lasts; say what there is to say."""
        serving = self._serving
        if self._proceeding or self._over or serving is None:
            self._outbox.flush()
            return
        self._proceeding = True
        deadline = perf_counter() + SLICE
        try:
            while self._outbox.clear and not self._over:
                number = serving.left()
                if number is None:
                    number = self._next(serving)
                    if number is None:
                        break
                    self._outbox.add(m.Started(number))
                    self._outbox.flush()  # and it has left, if the outbox is clear still; else we are told when
                    continue
                self._run(self._calls.pop(number))
                if perf_counter() > deadline:
                    if self._later is None:
                        self._later = self._reactor.callLater(0, self._proceedLater)
                    break
            self._outbox.flush()
        finally:
            self._proceeding = False
        if self._leaving and serving.idle and not self._iterations:
            self._over = True
            self._outbox.close()

    def _next(self, serving: CallAdmission) -> int | None:
        """The call to be announced now, if any."""
        self._giveBack(serving)
        number = serving.next(self._outbox.small, self._outbox.large)
        if number is None and self._outbox.size:
            self._outbox.flush()  # what leaves at once makes room
            if self._outbox.clear:
                number = serving.next(self._outbox.small, self._outbox.large)
        return number

    def _proceedLater(self) -> None:
        self._later = None
        self._proceed()

    def _run(self, call: m.Call) -> None:
        started = perf_counter()
        try:
            method, args, kw, thread = self._called(call)
            if thread:
                self._runInThread(call, CallSpec(method, args, kw))
                return
            started = perf_counter()
            result = method(*args, **kw)
        except BaseException as error:  # SystemExit too: it is the call that ends, not the server
            self._ended(call.id, Raised(error, perf_counter() - started))
        else:
            self._gave(call, result, started)

    def _called(self, call: m.Call) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], bool]:
        name, thread, arguments = unpack(call.payload)
        method = self._methods.get(name)
        if method is None:
            universe = type(self._universe).__name__
            self._log.warn(
                "refused {peer} a call: {universe} has no public method {name!r}",
                peer=self.peer, universe=universe, name=name,
            )  # fmt: skip
            raise ImplementationError(f"{universe} has no public method {name!r}")
        args, kw = loads(arguments, "the call")
        return method, args, kw, thread

    def _runInThread(self, call: m.Call, spec: CallSpec[Any]) -> None:
        lane = self._lanes.pop() if self._lanes else ThreadWorker(reactor=self._reactor)
        self._busyLanes[call.id] = lane
        ending = self._running[call.id] = lane.run(Task(call.id, spec, raw=call.raw))
        ending.addCallback(self._threadEnded, call, lane)

    def _threadEnded(self, outcome: RunOutcome, call: m.Call, lane: ThreadWorker) -> None:
        if self._running.pop(call.id, None) is None:
            if isinstance(outcome, Iterating):
                outcome.source.close()
            return  # it was not wanted any more
        del self._busyLanes[call.id]
        self._lanes.append(lane)
        if isinstance(outcome, Returned) and isinstance(outcome.value, (Deferred, Coroutine, AsyncIterator)):
            self._gave(call, outcome.value, perf_counter() - outcome.seconds)
        else:
            self._ended(call.id, outcome)

    def _gave(self, call: m.Call, result: Any, started: float) -> None:
        """The method has given RESULT, which may be no result yet. (It is of any type.)"""
        if iscoroutine(result):
            result = Deferred.fromCoroutine(_asCoroutine(result))
        if isinstance(result, Deferred):
            self._running[call.id] = result
            result.addBoth(self._fired, call, started)
        elif not call.raw and isinstance(result, AsyncIterator):
            fetch, close = partial(fetchNext, result), partial(closeNext, result)
            self._ended(call.id, Iterating(FetchSource(fetch, close, self._reactor), perf_counter() - started))
        elif not call.raw and isIterator(result):
            self._ended(call.id, Iterating(LocalSource(result, self._reactor), perf_counter() - started))
        else:
            self._ended(call.id, Returned(result, perf_counter() - started))

    def _fired(self, result: Any, call: m.Call, started: float) -> None:
        if self._running.pop(call.id, None) is None:
            return  # it was not wanted any more
        if isinstance(result, Failure):
            error = result.value or WorkerError("the method failed")
            if isinstance(error, CancelledError) and self._over:
                return
            self._ended(call.id, Raised(error, perf_counter() - started))
        else:
            self._gave(call, result, started)

    def _ended(self, number: int, outcome: RunOutcome) -> None:
        """Tell how call NUMBER has ended."""
        assert self._serving is not None
        self._serving.ended(number)
        if isinstance(outcome, Iterating) and len(self._iterations) >= self._limits.iterations:
            self._log.warn("refused {peer} an iteration: it has as many as it may", peer=self.peer)
            outcome.source.close()
            why = f"no more than {self._limits.iterations} iterators may be open on this connection"
            outcome = Raised(WorkerError(why), outcome.seconds)
        if isinstance(outcome, Returned):
            try:
                answer: m.ToNear = m.Returned(number, outcome.seconds, PIECES.dumpResult(outcome.value))
            except SerializationError as error:
                answer = m.Raised(number, outcome.seconds, dumpError(error))
        elif isinstance(outcome, Iterating):
            self._iterations[number] = _Iteration(self, number, outcome.source, self._limits.backlog)
            answer = m.Opened(number, outcome.seconds)
        elif isinstance(outcome, Raised):
            answer = m.Raised(number, outcome.seconds, dumpError(outcome.error))
        else:
            answer = m.Raised(number, 0.0, dumpError(WorkerLost("the thread of this call was abandoned")))
        self._outbox.add(answer)
        if not self._proceeding:
            self._proceed()

    # What iterates. (For the iterations.)

    def backlog(self) -> int:
        """How many bytes wait to be sent."""
        return self._outbox.size

    def tell(self, message: m.ToNear) -> None:
        """Say MESSAGE, which is of an iteration."""
        if not self._over:
            self._say(message)

    def iterated(self, number: int) -> None:
        """An iteration has ended."""
        self._iterations.pop(number, None)
        if self._leaving:
            self._proceed()


class _Iteration:
    """Sends the items of SOURCE to CLIENT, as those of call NUMBER."""

    def __init__(self, client: ServerConnection, number: int, source: ItemSource, backlog: int) -> None:
        self._client = client
        self._number = number
        self._source = source
        self._tap = ItemThrottle(backlog)
        self._over = False
        source.begin(self)

    def granted(self, items: int) -> None:
        """The client wants ITEMS more."""
        self._tap.granted(items)
        self.draw()

    def draw(self) -> None:
        """Have the iterator go on, if it may."""
        items = 0 if self._over else self._tap.draw(self._client.backlog())
        if items:
            self._source.grant(items)

    def close(self) -> None:
        """No more items are wanted."""
        self._source.close()

    def arrived(self, items: Sequence[Any], more: bool = False) -> None:
        """ITEMS have come from the iterator."""
        if self._over:
            return
        dumped: list[bytes | ChunkedPayload] = []
        refusal: SerializationError | None = None
        for item in items:
            try:
                dumped.append(PIECES.dumpItem(item))
            except SerializationError as error:
                refusal = error
                break
        payload = joined(dumped)
        self._tap.arrived(len(items), len(payload))
        if dumped:
            self._client.tell(m.Items(self._number, len(dumped), payload))
        if refusal is not None:
            self.over(refusal)
            self._source.close()
        else:
            self.draw()

    def over(self, error: BaseException | None) -> None:
        """There are no more."""
        if self._over:
            return
        self._over = True
        number = self._number
        self._client.tell(m.Exhausted(number) if error is None else m.Failed(number, dumpError(error)))
        self._client.iterated(number)


async def _asCoroutine(coroutine: Coroutine[Any, Any, Any]) -> Any:  # it gives what the user's gives
    return await coroutine


def _describe(transport: Any) -> str:
    """Who is at the other end of TRANSPORT, for people."""
    peer = transport.getPeer()
    host, port = getattr(peer, "host", None), getattr(peer, "port", None)
    if host is not None:
        return f"{host}:{port}"
    name = getattr(transport.getHost(), "name", None) or peer
    return f"a client of {os.fsdecode(name) if isinstance(name, bytes) else name}"
