"""What the frames of a message are, and what is no frame."""

from __future__ import annotations

from struct import Struct, pack
from typing import Any

import pytest

from asynqueue.core.protocol import framing
from asynqueue.core.protocol import messages as m
from asynqueue.core.protocol.chunkedpayload import BLOCK, ChunkedPayload
from asynqueue.core.protocol.framing import FRAME_LIMIT, PART, PART_COST, Decoder, FrameError, encode, frames

EVERY: list[m.Message] = [
    m.Call(1, True, b"call"),
    m.Grant(2, 64),
    m.Close(3),
    m.Goodbye(),
    m.Ready(4321),
    m.Returned(5, 0.25, b"value"),
    m.Raised(6, 0.5, b"error"),
    m.Opened(7, 1.5),
    m.Items(8, 3, b"items"),
    m.Exhausted(9),
    m.Failed(10, b"error"),
]


@pytest.mark.parametrize("message", EVERY, ids=lambda message: type(message).__name__)
def test_a_message_comes_out_as_it_went_in(message: m.Message) -> None:
    (out,) = Decoder().feed(encode(message))
    assert out == message
    assert type(out) is type(message)


def test_a_small_message_is_one_frame_with_its_length_and_kind() -> None:
    assert encode(m.Returned(7, 0.5, b"xy")) == pack("<IBQd", 18, 17, 7, 0.5) + b"xy"
    assert encode(m.Goodbye()) == pack("<IB", 0, 4)


def test_messages_that_come_together_are_given_together() -> None:
    decoder = Decoder()
    stream = b"".join(map(encode, EVERY))
    assert decoder.feed(stream) == EVERY
    decoder.validate()


def test_a_message_is_given_with_its_last_byte() -> None:
    decoder = Decoder()
    *most, last = encode(EVERY[0])
    assert decoder.feed(bytes(most)) == []
    assert decoder.feed(bytes([last])) == EVERY[:1]


def test_a_large_payload_goes_in_parts_between_which_others_may_come() -> None:
    large = m.Items(1, 2, bytes(range(256)) * 2)
    frames = encode(large, frameLimit=256)
    end = 5 + int.from_bytes(frames[:4], "little")
    first, rest = frames[:end], frames[end:]
    assert Decoder(256).feed(first + encode(m.Close(9)) + rest) == [m.Close(9), large]


def test_a_payload_that_just_fits_is_one_frame_and_one_byte_more_is_two() -> None:
    assert len(encode(m.Failed(1, bytes(256 - 8)), frameLimit=256)) == 5 + 256
    assert len(encode(m.Failed(1, bytes(257 - 8)), frameLimit=256)) == 5 + 256 + 5 + 8 + 1


@pytest.mark.parametrize(
    ("stream", "why"),
    [
        (pack("<IB", FRAME_LIMIT + 1, 1), "exceeds the limit of 1048576"),
        (pack("<IB", 0, 99), "no message of kind 99"),
        (pack("<IB", 7, 3) + bytes(7), "kind 3 cannot have 7 bytes"),
        (pack("<IB", 9, 3) + bytes(9), "kind 3 cannot have 9 bytes"),
        (pack("<IB", 8, 1) + bytes(8), "kind 1 cannot have 8 bytes"),
        (pack("<IB", 8, 0) + bytes(8), "no bytes"),
    ],
)
def test_bytes_that_are_not_a_frame_raise_a_named_error(stream: bytes, why: str) -> None:
    with pytest.raises(FrameError, match=why):
        Decoder().feed(stream)


def test_a_stream_with_a_bad_frame_stays_broken_and_holds_nothing() -> None:
    decoder = Decoder()
    held = []  # an error whose traceback holds on to the frame
    for _ in range(3):
        with pytest.raises(FrameError) as info:
            decoder.feed(pack("<IB", 0, 99) + encode(m.Close(1)))
        held.append(info.value)
        decoder.validate()
    assert "a bad frame came before" in str(held[-1])


def test_unfinished_messages_are_held_up_to_the_limit() -> None:
    part = pack("<IBQ", 8 + 100, 0, 1) + bytes(100)
    decoder = Decoder(partsLimit=PART_COST + 200)
    decoder.feed(part + part)
    decoder.validate()
    with pytest.raises(FrameError, match="unfinished messages exceed the limit"):
        decoder.feed(part)


def test_beginning_many_messages_is_not_free() -> None:
    """Else a peer that sends a byte of each would have us hold a hundred times the limit."""
    decoder = Decoder(partsLimit=10 * PART_COST)
    with pytest.raises(FrameError, match="unfinished messages"):
        decoder.feed(b"".join(pack("<IBQ", 9, 0, number) + b"x" for number in range(10)))


def test_a_message_that_ends_makes_room_for_others() -> None:
    decoder = Decoder(256, partsLimit=PART_COST + 600)
    large = encode(m.Failed(1, bytes(600)), 256)
    for _ in range(3):
        assert len(decoder.feed(large)) == 1
        decoder.validate()


def test_a_message_without_a_payload_is_one_frame_either_way() -> None:
    for message in (m.Goodbye(), m.Grant(7, 3), m.Ready(1)):
        assert list(frames(message)) == [encode(message)]


def test_a_message_that_just_fits_is_one_frame() -> None:
    message = m.Returned(7, 0.5, bytes(100))
    whole = encode(message)
    limit = len(whole) - 5  # less the header
    assert encode(message, limit) == b"".join(frames(message, limit)) == whole
    assert len(next(frames(message, limit - 1))) == 5 + limit - 1 - 8
    assert len(list(frames(message, limit - 1))) == 2


def test_a_part_that_is_exactly_what_there_is_room_for_is_the_last() -> None:
    head = len(encode(m.Returned(7, 0.5, b""))) - 5
    limit = 100
    _, other = frames(m.Returned(7, 0.5, bytes(2 * (limit - head))), limit)
    assert len(other) - 5 == limit


def test_a_payload_in_pieces_is_the_same_bytes() -> None:
    pieces = ChunkedPayload([b"ab", b"cd"])
    assert encode(m.Returned(7, 0.5, pieces)) == encode(m.Returned(7, 0.5, b"abcd"))
    assert b"".join(frames(m.Returned(7, 0.5, ChunkedPayload([bytes(150), bytes(150)])), 100)) == b"".join(
        frames(m.Returned(7, 0.5, bytes(300)), 100)
    )


def test_what_cannot_be_read_is_said_in_these_words() -> None:
    decoder = Decoder()
    with pytest.raises(FrameError, match=r"^a part of a message has no number or no bytes$"):
        decoder.feed(bytes((8, 0, 0, 0, PART)) + bytes(8))
    with pytest.raises(FrameError, match=r"^a bad frame came before: the rest of the stream cannot be read$"):
        decoder.feed(b"")


def test_a_large_payload_may_be_given_in_pieces() -> None:
    size = 2 * BLOCK + 17
    payload = bytes(range(256)) * (size // 256 + 1)
    (message,) = Decoder(1 << 16, chunked=True).feed(encode(m.Returned(7, 0.5, payload), 1 << 16))
    assert isinstance(message, m.Returned)
    assert isinstance(message.payload, ChunkedPayload)
    assert message.payload.read() == payload
    (small,) = Decoder(1 << 16, chunked=True).feed(encode(m.Returned(7, 0.5, b"abc"), 1 << 16))
    assert small == m.Returned(7, 0.5, b"abc")


def test_large_payloads_may_interleave_and_their_parts_are_released() -> None:
    decoder = Decoder(1 << 16, 8 * BLOCK, chunked=True)
    both = [list(frames(m.Returned(number, 0.5, bytes((number,)) * (2 * BLOCK + 17)), 1 << 16)) for number in (1, 2)]
    heard: list[m.Message] = []
    for one, other in zip(*both, strict=True):
        heard += decoder.feed(one + other)
        decoder.validate()
    for number, message in enumerate(heard, 1):
        assert isinstance(message, m.Returned)
        assert isinstance(message.payload, ChunkedPayload)
        assert message.payload.read() == bytes((number,)) * (2 * BLOCK + 17)
    assert len(heard) == 2
    assert decoder._heldBytes == 0


def part(number: int, size: int) -> bytes:
    """A frame with SIZE bytes of the beginning of message NUMBER."""
    return pack("<IBQ", 8 + size, PART, number) + bytes(size)


def test_what_is_put_by_begins_with_a_whole_block() -> None:
    decoder = Decoder(chunked=True)
    for _ in range(2):
        assert decoder.feed(part(1, BLOCK // 2)) == []
    decoder.validate()
    (message,) = decoder.feed(encode(m.Failed(1, b"x")))
    assert isinstance(message, m.Failed)
    assert isinstance(message.payload, ChunkedPayload)
    assert message.payload.read() == bytes(BLOCK) + b"x"


def test_wanted_is_called_for_each_part_and_an_unwanted_message_is_dropped() -> None:
    asked: list[tuple[int, int]] = []

    def wanted(number: int, held: int) -> bool:
        asked.append((number, held))
        return number != 2

    decoder = Decoder(wanted=wanted)
    for number in (1, 2, 2, 1):
        assert decoder.feed(part(number, 100)) == []
        decoder.validate()
    each = PART_COST + 100
    assert asked == [(1, each), (2, 2 * each), (1, each + 100)], "of what was dropped it is not asked again"
    assert decoder.feed(encode(m.Failed(1, b"x"))) == [m.Failed(1, bytes(200) + b"x")]
    assert decoder.feed(encode(m.Failed(2, b"x"))) == []
    assert decoder.feed(encode(m.Failed(2, b"x"))) == [m.Failed(2, b"x")], "which is another"
    assert decoder._heldBytes == 0


def test_who_asks_whether_a_message_is_wanted_may_end_it_all() -> None:
    def wanted(number: int, held: int) -> bool:
        raise FrameError(f"message {number} with {held} bytes")

    decoder = Decoder(wanted=wanted)
    with pytest.raises(FrameError, match=rf"^message 7 with {PART_COST + 1} bytes$"):
        decoder.feed(part(7, 1))
    with pytest.raises(FrameError, match="a bad frame came before"):
        decoder.feed(b"")


@pytest.mark.parametrize("size", [100, BLOCK + 100])
def test_the_received_parts_of_a_message_can_be_dropped(size: int) -> None:
    decoder = Decoder(2 * BLOCK, chunked=True)
    for number, more in (1, 50), (2, 60):
        decoder.feed(part(number, size) + part(number, more))
    decoder.drop(1)
    decoder.validate()
    decoder.drop(3)
    assert decoder._heldBytes == PART_COST + size + 60
    others: list[Any] = decoder.feed(encode(m.Failed(1, b"x")) + encode(m.Failed(2, b"x")) + encode(m.Failed(3, b"x")))
    assert [message.id for message in others] == [2, 3]
    decoder.validate()


def test_a_frame_in_many_pieces_is_read_only_when_it_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what has come of it would be copied anew with each piece."""
    looks = 0

    class Header(Struct):
        def unpack_from(self, /, buffer: Any, offset: int = 0) -> tuple[Any, ...]:
            nonlocal looks
            looks += 1
            return super().unpack_from(buffer, offset)

    monkeypatch.setattr(framing, "_HEADER", Header("<IB"))
    decoder, message = Decoder(), m.Failed(1, bytes(1000))
    heard = [given for byte in encode(message) for given in decoder.feed(bytes([byte]))]
    assert heard == [message]
    assert looks == 2, "when its header is there, and when it is there"
