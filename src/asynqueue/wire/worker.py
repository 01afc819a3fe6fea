"""Work on another machine: a worker that has it done by a server, over one connection."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import partial
from os import PathLike
from typing import Any

from twisted.application.internet import ClientService, backoffPolicy
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IDelayedCall, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from typing_extensions import Unpack
from zope.interface import implementer

from asynqueue.core.protocol.reconnection import ATTEMPTS, ConnectPolicy
from asynqueue.core.records import Lost, RunOutcome, Task
from asynqueue.core.scheduling.window import Window
from asynqueue.errors import AuthenticationError, WorkerError, WorkerLost
from asynqueue.interfaces import Report, Resignator, Resizer
from asynqueue.iteration.delay import deferToDelay
from asynqueue.queue.options import QueueOptions, seriesOf
from asynqueue.queue.taskqueue import TaskQueue
from asynqueue.reactor.lookup import installedReactor
from asynqueue.wire import keys
from asynqueue.wire.client import MESSAGES, ClientConnection, ClosedEarly
from asynqueue.wire.endpoints import target
from asynqueue.wire.protocol import SILENCE, checked
from asynqueue.wire.universe import WireWorkerUniverse

AHEAD = 63
"""How many calls a server may be sent beyond those that it runs."""

PATIENCE = 10.0
"""Seconds that a server has to prove itself."""

STOP_GRACE = 5.0
"""Seconds that a connection has to end after it was told to."""

RECONNECT: Callable[[int], float] = backoffPolicy(initialDelay=0.1, maxDelay=30.0, factor=1.6)
"""Seconds before the next attempt to connect, by how many have failed in a row: up to half a minute, with a jitter."""

_HINT = "does a wire server listen there, for TLS or without as the description says, and does it trust this client?"


class WireWorker:
    """Has methods of a universe called on the `WireServer` at DESCRIPTION, a Twisted client endpoint.

    UNIVERSE is the `WireWorkerUniverse` subclass that is served there, or an object of it; or None, and then every
    call is of a `Method`. What is called is a method of it, of which the name alone goes over the wire::

        queue.call(Sums.total, [1, 2])          # of the class; self is the server's
        queue.call(sums.total, [1, 2])          # of an object, which stays here
        queue.call(Method("total"), [1, 2])     # by name

    It is qualified for the series ``wire`` and ``remote``, and those in SERIES. With RAW, an iterator is a result
    like any other (and will not cross the wire). With THREAD, the methods run in threads over there, and may block.
    N_CONCURRENT of them run at once, or as many as the server allows. What it does not take yet waits here; a call that
    is larger than all it takes fails with `asynqueue.errors.SerializationError`.

    `TaskQueue.attachWorker` fires when the server has proved itself and has run the saved updates. A
    `WireQueue` is there at once, and what is called before that waits.

    The server proves that it has KEY (bytes, or the name of a file; else the environment says, see
    `asynqueue.wire.keys.key`), and so does this worker. With a ``tls:`` description, and without a key, certificates
    are the proof. Until then nothing of the server's is believed; the worker counts as away and is given nothing.

    When the connection is lost, so it is again, and calls are lost or go elsewhere by the queue's rules. A server that
    is silent for SILENCE seconds counts as lost. With RECONNECT true it is connected to again, at first soon, then
    each half minute; RECONNECT may be a function from the number of failures in a row to the seconds to wait. With
    RECONNECT false, the worker resigns the first time that there is no connection. It resigns in any case when the
    server cannot be trusted, or does not trust it, or, never yet trusted, has ended ten connections in a row without a
    word: then `TaskQueue.attachWorker` fails with `asynqueue.errors.AuthenticationError`.

    Of answers that are not complete it holds no more than MESSAGES bytes, 1 GiB unless told: what would be more fails
    with `asynqueue.errors.SerializationError`. REACTOR is the installed one if it is not given.
    """

    cQualified: tuple[str, ...] = ("wire", "remote")
    _log = Logger(namespace="asynqueue")

    def __init__(
        self,
        universe: WireWorkerUniverse | type[WireWorkerUniverse] | None,
        description: str | IStreamClientEndpoint,
        series: Iterable[Hashable] = (),
        raw: bool = False,
        thread: bool = False,
        N_concurrent: int = 1,
        *,
        key: bytes | str | PathLike[str] | None = None,
        reconnect: bool | Callable[[int], float] = True,
        silence: float = SILENCE,
        messages: int = MESSAGES,
        reactor: Any = None,
    ) -> None:
        if type(messages) is not int or messages < 1:
            raise ValueError(f"messages must be an integer of 1 or more, got {messages!r}")
        if type(N_concurrent) is not int or N_concurrent < 1:
            raise ValueError(f"N_concurrent must be an integer of 1 or more, got {N_concurrent!r}")
        self.qualifications: frozenset[Hashable] = seriesOf(self.cQualified, series)
        self.window: Window = Window(N_concurrent, N_concurrent + AHEAD)
        self.description: str = description if isinstance(description, str) else repr(description)
        self._universe = universe if universe is None or isinstance(universe, type) else type(universe)
        self._raw = raw
        self._thread = thread
        self._key = keys.key(key)
        self._reconnect = reconnect
        self._silence = checked(silence)
        self._messages = messages
        self._reactor: Any = installedReactor(reactor)
        self._certified = isinstance(description, str) and description.startswith("tls:")
        self._endpoint = target(self._reactor, description)
        self._service: ClientService | None = None
        self._link: ClientConnection | None = None
        self._resign: Resignator | None = None
        self._resize: Resizer | None = None
        self._stopping = False
        self._gone: Deferred[None] | None = None
        self._idle: Deferred[None] | None = None  # the same, while there is something to wait for
        self._report: Report | None = None
        self._next: IDelayedCall | None = None
        self._doubt = ConnectPolicy()

    def setResignator(self, resign: Resignator) -> None:
        """RESIGN is called when there is no connection, and when there is one again.

        Raises `asynqueue.errors.WorkerError` if it was stopped: its connection is over.
        """
        if self._stopping:
            raise WorkerError(f"the wire worker of {self.description} was stopped: attach a new one")
        self._resign = resign
        resign(away=True)
        attempts = _Attempts(self._endpoint, self._newLink, partial(self._soon, self._joined), self._unconnected)
        policy = self._reconnect if callable(self._reconnect) else RECONNECT
        self._service = ClientService(attempts, Factory.forProtocol(Protocol), retryPolicy=policy, clock=self._reactor)
        self._service.startService()

    def setResizer(self, resize: Resizer) -> None:
        """RESIZE is called when the server is giving calls back, and when it has."""
        self._resize = resize

    def setReport(self, report: Report) -> None:
        """REPORT is called with the outcomes of what is given."""
        self._report = report

    def give(self, runs: Sequence[tuple[int, Task]]) -> None:
        """Have the server make the calls of RUNS."""
        if self._link is not None:
            self._link.give(runs, self._raw)
        elif self._report is not None:
            lost = Lost(f"there is no connection to {self.description}")
            self._report([(ticket, lost) for ticket, _ in runs])

    def interrupt(self, ticket: int) -> None:
        """Have the server let go of a call."""
        if self._link is not None:
            self._link.letGo(ticket)

    def run(self, task: Task) -> Deferred[RunOutcome]:
        """Have the server make the call of TASK."""
        if self._link is None:
            return succeed(Lost(f"there is no connection to {self.description}"))
        return self._link.call(task, self._raw if task.raw is None else task.raw)

    def recall(self) -> None:
        """Give back what the server has not started: soon, or at once if the connection is lost."""
        if self._link is not None:
            if self._link.open:
                self._link.recall()
            else:
                self._link.conclude(self._link.reason)

    def stop(self) -> Deferred[None]:
        """End the connection when all that was given has ended; fires when it has."""
        self._stopping = True
        stopped: Deferred[None] = Deferred()
        if self._gone is None:
            self._gone = Deferred()
            self._gone.addCallback(self._disconnect)
            if self._link is None or not self._link.open:
                self._gone.callback(None)
            else:
                self._idle = self._gone
                self._link.whenIdle(self._isIdle)
        self._gone.addBoth(_tell, stopped)
        return stopped

    def crash(self) -> Sequence[Task]:
        """End the connection now; the tasks without an outcome."""
        self._stopping = True
        link = self._link
        if link is None:
            return []
        link.hangUp()
        return link.unfinished

    def _isIdle(self) -> None:
        idle, self._idle = self._idle, None
        if idle is not None:
            idle.callback(None)

    def _disconnect(self, _: object) -> Deferred[None]:
        if self._service is None:
            return succeed(None)
        if self._next is not None:
            self._next.cancel()
            self._next = None
        link, reactor = self._link, self._reactor
        if link is not None:
            link.leave()
        stopped: Deferred[None] = self._service.stopService()
        if link is not None and link.open:
            grace: IDelayedCall = reactor.callLater(STOP_GRACE, link.hangUp)
            stopped.addBoth(_cancel, grace)
        else:  # what was connecting has something to do in the next turn
            stopped.addCallback(lambda _: deferToDelay(0, reactor=reactor))
        return stopped

    # How a connection comes and goes.

    def _newLink(self) -> ClientConnection:
        link = ClientConnection(
            self._reactor, self.description, self._universe, self._key, self._certified, self.window.running,
            self._thread, PATIENCE, self._silence, lambda: self._lost(link), self._report,
            self._messages, self._recalls,
        )  # fmt: skip
        return link

    def _recalls(self, recalling: bool) -> None:
        """Be given nothing while the server gives back what it has: it would start before that."""
        if self._resize is not None:
            self._resize(None if recalling else self.window)

    def _soon(self, what: Callable[[Any], None], arg: object) -> None:
        """Do WHAT in a turn of its own: the service, which it may lead to stop, is in the middle of connecting."""
        self._next = self._reactor.callLater(0, what, arg)

    def _joined(self, link: ClientConnection) -> None:
        self._next = None
        self._doubt.authenticated()
        if link.open and not self._stopping and self._resign is not None:
            self._link = link
            self._resign(returning=True)

    def _unconnected(self, error: BaseException) -> None:
        """An attempt to connect has failed with ERROR."""
        if self._stopping:
            return
        if isinstance(error, AuthenticationError):
            self._soon(self._giveUp, error)
        elif not self._reconnect:
            self._soon(self._giveUp, WorkerLost(f"{self.description} cannot be reached: {error}"))
        elif not self._doubt.failed(isinstance(error, ClosedEarly)):
            self._soon(self._giveUp, AuthenticationError(f"{error}, {ATTEMPTS} times in a row; {_HINT}"))
        else:
            self._log.warn("{server} cannot be reached: {error}", server=self.description, error=error)

    def _lost(self, link: ClientConnection) -> None:
        """LINK, which had been made, is lost."""
        if self._resign is not None and not self._stopping:
            self._log.warn("a wire worker is away: {why}", why=link.reason)
            if self._reconnect:
                self._resign(away=True)
            else:
                self._giveUp(WorkerLost(link.reason))
        link.conclude(link.reason)
        if self._link is link:
            self._link = None
        self._isIdle()

    def _giveUp(self, error: BaseException) -> None:
        self._next = None
        self._log.error("a wire worker gives up: {why}", why=error)
        if self._resign is not None and not self._stopping:
            self._resign(error=error)


class WireQueue(TaskQueue):
    """A queue whose workers are on the servers at DESCRIPTIONS, one description or several: a `WireWorker` each.

    UNIVERSE, SERIES, RAW, THREAD, N_CONCURRENT, KEY, RECONNECT, SILENCE and MESSAGES are those of `WireWorker`, the
    other keywords those of `asynqueue.base.TaskQueue`.

    >>> queue = WireQueue("tcp:10.0.0.5:7654", Sums, key="wire.key")              # doctest: +SKIP
    >>> d = queue.call(Sums.total, [1, 2, 3])                                     # doctest: +SKIP
    """

    def __init__(
        self,
        descriptions: str | IStreamClientEndpoint | Iterable[str | IStreamClientEndpoint],
        universe: WireWorkerUniverse | type[WireWorkerUniverse] | None,
        series: Iterable[Hashable] = (),
        raw: bool = False,
        thread: bool = False,
        N_concurrent: int = 1,
        key: bytes | str | PathLike[str] | None = None,
        reconnect: bool | Callable[[int], float] = True,
        silence: float = SILENCE,
        messages: int = MESSAGES,
        **kw: Unpack[QueueOptions],
    ) -> None:
        if isinstance(descriptions, str) or IStreamClientEndpoint.providedBy(descriptions):
            descriptions = [descriptions]
        series = seriesOf((), series)
        each = [
            WireWorker(
                universe, description, series, raw, thread, N_concurrent,
                key=key, reconnect=reconnect, silence=silence, messages=messages, reactor=kw.get("reactor"),
            )
            for description in descriptions
        ]  # fmt: skip
        if not each:
            raise ValueError("a WireQueue needs one description at least")
        super().__init__(*each, **kw)

    def workerLeft(self) -> None:
        """With its last worker gone by itself, nothing would ever run: say so to all that wait."""
        if not len(self):
            self.strand("no wire server could be reached, or none is trusted")


class _LinkFactory(Factory):
    noisy = False

    def __init__(self, link: ClientConnection) -> None:
        self._link = link

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return self._link


@implementer(IStreamClientEndpoint)
class _Attempts:
    """Connects as ENDPOINT does, with a link that NEWLINK makes, and is done when the server has proved itself.

    ONPROVED is called with the link then, ONFAILED with the error when it failed. The protocol that is asked for is
    the shadow of the link: it has the transport, and is told when the connection is lost.
    """

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        newLink: Callable[[], ClientConnection],
        onProved: Callable[[ClientConnection], None],
        onFailed: Callable[[BaseException], None],
    ) -> None:
        self._endpoint = endpoint
        self._newLink = newLink
        self._onProved = onProved
        self._onFailed = onFailed

    def connect(self, protocolFactory: Any) -> Any:  # as the interface, which has no types, says
        """Connect."""
        link = self._newLink()
        connected = self._endpoint.connect(_LinkFactory(link))
        connected.addCallback(lambda _: link.established)
        return connected.addCallbacks(self._present, self._failed, (link, protocolFactory))

    def _present(self, _: None, link: ClientConnection, protocolFactory: Any) -> Protocol:
        shadow: Protocol = protocolFactory.buildProtocol(None)
        link.observer = shadow
        shadow.makeConnection(link.transport)
        self._onProved(link)
        return shadow

    def _failed(self, reason: Failure) -> Failure:
        if reason.value is not None:
            self._onFailed(reason.value)
        return reason


def _tell(result: object, whom: Deferred[None]) -> object:
    whom.callback(None)
    return result


def _cancel(result: None, call: IDelayedCall) -> None:
    if call.active():
        call.cancel()
    return result
