"""How the two ends of a wire prove who they are, before either believes a word of the other.

Theory of operation. Four short messages of fixed size, and nothing that is unpickled:

    near -> far     hello       the version spoken here, and a nonce
    far -> near     challenge   the same, and whether a key has to be proved or the near side's certificate will do
    near -> far     proof       by a key: HMAC-SHA256 over "near", hello and challenge
    far -> near     proof       by a key: HMAC-SHA256 over "far", hello and challenge

or, at any time, from the far side: refusal, and why. The near side proves itself first: so a stranger learns nothing
that depends on the key. A proof is of both nonces, so it is worth nothing on any other connection; of the side that
gives it, so it cannot be sent back to where it came from; and of the version, so neither side can be talked into an
older one. Proofs are compared in constant time. No side reads more than the message that is due: whoever says more
is refused.

With certificates (TLS has proved them to each side when this begins) hello and challenge are all. A side that has a
key insists on a key.

The proofs say who is there, not that nobody reads or changes what follows: for that, a wire that leaves the machine
needs TLS. Nonces and what the transport knows come from outside: this module has no randomness.
"""

from __future__ import annotations

import hmac
from enum import IntEnum
from hashlib import sha256

import attrs

VERSION = 1
"""Of all that is said on a wire. Only equals understand each other."""

NONCE = 32
"""The bytes of a nonce."""

_MAGIC = b"AsynQueue\n"
_HELLO = len(_MAGIC) + 1 + NONCE
_CHALLENGE = 1 + 1 + 1 + NONCE
_PROOF = 1 + sha256().digest_size
_REFUSAL = 2


class Reason(IntEnum):
    """Why a far side refuses."""

    NONSENSE = 1
    VERSION = 2
    NO_TRUST = 3
    PROOF = 4


WHY = {
    Reason.NONSENSE: "it does not speak this protocol",
    Reason.VERSION: f"it speaks another version of the protocol than {VERSION}",
    Reason.NO_TRUST: "the server has no key, and was shown no certificate that it trusts",
    Reason.PROOF: "it does not have the server's key",
}


@attrs.frozen
class Say:
    """Send WORDS."""

    words: bytes


@attrs.frozen
class Proved:
    """The peer is who it has to be. REST has come after the handshake."""

    rest: bytes


@attrs.frozen
class Refuse:
    """End the connection, for the reason WHY."""

    why: str


Command = Say | Proved | Refuse


class ServerHandshake:
    """The far side, that serves whoever has KEY; or, without a key, whoever is CERTIFIED by the transport.

    NONCE is `NONCE` bytes that were never used and cannot be guessed.
    """

    def __init__(self, nonce: bytes, key: bytes | None, certified: bool) -> None:
        self._nonce = nonce
        self._key = key
        self._certified = certified
        self._heard = b""
        self._transcript = b""
        self._over = False

    def received(self, words: bytes) -> list[Command]:
        """WORDS have come."""
        if self._over:
            return []
        self._heard += words
        if self._transcript:
            return self._prove()
        if not _MAGIC.startswith(self._heard[: len(_MAGIC)]) or len(self._heard) > _HELLO:
            return self.refuse(Reason.NONSENSE)
        if len(self._heard) < _HELLO:
            return []
        return self._challenge()

    def refuse(self, reason: Reason) -> list[Command]:
        """End it, for REASON."""
        self._over = True
        return [Say(bytes((ord("R"), reason))), Refuse(WHY[reason])]

    def _challenge(self) -> list[Command]:
        hello, self._heard = self._heard, b""
        if hello[len(_MAGIC)] != VERSION:
            return self.refuse(Reason.VERSION)
        if self._key is None and not self._certified:
            return self.refuse(Reason.NO_TRUST)
        challenge = bytes((ord("C"), VERSION, self._key is not None)) + self._nonce
        self._transcript = hello + challenge
        if self._key is not None:
            return [Say(challenge)]
        self._over = True
        return [Say(challenge), Proved(b"")]

    def _prove(self) -> list[Command]:
        assert self._key is not None
        if len(self._heard) > _PROOF:
            return self.refuse(Reason.NONSENSE)
        if len(self._heard) < _PROOF:
            return []
        if not hmac.compare_digest(self._heard, _proof(self._key, b"near", self._transcript)):
            return self.refuse(Reason.PROOF)
        self._over = True
        return [Say(_proof(self._key, b"far", self._transcript)), Proved(b"")]


class ClientHandshake:
    """The near side, that trusts a far side which has KEY; or, without a key, one CERTIFIED by the transport.

    NONCE is as for `ServerHandshake`.
    """

    def __init__(self, nonce: bytes, key: bytes | None, certified: bool) -> None:
        self._key = key
        self._certified = certified
        self._hello = _MAGIC + bytes((VERSION,)) + nonce
        self._heard = b""
        self._transcript = b""
        self._over = False

    def begin(self) -> list[Command]:
        """The connection is there."""
        if self._key is None and not self._certified:
            return self._refuse("there is no key here, and no certificate of the server's to trust")
        return [Say(self._hello)]

    def received(self, words: bytes) -> list[Command]:
        """WORDS have come."""
        if self._over:
            return []
        self._heard += words
        kind = self._heard[:1]
        if kind == b"R" and len(self._heard) >= _REFUSAL:
            reason = self._heard[1]
            why = WHY[Reason(reason)] if reason in WHY else f"for reason {reason}, which is not known here"
            return self._refuse(f"it refuses this client: {why}")
        if self._transcript:
            return self._prove(kind)
        if kind not in (b"R", b"C"):
            return self._refuse("it does not speak this protocol")
        return self._respond() if len(self._heard) >= _CHALLENGE else []

    def _respond(self) -> list[Command]:
        challenge, rest = self._heard[:_CHALLENGE], self._heard[_CHALLENGE:]
        if challenge[1] != VERSION:
            return self._refuse(WHY[Reason.VERSION])
        asksForKey = bool(challenge[2])
        if self._key is None and asksForKey:
            return self._refuse("it asks for a key, and there is none here")
        if self._key is not None and not asksForKey:
            return self._refuse("it has no key to prove, and there is one here that it should have")
        if self._key is None:
            self._over = True
            return [Proved(rest)]
        if rest:
            return self._refuse("it says more than it may")
        self._heard = b""
        self._transcript = self._hello + challenge
        return [Say(_proof(self._key, b"near", self._transcript))]

    def _prove(self, kind: bytes) -> list[Command]:
        assert self._key is not None
        if kind not in (b"R", b"P"):
            return self._refuse("it does not speak this protocol")
        if len(self._heard) < _PROOF:
            return []
        proof, rest = self._heard[:_PROOF], self._heard[_PROOF:]
        if not hmac.compare_digest(proof, _proof(self._key, b"far", self._transcript)):
            return self._refuse("it does not have this key")
        self._over = True
        return [Proved(rest)]

    def _refuse(self, why: str) -> list[Command]:
        self._over = True
        return [Refuse(why)]


def _proof(key: bytes, side: bytes, transcript: bytes) -> bytes:
    return b"P" + hmac.digest(key, b"AsynQueue wire, %s: " % side + transcript, "sha256")
