"""How the ends of a wire prove themselves, and what each says to a peer that does not."""

from __future__ import annotations

import hmac

import pytest

from asynqueue.core.protocol.handshake import (
    NONCE,
    WHY,
    Authenticated,
    ClientHandshake,
    Command,
    Reason,
    Refuse,
    Send,
    ServerHandshake,
)

KEY = b"a key of sixteen"


def near(key: bytes | None = KEY, certified: bool = False, nonce: bytes = b"n" * NONCE) -> ClientHandshake:
    return ClientHandshake(nonce, key, certified)


def far(key: bytes | None = KEY, certified: bool = False, nonce: bytes = b"f" * NONCE) -> ServerHandshake:
    return ServerHandshake(nonce, key, certified)


def words(commands: list[Command]) -> bytes:
    """What is to be sent."""
    return b"".join(command.data for command in commands if isinstance(command, Send))


def refusal(commands: list[Command]) -> str:
    """Why the connection has to end."""
    (why,) = [command.why for command in commands if isinstance(command, Refuse)]
    return why


def shake(one: ClientHandshake, other: ServerHandshake) -> tuple[list[Command], list[Command]]:
    """All that each side has to do, when they speak to each other."""
    nearDoes, farDoes = one.begin(), list[Command]()
    unheard = nearDoes
    while unheard:
        heard = other.received(words(unheard))
        farDoes += heard
        unheard = one.received(words(heard))
        nearDoes += unheard
    return nearDoes, farDoes


def test_two_with_the_same_key_are_proved() -> None:
    nearDoes, farDoes = shake(near(), far())
    assert (nearDoes[-1], farDoes[-1]) == (Authenticated(b""), Authenticated(b""))


def test_two_with_certificates_are_proved_without_a_key() -> None:
    nearDoes, farDoes = shake(near(None, True), far(None, True))
    assert (nearDoes[-1], farDoes[-1]) == (Authenticated(b""), Authenticated(b""))


def test_what_is_said_after_the_proof_is_kept() -> None:
    one, other = near(), far()
    proof = words(one.received(words(other.received(words(one.begin())))))
    assert one.received(words(other.received(proof)) + b"more") == [Authenticated(b"more")]


def test_another_key_is_refused_and_both_know_why() -> None:
    nearDoes, farDoes = shake(near(b"not the same key"), far())
    assert refusal(nearDoes) == "it refuses this client: the client does not have the server's key"
    assert refusal(farDoes) == "the client does not have the server's key"


@pytest.mark.parametrize(
    ("nearHas", "farHas", "why"),
    [
        (
            (None, False),
            (KEY, False),
            "the client has no key, and trusts no certificate of the server",
        ),
        ((None, True), (KEY, False), "it requires a key, and the client has none"),
        ((KEY, False), (None, True), "it has no key, and the client requires one"),
        ((KEY, False), (None, False), f"it refuses this client: {WHY[Reason.NO_TRUST]}"),
    ],
    ids=["no proof at all", "no key here", "no key there", "nothing there"],
)
def test_a_side_that_cannot_be_satisfied_ends_it(
    nearHas: tuple[bytes | None, bool], farHas: tuple[bytes | None, bool], why: str
) -> None:
    one, other = near(*nearHas), far(*farHas)
    nearDoes, farDoes = shake(one, other)
    assert refusal(nearDoes) == why
    assert Authenticated(b"") not in nearDoes
    assert one.received(b"anything") == []
    if other._over and Authenticated(b"") not in farDoes:
        assert other.received(b"anything") == []


def test_another_version_is_refused() -> None:
    hello = bytearray(words(near().begin()))
    hello[-NONCE - 1] += 1
    assert "another version" in refusal(far().received(bytes(hello)))
    challenge = bytearray(words(far().received(words(near().begin()))))
    challenge[1] += 1
    one = near()
    one.begin()
    assert "another version" in refusal(one.received(bytes(challenge)))


def test_a_proof_is_worth_nothing_on_another_connection() -> None:
    one, other = near(), far()
    hello = words(one.begin())
    proof = words(one.received(words(other.received(hello))))
    again = far(nonce=b"g" * NONCE)
    again.received(hello)
    assert refusal(again.received(proof)) == "the client does not have the server's key"


def test_a_proof_sent_back_to_where_it_came_from_is_none() -> None:
    one, other = near(), far()
    proof = words(one.received(words(other.received(words(one.begin())))))
    assert refusal(one.received(proof)) == "it does not have this key"


def test_a_far_side_says_nothing_that_depends_on_the_key_before_the_near_side_has_proved_itself() -> None:
    hello = words(near().begin())
    assert words(far().received(hello)) == words(far(b"a different key!").received(hello))


def test_whoever_says_more_than_is_due_is_refused() -> None:
    hello = words(near().begin())
    assert "protocol" in refusal(far().received(hello + b"x"))
    other = far()
    other.received(hello)
    assert "protocol" in refusal(other.received(b"P" + b"x" * 33))
    one, another = near(), far()
    tooMuch = words(another.received(words(one.begin()))) + b"x"
    assert refusal(one.received(tooMuch)) == "it sent more than the handshake allows"


@pytest.mark.parametrize("speech", [b"GET / HTTP/1.1\r\n", b"\x80\x05K\x01.", b"\x16\x03\x01\x02\x00"])
def test_who_speaks_another_protocol_is_refused_by_its_first_bytes(speech: bytes) -> None:
    assert "protocol" in refusal(far().received(speech[:3]))
    one = near()
    one.begin()
    assert "protocol" in refusal(one.received(speech[:3]))


@pytest.mark.parametrize("reason", [0, 99])
def test_a_reason_that_is_not_known_here_is_told_as_its_number(reason: int) -> None:
    one = near()
    one.begin()
    assert refusal(one.received(b"R" + bytes((reason,)))) == (
        f"it refuses this client: for the unknown reason {reason}"
    )


def test_a_refusal_may_come_in_pieces_before_the_challenge_and_after_it() -> None:
    said = bytes((ord("R"), Reason.PROOF))
    why = f"it refuses this client: {WHY[Reason.PROOF]}"
    one = near()
    one.begin()
    assert one.received(said[:1]) == []
    assert refusal(one.received(said[1:])) == why
    one, other = near(), far()
    one.received(words(other.received(words(one.begin()))))
    assert one.received(said[:1]) == []
    assert refusal(one.received(said[1:])) == why


def test_who_speaks_another_protocol_is_refused_in_these_words_after_the_challenge_too() -> None:
    one, other = near(), far()
    begun = words(one.begin())
    assert refusal(near().received(b"x")) == "it does not speak this protocol"
    one.received(words(other.received(begun)))
    assert refusal(one.received(b"x")) == "it does not speak this protocol"


def test_nothing_is_heard_after_the_end() -> None:
    one, other = near(), far()
    proof = words(one.received(words(other.received(words(one.begin())))))
    answer = words(other.received(proof))
    one.received(answer)
    assert other.received(b"more") == []
    assert one.received(answer) == []
    bare = near(None, True)
    bare.received(words(far(None, True).received(words(bare.begin()))))
    assert bare.received(b"P" + bytes(32)) == []
    refused = near()
    refused.received(b"x")
    assert refused.received(b"x") == []


def test_the_proof_is_that_of_the_protocol() -> None:
    """Which other releases speak: its words are part of it."""
    one, other = near(), far()
    hello = words(one.begin())
    challenge = words(other.received(hello))
    expected = hmac.digest(KEY, b"AsynQueue wire, near: " + hello + challenge, "sha256")
    assert words(one.received(challenge)) == b"P" + expected
