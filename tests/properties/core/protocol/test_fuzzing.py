"""A link that is told anything at all: see `benchmarks.fuzz`, which goes on for longer."""

from __future__ import annotations

import pickle
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from asynqueue.core.protocol import messages as m
from asynqueue.core.protocol.framing import encode
from benchmarks.fuzz import CALLS, decode, tell

NUMBERS = st.one_of(st.integers(1, CALLS + 1), st.just(2**64 - 1))
SECONDS = st.floats()  # infinite, negative, not a number
SOUND = st.sampled_from((1, "text", [1, 2], ValueError("no"))).map(pickle.dumps)
PAYLOADS = st.one_of(SOUND, SOUND.map(lambda payload: payload[:-3]), st.just(b""), st.binary(max_size=4))
MESSAGES: st.SearchStrategy[m.Message] = st.one_of(
    st.builds(m.Returned, NUMBERS, SECONDS, PAYLOADS),
    st.builds(m.Raised, NUMBERS, SECONDS, PAYLOADS),
    st.builds(m.Opened, NUMBERS, SECONDS),
    st.builds(m.Items, NUMBERS, st.sampled_from((0, 1, 2, 2**32 - 1)), PAYLOADS),
    st.builds(m.Exhausted, NUMBERS),
    st.builds(m.Failed, NUMBERS, PAYLOADS),
    st.builds(m.Ready, NUMBERS),
    st.builds(m.Goodbye),
)
PIECES = st.one_of(MESSAGES.map(encode), MESSAGES.map(encode), st.binary(max_size=12))
SIZES = st.sampled_from((1, 3, 50, 1 << 20))


@given(st.lists(PIECES, max_size=8).map(b"".join), SIZES)
def test_a_link_survives_whatever_is_said_to_it(stream: bytes, size: int) -> None:
    """Each call ends once, and nothing is raised but what ends the link."""
    tell(stream, size)


@given(st.lists(PIECES, max_size=8).map(b"".join), SIZES, SIZES)
def test_a_stream_decodes_alike_in_pieces_of_any_size(stream: bytes, one: int, other: int) -> None:
    heard: list[Any] = [decode(stream, size) for size in (one, other)]
    shorter, longer = sorted(map(repr, heard), key=len)
    assert longer.startswith(shorter[:-1]), "up to where the first error is noticed"
