"""A call as bytes: its callable once, then what it is passed.

A function or class that pickle carries by its name is the same few bytes for every call of it. So those bytes are made
once, and what they mean is looked up once, as long as the two sides last: the near side remembers the bytes of the
callable, the far side the callable of the bytes. Neither has to know what the other remembers. Each call's arguments
are pickled on their own: two calls that are passed the same object have nothing to do with each other over there,
however many travel together.

The bytes of a call are the length of the callable's pickle (2 bytes, little-endian, the highest bit set if there are
keywords), that pickle, and the pickle of the arguments. With the length 0 there is one pickle, of callable, arguments,
keywords and whatever else comes along. Worker processes read this module.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from struct import Struct
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from asynqueue.core.protocol.messages import Payload
from asynqueue.core.protocol.payload import whole
from asynqueue.transport.pickler import areLarge
from asynqueue.transport.serialization import dumpCall, dumps, loads
from asynqueue.transport.sharedmemory import SharedMemoryChannel, referenceLength

KNOWN = 1000
"""How many callables a side remembers before it starts over."""

_LENGTH = Struct("<H")
_KEYWORDS = 0x8000
_UNNAMED = _LENGTH.pack(0)


class CallEncoder:
    """The callables that calls were made of, and how such a call begins."""

    def __init__(self, parcels: SharedMemoryChannel | None = None) -> None:
        self._parcels = parcels
        # By id(); the callable is kept, so the id stays its own.
        self._known: dict[int, tuple[object, bytes | None, bytes | None]] = {}

    def dump(
        self, f: object, args: tuple[Any, ...], kw: Mapping[str, Any], *more: Any, describe: Callable[[], str]
    ) -> bytes:
        """The call ``f(*args, **kw)`` as bytes. DESCRIBE tells what it is, for a `SerializationError`."""
        known = self._known.get(id(f))
        if known is None:
            known = self._meet(f)
        beginning = known[2] if kw else known[1]
        if beginning is not None and not more:
            try:
                parcels = self._parcels
                if kw:
                    return beginning + dumps((args, dict(kw)), parcels)
                return beginning + dumps(args, parcels, parcels is not None and areLarge(args))
            except BaseException:  # pickle and the objects it asks raise many things: dumpCall says which object it was
                pass
        return _UNNAMED + dumpCall(f, args, kw, *more, describe=describe, parcels=self._parcels)

    def _meet(self, f: object) -> tuple[object, bytes | None, bytes | None]:
        name = _pickledName(f)
        if name is None:
            return f, None, None
        if len(self._known) >= KNOWN:
            self._known.clear()
        known = f, _LENGTH.pack(len(name)) + name, _LENGTH.pack(len(name) | _KEYWORDS) + name
        self._known[id(f)] = known
        return known


class CallDecoder:
    """The callables that calls were made of, by the bytes that stand for them."""

    def __init__(self, parcels: SharedMemoryChannel | None = None) -> None:
        self._parcels = parcels
        self._known: dict[bytes, Any] = {}

    def load(self, payload: Payload) -> tuple[Any, tuple[Any, ...], dict[str, Any], list[Any]]:
        """The callable, arguments and keywords of a call, and what else came along. Raises `SerializationError`."""
        payload = whole(payload)
        (length,) = _LENGTH.unpack_from(payload)
        if not length:
            f, args, kw, *more = loads(memoryview(payload)[2:], "the call", self._parcels)
            return f, args, kw, more
        end = 2 + (length & ~_KEYWORDS)
        name = bytes(payload[2:end])
        known = self._known.get(name)
        if known is None:
            if len(self._known) >= KNOWN:
                self._known.clear()
            known = self._known[name] = loads(name, "the callable")
        passed = loads(memoryview(payload)[end:], "the call", self._parcels)
        if length & _KEYWORDS:
            return known, *passed, []
        return known, passed, {}, []

    def drop(self, payload: Payload) -> None:
        """The call is not made."""
        payload = whole(payload)
        (length,) = _LENGTH.unpack_from(payload)
        passed = memoryview(payload)[2 + (length & ~_KEYWORDS) :]
        if self._parcels is not None and referenceLength(passed):
            self._parcels.drop(passed)


def _pickledName(f: object) -> bytes | None:
    """The bytes that stand for F wherever it can be imported; None if it goes by value, or with an object."""
    if isinstance(f, BuiltinFunctionType):
        if not isinstance(f.__self__, ModuleType | None):
            return None
    elif type(f) is not FunctionType and type(f) is not type:
        return None
    if getattr(f, "__module__", None) == "__main__":
        return None
    module = sys.modules.get(f.__module__ or "")
    if getattr(module, f.__qualname__, None) is not f:
        return None
    name = dumps(f)
    return name if len(name) < _KEYWORDS else None
