"""What pieces of a zlib stream are together, wherever they were cut."""

from __future__ import annotations

import zlib
from functools import reduce

from hypothesis import given
from hypothesis import strategies as st

from mcmandelbrot.fractal.png import BEGIN, EMPTY, compressed, end, followed, joined

parts = st.lists(st.binary(max_size=40) | st.integers(0, 70_000).map(lambda n: b"\xff" * n), max_size=6)
levels = st.integers(0, 3)


@given(st.lists(parts, max_size=5), levels)
def test_pieces_in_a_row_are_a_stream_of_all_that_went_into_them(pieces: list[list[bytes]], level: int) -> None:
    made = [compressed(piece, level) for piece in pieces]
    whole = reduce(followed, made, EMPTY)
    stream = BEGIN + b"".join(piece.data for piece in made) + end(whole)
    assert zlib.decompress(stream) == b"".join(b"".join(piece) for piece in pieces)  # which compares checksums, too


@given(st.lists(parts, max_size=5))
def test_pieces_that_are_joined_are_one_piece(pieces: list[list[bytes]]) -> None:
    made = [compressed(piece, 1) for piece in pieces]
    one = joined(made)
    everything = b"".join(b"".join(piece) for piece in pieces)
    assert (one.length, one.checksum) == (len(everything), zlib.adler32(everything))
    assert zlib.decompress(BEGIN + one.data + end(one)) == everything
