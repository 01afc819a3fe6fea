"""Endpoints of servers and clients: Twisted's descriptions, and two features that those lack.

- ``tls:`` is a kind of both sides, with chains of certificates (`asynqueue.wire.trust.tls`)::

      tls:PORT:certificate=FILE:privateKey=FILE[:trustRoots=FILE-OR-DIRECTORY][:interface=ADDRESS]
      tls:HOST:PORT:trustRoots=FILE-OR-DIRECTORY[:certificate=FILE:privateKey=FILE][:timeout=SECONDS]

  With trustRoots, a server requires a certificate of each client, which one of those authorities has signed.
- A ``unix:`` socket can be used by its user only, whatever the umask is, from the moment when it exists.

`asynqueue.wire.trust.kinds` decides which kinds are allowed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    SSL4ServerEndpoint,
    clientFromString,
    serverFromString,
    wrapClientTLS,
)
from twisted.internet.error import ConnectionClosed
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamClientEndpoint, IStreamServerEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer

from asynqueue.capabilities import has
from asynqueue.wire.trust.kinds import Side, check, fields

E = TypeVar("E", IStreamServerEndpoint, IStreamClientEndpoint)


@attrs.frozen
class Endpoint(Generic[E]):
    """Twisted's ENDPOINT, at which a server listens or by which a client connects.

    CERTIFIED says that TLS verifies a certificate of each peer there.
    """

    endpoint: E
    certified: bool = False


def serverEndpoint(
    reactor: Any, description: str | IStreamServerEndpoint, plain: bool = False
) -> Endpoint[IStreamServerEndpoint]:
    """Return the endpoint at which a server with that DESCRIPTION listens. An endpoint object is taken as it is.

    Raises `ValueError` if it is no description. Without PLAIN, also if others could stand between there, or if the
    kind is unknown (`asynqueue.wire.trust.kinds`).
    """
    if not isinstance(description, str):
        return Endpoint(description)
    _checkPlace(description, "server", 0)
    check("server", description, plain)
    if description.startswith("tls:"):
        sessions, given = _tls(description, "server")
        listening = SSL4ServerEndpoint(reactor, int(given["port"]), sessions, interface=given.get("interface", ""))
        return Endpoint(listening, certified="trustRoots" in given)
    if description in ("unix:", "unix:address="):
        raise ValueError(f"{description!r} names no socket: give its path, as in unix:/path/of/the/socket")
    try:
        if description.startswith("unix:") and not re.search(r"(?<!\\):mode=", description):
            return Endpoint(_PrivateEndpoint(serverFromString(reactor, f"{description}:mode=600")))
        return Endpoint(serverFromString(reactor, description))
    except Exception as error:  # a plugin or a certificate's file may raise any
        raise ValueError(f"{description!r} is no description of a server endpoint: {error}") from error


def clientEndpoint(
    reactor: Any, description: str | IStreamClientEndpoint, plain: bool = False
) -> Endpoint[IStreamClientEndpoint]:
    """Return the endpoint by which a client connects to the server at that DESCRIPTION. Else as `serverEndpoint`."""
    if not isinstance(description, str):
        return Endpoint(description)
    _checkPlace(description, "client", 1)
    check("client", description, plain)
    if description.startswith("tls:"):
        sessions, given = _tls(description, "client")
        host = HostnameEndpoint(reactor, given["host"], int(given["port"]), float(given.get("timeout", 30)))
        return Endpoint(wrapClientTLS(sessions, host), certified=True)
    try:
        return Endpoint(clientFromString(reactor, description))
    except Exception as error:  # as in `serverEndpoint`
        raise ValueError(f"{description!r} is no description of a client endpoint: {error}") from error


def _checkPlace(description: str, side: Side, place: int) -> None:
    """Raise `ValueError` if a port in DESCRIPTION is bad: the field ``port``, or that PLACE of the unnamed fields.

    Also if it is of a UNIX socket and this system has none.
    """
    if description.startswith("unix:") and not has("AF_UNIX"):
        raise ValueError(
            f"{description!r} is no description for this system, which has no UNIX sockets: use tls: or tcp:"
        )
    if not description.startswith(("tcp:", "ssl:", "tls:")):
        return
    unnamed, named = fields(description)
    for port in [named[name] for name in ("port",) if name in named] + unnamed[place : place + 1]:
        if not (port.isascii() and port.isdigit() and int(port) < 1 << 16):
            raise ValueError(
                f"{description!r} is no description of a {side} endpoint: "
                f"a port is an integer from 0 to 65535, and {port!r} is none"
            )


@implementer(IStreamServerEndpoint)
class _PrivateEndpoint:
    """The endpoint of a UNIX socket that no other user can connect to, not even before its mode is set."""

    def __init__(self, endpoint: IStreamServerEndpoint) -> None:
        self._endpoint = endpoint

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Listen, with a umask that excludes other users."""
        umask = os.umask(0o177)
        try:
            listening: Deferred[IListeningPort] = self._endpoint.listen(protocolFactory)
        finally:
            os.umask(umask)
        return listening


_FORMS: Mapping[Side, str] = {
    "server": "tls:PORT:certificate=FILE:privateKey=FILE[:trustRoots=FILE-OR-DIRECTORY][:interface=ADDRESS]",
    "client": "tls:HOST:PORT:trustRoots=FILE-OR-DIRECTORY[:certificate=FILE:privateKey=FILE][:timeout=SECONDS]",
}


def _tls(description: str, side: Side) -> tuple[Any, Mapping[str, str]]:
    """Return what makes the TLS sessions of DESCRIPTION, of SIDE, and its fields. Raise `ValueError` if it is bad.

    (The first is of two interfaces that have no common type: hence Any.)
    """
    unnamed, named = fields(description)
    names = ("port",) if side == "server" else ("host", "port")
    given = {**named, **dict(zip(names, unnamed, strict=False))}
    allowed = {*names, "certificate", "privateKey", "trustRoots", "interface" if side == "server" else "timeout"}
    needed = {*names, "certificate", "privateKey"} if side == "server" else {*names, "trustRoots"}
    if len(unnamed) > len(names) or not needed <= given.keys() <= allowed:
        raise ValueError(f"{description!r} is no description of a {side} endpoint: it has to be {_FORMS[side]}")
    try:
        from asynqueue.wire.trust.tls import Sessions
    except ImportError as error:
        raise ValueError(f"{description!r} needs the extra for TLS: pip install 'AsynQueue[tls]'") from error
    try:
        float(given.get("timeout", 30))
        return Sessions(given, given.get("host")), given
    except OSError as error:
        why = f"{error.filename} cannot be read: {error.strerror}"
        raise ValueError(f"{description!r} is no description of a {side} endpoint: {why}") from error
    except ValueError as error:
        raise ValueError(f"{description!r} is no description of a {side} endpoint: {error}") from error


# TLS reports a lack of trust as the reason for which the connection ends. The errors of a lost network are others.


def trustFailure(reason: Failure, session: object) -> str | None:
    """Return why one side did not trust the other, if the connection ended for that REASON; else None.

    SESSION is the `asynqueue.wire.trust.tls.Session`, if it is a TLS connection.
    """
    why: str | None = getattr(session, "why", None)
    if why is not None:
        return f"{why}; TLS reports: certificate verify failed"
    error = reason.value
    if error is None or isinstance(error, ConnectionClosed | OSError):
        return None
    queue = error.args[0] if error.args else None  # OpenSSL has a library, a function and a reason for each error
    if isinstance(queue, list) and queue:
        return f"TLS reports: {', '.join(str(each[-1]) for each in queue)}"
    return f"TLS reports: {error}"
