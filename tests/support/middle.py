"""An attacker between the two ends of a wire: it passes on what they send, and may change, cut or add to it."""

from __future__ import annotations

import os
import pickle
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from twisted.internet.endpoints import SSL4ServerEndpoint, TCP4ServerEndpoint, clientFromString, connectProtocol
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol

from asynqueue.core.protocol import messages as m
from asynqueue.core.protocol.framing import encode
from asynqueue.core.protocol.handshake import _CHALLENGE, _HELLO, _PROOF
from asynqueue.wire.universe import pack

SENT = {"client": _HELLO + _PROOF, "server": _CHALLENGE + _PROOF}
"""How many bytes each end sends in its handshake."""


class Bomb:
    """Leaves a directory at PATH wherever it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)


def poison(directory: Path) -> dict[str, bytes]:
    """What the attacker adds to what each end has sent: it leaves a mark in DIRECTORY where the other unpickles it."""
    call = pack("echo", False, pickle.dumps(((Bomb(directory / "server"),), {})))
    answer = pickle.dumps(Bomb(directory / "client"))
    return {
        "client": encode(m.Begin(1)) + encode(m.Call(1, False, call)),
        "server": encode(m.Terms(9, 9, 9)) + encode(m.Started(1)) + encode(m.Returned(1, 0.0, answer)),
    }


class Attack:
    """What the attacker does to the bytes of each END, "client" or "server". It records them.

    - FLIP is the number of the byte of the handshake that it changes.
    - CUT is the number of bytes after which it ends both connections.
    - POISON is what it sends in place of each end after the handshake.
    """

    def __init__(
        self, end: str = "", flip: int | None = None, cut: int | None = None, poison: dict[str, bytes] | None = None
    ) -> None:
        self._end = end
        self._flip = flip
        self._cut = cut
        self.poison = poison
        self.recorded = {"client": b"", "server": b""}

    def passed(self, end: str, data: bytes) -> bytes | None:
        """Return what is sent in place of DATA of END. None ends the connections."""
        before = len(self.recorded[end])
        self.recorded[end] += data
        after = before + len(data)
        if end == self._end and self._flip is not None and before <= self._flip < after:
            at = self._flip - before
            data = data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]
        if end == self._end and self._cut is not None and after > self._cut:
            return None
        if self.poison is not None:
            data = data[: max(0, SENT[end] - before)]
        return data

    @property
    def shaken(self) -> bool:
        """Whether the handshake is over."""
        return all(len(self.recorded[end]) >= sent for end, sent in SENT.items())


class _Half(Protocol):
    """One of the two connections of the attacker, with END."""

    def __init__(self, end: str, attack: Attack) -> None:
        self._end = end
        self._attack = attack
        self.other: _Half | None = None
        self.open = False
        self._held = b""

    def dataReceived(self, data: bytes) -> None:
        passed = self._attack.passed(self._end, data)
        if passed is None:
            self.abort()
        elif self.other is None:
            self._held += passed
        else:
            self.other.write(passed)
            if self._attack.poison is not None and self._attack.shaken:
                self.other.write(self._attack.poison[self._end])
                self.write(self._attack.poison[self.other._end])
                self._attack.poison = {"client": b"", "server": b""}

    def join(self, other: _Half) -> None:
        """Pass on to OTHER, and what has come already."""
        self.other = other
        other.write(self._held)

    def write(self, data: bytes) -> None:
        """Send DATA."""
        transport: Any = self.transport
        if self.open:
            transport.write(data)

    def abort(self) -> None:
        """End both connections."""
        for half in (self, self.other):
            if half is not None and half.open:
                transport: Any = half.transport
                transport.abortConnection()

    def connectionMade(self) -> None:
        self.open = True

    def connectionLost(self, reason: Any = None) -> None:
        self.open = False
        if self.other is not None and self.other.open:
            transport: Any = self.other.transport
            transport.loseConnection()


class _Middle(Factory):
    noisy = False

    def __init__(self, server: IStreamClientEndpoint, attack: Attack) -> None:
        self._server = server
        self._attack = attack
        self.halves: list[_Half] = []

    def buildProtocol(self, addr: object) -> Protocol:
        client, server = _Half("client", self._attack), _Half("server", self._attack)
        self.halves += [client, server]

        def joined(_: object) -> None:
            client.join(server)
            server.join(client)

        connectProtocol(self._server, server).addCallbacks(joined, lambda _: client.abort())
        return client


@asynccontextmanager
async def middle(server: str, attack: Attack, own: Path | None = None) -> AsyncIterator[int]:
    """Stand before the SERVER of that client description. Yield the port.

    With OWN, the attacker speaks TLS with both ends: the certificate is in that file, its key in the one beside it.
    """
    from twisted.internet import reactor, ssl

    place: Any = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
    if own is not None:
        pair = ssl.PrivateCertificate.loadPEM(own.read_bytes() + own.with_suffix(".key").read_bytes())
        place = SSL4ServerEndpoint(reactor, 0, pair.options(), interface="127.0.0.1")
    factory = _Middle(clientFromString(reactor, server), attack)
    port = await place.listen(factory)
    try:
        yield port.getHost().port
    finally:
        await port.stopListening()
        for half in factory.halves:
            half.abort()
