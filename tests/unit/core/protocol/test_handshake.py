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


def client(key: bytes | None = KEY, certified: bool = False, nonce: bytes = b"n" * NONCE) -> ClientHandshake:
    return ClientHandshake(nonce, key, certified)


def server(key: bytes | None = KEY, certified: bool = False, nonce: bytes = b"f" * NONCE) -> ServerHandshake:
    return ServerHandshake(nonce, key, certified)


def sent(commands: list[Command]) -> bytes:
    """What is to be sent."""
    return b"".join(command.data for command in commands if isinstance(command, Send))


def refusal(commands: list[Command]) -> str:
    """Why the connection has to end."""
    (why,) = [command.why for command in commands if isinstance(command, Refuse)]
    return why


def shake(one: ClientHandshake, other: ServerHandshake) -> tuple[list[Command], list[Command]]:
    """All that each side has to do, when they speak to each other."""
    clientDoes, serverDoes = one.begin(), list[Command]()
    received = clientDoes
    while received:
        answers = other.received(sent(received))
        serverDoes += answers
        received = one.received(sent(answers))
        clientDoes += received
    return clientDoes, serverDoes


def test_two_with_the_same_key_are_proved() -> None:
    clientDoes, serverDoes = shake(client(), server())
    assert (clientDoes[-1], serverDoes[-1]) == (Authenticated(b""), Authenticated(b""))


def test_two_with_certificates_are_proved_without_a_key() -> None:
    clientDoes, serverDoes = shake(client(None, True), server(None, True))
    assert (clientDoes[-1], serverDoes[-1]) == (Authenticated(b""), Authenticated(b""))


def test_what_is_said_after_the_proof_is_kept() -> None:
    one, other = client(), server()
    proof = sent(one.received(sent(other.received(sent(one.begin())))))
    assert one.received(sent(other.received(proof)) + b"more") == [Authenticated(b"more")]


def test_another_key_is_refused_and_both_know_why() -> None:
    clientDoes, serverDoes = shake(client(b"not the same key"), server())
    assert refusal(clientDoes) == f"it refuses this client: {WHY[Reason.PROOF]}"
    assert refusal(serverDoes) == WHY[Reason.PROOF]


@pytest.mark.parametrize(
    ("clientHas", "serverHas", "why"),
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
    clientHas: tuple[bytes | None, bool], serverHas: tuple[bytes | None, bool], why: str
) -> None:
    one, other = client(*clientHas), server(*serverHas)
    clientDoes, serverDoes = shake(one, other)
    assert refusal(clientDoes) == why
    assert Authenticated(b"") not in clientDoes
    assert one.received(b"anything") == []
    if other._over and Authenticated(b"") not in serverDoes:
        assert other.received(b"anything") == []


def test_another_version_is_refused() -> None:
    hello = bytearray(sent(client().begin()))
    hello[len(b"AsynQueue\n")] += 1
    assert "another version" in refusal(server().received(bytes(hello)))
    challenge = bytearray(sent(server().received(sent(client().begin()))))
    challenge[1] += 1
    one = client()
    one.begin()
    assert "another version" in refusal(one.received(bytes(challenge)))


def test_a_proof_is_worth_nothing_on_another_connection() -> None:
    one, other = client(), server()
    hello = sent(one.begin())
    proof = sent(one.received(sent(other.received(hello))))
    again = server(nonce=b"g" * NONCE)
    again.received(hello)
    assert refusal(again.received(proof)) == WHY[Reason.PROOF]


def test_a_proof_sent_back_to_where_it_came_from_is_none() -> None:
    one, other = client(), server()
    proof = sent(one.received(sent(other.received(sent(one.begin())))))
    assert refusal(one.received(proof)) == "it does not have this key, or an attacker stands in between"


def test_a_hello_that_needs_the_key_is_known_before_the_proof() -> None:
    for key, claimed in ((KEY, True), (b"not the same key", False), (None, False)):
        other = server()
        other.received(sent(client(key, True).begin()))
        assert other.claimed is claimed
    assert not server().claimed


def test_a_server_sends_nothing_of_the_key_to_an_unauthenticated_client() -> None:
    hello = sent(client().begin())
    assert sent(server().received(hello)) == sent(server(b"a different key!").received(hello))


def test_whoever_says_more_than_is_due_is_refused() -> None:
    hello = sent(client().begin())
    assert "protocol" in refusal(server().received(hello + b"x"))
    other = server()
    other.received(hello)
    assert "protocol" in refusal(other.received(b"P" + b"x" * 33))
    one, another = client(), server()
    tooMuch = sent(another.received(sent(one.begin()))) + b"x"
    assert refusal(one.received(tooMuch)) == "it sent more than the handshake allows"


@pytest.mark.parametrize("speech", [b"GET / HTTP/1.1\r\n", b"\x80\x05K\x01.", b"\x16\x03\x01\x02\x00"])
def test_who_speaks_another_protocol_is_refused_by_its_first_bytes(speech: bytes) -> None:
    assert "protocol" in refusal(server().received(speech[:3]))
    one = client()
    one.begin()
    assert "protocol" in refusal(one.received(speech[:3]))


@pytest.mark.parametrize("reason", [0, 99])
def test_an_unknown_reason_is_reported_by_its_number(reason: int) -> None:
    one = client()
    one.begin()
    assert refusal(one.received(b"R" + bytes((reason,)))) == (
        f"it refuses this client: for the unknown reason {reason}"
    )


def test_a_refusal_may_come_in_pieces_before_the_challenge_and_after_it() -> None:
    said = bytes((ord("R"), Reason.PROOF))
    why = f"it refuses this client: {WHY[Reason.PROOF]}"
    one = client()
    one.begin()
    assert one.received(said[:1]) == []
    assert refusal(one.received(said[1:])) == why
    one, other = client(), server()
    one.received(sent(other.received(sent(one.begin()))))
    assert one.received(said[:1]) == []
    assert refusal(one.received(said[1:])) == why


def test_another_protocol_is_refused_after_the_challenge_too() -> None:
    one, other = client(), server()
    begun = sent(one.begin())
    assert refusal(client().received(b"x")) == "it does not speak this protocol"
    one.received(sent(other.received(begun)))
    assert refusal(one.received(b"x")) == "it does not speak this protocol"


def test_data_after_the_end_is_ignored() -> None:
    one, other = client(), server()
    proof = sent(one.received(sent(other.received(sent(one.begin())))))
    answer = sent(other.received(proof))
    one.received(answer)
    assert other.received(b"more") == []
    assert one.received(answer) == []
    bare = client(None, True)
    bare.received(sent(server(None, True).received(sent(bare.begin()))))
    assert bare.received(b"P" + bytes(32)) == []
    refused = client()
    refused.received(b"x")
    assert refused.received(b"x") == []


def test_the_proof_is_that_of_the_protocol() -> None:
    """Other releases use the same proof: its texts are part of the protocol."""
    one, other = client(), server()
    hello = sent(one.begin())
    challenge = sent(other.received(hello))
    expected = hmac.digest(KEY, b"AsynQueue wire, near: " + hello + challenge + b"channel", "sha256")
    assert sent(one.received(challenge, b"channel")) == b"P" + expected


def test_a_proof_is_worth_nothing_in_another_channel() -> None:
    one, other = client(), server()
    proof = sent(one.received(sent(other.received(sent(one.begin()), b"its")), b"its"))
    assert refusal(other.received(proof, b"the attacker's")) == WHY[Reason.PROOF]
    one, other = client(), server()
    proof = sent(one.received(sent(other.received(sent(one.begin()), b"its")), b"its"))
    answer = sent(other.received(proof, b"its"))
    assert "an attacker stands in between" in refusal(one.received(answer, b"the attacker's"))
