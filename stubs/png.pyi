"""The part of pypng that mcmandelbrot uses: a writer of rows, and a reader for the tests."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

class _Sink(Protocol):
    def write(self, data: bytes, /) -> object: ...

class Writer:
    def __init__(
        self,
        width: int,
        height: int,
        *,
        greyscale: bool = ...,
        bitdepth: int = ...,
        compression: int | None = ...,
        chunk_limit: int = ...,
    ) -> None: ...
    def write(self, outfile: _Sink, rows: Iterable[Sequence[int]]) -> int: ...

class Reader:
    def __init__(self, *, bytes: bytes) -> None: ...
    def read(self) -> tuple[int, int, Iterator[bytearray], Mapping[str, object]]: ...
