"""Authenticate the two ends of a wire, before either accepts anything else.

The handshake has four short messages of fixed size. Nothing is unpickled:

    client -> server  hello       the protocol version, a nonce and a claim
    server -> client  challenge   the same, and whether a key is required or the client's certificate is enough
    client -> server  proof       with a key: HMAC-SHA256 over "near", hello, challenge and channel
    server -> client  proof       with a key: HMAC-SHA256 over "far", hello, challenge and channel

At any time the server may send a refusal with its reason instead.

- A claim is an HMAC of version and nonce, if the client has a key. It authenticates nothing, since it can be replayed.
  But only a client with the key can make one, so a server that is flooded serves such connections apart.
- The client proves itself first, so a stranger receives nothing that depends on the key.
- A proof covers both nonces, so it is useless on any other connection.
- A proof covers the *channel*, bytes that identify the TLS session (RFC 5056). An attacker who stands in the middle has
  another session with each side, so a proof that it passes on is wrong. Without TLS, the channel is empty.
- A proof names its side, so it cannot be sent back to its author.
- A proof covers the version, so an attacker cannot make the sides use an older version.
- Proofs are compared in constant time.
- Neither side reads more than the expected message. A client that sends more is refused.

With TLS certificates, which TLS has verified before, hello and challenge are all. A side that has a key insists on it.

The handshake authenticates the peers. It does not encrypt or protect what follows: a wire that leaves the machine needs
TLS. Nonces and the transport's facts are arguments, because this module has no randomness.
"""

from __future__ import annotations

import hmac
from enum import IntEnum
from hashlib import sha256

import attrs

VERSION = 2
"""The version of the wire protocol. Both sides must have the same."""

NONCE = 32
"""The length of a nonce, in bytes."""

_MAGIC = b"AsynQueue\n"
_HELLO = len(_MAGIC) + 1 + NONCE + sha256().digest_size
_NO_CLAIM = bytes(sha256().digest_size)
_CHALLENGE = 1 + 1 + 1 + NONCE
_PROOF = 1 + sha256().digest_size
_REFUSAL = 2


class Reason(IntEnum):
    """Why a server refuses a client."""

    NONSENSE = 1
    VERSION = 2
    NO_TRUST = 3
    PROOF = 4


WHY = {
    Reason.NONSENSE: "it does not speak this protocol",
    Reason.VERSION: f"it speaks another version of the protocol than {VERSION}",
    Reason.NO_TRUST: "the server has no key, and the client has no certificate that the server trusts",
    Reason.PROOF: "the client does not have the server's key, or an attacker stands in between",
}


@attrs.frozen
class Send:
    """Send DATA."""

    data: bytes


@attrs.frozen
class Authenticated:
    """The peer is authenticated. REST are the bytes that came after the handshake."""

    rest: bytes


@attrs.frozen
class Refuse:
    """End the connection, for the reason WHY."""

    why: str


Command = Send | Authenticated | Refuse


class ServerHandshake:
    """The server side of a handshake. It accepts clients that have KEY. Without a key it accepts CERTIFIED clients.

    NONCE is `NONCE` unpredictable bytes that were never used before. CERTIFIED is True if TLS verified a certificate.
    """

    def __init__(self, nonce: bytes, key: bytes | None, certified: bool) -> None:
        self._nonce = nonce
        self._key = key
        self._certified = certified
        self._buffer = b""
        self._transcript = b""
        self._over = False
        self.claimed: bool = False
        """True when the client has sent a hello that needs the key, or has a certificate."""

    def received(self, data: bytes, channel: bytes = b"") -> list[Command]:
        """Process DATA from the client, which came through CHANNEL."""
        if self._over:
            return []
        self._buffer += data
        if self._transcript:
            return self._prove(channel)
        if not _MAGIC.startswith(self._buffer[: len(_MAGIC)]) or len(self._buffer) > _HELLO:
            return self.refuse(Reason.NONSENSE)
        if len(self._buffer) < _HELLO:
            return []
        return self._challenge()

    def refuse(self, reason: Reason) -> list[Command]:
        """Refuse the client, for REASON."""
        self._over = True
        return [Send(bytes((ord("R"), reason))), Refuse(WHY[reason])]

    def _challenge(self) -> list[Command]:
        hello, self._buffer = self._buffer, b""
        if hello[len(_MAGIC)] != VERSION:
            return self.refuse(Reason.VERSION)
        if self._key is None and not self._certified:
            return self.refuse(Reason.NO_TRUST)
        said, claim = hello[: -len(_NO_CLAIM)], hello[-len(_NO_CLAIM) :]
        self.claimed = self._key is None or hmac.compare_digest(claim, _claim(self._key, said))
        challenge = bytes((ord("C"), VERSION, self._key is not None)) + self._nonce
        self._transcript = hello + challenge
        if self._key is not None:
            return [Send(challenge)]
        self._over = True
        return [Send(challenge), Authenticated(b"")]

    def _prove(self, channel: bytes) -> list[Command]:
        assert self._key is not None
        if len(self._buffer) > _PROOF:
            return self.refuse(Reason.NONSENSE)
        if len(self._buffer) < _PROOF:
            return []
        if not hmac.compare_digest(self._buffer, _proof(self._key, b"near", self._transcript + channel)):
            return self.refuse(Reason.PROOF)
        self._over = True
        return [Send(_proof(self._key, b"far", self._transcript + channel)), Authenticated(b"")]


class ClientHandshake:
    """The client side of a handshake. It accepts a server that has KEY. Without a key it accepts a CERTIFIED server.

    NONCE and CERTIFIED are as for `ServerHandshake`.
    """

    def __init__(self, nonce: bytes, key: bytes | None, certified: bool) -> None:
        self._key = key
        self._certified = certified
        said = _MAGIC + bytes((VERSION,)) + nonce
        self._hello = said + (_NO_CLAIM if key is None else _claim(key, said))
        self._buffer = b""
        self._transcript = b""
        self._over = False

    def begin(self) -> list[Command]:
        """Start, when the connection is made."""
        if self._key is None and not self._certified:
            return self._refuse("the client has no key, and trusts no certificate of the server")
        return [Send(self._hello)]

    def received(self, data: bytes, channel: bytes = b"") -> list[Command]:
        """Process DATA from the server, which came through CHANNEL."""
        if self._over:
            return []
        self._buffer += data
        kind = self._buffer[:1]
        if kind == b"R" and len(self._buffer) >= _REFUSAL:
            reason = self._buffer[1]
            why = WHY[Reason(reason)] if reason in WHY else f"for the unknown reason {reason}"
            return self._refuse(f"it refuses this client: {why}")
        if self._transcript:
            return self._prove(kind, channel)
        if kind not in (b"R", b"C"):
            return self._refuse("it does not speak this protocol")
        return self._respond(channel) if len(self._buffer) >= _CHALLENGE else []

    def _respond(self, channel: bytes) -> list[Command]:
        challenge, rest = self._buffer[:_CHALLENGE], self._buffer[_CHALLENGE:]
        if challenge[1] != VERSION:
            return self._refuse(WHY[Reason.VERSION])
        asksForKey = bool(challenge[2])
        if self._key is None and asksForKey:
            return self._refuse("it requires a key, and the client has none")
        if self._key is not None and not asksForKey:
            return self._refuse("it has no key, and the client requires one")
        if self._key is None:
            self._over = True
            return [Authenticated(rest)]
        if rest:
            return self._refuse("it sent more than the handshake allows")
        self._buffer = b""
        self._transcript = self._hello + challenge
        return [Send(_proof(self._key, b"near", self._transcript + channel))]

    def _prove(self, kind: bytes, channel: bytes) -> list[Command]:
        assert self._key is not None
        if kind not in (b"R", b"P"):
            return self._refuse("it does not speak this protocol")
        if len(self._buffer) < _PROOF:
            return []
        proof, rest = self._buffer[:_PROOF], self._buffer[_PROOF:]
        if not hmac.compare_digest(proof, _proof(self._key, b"far", self._transcript + channel)):
            return self._refuse("it does not have this key, or an attacker stands in between")
        self._over = True
        return [Authenticated(rest)]

    def _refuse(self, why: str) -> list[Command]:
        self._over = True
        return [Refuse(why)]


def _claim(key: bytes, said: bytes) -> bytes:
    return hmac.digest(key, b"AsynQueue wire, claim: " + said, "sha256")


def _proof(key: bytes, side: bytes, transcript: bytes) -> bytes:
    return b"P" + hmac.digest(key, b"AsynQueue wire, %s: " % side + transcript, "sha256")
