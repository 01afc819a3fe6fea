"""Serves a universe to whoever may call it."""

from __future__ import annotations

from os import PathLike
from typing import Any

from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.interfaces import IAddress, IListeningPort, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from typing_extensions import Self

from asynqueue.core.protocol.admission import Limits, evictionCandidate
from asynqueue.errors import AuthenticationError
from asynqueue.reactor.lookup import installedReactor
from asynqueue.reactor.waiters import Waiters
from asynqueue.wire import keys
from asynqueue.wire.connection import ServerConnection
from asynqueue.wire.endpoints import place
from asynqueue.wire.protocol import SILENCE, checked
from asynqueue.wire.universe import WireWorkerUniverse, bound, load, methods


class WireServer:
    """Listens at DESCRIPTION, a Twisted server endpoint, and has the methods of a universe called by its clients.

    UNIVERSEORNAME is an object of a `WireWorkerUniverse` subclass, that class, or its full name
    (``"package.module.Class"``). All clients share the one object.

    A client proves that it has KEY (bytes, or the name of a file; else the environment says, see
    `asynqueue.wire.keys.key`), and so does the server. Without a key, at a ``tls:`` description with trustRoots (see
    `asynqueue.wire.endpoints`), certificates are the proof. Without either, it does not start. LIMITS says what
    clients may do. A client that is silent for SILENCE seconds is given up. Whatever is refused is logged, with the
    client and the reason.

    >>> server = WireServer("unix:/run/sums.sock", Sums, key="wire.key")          # doctest: +SKIP
    >>> d = server.start()                                                        # doctest: +SKIP
    """

    _log = Logger(namespace="asynqueue")

    def __init__(
        self,
        description: str | IStreamServerEndpoint,
        universeOrName: WireWorkerUniverse | type[WireWorkerUniverse] | str,
        *,
        key: bytes | str | PathLike[str] | None = None,
        limits: Limits | None = None,
        silence: float = SILENCE,
        reactor: Any = None,
    ) -> None:
        self.universe: WireWorkerUniverse = load(universeOrName)
        self.key: bytes | None = keys.key(key)
        self.certified: bool = False
        self._description = description
        self._limits = Limits() if limits is None else limits
        self._silence = checked(silence)
        self._reactor = reactor
        self._methods = {name: bound(each, self.universe) for name, each in methods(type(self.universe)).items()}
        self._strangers: dict[ServerConnection, str] = {}  # and where from, in the order in which they came
        self._clients: dict[ServerConnection, None] = {}
        self._port: IListeningPort | None = None
        self._stopping = Waiters[None]()
        self._service: IService | None = None

    @property
    def service(self) -> IService:
        """The server as a service of `twisted.application`, which is started and stopped with its parent."""
        if self._service is None:
            self._service = _Service(self)
        return self._service

    @property
    def address(self) -> IAddress:
        """Where it listens. Raises RuntimeError if it does not."""
        if self._port is None:
            raise RuntimeError("the server does not listen: start it first")
        return self._port.getHost()

    def start(self) -> Deferred[Self]:
        """Listen; fires with the server when it does, or fails as the endpoint does.

        Raises `ValueError` for a description that is none, certificates that are not good included; for a server to
        which no client could prove itself, `asynqueue.errors.AuthenticationError`; and RuntimeError if it listens
        already.
        """
        if self._port is not None:
            raise RuntimeError("the server listens already")
        self._reactor = installedReactor(self._reactor)
        where = place(self._reactor, self._description)
        self.certified = where.certified
        if self.key is None and not self.certified:
            raise AuthenticationError(
                f"a wire server at {self._description} would serve nobody: it has neither a key nor trustRoots, by "
                "which clients prove themselves. Give key=, the name of a file, or ASYNQUEUE_WIRE_KEY_FILE in the "
                "environment; or tls: with trustRoots"
            )
        return where.endpoint.listen(_Factory(self)).addCallback(self._listens)

    def stop(self) -> Deferred[None]:
        """Listen no more and let every client go; fires when that is done.

        What runs is cancelled; the clients' queues do with it what they do when a worker is lost.
        """
        port, self._port = self._port, None
        listening: Deferred[Any] = succeed(None)
        if port is not None:
            listening = port.stopListening() or listening
        gone = self._stopping.add()
        for client in [*self._strangers, *self._clients]:
            client.abort()
        self._tellIfGone()
        return gatherResults([listening, gone]).addCallback(lambda _: None)

    # For the clients, and whoever makes them.

    def newClient(self) -> ServerConnection:
        """A client that is about to come."""
        return ServerConnection(self, self._reactor, self.universe, self._methods, self._limits, self._silence)

    def came(self, client: ServerConnection) -> None:
        """CLIENT, a stranger, has come. If it is one too many, one has to go."""
        self._strangers[client] = client.host
        if len(self._strangers) > self._limits.strangers:
            first = evictionCandidate(self._strangers)
            del self._strangers[first]
            first.refuse("too many have not proved themselves, and it is the first from where most are")

    def proved(self, client: ServerConnection) -> bool:
        """CLIENT has proved itself. False if there are too many already."""
        self._strangers.pop(client, None)
        self._clients[client] = None
        return len(self._clients) <= self._limits.connections

    def went(self, client: ServerConnection) -> None:
        """CLIENT is gone."""
        self._strangers.pop(client, None)
        self._clients.pop(client, None)
        self._tellIfGone()

    def _listens(self, port: IListeningPort) -> Self:
        self._port = port
        return self

    def _tellIfGone(self) -> None:
        if not self._strangers and not self._clients:
            self._stopping.fire(None)


class _Factory(Factory):
    noisy = False

    def __init__(self, server: WireServer) -> None:
        self._server = server

    def buildProtocol(self, addr: IAddress | None) -> ServerConnection:
        return self._server.newClient()


class _Service(Service):
    """Runs SERVER."""

    def __init__(self, server: WireServer) -> None:
        self._server = server

    def startService(self) -> None:
        """Listen. What keeps it from that is logged."""
        super().startService()  # type: ignore[no-untyped-call]  # Twisted does not type its services
        self._server.start().addErrback(self._failed)

    def stopService(self) -> Deferred[None]:
        """Stop."""
        super().stopService()  # type: ignore[no-untyped-call]  # as above
        return self._server.stop()

    def _failed(self, reason: Any) -> None:
        WireServer._log.failure("a wire server cannot listen", reason)
