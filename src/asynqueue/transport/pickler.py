"""Pickle objects, by reference or by value, with as few copies of large buffers as possible.

Three rules stand here once:

- pickle is tried first, because it is fast;
- what pickle refuses goes another way, and so does everything that belongs to ``__main__``, because another process
  has another module of that name: see `asynqueue.transport.script`. So does what belongs to a module that
  `cloudpickle.register_pickle_by_value` was called with;
- a value of `LARGE` bytes or more is large.

Worker processes import this module: it imports neither attrs nor Twisted, and cloudpickle only when needed.
"""

from __future__ import annotations

import copyreg
import io
import pickle
import sys
from collections.abc import Callable
from types import MethodType
from typing import Any

from asynqueue.core.protocol.chunkedpayload import ChunkedPayload
from asynqueue.transport.script.context import PROTOCOL, current, sharesMain

LARGE = 1 << 16
"""Bytes from which on a value goes through shared memory.

Below, the cost of a reference is more than what it saves. A round trip of 64 KiB takes 105 µs through a pipe, and one
of 96 KiB takes 300 µs, because the kernel has to find fresh memory. Shared memory takes 85 µs for either."""

_FRAME = 1 << 16
"""Bytes from which on pickle writes a value by itself, outside the frames that collect smaller values."""

_FRAME_MOST = 2 * _FRAME + 64
"""The most bytes in a frame: pickle ends a frame only after the value that fills it."""

_SIZED = (bytes, bytearray, str)
_INSPECTED = 16
"""How many members of a tuple `isLarge` looks at: a longer tuple must not be scanned for each call."""


class PickleWriter:
    """A file for pickle to write to. It keeps large bytes and buffers as the objects that they are, without a copy."""

    def __init__(self) -> None:
        self.parts: list[Any] = []  # bytes and views of them
        self.write: Callable[[Any], None] = self.parts.append

    def isForeign(self) -> bool:
        """Return whether a name was written that is not the same elsewhere. Large values contain no names."""
        return any(isForeign(bytes(part)) for part in self.parts if _mayBeFrame(part))


def _mayBeFrame(part: bytes | memoryview) -> bool:
    """Return False if PART is certainly one large value, and not a frame of small ones."""
    return len(part) < _FRAME or (len(part) < _FRAME_MOST and bytes(part[:1]) in (b"\x80", b"\x95"))


def isForeign(pickled: bytes) -> bool:
    """Return whether PICKLED has a name of ``__main__``, or of a module that cloudpickle is to carry by value."""
    if b"__main__" in pickled and not sharesMain():
        return True
    library: Any = sys.modules.get("cloudpickle")
    if library is None:
        return False
    byValue = library.list_registry_pickle_by_value()
    return bool(byValue) and any(name.encode() in pickled for name in byValue)


def plainPickler(file: Any, isInline: Callable[[pickle.PickleBuffer], bool] | None) -> pickle.Pickler:
    """Return a pickler that writes to FILE, without the buffers for which ISINLINE returns False.

    It pickles methods as Python does. `twisted.persisted.styles`, which ``twist`` imports, registers another way, and
    a process that receives such a method would have to import Twisted.
    """
    pickler = pickle.Pickler(file, PROTOCOL, buffer_callback=isInline)
    if MethodType in copyreg.dispatch_table:
        others = {cls: reduce for cls, reduce in copyreg.dispatch_table.items() if cls is not MethodType}
        pickler.dispatch_table = others
    return pickler


def isLarge(obj: Any) -> bool:
    """Return whether OBJ is large without doubt: long bytes or text, or a tuple with such a member.

    Of a tuple, the first members are inspected, and those of tuples in it: arguments, or a call with its arguments.
    """
    if type(obj) is not tuple:
        return type(obj) in _SIZED and len(obj) >= LARGE
    for value in obj if len(obj) <= _INSPECTED else obj[:_INSPECTED]:
        if type(value) in _SIZED:
            if len(value) >= LARGE:
                return True
        elif type(value) is tuple:
            for inner in value[:_INSPECTED]:
                if type(inner) in _SIZED and len(inner) >= LARGE:
                    return True
    return False


def dumps(obj: Any) -> bytes:
    """Return OBJ as bytes. Raises whatever the picklers raise."""
    return dumpsPlainly(obj) or dumpsByValue(obj)


def dumpsPlainly(obj: Any, isInline: Callable[[pickle.PickleBuffer], bool] | None = None) -> bytes | None:
    """Return OBJ as bytes, without the buffers for which ISINLINE returns False; None if it has to go by value."""
    try:
        if MethodType in copyreg.dispatch_table:
            file = io.BytesIO()
            plainPickler(file, isInline).dump(obj)
            payload = file.getvalue()
        else:
            payload = pickle.dumps(obj, PROTOCOL, buffer_callback=isInline)
    except BaseException:  # Pickling runs code of the objects, which may raise anything, SystemExit too.
        return None
    return None if isForeign(payload) else payload


def dumpsByValue(obj: Any) -> bytes:
    """Return OBJ as bytes that pickle alone cannot make. Raises whatever the pickler raises."""
    return current().dumps(obj)


def dumpsSmall(obj: Any) -> bytes | None:
    """Return OBJ as bytes; None if it is large or has to go by value."""
    try:
        payload = pickle.dumps(obj, PROTOCOL, buffer_callback=_refuseLarge)
    except BaseException:  # as in `dumpsPlainly`, and _TooLarge
        return None
    return None if len(payload) >= LARGE or isForeign(payload) else payload


class _TooLarge(Exception):
    pass


def _refuseLarge(buffer: pickle.PickleBuffer) -> bool:
    if buffer.raw().nbytes >= LARGE:
        raise _TooLarge
    return True


def dumpsInPieces(obj: Any) -> bytes | ChunkedPayload:
    """Return OBJ as bytes, or in pieces when it is large. Raises whatever the picklers raise.

    The pieces refer to large `bytes` of OBJ; buffers that can change are copied.
    """
    small = None if isLarge(obj) else dumpsSmall(obj)
    if small is not None:
        return small
    writer = PickleWriter()
    try:
        pickle.Pickler(writer, PROTOCOL).dump(obj)
        writer.parts = [bytes(part) for part in writer.parts]  # This does not copy what is bytes already.
        byValue = writer.isForeign()
    except BaseException:  # as in `dumpsPlainly`
        byValue = True
    if byValue:
        return dumpsByValue(obj)
    return ChunkedPayload(writer.parts) if sum(map(len, writer.parts)) >= LARGE else b"".join(writer.parts)
