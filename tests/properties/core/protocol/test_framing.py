"""What framing never does, with any messages and any bytes."""

from __future__ import annotations

from struct import unpack_from
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from asynqueue.core.protocol import messages as m
from asynqueue.core.protocol.framing import Decoder, FrameError, encode

NUMBERS = st.integers(0, 2**64 - 1)
SMALL = st.integers(0, 2**32 - 1)
SECONDS = st.floats(allow_nan=False)
PAYLOADS = st.one_of(
    st.binary(max_size=100),
    st.binary(max_size=300).map(bytearray),
    st.tuples(st.binary(min_size=1, max_size=9), st.integers(1, 300)).map(lambda pair: pair[0] * pair[1]),
)
MESSAGES: st.SearchStrategy[m.Message] = st.one_of(
    st.builds(m.Call, NUMBERS, st.booleans(), PAYLOADS),
    st.builds(m.Grant, NUMBERS, SMALL),
    st.builds(m.Close, NUMBERS),
    st.builds(m.Goodbye),
    st.builds(m.Ready, NUMBERS),
    st.builds(m.Returned, NUMBERS, SECONDS, PAYLOADS),
    st.builds(m.Raised, NUMBERS, SECONDS, PAYLOADS),
    st.builds(m.Opened, NUMBERS, SECONDS),
    st.builds(m.Items, NUMBERS, SMALL, PAYLOADS),
    st.builds(m.Exhausted, NUMBERS),
    st.builds(m.Failed, NUMBERS, PAYLOADS),
    st.builds(m.Begin, SMALL),
    st.builds(m.Recall),
    st.builds(m.Cancel, NUMBERS),
    st.builds(m.Started, NUMBERS),
    st.builds(m.Recalled, NUMBERS),
    st.builds(m.Refused, NUMBERS, PAYLOADS),
    st.builds(m.Terms, NUMBERS, NUMBERS, NUMBERS),
    st.builds(m.Ping),
    st.builds(m.Pong),
)
LIMITS = st.integers(64, 400)


def chunks(stream: bytes, sizes: list[int]) -> list[bytes]:
    """STREAM in pieces of SIZES, over and over."""
    pieces, start, turn = [], 0, 0
    while start < len(stream):
        pieces.append(stream[start : start + sizes[turn % len(sizes)]])
        start += len(pieces[-1])
        turn += 1
    return pieces


def frames(stream: bytes) -> list[bytes]:
    """The frames of a good STREAM."""
    found, start = [], 0
    while start < len(stream):
        (length,) = unpack_from("<I", stream, start)
        found.append(stream[start : start + 5 + length])
        start += 5 + length
    return found


@given(st.lists(MESSAGES, max_size=8), LIMITS, st.lists(st.integers(1, 400), min_size=1, max_size=6))
def test_any_chunking_gives_the_same_messages(messages: list[m.Message], limit: int, sizes: list[int]) -> None:
    decoder = Decoder(limit)
    received = []
    for piece in chunks(b"".join(encode(message, limit) for message in messages), sizes):
        received += decoder.feed(piece)
        decoder.validate()
    assert received == messages
    assert [type(message) for message in received] == [type(message) for message in messages]


@given(MESSAGES, LIMITS)
def test_every_frame_is_within_the_limit_and_all_but_the_last_are_full(message: m.Message, limit: int) -> None:
    *full, last = frames(encode(message, limit))
    assert len(last) <= 5 + limit
    assert all(limit - 16 <= len(frame) - 5 <= limit for frame in full)


@given(st.integers(0, 3_000_000), st.sampled_from((64, 1000, 1 << 20)))
def test_a_message_of_any_size_survives(size: int, limit: int) -> None:
    message = m.Returned(3, 0.5, bytes(size))
    assert Decoder(limit).feed(encode(message, limit)) == [message]


@given(st.data(), LIMITS)
def test_parts_of_different_messages_may_come_between_each_other(data: st.DataObject, limit: int) -> None:
    expected = [
        m.Items(number, 1, bytes([number]) * data.draw(st.integers(0, 2000)))
        for number in range(data.draw(st.integers(2, 5)))
    ]
    queues = [frames(encode(message, limit)) for message in expected]
    decoder = Decoder(limit)
    received: list[Any] = []
    while any(queues):
        queue = data.draw(st.sampled_from([q for q in queues if q]))
        received += decoder.feed(queue.pop(0))
        decoder.validate()
    assert sorted(received, key=lambda message: message[0]) == expected


@given(st.lists(st.one_of(st.binary(max_size=40), MESSAGES.map(lambda x: encode(x, 64))), max_size=20), st.data())
def test_any_bytes_give_messages_or_an_error_and_never_more_than_the_limits(
    pieces: list[bytes], data: st.DataObject
) -> None:
    limit, parts = data.draw(LIMITS), data.draw(st.integers(0, 2000))
    decoder = Decoder(limit, parts)
    broken = False
    for piece in pieces:
        given: list[Any] = []
        try:
            given = decoder.feed(piece)
            assert not broken, "what follows a bad frame is not read"
        except FrameError:
            broken = True
        assert all(type(message).__module__ == m.__name__ for message in given)
        decoder.validate()
        assert held(decoder) <= limit + 5 + parts


@given(st.lists(MESSAGES, min_size=1, max_size=5), st.data())
def test_a_damaged_stream_gives_messages_or_an_error(messages: list[m.Message], data: st.DataObject) -> None:
    stream = bytearray(b"".join(encode(message, 64) for message in messages))
    for _ in range(data.draw(st.integers(1, 4))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    decoder = Decoder(64, 1000)
    try:
        decoder.feed(bytes(stream))
    except FrameError:
        pass
    decoder.validate()


def held(decoder: Decoder) -> int:
    """The bytes that DECODER holds."""
    return len(decoder._buffer) + sum(len(part) for part in decoder._parts.values())
