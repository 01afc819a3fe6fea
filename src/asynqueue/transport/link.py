"""The parent's end of a link: the one Twisted protocol that speaks `asynqueue.core.protocol.messages`.

A `Link` sends tasks as calls and turns the answers into outcomes, one for each task. It does not know how the worker at
the other end was started: `asynqueue.process` makes a link over a socket to a child process, and `asynqueue.wire` a
subclass over a connection to another machine. When the connection is lost, the link notifies its owner. The owner then
calls `conclude`, which ends all pending calls. `asynqueue.core.protocol.runqueue` decides how calls end that are
cancelled, recalled or lost.

A subclass may override the following methods:

===============  ==============================================
`payloadOf`      how a call is encoded
`flush`          how sent messages are written
`revoke`         which calls are known never to start
`interrupt`      how a call is cancelled
`receiveOther`   which further messages are understood
===============  ==============================================
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from asynqueue.core.protocol import messages as m
from asynqueue.core.protocol.chunkedpayload import ChunkedPayload
from asynqueue.core.protocol.framing import Decoder, FrameError, encode
from asynqueue.core.protocol.runqueue import Outcomes, RunQueue
from asynqueue.core.protocol.spinning import SPIN
from asynqueue.core.records import Iterating, Raised, Returned, RunOutcome, Task
from asynqueue.core.results import isA
from asynqueue.errors import AsynQueueError, SerializationError, WorkerLost
from asynqueue.interfaces import Report
from asynqueue.reactor.spinner import Spinner
from asynqueue.reactor.watchdog import CloseWatchdog
from asynqueue.transport.callcodec import CallEncoder
from asynqueue.transport.errorcodec import loadError
from asynqueue.transport.items import LinkSource
from asynqueue.transport.permits import PermitIssuer
from asynqueue.transport.residents import Residents, notSent
from asynqueue.transport.serialization import Undelivered, loadItems, loads
from asynqueue.transport.sharedmemory import SharedMemoryChannel


class _Pending:
    """A call without an outcome, which is reported under TICKET."""

    __slots__ = ("deadline", "owner", "task", "ticket")

    def __init__(self, task: Task, ticket: int) -> None:
        self.task = task
        self.ticket = ticket
        self.owner: object = None  # the object that becomes resident when this update has run
        self.deadline: float | None = None  # for `Link.finishCancelled`: when its timeout has passed


class Link(Protocol):
    """A connection to a worker. Its calls need PERMITS to start, unless a subclass knows by itself what has started.

    - ONLOST is called when the connection is lost.
    - ONINTERRUPT is called when the worker has to be ended, because a call is cancelled or it is stuck.
    - REPORT is called with the outcomes of tasks.
    - The worker runs one call at a time, if it is SINGLE.
    - Large values go over CHANNEL, if there is one.
    """

    _log = Logger(namespace="asynqueue")

    def __init__(
        self,
        permits: PermitIssuer | None,
        onLost: Callable[[], None],
        onInterrupt: Callable[[], None],
        report: Report,
        channel: SharedMemoryChannel | None = None,
        single: bool = True,
    ) -> None:
        self.open: bool = True
        self.ready: bool = False  # the worker can start calls
        self.received: int = 0  # how many times data has come
        self.channel: SharedMemoryChannel | None = channel
        self.closeWatchdog: CloseWatchdog | None = None  # limits the time that the worker has to close an iterator
        self.spinner: Spinner | None = None  # polls for the answer of a single short call
        self.finishCancelled: Callable[[], float] | None = None
        """A clock. If it is set, a running call that is cancelled before its timeout goes on to its end."""
        self._permits = permits
        self._report = report
        self._onLost = onLost
        self._onInterrupt = onInterrupt
        self._decoder = Decoder()
        self._runs: RunQueue[int, _Pending] = RunQueue(single)  # by number
        self._sources: dict[int, LinkSource] = {}
        self._residents = Residents(CallEncoder(channel, byName=True))
        self._lastNumber = 0
        self._receiving = False  # while True, messages are collected, and written at the end
        self._permitted: list[int] = []  # the collected calls
        self._outgoing: list[bytes] = []  # the collected messages
        self._incoming: deque[m.Message] = deque()
        self._outcomes: list[tuple[int, RunOutcome]] = []  # not reported yet
        self._lastWasShort = False
        self._whenIdle: Callable[[], None] | None = None
        self._whenReady: Callable[[], None] | None = None

    @property
    def unfinished(self) -> list[Task]:
        """The tasks without an outcome, in the order in which they were sent."""
        return [pending.task for pending in self._runs.calls.values()]

    @property
    def iterations(self) -> int:
        """The number of iterators that the worker has."""
        return len(self._sources)

    # For the owner.

    def give(self, runs: Sequence[tuple[int, Task]], raw: bool) -> None:
        """Send the tasks of RUNS, and report the outcome of each under its ticket.

        RAW holds for tasks that do not have a `raw` of their own: an iterator is a result like any other.
        """
        outer, self._receiving = self._receiving, True
        now = perf_counter()
        try:
            for ticket, task in runs:
                self._submit(task, raw if task.raw is None else task.raw, ticket, now)
        finally:
            self._receiving = outer
            self.flush()
        if self._outcomes and not outer:
            self._reportOutcomes()

    def cancel(self, ticket: int) -> None:
        """Cancel the call that is reported under TICKET, if it has no outcome."""
        for number, pending in self._runs.calls.items():
            if pending.ticket == ticket:
                self.interrupt(number)
                break

    def closeSource(self, number: int) -> None:
        """Ask the worker to close the iterator that call NUMBER has returned."""
        self.send(m.Close(number))
        if self.open and self.closeWatchdog is not None and number in self._sources:
            self.closeWatchdog.closeSent(number)

    def goodbye(self) -> None:
        """Ask the worker to end when it has made all calls that were sent. It then closes its iterators."""
        self.send(m.Goodbye())
        if self.open and self.closeWatchdog is not None:
            for number in self._sources:
                self.closeWatchdog.closeSent(number)

    def closeTimedOut(self) -> None:
        """End the worker, which is stuck in an iterator, unless a call has started there. (For the watchdog.)"""
        self._carryOut(*self._runs.stuck(self.revoke()))

    def send(self, message: m.ToRemote) -> None:
        """Send MESSAGE, if the connection is open."""
        if self.open:
            self._outgoing.append(encode(message))
            if not self._receiving:
                self.flush()

    def recall(self) -> None:
        """End all calls that have not started as `Recalled`."""
        self.answerAll(self._runs.takenBack(self.revoke()))

    def abort(self) -> None:
        """End the connection, if it is open."""
        transport: Any = self.transport  # ITransport does not have all methods of a socket's transport.
        if self.open and transport is not None:
            transport.abortConnection()

    def poll(self) -> bool:
        """Receive data if there is any. Return whether there was."""
        received = self.received
        transport: Any = self.transport  # as above
        if self.open and transport is not None:
            transport.doRead()
        return self.received != received

    def drainInput(self) -> None:
        """Receive all data that has come: a worker that has ended may have answered many calls before."""
        while self.poll():
            pass

    def started(self) -> list[int]:
        """Return the numbers of the calls that have started and have no outcome. No other call starts from now on."""
        self._runs.takenBack(self.revoke())
        return self._runs.begun

    def whenReady(self, then: Callable[[], None]) -> None:
        """Call THEN once, when the worker can start calls: now, if it can."""
        self._whenReady = then
        self._notifyIfReady()

    def whenIdle(self, then: Callable[[], None]) -> None:
        """Call THEN once, when no call and no iteration is left: now, if there is none."""
        self._whenIdle = then
        self._notifyIfIdle()

    def conclude(self, reason: str) -> None:
        """End all pending calls and iterations for REASON. Nothing is received from now on."""
        self.open = False
        if self.closeWatchdog is not None:
            self.closeWatchdog.end()
        outcomes = self._runs.lost(self.revoke(), reason)
        if self._permits is not None:
            self._permits.close()
        self.answerAll(outcomes)
        for source in list(self._sources.values()):
            source.over(WorkerLost(f"the iteration ended early: {reason}"))
        self._sources.clear()

    # For the transport.

    def dataReceived(self, data: bytes) -> None:
        """Act on all messages that are complete with DATA."""
        outer, self._receiving = self._receiving, True
        self.received += 1
        self._runs.received(perf_counter())
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
            self._log.error("a worker sent an invalid message, and its connection is ended: {error}", error=error)
            self.abort()
        finally:
            self._receiving = outer
            self.flush()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Notify the owner that the connection is lost."""
        self.open = False
        if self.spinner is not None:
            self.spinner.end()
        self._onLost()

    # Sending.

    def flush(self) -> None:
        """Write all collected messages at once: first the permits, then the calls."""
        if self.open and self.transport is not None and self._outgoing:
            if self._permits is not None:
                self._permits.give(self._permitted)
            self.transport.write(b"".join(self._outgoing))  # pyright: ignore[reportAttributeAccessIssue]  # zope's
            self._permitted.clear()
            self._outgoing.clear()
            if self._lastWasShort and self.spinner is not None and len(self._runs.calls) == 1:
                self.spinner.begin()

    def revoke(self) -> list[int]:
        """Revoke all permits that are left. Return the numbers of their calls, which never start on this link."""
        self.flush()
        unsent = list(self._permitted)
        self._permitted.clear()
        return unsent if self._permits is None else self._permits.revoke() + unsent

    def interrupt(self, number: int) -> None:
        """End call NUMBER, which is cancelled. No other call is charged with that."""
        idle = self.ready and not self._sources
        finishes = self._mayFinish(number)
        self._carryOut(*self._runs.interrupt(number, self.revoke(), perf_counter(), idle, finishes))

    def _carryOut(self, ends: bool, outcomes: Outcomes[int]) -> None:
        if ends:
            self._onInterrupt()
        self.answerAll(outcomes)

    def answerAll(self, outcomes: Outcomes[int]) -> None:
        """End calls, each with its outcome, and report that."""
        for number, outcome in outcomes:
            self.answer(number, outcome)
        self._reportOutcomes()

    def payloadOf(self, task: Task) -> tuple[bytes | ChunkedPayload, object]:
        """Return the call of TASK as a payload, and the object that becomes resident by it, if any.

        Raises an `AsynQueueError`, with which the call fails.
        """
        return self._residents.payload(task, self._lastNumber + 1)

    def definitionsLost(self) -> None:
        """Send all definitions again when they are needed: the worker may not have those that were sent."""
        self._residents.definitionsLost()

    def _submit(self, task: Task, raw: bool, ticket: int, now: float) -> None:
        number = self._lastNumber + 1
        pending = _Pending(task, ticket)
        self._runs.given(number, pending, now)
        if self.finishCancelled is not None and task.timeout is not None:
            pending.deadline = self.finishCancelled() + task.timeout
        try:
            payload, pending.owner = self.payloadOf(task)
        except AsynQueueError as error:
            self.answer(number, Raised(error))
            return
        except BaseException as error:  # see `notSent`
            self.answer(number, Raised(notSent(task, error)))
            return
        self._lastNumber = number
        self._permitted.append(number)
        self.send(m.Call(number, raw, payload))

    def _mayFinish(self, number: int) -> bool:
        """Return whether call NUMBER, which is cancelled, goes on to its end."""
        if self.finishCancelled is None:
            return False
        deadline = self._runs.calls[number].deadline
        return deadline is None or self.finishCancelled() < deadline

    # Receiving.

    def receiveOther(self, message: m.Message) -> None:
        """Act on MESSAGE, which not every worker sends. Raises `FrameError` if this one must not."""
        raise FrameError(f"a {type(message).__name__}, which this kind of worker does not send")

    def answer(self, number: int, outcome: RunOutcome) -> bool:
        """End call NUMBER with OUTCOME. Return False if it was not pending."""
        pending = self._runs.answered(number)
        if pending is None:
            return False
        if pending.owner is not None:
            self._residents.ended(pending.owner, number, outcome)
        if isinstance(outcome, Raised) and isA(outcome.error, Undelivered):
            self.definitionsLost()
        self._outcomes.append((pending.ticket, outcome))
        return True

    def _receive(self, message: m.Message) -> None:
        if isinstance(message, m.Items):
            if message.id in self._sources:
                self._sources[message.id].arrived(message.number, message.payload)
            elif self.channel is not None:
                loadItems(message.number, message.payload, self.channel)  # This frees their shared memory.
        elif isinstance(message, m.Raised):
            self.answer(message.id, Raised(loadError(message.payload), message.seconds))
        elif isinstance(message, m.Opened):
            if message.id in self._sources or not 0 < message.id <= self._lastNumber:
                raise FrameError(f"an iterator of call {message.id}, which has one already or was never made")
            source = self._sources[message.id] = LinkSource(self, message.id)
            if not self.answer(message.id, Iterating(source, message.seconds)):
                source.close()
        elif isinstance(message, m.Exhausted):
            self._iterated(message.id, None)
        elif isinstance(message, m.Failed):
            self._iterated(message.id, loadError(message.payload))
        elif isinstance(message, m.Ready):
            self.ready = True
            self._notifyIfReady()
        else:
            self.receiveOther(message)

    def _returned(self, message: m.Returned) -> None:
        self._lastWasShort = message.seconds < SPIN
        try:
            value = loads(message.payload, "the result", self.channel)
        except SerializationError as error:
            self.answer(message.id, Raised(error, message.seconds))
        else:
            self.answer(message.id, Returned(value, message.seconds))

    def _iterated(self, number: int, error: BaseException | None) -> None:
        source = self._sources.pop(number, None)
        if source is not None:
            if self.closeWatchdog is not None:
                self.closeWatchdog.ended(number)
            source.over(error)
            self._notifyIfIdle()

    def _reportOutcomes(self) -> None:
        while self._outcomes:
            outcomes, self._outcomes = self._outcomes, []
            self._report(outcomes)
            self._notifyIfIdle()

    def _notifyIfReady(self) -> None:
        if self._whenReady is not None and self.ready:
            then, self._whenReady = self._whenReady, None
            then()

    def _notifyIfIdle(self) -> None:
        if self._whenIdle is not None and not (self._runs.calls or self._sources or self._outcomes):
            then, self._whenIdle = self._whenIdle, None
            then()
