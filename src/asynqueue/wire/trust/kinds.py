"""The kinds of endpoints, and how far each can be trusted. `TABLE` has all of them.

A kind is in one of three classes:

- `PRIVATE`: no other machine takes part. It is a UNIX socket, or TCP at a loopback address.
- `VERIFIED`: TLS encrypts, and the client verifies the server's certificate.
- `OPEN`: an attacker may stand between client and server, and read, change or take over the connection.

A wire uses an open or an unknown kind only with ``plain=True``. The class follows from the description, before anything
is sent. `isPrivate` then checks the connection itself, because a name may lead elsewhere, and because an endpoint that
is given as an object has no description.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import Enum
from ipaddress import IPv6Address, ip_address
from typing import Any, Literal

from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import INegotiated


class Trust(Enum):
    """The class of an endpoint."""

    PRIVATE = "no other machine takes part"
    VERIFIED = "TLS encrypts, and verifies the server"
    OPEN = "an attacker may stand between"


Side = Literal["server", "client"]
Fields = tuple[list[str], Mapping[str, str]]  # of a description: those without a name, and those with one


def fields(description: str) -> Fields:
    """Return the fields of DESCRIPTION after its kind."""
    words = [re.sub(r"\\(.)", r"\1", word) for word in re.split(r"(?<!\\):", description)[1:]]
    return [word for word in words if "=" not in word], dict(word.split("=", 1) for word in words if "=" in word)


def isLoopback(host: str) -> bool:
    """Return True if HOST is an address of this machine that no network can reach, or ``localhost``."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host == "localhost"
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def _private(given: Fields) -> Trust:
    return Trust.PRIVATE


def _verified(given: Fields) -> Trust:
    return Trust.VERIFIED


def _open(given: Fields) -> Trust:
    return Trust.OPEN


def _byInterface(given: Fields) -> Trust:
    unnamed, named = given
    return _byAddress(unnamed[1] if len(unnamed) > 1 else named.get("interface", ""))


def _byHost(given: Fields) -> Trust:
    unnamed, named = given
    return _byAddress(unnamed[0] if unnamed else named.get("host", ""))


def _byAddress(host: str) -> Trust:
    return Trust.PRIVATE if isLoopback(host) else Trust.OPEN


def _byRoots(given: Fields) -> Trust:
    return Trust.VERIFIED if given[1].get("trustRoots") else Trust.OPEN


TABLE: Mapping[Side, Mapping[str, Callable[[Fields], Trust]]] = {
    "server": {
        "unix": _private,
        "tcp": _byInterface,
        "tcp6": _byInterface,
        "tls": _verified,
        "ssl": _verified,  # a server of this kind has a certificate, which its clients verify
    },
    "client": {
        "unix": _private,
        "tcp": _byHost,
        "tls": _byRoots,
        "ssl": _open,  # TLS that verifies nobody: a server with any certificate would do
    },
}
"""For each side, the kinds that a wire knows, with a function that returns the class of a description's fields."""

_MAKE = "`python -m asynqueue.wire certificates HOST` makes what it needs"
_PLAIN = "plain=True (--plain on a command line) if the network is secured otherwise"
_NETWORK = "goes beyond this machine without encryption: an attacker in between could take its connections over"
_INSTEAD = f"Use tls: ({_MAKE}), or a loopback address, or {_PLAIN}"

_WHY = {
    "ssl": f"verifies no server: an attacker in between could take over. Use tls: ({_MAKE}), or {_PLAIN}",
    "tls": f"names no authority for the server's certificate. Name your own by trustRoots= ({_MAKE})",
}
"""Why a description of each kind is open, and what to use instead. The others are of networks without encryption."""


def check(side: Side, description: str, plain: bool) -> None:
    """Refuse a description of which the kind is unknown or open, unless it is to be used anyway, with PLAIN.

    Raises:
        ValueError: It is refused. The text names the way out.
    """
    kind, colon, _ = description.partition(":")
    known = TABLE[side]
    if plain:
        return
    if not colon or kind not in known:
        kinds = ", ".join(f"{each}:" for each in sorted(known))
        raise ValueError(
            f"{description!r} is no description of a {side} endpoint: a wire knows {kinds}. Others need {_PLAIN}"
        )
    if known[kind](fields(description)) is Trust.OPEN:
        raise ValueError(f"{description!r} {_WHY.get(kind, f'{_NETWORK}. {_INSTEAD}')}")


def sessionOf(transport: Any) -> Any:
    """Return the TLS session of TRANSPORT, or None.

    (A transport has several interfaces and no common type, and pyOpenSSL is an extra: hence Any.)
    """
    hasSession: bool = INegotiated.providedBy(transport)
    return transport.getHandle() if hasSession else None


def whyOpen(transport: Any) -> str | None:
    """Return why the connection of TRANSPORT is open. None: it is private, or TLS encrypts it."""
    peer = transport.getPeer()
    if isinstance(peer, UNIXAddress) or isLoopback(getattr(peer, "host", "")) or sessionOf(transport) is not None:
        return None
    return f"the connection {_NETWORK}. {_INSTEAD}"
