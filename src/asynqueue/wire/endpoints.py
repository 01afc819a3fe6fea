"""Endpoints of servers and clients: Twisted's descriptions, and two features that those lack.

- ``tls:PORT:certificate=FILE:privateKey=FILE:trustRoots=FILE-OR-DIRECTORY[:interface=ADDRESS]`` is a server for
  Twisted's client description ``tls:HOST:PORT:certificate=FILE:privateKey=FILE:trustRoots=DIRECTORY``. With trustRoots,
  each client authenticates by a certificate that one of those authorities has signed.
- A ``unix:`` socket can be used by its user only, whatever the umask is, from the moment when it exists.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.error import ConnectionClosed
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamClientEndpoint, IStreamServerEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer


@attrs.frozen
class Place:
    """A server ENDPOINT. CERTIFIED: all its clients have certificates that TLS has verified."""

    endpoint: IStreamServerEndpoint
    certified: bool = False


def place(reactor: Any, description: str | IStreamServerEndpoint) -> Place:
    """Return the endpoint of a server with that DESCRIPTION. Raise `ValueError` if it is not a description."""
    if not isinstance(description, str):
        return Place(description)
    _checkPort(description, "server", 0)
    if description.startswith("tls:"):
        try:
            return _tls(reactor, description)
        except OSError as error:
            raise ValueError(f"{description!r}: {error.filename} cannot be read: {error.strerror}") from error
    if description in ("unix:", "unix:address="):
        raise ValueError(f"{description!r} names no socket: give its path, as in unix:/path/of/the/socket")
    try:
        if description.startswith("unix:") and not re.search(r"(?<!\\):mode=", description):
            return Place(_PrivateEndpoint(serverFromString(reactor, f"{description}:mode=600")))
        return Place(serverFromString(reactor, description))
    except Exception as error:  # as in `target`
        raise ValueError(f"{description!r} is no description of a server endpoint: {error}") from error


def target(reactor: Any, description: str | IStreamClientEndpoint) -> IStreamClientEndpoint:
    """Return the endpoint of a client with that DESCRIPTION. Raise `ValueError` if it is not a description."""
    if not isinstance(description, str):
        return description
    _checkPort(description, "client", 1)
    try:
        endpoint: IStreamClientEndpoint = clientFromString(reactor, description)
    except Exception as error:  # a plugin or a certificate's file may raise any
        raise ValueError(f"{description!r} is no description of a client endpoint: {error}") from error
    return endpoint


def _words(description: str) -> list[str]:
    """Return the fields of DESCRIPTION after its kind."""
    return [re.sub(r"\\(.)", r"\1", word) for word in re.split(r"(?<!\\):", description)[1:]]


def _checkPort(description: str, side: str, place: int) -> None:
    """Raise `ValueError` if a port in DESCRIPTION is bad: the field ``port``, or that PLACE of the unnamed fields."""
    if not description.startswith(("tcp:", "ssl:", "tls:")):
        return
    words = _words(description)
    ports = [word.removeprefix("port=") for word in words if word.startswith("port=")]
    ports += [word for word in words if "=" not in word][place : place + 1]
    for port in ports:
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


def _tls(reactor: Any, description: str) -> Place:
    try:
        from OpenSSL import SSL, crypto
        from twisted.internet import ssl
        from twisted.internet.endpoints import SSL4ServerEndpoint
    except ImportError as error:
        raise ValueError(f"{description!r} needs the extra for TLS: pip install 'AsynQueue[tls]'") from error
    words = _words(description)
    options = dict(word.split("=", 1) for word in words if "=" in word)
    ports = [word for word in words if "=" not in word]
    unknown = set(options) - {"certificate", "privateKey", "trustRoots", "interface"}
    if len(ports) != 1 or not ports[0].isdigit() or unknown or not {"certificate", "privateKey"} <= set(options):
        raise ValueError(
            f"{description!r} is no description of a TLS server: it has to be "
            "tls:PORT:certificate=FILE:privateKey=FILE[:trustRoots=FILE-OR-DIRECTORY][:interface=ADDRESS]"
        )

    def load(kind: Any, path: Path, text: bytes | None = None) -> Any:  # Twisted has no type for all that has `load`
        try:
            return kind.load(path.read_bytes() if text is None else text, crypto.FILETYPE_PEM)
        except crypto.Error as error:
            what = "private key" if kind is ssl.KeyPair else "certificate"
            raise ValueError(f"{description!r}: there is no {what}, or a damaged one, in {path}") from error

    roots: list[Any] = []
    if "trustRoots" in options:
        trusted = Path(options["trustRoots"])
        roots = [load(ssl.Certificate, trusted, text) for text in _certificates(trusted)]
    context = ssl.CertificateOptions(
        privateKey=load(ssl.KeyPair, Path(options["privateKey"])).original,
        certificate=load(ssl.Certificate, Path(options["certificate"])).original,
        trustRoot=ssl.trustRootFromCertificates(roots) if roots else None,
        raiseMinimumTo=ssl.TLSVersion.TLSv1_2,
    )
    try:
        context.getContext()  # it is made once: without this, the first client would find it wrong
    except SSL.Error as error:
        raise ValueError(
            f"{description!r}: the private key in {options['privateKey']} is not that of the certificate in "
            f"{options['certificate']}"
        ) from error
    endpoint = SSL4ServerEndpoint(reactor, int(ports[0]), context, interface=options.get("interface", ""))
    return Place(endpoint, certified=bool(roots))


def _certificates(path: Path) -> list[bytes]:
    """Return the certificates in the file PATH, or in the ``.pem`` files of that directory."""
    files = sorted(path.glob("*.pem")) if path.is_dir() else [path]
    found = [
        certificate
        for file in files
        for certificate in re.findall(
            b"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", file.read_bytes(), re.DOTALL
        )
    ]
    if not found:
        raise ValueError(f"there is no certificate in {path}")
    return found


# TLS reports a lack of trust as the reason for which the connection ends. The errors of a lost network are others.


def trustFailure(reason: Failure) -> str | None:
    """Return why one side did not trust the other, if the connection ended for that REASON; else None."""
    error = reason.value
    if error is None or isinstance(error, ConnectionClosed | OSError):
        return None
    mismatches = getattr(error, "errors", None)  # of service_identity
    if mismatches:
        return f"the server's certificate is not for this host: {', '.join(map(str, mismatches))}"
    queue = error.args[0] if error.args else None  # OpenSSL has a library, a function and a reason for each error
    if isinstance(queue, list) and queue:
        return f"TLS reports: {', '.join(str(each[-1]) for each in queue)}"
    return f"TLS reports: {error}"
