"""Pickling large objects without copying their buffers."""

from __future__ import annotations

import copyreg
import pickle
from collections.abc import Callable, Sequence
from types import MethodType
from typing import Any

LARGE = 1 << 16
"""Bytes from which on a value goes as a parcel: below, what a parcel costs beside copying is more than it saves. Of 64
KiB there and back a pipe takes 105 µs, and of 96 some 300, for which fresh memory has to be found; parcels take 85."""

_FRAME = 1 << 16
"""Bytes from which on pickle writes a value on its own, and ends a frame of smaller ones."""

_FRAME_MOST = 2 * _FRAME + 64
"""Bytes that such a frame has at most: it is not ended yet when the last value is added."""
_PROTOCOL = 5


class PickleWriter:
    """What pickle writes, as it comes: large bytes, and what has a buffer, are the objects that they were."""

    def __init__(self) -> None:
        self.parts: list[Any] = []  # bytes and views of them
        self.write: Callable[[Any], None] = self.parts.append

    def mentionsMain(self) -> bool:
        """Whether something of ``__main__`` is in it, which has to go by value. What is large has no name in it."""
        return any(b"__main__" in bytes(part) for part in self.parts if _mayBeFrame(part))


def _mayBeFrame(part: bytes | memoryview) -> bool:
    """False if PART, of what pickle writes, is surely a large value and nothing else."""
    return len(part) < _FRAME or (len(part) < _FRAME_MOST and bytes(part[:1]) in (b"\x80", b"\x95"))


def plainPickler(file: Any, take: Callable[[pickle.PickleBuffer], bool] | None) -> pickle.Pickler:
    """A pickler into FILE that leaves out the buffers that TAKE does not want in it.

    Methods go as Python has them. Twisted has a way of its own with them, from when `twisted.persisted.styles` is
    imported, as it is under ``twist``: a process that is passed one would have to import Twisted.
    """
    pickler = pickle.Pickler(file, _PROTOCOL, buffer_callback=take)
    if MethodType in copyreg.dispatch_table:
        others = {cls: reduce for cls, reduce in copyreg.dispatch_table.items() if cls is not MethodType}
        pickler.dispatch_table = others
    return pickler


def areLarge(values: Sequence[Any]) -> bool:
    """Whether one of VALUES is so many bytes that there is no doubt."""
    for value in values:  # noqa: SIM110  # `any` would make a generator for each call
        if type(value) in _PLAIN and len(value) >= LARGE:
            return True
    return False


_PLAIN = (bytes, bytearray, str)
