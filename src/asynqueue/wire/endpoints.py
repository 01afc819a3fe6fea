"""Where a server listens: Twisted's endpoint descriptions, with two things that those do not have.

``tls:PORT:certificate=FILE:privateKey=FILE:trustRoots=FILE-OR-DIRECTORY[:interface=ADDRESS]`` is the other end of
Twisted's client description ``tls:HOST:PORT:certificate=FILE:privateKey=FILE:trustRoots=DIRECTORY``. With trustRoots,
each client has to show a certificate that one of those authorities has signed, and that is its proof.

A ``unix:`` socket is its user's alone, whatever the umask is, from the moment when it is there.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from zope.interface import implementer


@attrs.frozen
class Place:
    """A server ENDPOINT. CERTIFIED: whoever connects there has a certificate that was found good."""

    endpoint: IStreamServerEndpoint
    certified: bool = False


def place(reactor: Any, description: str | IStreamServerEndpoint) -> Place:
    """Where a server with that DESCRIPTION listens. Raises `ValueError` for what is no description."""
    if not isinstance(description, str):
        return Place(description)
    if description.startswith("tls:"):
        return _tls(reactor, description)
    try:
        if description in ("unix:", "unix:address="):
            raise ValueError(f"{description!r} names no socket: say unix:/where/it/is")
        if description.startswith("unix:") and not re.search(r"(?<!\\):mode=", description):
            return Place(_PrivateEndpoint(serverFromString(reactor, f"{description}:mode=600")))
        return Place(serverFromString(reactor, description))
    except (TypeError, KeyError, IndexError) as error:
        raise ValueError(f"{description!r} is no description of a server endpoint: {error}") from error


@implementer(IStreamServerEndpoint)
class _PrivateEndpoint:
    """Listens at a UNIX socket that nobody else can connect to, not even before its mode is set."""

    def __init__(self, endpoint: IStreamServerEndpoint) -> None:
        self._endpoint = endpoint

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Listen."""
        umask = os.umask(0o177)
        try:
            listening: Deferred[IListeningPort] = self._endpoint.listen(protocolFactory)
        finally:
            os.umask(umask)
        return listening


def _tls(reactor: Any, description: str) -> Place:
    try:
        from OpenSSL import crypto
        from twisted.internet import ssl
        from twisted.internet.endpoints import SSL4ServerEndpoint
    except ImportError as error:
        raise ValueError(f"{description!r} needs the extra for TLS: pip install 'AsynQueue[tls]'") from error
    words = [re.sub(r"\\(.)", r"\1", word) for word in re.split(r"(?<!\\):", description)[1:]]
    options = dict(word.split("=", 1) for word in words if "=" in word)
    ports = [word for word in words if "=" not in word]
    unknown = set(options) - {"certificate", "privateKey", "trustRoots", "interface"}
    if len(ports) != 1 or not ports[0].isdigit() or unknown or not {"certificate", "privateKey"} <= set(options):
        raise ValueError(
            f"{description!r} is no description of a TLS server: it has to be "
            "tls:PORT:certificate=FILE:privateKey=FILE[:trustRoots=FILE-OR-DIRECTORY][:interface=ADDRESS]"
        )
    pem = crypto.FILETYPE_PEM
    own = ssl.Certificate.load(Path(options["certificate"]).read_bytes(), pem)
    privateKey = ssl.KeyPair.load(Path(options["privateKey"]).read_bytes(), pem)
    roots = _certificates(Path(options["trustRoots"])) if "trustRoots" in options else []
    context = ssl.CertificateOptions(
        privateKey=privateKey.original,
        certificate=own.original,
        trustRoot=ssl.trustRootFromCertificates([ssl.Certificate.load(root, pem) for root in roots]) if roots else None,
        raiseMinimumTo=ssl.TLSVersion.TLSv1_2,
    )
    endpoint = SSL4ServerEndpoint(reactor, int(ports[0]), context, interface=options.get("interface", ""))
    return Place(endpoint, certified=bool(roots))


def _certificates(path: Path) -> list[bytes]:
    """The certificates in the file PATH, or in the ``.pem`` files of that directory."""
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
