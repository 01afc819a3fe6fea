"""TLS for both sides of a wire: what a side shows, what it verifies, and what identifies a session.

Both sides of ``tls:`` are one mechanism. A side shows its certificate, and the intermediate authorities that follow it
in the file. It verifies the other side's chain up to one of its own ``trustRoots``, and the client verifies also that
the certificate is for the host of its description. OpenSSL decides. The callback here adds the host, and keeps the
reason of a refusal, which OpenSSL does not report.

`channel` identifies a session, so that a proof of the key is worth nothing in another one (RFC 9266, RFC 5929).
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509 import Certificate
from OpenSSL import SSL
from service_identity import VerificationError
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator
from zope.interface import implementer

_REASONS = {
    9: "is not valid yet",
    10: "has expired",
    18: "has signed itself, and is not among trustRoots",
    19: "is that of an authority which is not among trustRoots",
    20: "has an issuer that was not sent, and is not among trustRoots: the chain is incomplete, or another authority's",
    21: "is the only one of its chain, which is incomplete",
    24: "is that of no authority, and has signed another one",
    25: "is further from its authority than that allows",
    26: "is for another purpose than this side of a wire",
}
"""The fault of a certificate, by the number of OpenSSL's error (``X509_V_ERR_...``)."""


class Session(SSL.Connection):
    """A session. WHY says what is wrong with the other side's certificates, if anything is."""

    why: str | None = None


@implementer(IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator)
class Sessions:
    """Makes the TLS sessions of one endpoint, by the files that OPTIONS of its description name.

    OPTIONS are ``certificate`` and ``privateKey``, and ``trustRoots``. The other side has to show a certificate if
    there are trustRoots. With a HOST, it is a server, and its certificate has to be for that host.

    Raises `ValueError` if a file has not what it has to have, and `OSError` if it cannot be read.
    """

    def __init__(self, options: Mapping[str, str], host: str | None = None) -> None:
        self._host = host
        self._name = None if host is None or _isAddress(host) else host.encode("idna")
        self._context = SSL.Context(SSL.TLS_METHOD)
        self._context.set_min_proto_version(SSL.TLS1_3_VERSION)  # from it on, an exporter identifies a session
        self._context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        self._context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        self._context.set_options(SSL.OP_NO_TICKET)
        if "certificate" in options:
            self._show(Path(options["certificate"]), Path(options.get("privateKey", options["certificate"])))
        if "trustRoots" in options:
            self._context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, self._verify)
            self._trust(Path(options["trustRoots"]))

    def clientConnectionForTLS(self, tlsProtocol: object) -> Session:
        """Return a session of a client."""
        session = self.serverConnectionForTLS(tlsProtocol)
        if self._name is not None:
            session.set_tlsext_host_name(self._name)
        return session

    def serverConnectionForTLS(self, tlsProtocol: object) -> Session:
        """Return a session of a server."""
        return Session(self._context, None)

    def _verify(self, session: Any, certificate: Any, error: int, depth: int, good: int) -> bool:
        """Return whether a CERTIFICATE of the other side is GOOD: at DEPTH 0 its own, and then those of its issuers.

        (OpenSSL has its own types of the session and of the certificate, and both are as Any to the type checker.)
        """
        if not good:
            which = "the certificate" if depth == 0 else f"certificate {depth + 1} of the chain"
            session.why = f"{which} {_REASONS.get(error, f'is refused: OpenSSL has error {error}')}"
        elif depth == 0 and self._host is not None:
            session.why = self._whyNotForHost(self._host, certificate.to_cryptography())
        return session.why is None

    def _whyNotForHost(self, host: str, certificate: Certificate) -> str | None:
        """Return why CERTIFICATE is not for HOST, or None."""
        try:
            if self._name is None:
                verify_certificate_ip_address(certificate, host)
            else:
                verify_certificate_hostname(certificate, self._name.decode())
        except VerificationError:
            return f"the certificate is not for {host}"
        except Exception as error:  # a strange certificate: an error in a callback of OpenSSL would be lost
            return f"the certificate cannot be read: {type(error).__name__}"
        return None

    def _show(self, certificate: Path, key: Path) -> None:
        certificate.read_bytes()  # OpenSSL reports no OSError
        try:
            self._context.use_certificate_chain_file(str(certificate))
        except SSL.Error as error:
            raise ValueError(f"there is no certificate, or a damaged one, in {certificate}") from error
        try:
            load_pem_private_key(
                key.read_bytes(), None
            )  # of an encrypted one, OpenSSL asks the password at the terminal
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise ValueError(f"there is no private key, or a damaged or encrypted one, in {key}") from error
        try:
            self._context.use_privatekey_file(str(key))
        except SSL.Error as error:
            raise ValueError(f"the private key in {key} is not that of the certificate in {certificate}") from error

    def _trust(self, roots: Path) -> None:
        files = sorted(roots.glob("*.pem")) if roots.is_dir() else [roots]
        if not any(b"-----BEGIN CERTIFICATE-----" in file.read_bytes() for file in files):
            raise ValueError(f"there is no certificate in {roots}")
        for file in files:
            try:
                self._context.load_verify_locations(str(file))
            except SSL.Error as error:
                raise ValueError(f"there is no certificate, or a damaged one, in {file}") from error


def channel(session: SSL.Connection, isServer: bool) -> bytes:
    """Return what identifies SESSION, of which the handshake has ended. It is the same on both sides."""
    if session.get_protocol_version() >= SSL.TLS1_3_VERSION:
        return b"tls-exporter:" + session.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")
    # Before TLS 1.3, two sessions may export the same (RFC 9266, 4.2). They differ in the server's certificate.
    certificate = session.get_certificate() if isServer else session.get_peer_certificate()
    assert certificate is not None, "a server has a certificate"
    return b"tls-server-end-point:" + sha256(certificate.to_cryptography().public_bytes(Encoding.DER)).digest()


def _isAddress(host: str) -> bool:
    return isIPAddress(host) or isIPv6Address(host)
