"""A worker whose calls run on a server, on another machine for instance, over one connection."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
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

from asynqueue.core.protocol.connectattempts import ATTEMPTS, FIRST_PAUSE, GROWTH, LONGEST_PAUSE, ConnectPolicy
from asynqueue.core.records import Lost, Task
from asynqueue.core.scheduling.window import WIRE_AHEAD, Window
from asynqueue.errors import AuthenticationError, WorkerError, WorkerLost
from asynqueue.interfaces import Departed, Disconnected, IWorker, Reconnected, Resignator, Resizer
from asynqueue.iteration.delay import deferToDelay
from asynqueue.queue.adapter import ReportingWorker
from asynqueue.queue.options import QueueOptions, seriesOf
from asynqueue.queue.taskqueue import TaskQueue
from asynqueue.reactor.lookup import installedReactor
from asynqueue.wire import keys
from asynqueue.wire.client import MESSAGES, ClientConnection, ClosedEarly
from asynqueue.wire.endpoints import clientEndpoint
from asynqueue.wire.protocol import SILENCE, checked
from asynqueue.wire.universe import WireWorkerUniverse

PATIENCE = 10.0
"""Seconds that a server has to authenticate."""

STOP_GRACE = 5.0
"""Seconds that a connection has to end. Then it is aborted."""

RECONNECT: Callable[[int], float] = backoffPolicy(FIRST_PAUSE, LONGEST_PAUSE, GROWTH)
"""Seconds before the next attempt to connect, by the number of failures in a row: 0.1 to 30, with a jitter."""

_HINT = "does a wire server listen there, with or without TLS as in the description, and does it trust this client?"


@implementer(IWorker)
class WireWorker(ReportingWorker):
    """A worker that has the methods of a universe called on a `WireServer`.

    A task calls a method of the universe. Only the name of the method is sent::

        queue.call(Sums.total, [1, 2])          # of the class; self is the server's object
        queue.call(sums.total, [1, 2])          # of an object, which stays here
        queue.call("total", [1, 2])             # by name

    *Connecting.* The server and the worker authenticate by the key, or by certificates with ``tls:``. Before that the
    worker is away: it is assigned nothing, and accepts nothing from the server. `TaskQueue.attachWorker` fires when the
    server has authenticated and has run the saved updates. Calls that are made before that wait in the queue.

    *Limits.* The server has limits for its clients. Calls that are too many at a time wait here. A call that is larger
    than the server ever accepts fails with `asynqueue.errors.SerializationError`.

    *A lost connection.* The worker is away. Its calls are lost, or run on other workers, by the rules of the queue.

    *Resigning.* The worker resigns, and `TaskQueue.attachWorker` fails with `asynqueue.errors.AuthenticationError`, if

    - one side does not trust the other;
    - a server that was never trusted has ended ten connections in a row without a reason.

    Args:
        universe: The `WireWorkerUniverse` subclass that is served, or an object of it. With None, every call is of a
            name.
        description: The Twisted client endpoint of the server: ``tcp:host:7654``, ``tls:...`` or ``unix:/path``.
        series: The series for which the worker is qualified, beside ``wire`` and ``remote``.
        raw: With True, an iterator is a result like any other, and fails, because it cannot be sent.
        thread: With True, the methods run in threads on the server, and may block.
        N_concurrent: The calls that run at once on the server, 1 or more. The server may allow fewer.
        wwu: The name of `universe` in 0.9.
        key: The key as bytes (16 or more), or the name of its file. None: from the environment, see
            `asynqueue.wire.keys.key`.
        reconnect: With True, a lost connection is made again, after 0.1 seconds at first and 30 at last. A function
            returns the seconds to wait, for the number of failures in a row. With False, the worker resigns as soon as
            there is no connection.
        silence: The seconds without a message after which the server counts as lost, above 0.
        messages: The most bytes of incomplete answers that are held, 1 or more. An answer that exceeds it fails with
            `asynqueue.errors.SerializationError`.
        plain: With True, the worker uses a connection to another machine that TLS does not encrypt, and endpoints of
            unknown kinds. An attacker in between could then take the connection over, unless the network is secured
            otherwise.
        reactor: The reactor to use. None is the installed one.

    Raises:
        ValueError: An argument is out of its range, `description` is no description of a client endpoint, or it is an
            open endpoint and `plain` is False.
        AuthenticationError: The key cannot be read, or other users can read it.
    """

    cQualified: tuple[str, ...] = ("wire", "remote")
    callsByName: bool = True
    _log = Logger(namespace="asynqueue")

    def __init__(
        self,
        universe: WireWorkerUniverse | type[WireWorkerUniverse] | None = None,
        description: str | IStreamClientEndpoint = "",
        series: Iterable[Hashable] = (),
        raw: bool = False,
        thread: bool = False,
        N_concurrent: int = 1,
        *,
        wwu: WireWorkerUniverse | type[WireWorkerUniverse] | None = None,
        key: bytes | str | PathLike[str] | None = None,
        reconnect: bool | Callable[[int], float] = True,
        silence: float = SILENCE,
        messages: int = MESSAGES,
        plain: bool = False,
        reactor: Any = None,
    ) -> None:
        if universe is None:
            universe = wwu
        if type(messages) is not int or messages < 1:
            raise ValueError(f"messages must be an integer of 1 or more, got {messages!r}")
        if type(N_concurrent) is not int or N_concurrent < 1:
            raise ValueError(f"N_concurrent must be an integer of 1 or more, got {N_concurrent!r}")
        super().__init__()
        self.qualifications: frozenset[Hashable] = seriesOf(self.cQualified, series)
        self.window: Window = Window(N_concurrent, N_concurrent + WIRE_AHEAD)
        self.description: str = description if isinstance(description, str) else repr(description)
        self._universe = universe if universe is None or isinstance(universe, type) else type(universe)
        self._raw = raw
        self._thread = thread
        self._key = keys.key(key)
        self._reconnect = reconnect
        self._silence = checked(silence)
        self._messages = messages
        self._reactor: Any = installedReactor(reactor)
        self._plain = plain
        self._endpoint = clientEndpoint(self._reactor, description, plain)
        self._service: ClientService | None = None
        self._link: ClientConnection | None = None
        self._resign: Resignator | None = None
        self._resize: Resizer | None = None
        self._stopping = False
        self._gone: Deferred[None] | None = None
        self._next: IDelayedCall | None = None
        self._connectPolicy = ConnectPolicy()

    def setResignator(self, callableObject: Resignator) -> None:
        """Connect. Call CALLABLEOBJECT when there is no connection, and when there is one again.

        Raises `asynqueue.errors.WorkerError` if the worker was stopped.
        """
        if self._stopping:
            raise WorkerError(f"the wire worker of {self.description} was stopped: attach a new one")
        self._resign = callableObject
        callableObject(Disconnected())
        attempts = _Attempts(
            self.description, self._endpoint.endpoint, self._newLink, self._established, self._unconnected
        )
        policy = self._reconnect if callable(self._reconnect) else RECONNECT
        self._service = ClientService(attempts, Factory.forProtocol(Protocol), retryPolicy=policy, clock=self._reactor)
        self._service.startService()

    def setResizer(self, resize: Resizer) -> None:
        """Call RESIZE when the server begins to give calls back, and when it has done so."""
        self._resize = resize

    def give(self, runs: Sequence[tuple[int, Task]]) -> None:
        """Have the server run the tasks of RUNS, and report the outcome of each under its ticket."""
        if self._link is not None:
            self._link.give(runs, self._raw)
        else:
            lost = Lost(f"there is no connection to {self.description}")
            self.reported([(ticket, lost) for ticket, _ in runs])

    def interrupt(self, ticket: int) -> None:
        """Cancel the task of TICKET."""
        if self._link is not None:
            self._link.cancel(ticket)

    def recall(self) -> None:
        """End the calls that the server has not started as `Recalled`: soon, or at once if the connection is lost."""
        if self._link is not None:
            self._link.recall()

    def stop(self) -> Deferred[None]:
        """End the connection after its calls. Return a Deferred that fires when it has ended."""
        self._stopping = True
        stopped: Deferred[None] = Deferred()
        if self._gone is None:
            self._gone = Deferred()
            self._gone.addCallback(self._disconnect)
            if self._link is None or not self._link.open:
                self._gone.callback(None)
            else:
                self._link.whenIdle(self._isIdle)
        self._gone.addBoth(lambda _: stopped.callback(None))
        return stopped

    def crash(self) -> Sequence[Task]:
        """End the connection now. Return the tasks without an outcome."""
        self._stopping = True
        link = self._link
        if link is None:
            return []
        link.abort()
        return link.unfinished

    def _isIdle(self) -> None:
        if self._gone is not None and not self._gone.called:
            self._gone.callback(None)

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
            grace: IDelayedCall = reactor.callLater(STOP_GRACE, link.abort)
            stopped.addBoth(_cancel, grace)
        else:  # the endpoint has callbacks in the next turn
            stopped.addCallback(lambda _: deferToDelay(0, reactor=reactor))
        return stopped

    # The life of a connection.

    def _newLink(self) -> ClientConnection:
        link = ClientConnection(
            self._reactor, self.description, self._universe, self._key, self._endpoint.certified, self.window.running,
            self._thread, PATIENCE, self._silence, lambda: self._lost(link), self.reported,
            self._messages, self._recalling, self._plain,
        )  # fmt: skip
        return link

    def _recalling(self, recalling: bool) -> None:
        """Accept no calls while the server gives calls back: it would start new ones first."""
        if self._resize is not None:
            self._resize(None if recalling else self.window)

    def _inNextTurn(self, f: Callable[[Any], None], arg: object) -> None:
        """Call F in the next turn: it may stop the service, which is connecting in this turn."""
        self._next = self._reactor.callLater(0, f, arg)

    def _established(self, link: ClientConnection) -> None:
        """Keep LINK, which `stop` has to end from now on."""
        self._link = link
        self._inNextTurn(self._connected, link)

    def _connected(self, link: ClientConnection) -> None:
        self._next = None
        self._connectPolicy.authenticated()
        if link.open and not self._stopping and self._resign is not None:
            self._resign(Reconnected())

    def _unconnected(self, error: BaseException) -> None:
        """An attempt to connect has failed with ERROR: wait for the next one, or resign."""
        if self._stopping:
            return
        if isinstance(error, AuthenticationError):
            self._inNextTurn(self._resignWith, error)
        elif not self._reconnect:
            self._inNextTurn(self._resignWith, WorkerLost(f"{self.description} cannot be reached: {error}"))
        elif not self._connectPolicy.failed(isinstance(error, ClosedEarly)):
            self._inNextTurn(self._resignWith, AuthenticationError(f"{error}, {ATTEMPTS} times in a row; {_HINT}"))
        else:
            self._log.warn("{server} cannot be reached: {error}", server=self.description, error=error)

    def _lost(self, link: ClientConnection) -> None:
        """LINK, which was established, is lost: be away, or resign."""
        if self._resign is not None and not self._stopping:
            self._log.warn("a wire worker is disconnected: {why}", why=link.reason)
            if self._reconnect:
                self._resign(Disconnected())
            else:
                self._resignWith(WorkerLost(link.reason))
        link.conclude(link.reason)
        if self._link is link:
            self._link = None
        self._isIdle()

    def _resignWith(self, error: BaseException) -> None:
        self._next = None
        self._log.error("a wire worker resigns: {why}", why=error)
        if self._resign is not None and not self._stopping:
            self._resign(Departed(error))


class WireQueue(TaskQueue):
    """A `asynqueue.base.TaskQueue` with one `WireWorker` for each of several servers.

    Args:
        descriptions: The client endpoint of a server, or an iterable of them, at least one.
        universe: As for `WireWorker`, and so are `series`, `raw`, `thread`, `N_concurrent`, `key`, `reconnect`,
            `silence`, `messages` and `plain`.
        kw: The keywords of `asynqueue.base.TaskQueue`.

    Raises:
        ValueError: There is no description, or an argument is wrong as for `WireWorker`.

    >>> queue = WireQueue("tls:10.0.0.5:7654:certificate=client.pem:privateKey=client.key:trustRoots=ca.pem", Sums)
    ... # doctest: +SKIP
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
        plain: bool = False,
        **kw: Unpack[QueueOptions],
    ) -> None:
        if isinstance(descriptions, str) or IStreamClientEndpoint.providedBy(descriptions):
            descriptions = [descriptions]
        series = seriesOf((), series)
        each = [
            WireWorker(
                universe, description, series, raw, thread, N_concurrent,
                key=key, reconnect=reconnect, silence=silence, messages=messages, plain=plain,
                reactor=kw.get("reactor"),
            )
            for description in descriptions
        ]  # fmt: skip
        if not each:
            raise ValueError("a WireQueue needs one description at least")
        super().__init__(*each, **kw)

    def workerLeft(self) -> None:
        """Fail the calls that wait when the last worker has resigned: they would never run."""
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
    """An endpoint that connects to NAME by ENDPOINT, with a link that NEWLINK makes. It waits until that is
    established.

    ONESTABLISHED is called with the link then, or ONFAILED with the error. The protocol of the caller's factory becomes
    the observer of the link: it has the transport, and is notified when the connection is lost.
    """

    def __init__(
        self,
        name: str,
        endpoint: IStreamClientEndpoint,
        newLink: Callable[[], ClientConnection],
        onEstablished: Callable[[ClientConnection], None],
        onFailed: Callable[[BaseException], None],
    ) -> None:
        self._name = name
        self._endpoint = endpoint
        self._newLink = newLink
        self._onEstablished = onEstablished
        self._onFailed = onFailed

    def __repr__(self) -> str:
        """Return the name, for Twisted's log of its attempts."""
        return self._name

    def connect(self, protocolFactory: Any) -> Any:  # the interface has no types
        """Connect, and wait until the link is established."""
        link = self._newLink()
        connected = self._endpoint.connect(_LinkFactory(link))
        connected.addCallback(lambda _: link.established)
        return connected.addCallbacks(self._established, self._failed, (link, protocolFactory))

    def _established(self, _: None, link: ClientConnection, protocolFactory: Any) -> Protocol:
        observer: Protocol = protocolFactory.buildProtocol(None)
        link.observer = observer
        observer.makeConnection(link.transport)
        self._onEstablished(link)
        return observer

    def _failed(self, reason: Failure) -> Failure:
        if reason.value is not None:
            self._onFailed(reason.value)
        return reason


def _cancel(result: None, call: IDelayedCall) -> None:
    if call.active():
        call.cancel()
    return result
