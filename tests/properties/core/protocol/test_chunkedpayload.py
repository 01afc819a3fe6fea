"""A payload in pieces is the payload, however it is cut, sent, put by and read."""

from __future__ import annotations

import io
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynqueue.core.protocol import messages as m
from asynqueue.core.protocol.chunkedpayload import BLOCK, ChunkedPayload, joined, whole
from asynqueue.core.protocol.framing import PART_COST, Decoder, FrameError, encode, frames
from asynqueue.transport.pickler import LARGE, dumpsInPieces
from asynqueue.transport.serialization import loadItems, loads

BYTES = st.lists(st.sampled_from([b"", b"\n", b"a\nb", b"xyz" * 50, bytes(range(256))]), max_size=8)
READS = st.lists(st.tuples(st.sampled_from(["read", "readinto", "readline"]), st.integers(0, 300)), max_size=9)


@given(BYTES, READS)
def test_they_are_read_like_a_file(parts: list[bytes], reads: list[tuple[str, int]]) -> None:
    pieces, file = ChunkedPayload(parts), io.BytesIO(b"".join(parts))
    for how, size in reads:
        if how == "read":
            assert pieces.read(size) == file.read(size)
        elif how == "readline":
            assert pieces.readline() == file.readline()
        else:
            room, same = bytearray(size), bytearray(size)
            assert (pieces.readinto(memoryview(room)), room) == (file.readinto(same), same)
    left = len(pieces)
    rest = pieces.read()
    assert (len(rest), rest, len(pieces)) == (left, file.read(), 0)


@given(BYTES, st.integers(64, 400))
def test_their_frames_are_those_of_the_whole(parts: list[bytes], limit: int) -> None:
    message = m.Returned(3, 0.5, b"".join(parts))
    assert list(frames(m.Returned(3, 0.5, ChunkedPayload(parts)), limit)) == list(frames(message, limit))
    assert encode(m.Returned(3, 0.5, ChunkedPayload(parts)), limit) == encode(message, limit)


@given(st.lists(st.one_of(st.binary(max_size=9), BYTES.map(ChunkedPayload)), max_size=5))
def test_several_payloads_are_one_after_another(payloads: list[bytes | ChunkedPayload]) -> None:
    expected = b"".join(b"".join(p._pieces) if isinstance(p, ChunkedPayload) else p for p in payloads)
    assert whole(joined(payloads)) == expected


@given(st.lists(st.integers(0, 3 * BLOCK), min_size=1, max_size=3), st.sampled_from([1000, 1 << 16]), st.booleans())
def test_a_large_payload_is_chunked_if_that_is_requested(sizes: list[int], limit: int, chunked: bool) -> None:
    payloads = [bytes([number]) * size for number, size in enumerate(sizes)]
    decoder = Decoder(limit, sum(sizes) + PART_COST * len(sizes), chunked)
    queues = [list(frames(m.Returned(number, 0.0, payload), limit)) for number, payload in enumerate(payloads)]
    heard: list[Any] = []
    while any(queues):
        for queue in filter(None, queues):
            heard += decoder.feed(queue.pop(0))
        if not len(heard) % 2:  # now and then, for it takes its time
            decoder.validate()
    for message in heard:
        large = len(payloads[message.id]) > BLOCK + limit
        assert isinstance(message.payload, ChunkedPayload) <= chunked
        assert isinstance(message.payload, ChunkedPayload) or not (large and chunked)
        assert whole(message.payload) == payloads[message.id]
    assert sorted(message.id for message in heard) == list(range(len(sizes)))
    assert decoder._heldBytes == 0


def test_what_is_put_at_the_beginning_comes_first() -> None:
    pieces = ChunkedPayload([b"cd", b"e"])
    pieces.prepend(b"ab")
    assert len(pieces) == 5
    assert (pieces.read(3), pieces.read()) == (b"abc", b"de")


def test_completed_blocks_count_towards_the_limit() -> None:
    decoder = Decoder(1 << 16, 3 * BLOCK, chunked=True)
    with pytest.raises(FrameError, match=f"exceed the limit of {3 * BLOCK} bytes"):
        decoder.feed(encode(m.Call(1, False, bytes(4 * BLOCK)), 1 << 16))
    decoder.validate()
    assert not decoder._chunks


LARGE_BYTES = st.integers(LARGE, 2 * LARGE).map(lambda size: b"L" * size)
OBJECTS = st.recursive(
    st.one_of(st.integers(), st.text(), LARGE_BYTES, LARGE_BYTES.map(bytearray), LARGE_BYTES.map(bytes.decode)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.integers(), inner, max_size=3)),
    max_leaves=6,
)  # fmt: skip


@given(st.lists(OBJECTS, max_size=4))
def test_objects_come_out_as_they_went_in(objects: list[Any]) -> None:
    for obj in objects:
        assert loads(dumpsInPieces(obj), "it") == obj
    payload = joined([dumpsInPieces(obj) for obj in objects])
    assert loadItems(len(objects), payload) == (objects, None)


def test_immutable_bytes_are_sent_without_a_copy_and_mutable_ones_with_one() -> None:
    fixed, changing = b"f" * LARGE, bytearray(b"c" * LARGE)
    payload = dumpsInPieces({"fixed": fixed, "changing": changing, "view": pickle.PickleBuffer(changing)})
    assert isinstance(payload, ChunkedPayload)
    assert any(piece.obj is fixed for piece in payload._pieces)
    changing[:] = bytes(LARGE)
    assert loads(payload, "it") == {
        "fixed": fixed, "changing": bytearray(b"c" * LARGE), "view": bytearray(b"c" * LARGE)
    }  # fmt: skip
