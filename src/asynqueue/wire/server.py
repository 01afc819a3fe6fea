"""A server, which has the methods of a universe called by its clients."""

from __future__ import annotations

from os import PathLike
from secrets import randbelow
from typing import Any

from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.interfaces import IAddress, IListeningPort, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from typing_extensions import Self

from asynqueue.core.protocol.serverlimits import Limits, evictionCandidate
from asynqueue.errors import AuthenticationError
from asynqueue.reactor import forks
from asynqueue.reactor.lookup import installedReactor
from asynqueue.reactor.waiters import Waiters
from asynqueue.transport.lifeline import disown
from asynqueue.wire import keys
from asynqueue.wire.connection import ServerConnection
from asynqueue.wire.endpoints import serverEndpoint
from asynqueue.wire.protocol import SILENCE, checked
from asynqueue.wire.universe import WireWorkerUniverse, bound, load, methods


class WireServer:
    """A server that listens at an endpoint, and runs the calls of its clients.

    Clients and server authenticate by the key, or by certificates at a ``tls:`` endpoint with ``trustRoots`` (see
    `asynqueue.wire.endpoints`). Each refusal is logged, with the client and the reason.

    Args:
        description: The Twisted server endpoint to listen at.
        universeOrName: An object of a `WireWorkerUniverse` subclass, that class, or its full name
            (``"package.module.Class"``). All clients share the one object, which has the server as its `ws`.
        wwu: The name of `universeOrName` in 0.9.
        key: The key as bytes (16 or more), or the name of its file. None: from the environment, see
            `asynqueue.wire.keys.key`.
        limits: The limits for clients. None is `Limits` with its defaults.
        silence: The seconds without a message after which a client is disconnected, above 0.
        plain: With True, the server accepts connections from other machines that TLS does not encrypt, and endpoints of
            unknown kinds. An attacker in between could then take connections over, unless the network is secured
            otherwise.
        reactor: The reactor to use. None is the installed one.

    Raises:
        ValueError: There is no such universe, the key is too short, or `silence` is out of its range.
        ImplementationError: `universeOrName` is not a universe.
        AuthenticationError: The key cannot be read, or other users can read it.

    >>> server = WireServer("unix:/run/sums.sock", Sums, key="wire.key")          # doctest: +SKIP
    >>> d = server.start()                                                        # doctest: +SKIP
    """

    _log = Logger(namespace="asynqueue")

    def __init__(
        self,
        description: str | IStreamServerEndpoint,
        universeOrName: WireWorkerUniverse | type[WireWorkerUniverse] | str | None = None,
        *,
        wwu: WireWorkerUniverse | type[WireWorkerUniverse] | str | None = None,
        key: bytes | str | PathLike[str] | None = None,
        limits: Limits | None = None,
        silence: float = SILENCE,
        plain: bool = False,
        reactor: Any = None,
    ) -> None:
        self.universe: WireWorkerUniverse = load(wwu if universeOrName is None else universeOrName, self)
        self.key: bytes | None = keys.key(key)
        self.certified: bool = False
        self._description = description
        self._limits = Limits() if limits is None else limits
        self._silence = checked(silence)
        self._plain = plain
        self._reactor = reactor
        self._methods = {name: bound(each, self.universe) for name, each in methods(type(self.universe)).items()}
        self._strangers: dict[ServerConnection, str] = {}  # not authenticated yet, with their addresses, in order
        self._hurried: dict[ServerConnection, None] = {}  # strangers that are too many, and may yet show the key
        self._claimants: dict[ServerConnection, None] = {}  # those that have shown the key, and not yet proved it
        self._clients: dict[ServerConnection, None] = {}
        self._port: IListeningPort | None = None
        self._stopping = Waiters[None]()
        self._service: IService | None = None
        forks.watch(self._disown)

    @property
    def service(self) -> IService:
        """The server as a service of `twisted.application`, to be started and stopped with its parent service."""
        if self._service is None:
            self._service = _Service(self)
        return self._service

    @property
    def address(self) -> IAddress:
        """The address at which the server listens. Raises RuntimeError if it does not listen."""
        if self._port is None:
            raise RuntimeError("the server does not listen: start it first")
        return self._port.getHost()

    def start(self) -> Deferred[Self]:
        """Listen.

        Returns:
            A Deferred that fires with the server when it listens, or fails as the endpoint does.

        Raises:
            ValueError: The description is not that of a server endpoint, its certificates are bad, or it is an open
                endpoint and `plain` is False.
            AuthenticationError: The server has neither a key nor trustRoots, so no client could authenticate.
            RuntimeError: The server listens already.
        """
        if self._port is not None:
            raise RuntimeError("the server listens already")
        self._reactor = installedReactor(self._reactor)
        where = serverEndpoint(self._reactor, self._description, self._plain)
        self.certified = where.certified
        if self.key is None and not self.certified:
            raise AuthenticationError(
                f"a wire server at {self._description} could accept no client: it has neither a key nor trustRoots, by "
                "which clients authenticate. Give key=, the name of a file, or ASYNQUEUE_WIRE_KEY_FILE in the "
                "environment; or tls: with trustRoots"
            )
        return where.endpoint.listen(_Factory(self)).addCallback(self._listens)

    def stop(self) -> Deferred[None]:
        """Stop listening, and disconnect every client. Running calls are cancelled.

        The clients' queues treat those calls as calls of a lost worker.

        Returns:
            A Deferred that fires when all clients are disconnected.
        """
        port, self._port = self._port, None
        listening: Deferred[Any] = succeed(None)
        if port is not None:
            listening = port.stopListening() or listening
        gone = self._stopping.add()
        for client in [*self._strangers, *self._hurried, *self._claimants, *self._clients]:
            client.abort()
        self._fireIfStopped()
        return gatherResults([listening, gone]).addCallback(lambda _: None)

    # For the connections, and their factory.

    def newClient(self) -> ServerConnection:
        """Return a connection for a client that connects."""
        return ServerConnection(
            self, self._reactor, self.universe, self._methods, self._limits, self._silence, self._plain
        )

    def connected(self, client: ServerConnection) -> None:
        """Register CLIENT, a stranger. If there are too many strangers, hurry one, and refuse it if need be."""
        self._strangers[client] = client.host
        most = self._limits.strangers
        if len(self._strangers) > most:
            one = evictionCandidate(self._strangers, randbelow)
            del self._strangers[one]
            self._hurried[one] = None
            one.hurry("too many connections are not authenticated; this is one from the address with the most")
        self._refuseFirst(self._hurried, most)

    def claimed(self, client: ServerConnection) -> None:
        """Count CLIENT apart from strangers: it has shown that it has the key, though its proof has not come yet."""
        if client not in self._claimants:
            self._strangers.pop(client, None)
            self._hurried.pop(client, None)
            self._claimants[client] = None
            self._refuseFirst(self._claimants, self._limits.strangers)

    def _refuseFirst(self, clients: dict[ServerConnection, None], most: int) -> None:
        """Refuse the oldest of CLIENTS if there are more than MOST."""
        if len(clients) > most:
            first = next(iter(clients))
            del clients[first]
            first.refuse("too many connections are not authenticated; this is the oldest of them")

    def authenticated(self, client: ServerConnection) -> bool:
        """Register CLIENT, which has authenticated. Return False if there are too many clients."""
        self._forget(client)
        self._clients[client] = None
        return len(self._clients) <= self._limits.connections

    def disconnected(self, client: ServerConnection) -> None:
        """Forget CLIENT, which is disconnected."""
        self._forget(client)
        self._clients.pop(client, None)
        self._fireIfStopped()

    def _forget(self, client: ServerConnection) -> None:
        for clients in (self._strangers, self._hurried, self._claimants):
            clients.pop(client, None)

    def _listens(self, port: IListeningPort) -> Self:
        self._port = port
        return self

    def _disown(self) -> None:
        """Serve nobody, if this process is a fork of the program that does."""
        port: Any = self._port  # its interface has no descriptor
        if port is not None and forks.isRunning(self._reactor):
            disown(port.fileno())
            forks.keep(port)
            self._port = None
            for clients in (self._strangers, self._hurried, self._claimants, self._clients):
                clients.clear()

    def _fireIfStopped(self) -> None:
        if not (self._strangers or self._hurried or self._claimants or self._clients):
            self._stopping.fire(None)


class _Factory(Factory):
    noisy = False

    def __init__(self, server: WireServer) -> None:
        self._server = server

    def buildProtocol(self, addr: IAddress | None) -> ServerConnection:
        return self._server.newClient()


class _Service(Service):
    """Starts and stops SERVER."""

    def __init__(self, server: WireServer) -> None:
        self._server = server

    def startService(self) -> None:
        """Listen. A failure is logged."""
        super().startService()  # type: ignore[no-untyped-call]  # Twisted does not type its services
        self._server.start().addErrback(self._failed)

    def stopService(self) -> Deferred[None]:
        """Stop the server."""
        super().stopService()  # type: ignore[no-untyped-call]  # as above
        return self._server.stop()

    def _failed(self, reason: Any) -> None:
        WireServer._log.failure("a wire server cannot listen", reason)
