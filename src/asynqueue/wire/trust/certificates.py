"""Make certificates for a wire: ``python -m asynqueue.wire certificates HOST...``.

An authority of its own signs a certificate for the server and one for its clients. Each is good for its own side only.
The private key of the authority is not needed any more, unless it is to sign further certificates.
"""

from __future__ import annotations

import os
from argparse import ArgumentParser, ArgumentTypeError, RawDescriptionHelpFormatter
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAYS = 3650
"""For how many days certificates are good, by default."""

FILES = ("ca.pem", "ca.key", "server.pem", "server.key", "client.pem", "client.key")
"""The files that are made."""


def make(directory: Path, hosts: Sequence[str], days: int = DAYS) -> None:
    """Make an authority, a server's certificate for HOSTS, and a client's, as `FILES` in DIRECTORY.

    Args:
        directory: The folder, which is made if there is none.
        hosts: The names and addresses by which clients reach the server, at least one.
        days: For how many days the certificates are good, 1 or more.

    Raises:
        FileExistsError: One of the files is there already. None is changed then.
        ValueError: A host is neither a name nor an address.
        OSError: A file cannot be written.
    """
    names = x509.SubjectAlternativeName([_name(host) for host in hosts])
    directory.mkdir(parents=True, exist_ok=True)
    for each in FILES:
        if os.path.lexists(directory / each):
            raise FileExistsError(f"{directory / each} is there already: move it away, or choose another --directory")
    until = timedelta(days=days)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject("AsynQueue wires: authority")
    authority = (
        _builder(subject, subject, key, key, until)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .sign(key, SHA256())
    )
    _write(directory, "ca", authority, key)
    for side, purpose, who in (
        ("server", ExtendedKeyUsageOID.SERVER_AUTH, names),
        ("client", ExtendedKeyUsageOID.CLIENT_AUTH, None),
    ):
        own = ec.generate_private_key(ec.SECP256R1())
        builder = (
            _builder(_subject(f"AsynQueue wires: {side}"), subject, own, key, until)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        )
        if who is not None:
            builder = builder.add_extension(who, critical=False)
        _write(directory, side, builder.sign(key, SHA256()), own)


def descriptions(directory: Path, hosts: Sequence[str], port: int) -> tuple[str, list[str]]:
    """Return the description of the server at PORT, and those of its clients, one for each of HOSTS.

    They name the files in DIRECTORY.
    """

    def files(side: str) -> str:
        named = {"certificate": f"{side}.pem", "privateKey": f"{side}.key", "trustRoots": "ca.pem"}
        return ":".join(f"{name}={_quoted(str(directory / file))}" for name, file in named.items())

    return f"tls:{port}:{files('server')}", [f"tls:{_quoted(host)}:{port}:{files('client')}" for host in hosts]


def run(prog: str, arguments: Sequence[str]) -> None:
    """Make certificates as ARGUMENTS say, and print how to use them. PROG is the name of the command."""
    parser = ArgumentParser(
        prog=prog,
        description="Make what tls: needs: an authority, and certificates of a server at HOST and of its clients.",
        epilog="Every holder of client.key may run anything on the server. Keep ca.key off both machines.",
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "hosts", metavar="HOST", nargs="+", type=_host, help="a name or address by which clients reach the server"
    )
    parser.add_argument("--directory", type=Path, default=Path(), help="where to make the files (default: here)")
    parser.add_argument("--port", type=int, default=7654, help="the server's port (default: %(default)d)")
    parser.add_argument("--days", type=_days, default=DAYS, help="how long they are good (default: %(default)d)")
    options = parser.parse_args(arguments)
    try:
        make(options.directory, options.hosts, options.days)
    except OSError as error:
        parser.exit(1, f"{prog}: {error}\n")
    server, clients = descriptions(options.directory, options.hosts, options.port)
    print("On the server, with server.pem, server.key and ca.pem:")
    print(f"  python -m asynqueue.wire {server} UNIVERSE")
    print("On the clients, with client.pem, client.key and ca.pem:")
    for client in clients:
        print(f'  WireQueue("{client}", Universe)')
    print("Keep ca.key off both machines. Every holder of client.key may run anything on the server.")


def _host(text: str) -> str:
    try:
        _name(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from error
    return text


def _days(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 36500):
        raise ArgumentTypeError(f"days must be an integer from 1 to 36500, got {text!r}")
    return int(text)


def _name(host: str) -> x509.GeneralName:
    """Return HOST as a certificate has it."""
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        pass
    try:
        ascii_ = host.encode("idna").decode()
    except UnicodeError:
        ascii_ = ""
    if not ascii_ or not all(each.isalnum() or each in "-._*" for each in ascii_):
        raise ValueError(f"{host!r} is neither a host's name nor its address")
    return x509.DNSName(ascii_)


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    own: ec.EllipticCurvePrivateKey,
    issuers: ec.EllipticCurvePrivateKey,
    until: timedelta,
) -> x509.CertificateBuilder:
    now = datetime.now(timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))  # another machine's clock may be slow
        .not_valid_after(now + until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(own.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuers.public_key()), critical=False)
    )


def _usage(signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs, key_cert_sign=signs, crl_sign=signs, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _write(directory: Path, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    """Write CERTIFICATE and its private KEY, which is its owner's alone from its first moment."""
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for suffix, mode, text in (("key", 0o600, private), ("pem", 0o644, certificate.public_bytes(Encoding.PEM))):
        with open(os.open(directory / f"{name}.{suffix}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(text)


def _quoted(text: str) -> str:
    """Return TEXT as a field of a description."""
    return text.replace("\\", "\\\\").replace(":", "\\:").replace("=", "\\=")
