"""The near side of a link: the one Twisted protocol that speaks `asynqueue.core.protocol.messages`.

A `Link` turns tasks into calls and what comes back into outcomes, one Deferred a task. It knows nothing of how
the far side came to be: `asynqueue.process` makes one over a socket to a process of its own, and
`asynqueue.wire` a kind of its own over a connection to another machine. When the connection is lost, its owner is
told, and then calls `conclude`, which ends everything that was pending: what had no permit left as `Lost`, what
had not started as `Recalled`.

What differs from one kind of link to another has a method of its own, without an underscore: how a call is put into
bytes (`payloadOf`), how what was said is sent (`send`), what is known never to start (`revoke`), how a call is let
go of (`interrupt`), and what else may be said (`receiveOther`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any
from typing import Protocol as Typed

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from asynqueue.core.protocol import messages as m
from asynqueue.core.protocol.framing import Decoder, FrameError, encode
from asynqueue.core.protocol.liveness import isStuckUnstarted
from asynqueue.core.protocol.payload import ChunkedPayload
from asynqueue.core.protocol.spinning import SPIN
from asynqueue.core.records import Interrupted, Iterating, Lost, Raised, Recalled, Returned, RunOutcome, Task
from asynqueue.errors import AsynQueueError, SerializationError, WorkerLost
from asynqueue.interfaces import ItemSink, Report
from asynqueue.reactor.spinner import Spinner
from asynqueue.reactor.watchdog import CloseWatchdog
from asynqueue.transport.residents import Residents
from asynqueue.transport.serialization import loadError, loadItems, loads
from asynqueue.transport.sharedmemory import SharedMemoryChannel


class _Pending:
    """A call that was sent and has not been answered, and TO whom that goes: a Deferred, or under which ticket."""

    __slots__ = ("owner", "task", "to")

    def __init__(self, task: Task, to: Deferred[RunOutcome] | int, owner: object) -> None:
        self.task = task
        self.to = to
        self.owner = owner  # what becomes resident when this update has run


class LinkSource:
    """The items of an iterator on the far side of a link."""

    def __init__(self, link: Link, number: int) -> None:
        self._link = link
        self._number = number
        self._sink: ItemSink | None = None

    def begin(self, sink: ItemSink) -> None:
        """Send to SINK what comes."""
        self._sink = sink

    def grant(self, items: int) -> None:
        """Let the far side send ITEMS more."""
        if self._link.open:
            self._link.send(m.Grant(self._number, items))
        else:
            self.over(WorkerLost("the iteration ended early: its worker is gone"))

    def close(self) -> None:
        """Have the far side close the iterator; it is over when that has happened."""
        self._link.closeSource(self._number)

    def arrived(self, number: int, payload: m.Payload) -> None:
        """Items have come."""
        items, error = loadItems(number, payload, self._link.channel)
        if self._sink is not None:
            self._sink.arrived(items)
            if error is not None:
                self.close()
                self._sink.over(error)

    def over(self, error: BaseException | None) -> None:
        """Nothing more comes."""
        if self._sink is not None:
            self._sink.over(error)


class Permits(Typed):
    """Who knows which calls may have started."""

    def give(self, numbers: Sequence[int]) -> None:
        """The calls of NUMBERS, which go up, may start."""

    def revoke(self) -> list[int]:
        """The numbers of the calls that, from now on, will never start."""
        raise NotImplementedError

    def close(self) -> None:
        """There are no more calls."""


class Link(Protocol):
    """Speaks to a far side, whose calls need PERMITS to start.

    ONLOST is called when there is nobody to speak to any more; ONINTERRUPT when the call that runs over there
    has to end, for which the far side has to end; REPORT with the outcomes of what was given under tickets.
    Large values go over CHANNEL, if there is one.
    """

    _log = Logger(namespace="asynqueue")

    def __init__(
        self,
        permits: Permits,
        onLost: Callable[[], None],
        onInterrupt: Callable[[], None],
        report: Report | None = None,
        channel: SharedMemoryChannel | None = None,
    ) -> None:
        self._permits = permits
        self._report = report
        self.channel: SharedMemoryChannel | None = channel
        self._onLost = onLost
        self._onInterrupt = onInterrupt
        self._decoder = Decoder()
        self._pending: dict[int, _Pending] = {}
        self._sources: dict[int, LinkSource] = {}
        self._residents = Residents(channel)
        self._lastNumber = 0
        self._permitted: list[int] = []  # these three: what is said while something is heard, sent when it has been
        self._outgoing: list[bytes] = []
        self._incoming: deque[m.Message] = deque()  # what came and was not acted on yet
        self._outcomes: list[tuple[int, RunOutcome]] = []  # what is to be reported
        self.received: int = 0  # how often data has come
        self._since = 0.0  # when something came last, or was sent to a far side that had nothing to answer
        self._waited = 0.0  # how long calls that were then not wanted had waited to start since something came
        self._receiving = False
        self._whenIdle: Callable[[], None] | None = None
        self._whenReady: Callable[[], None] | None = None
        self.open: bool = True
        self.closeWatchdog: CloseWatchdog | None = None  # with which the far side has only so long to close an iterator
        self.spinner: Spinner | None = None  # with which the answer to a quick call that is alone is looked out for
        self._lastWasQuick = False
        self.ready: bool = False  # the far side has spoken

    @property
    def unfinished(self) -> list[Task]:
        """The tasks without an outcome, in the order in which they were sent."""
        return [pending.task for pending in self._pending.values()]

    @property
    def numbers(self) -> list[int]:
        """The numbers of the calls without an outcome, in the order in which they were sent."""
        return list(self._pending)

    @property
    def iterations(self) -> int:
        """How many iterators the far side has."""
        return len(self._sources)

    # What the near side wants.

    def call(self, task: Task, raw: bool) -> Deferred[RunOutcome]:
        """Send TASK; with RAW, an iterator comes back as it is, if it can."""
        number = self._lastNumber + 1
        deferred: Deferred[RunOutcome] = Deferred(lambda _: self.interrupt(number))
        self._submit(task, raw, deferred)
        return deferred

    def give(self, runs: Sequence[tuple[int, Task]], raw: bool) -> None:
        """Send the tasks of RUNS, now and as `call` does, and report each outcome under its ticket.

        RAW is for those that say nothing of it.
        """
        outer, self._receiving = self._receiving, True
        try:
            for ticket, task in runs:
                self._submit(task, raw if task.raw is None else task.raw, ticket)
        finally:
            self._receiving = outer
            self.flush()
        if self._outcomes and not outer:
            self._reportOutcomes()

    def cancel(self, ticket: int) -> None:
        """Be free of the task of TICKET, if it has no outcome, as by cancelling what `call` gives."""
        for number, pending in self._pending.items():
            if pending.to == ticket:
                self.interrupt(number)
                self._reportOutcomes()
                break

    def closeSource(self, number: int) -> None:
        """Have the far side close the iterator that call NUMBER gave."""
        self.send(m.Close(number))
        if self.open and self.closeWatchdog is not None and number in self._sources:
            self.closeWatchdog.closeSent(number)

    def goodbye(self) -> None:
        """Have the far side end when it has made the calls that it was sent; it closes its iterators then."""
        self.send(m.Goodbye())
        if self.open and self.closeWatchdog is not None:
            for number in self._sources:
                self.closeWatchdog.closeSent(number)

    def closeTimedOut(self) -> None:
        """Have the far side end, which is stuck, unless a call has started there."""
        unstarted = self.revoke()
        if not self._startedBut(unstarted):
            self._onInterrupt()
        for number in unstarted:
            self.answer(number, Recalled())
        self._reportOutcomes()

    def send(self, message: m.ToRemote) -> None:
        """Send MESSAGE, if there is anybody to hear it."""
        if self.open:
            self._outgoing.append(encode(message))
            if not self._receiving:
                self.flush()

    def recall(self) -> None:
        """End what the far side has not started as `Recalled`."""
        for number in self.revoke():
            self.answer(number, Recalled())
        self._reportOutcomes()

    def abort(self) -> None:
        """End the connection, if it has not ended."""
        transport: Any = self.transport  # ITransport does not say all that a socket's transport can do
        if self.open and transport is not None:
            transport.abortConnection()

    def poll(self) -> bool:
        """Hear what has come, if anything has. False if it has not."""
        received = self.received
        transport: Any = self.transport  # as above
        if self.open and transport is not None:
            transport.doRead()
        return self.received != received

    def drainInput(self) -> None:
        """Hear now what has come and was not heard yet: a far side that is made to end may have said a lot."""
        while self.poll():
            pass

    def started(self) -> list[int]:
        """Return the numbers of the calls that have started and have no outcome. No other call starts from now on."""
        self._permitted = self.revoke()
        return self._startedBut(self._permitted)

    def whenReady(self, then: Callable[[], None]) -> None:
        """Call THEN, once, when the far side has spoken: now, if it has."""
        self._whenReady = then
        self._notifyIfReady()

    def whenIdle(self, then: Callable[[], None]) -> None:
        """Call THEN, once, when no call and no iteration is left here: now, if there is none."""
        self._whenIdle = then
        self._notifyIfIdle()

    def conclude(self, reason: str) -> None:
        """End all that is pending, for REASON: nothing more will be heard."""
        self.open = False
        if self.closeWatchdog is not None:
            self.closeWatchdog.end()
        self.recall()
        self._permits.close()
        for number in list(self._pending):
            self.answer(number, Lost(reason))
        self._reportOutcomes()
        for source in list(self._sources.values()):
            source.over(WorkerLost(f"the iteration ended early: {reason}"))
        self._sources.clear()

    # What the far side says.

    def dataReceived(self, data: bytes) -> None:
        """Hear what came."""
        outer, self._receiving = self._receiving, True
        self.received += 1
        self._since = perf_counter()
        self._waited = 0.0
        try:
            self._incoming.extend(self._decoder.feed(data))
            while self._incoming:
                message = self._incoming.popleft()
                if isinstance(message, m.Returned):
                    self._returned(message)
                else:
                    self._receive(message)
            self._reportOutcomes()
        except (FrameError, ValueError) as error:
            self._log.error("what the far side says makes no sense: {error}", error=error)
            self.abort()
        finally:
            self._receiving = outer
            self.flush()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """There is nobody to speak to any more."""
        self.open = False
        if self.spinner is not None:
            self.spinner.end()
        self._onLost()

    def flush(self) -> None:
        """Send what was said, at once for all that a turn has to say: first the permits, then the calls."""
        if self.open and self.transport is not None and self._outgoing:
            self._permits.give(self._permitted)
            self.transport.write(b"".join(self._outgoing))  # pyright: ignore[reportAttributeAccessIssue]  # zope's
            self._permitted.clear()
            self._outgoing.clear()
            if self._lastWasQuick and self.spinner is not None and len(self._pending) == 1:
                self.spinner.begin()

    def _submit(self, task: Task, raw: bool, to: Deferred[RunOutcome] | int) -> None:
        number = self._lastNumber + 1
        if not self._pending:
            self._since = perf_counter()
        self._pending[number] = pending = _Pending(task, to, None)
        try:
            payload, pending.owner = self.payloadOf(task)
        except AsynQueueError as error:
            self.answer(number, Raised(error))
            return
        self._lastNumber = number
        self._permitted.append(number)
        self.send(m.Call(number, raw, payload))

    def _reportOutcomes(self) -> None:
        """Report what is to be reported."""
        while self._outcomes and self._report is not None:
            outcomes, self._outcomes = self._outcomes, []
            self._report(outcomes)
            self._notifyIfIdle()

    def revoke(self) -> list[int]:
        """The numbers of the calls that have not started, and never will on this link."""
        self.flush()
        unsent = list(self._permitted)
        self._permitted.clear()
        return self._permits.revoke() + unsent

    def _receive(self, message: m.Message) -> None:
        if isinstance(message, m.Items):
            if message.id in self._sources:
                self._sources[message.id].arrived(message.number, message.payload)
            elif self.channel is not None:
                loadItems(message.number, message.payload, self.channel)  # or what is large would not be let go of
        elif isinstance(message, m.Raised):
            self.answer(message.id, Raised(loadError(message.payload), message.seconds))
        elif isinstance(message, m.Opened):
            if message.id in self._sources or not 0 < message.id <= self._lastNumber:
                raise FrameError(f"an iterator of call {message.id}, which has one already or was never made")
            source = self._sources[message.id] = LinkSource(self, message.id)
            if not self.answer(message.id, Iterating(source, message.seconds)):
                source.close()
        elif isinstance(message, m.Exhausted):
            self._over(message.id, None)
        elif isinstance(message, m.Failed):
            self._over(message.id, loadError(message.payload))
        elif isinstance(message, m.Ready):
            self.ready = True
            self._notifyIfReady()
        else:
            self.receiveOther(message)

    def payloadOf(self, task: Task) -> tuple[bytes | ChunkedPayload, object]:
        """The call of TASK as bytes, and the object that becomes resident by it, if any. Raises an
        `AsynQueueError`, with which the call fails."""
        return self._residents.payload(task, self._lastNumber + 1)

    def receiveOther(self, message: m.Message) -> None:
        """Hear what not every far side says. Raises `FrameError` for what this one does not."""
        raise FrameError(f"a {type(message).__name__} from the far side")

    def _returned(self, message: m.Returned) -> None:
        self._lastWasQuick = message.seconds < SPIN
        try:
            value = loads(message.payload, "the result", self.channel)
        except SerializationError as error:
            self.answer(message.id, Raised(error, message.seconds))
        else:
            self.answer(message.id, Returned(value, message.seconds))

    def _over(self, number: int, error: BaseException | None) -> None:
        source = self._sources.pop(number, None)
        if source is not None:
            if self.closeWatchdog is not None:
                self.closeWatchdog.ended(number)
            source.over(error)
            self._notifyIfIdle()

    def answer(self, number: int, outcome: RunOutcome) -> bool:
        """End call NUMBER with OUTCOME. False if it was not pending."""
        pending = self._pending.pop(number, None)
        if pending is None:
            return False
        if pending.owner is not None:
            self._residents.ended(pending.owner, number, outcome)
        if isinstance(pending.to, int):
            self._outcomes.append((pending.to, outcome))
        else:
            pending.to.callback(outcome)
            self._notifyIfIdle()
        return True

    def _notifyIfReady(self) -> None:
        if self._whenReady is not None and self.ready:
            then, self._whenReady = self._whenReady, None
            then()

    def _notifyIfIdle(self) -> None:
        if self._whenIdle is not None and not (self._pending or self._sources or self._outcomes):
            then, self._whenIdle = self._whenIdle, None
            then()

    def interrupt(self, number: int) -> None:
        """A call is not wanted any more. Nothing else suffers for it."""
        unstarted = self.revoke()
        started = self._startedBut(unstarted)
        if number in unstarted:
            now = perf_counter()
            self._waited += now - self._since
            self._since = now
            ends = self.ready and isStuckUnstarted(self._waited, len(started), len(self._sources))
        else:
            ends = started[-1:] == [number]  # any before it has ended, its answer is on the way
        if ends:
            self._onInterrupt()
        for n in unstarted:
            self.answer(n, Recalled())
        self.answer(number, Interrupted())

    def _startedBut(self, unstarted: Sequence[int]) -> list[int]:
        """The calls without an outcome, but for those UNSTARTED."""
        return [number for number in self._pending if number not in unstarted]
