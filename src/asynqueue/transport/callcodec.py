"""Encode calls so that each callable is pickled and looked up once for each link.

A function or class that pickle carries by name is the same few bytes in every call of it. The encoder therefore
remembers the bytes of a callable, and the decoder remembers the callable of the bytes. Neither needs to know what the
other remembers. The arguments of each call are pickled by themselves: two calls never share an object, even when they
travel in one write.

A call is encoded as:

- the length of the callable's pickle: 2 bytes, little-endian, whose highest bit is set if there are keywords;
- that pickle;
- the pickle of the arguments.

With the length 0, one pickle follows, of the callable, arguments, keywords and further objects.

Worker processes import this module.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from struct import Struct
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from asynqueue.core.protocol.chunkedpayload import whole
from asynqueue.core.protocol.messages import Payload
from asynqueue.transport.pickler import dumps
from asynqueue.transport.serialization import INLINE, Codec, loads
from asynqueue.transport.sharedmemory import SharedMemoryChannel, referenceLength

KNOWN = 1000
"""How many callables a side remembers before it starts over."""

_LENGTH = Struct("<H")
_KEYWORDS = 0x8000
_UNNAMED = _LENGTH.pack(0)


class CallEncoder:
    """Encodes calls, and remembers the bytes of their callables. Large arguments go over CHANNEL, if there is one."""

    def __init__(self, channel: SharedMemoryChannel | None = None) -> None:
        self._codec = INLINE if channel is None else Codec(channel.dumps)
        # By id(). The callable is kept, so that no other object gets its id.
        self._known: dict[int, tuple[object, bytes | None, bytes | None]] = {}

    def dump(
        self, f: object, args: tuple[Any, ...], kw: Mapping[str, Any], *more: Any, describe: Callable[[], str]
    ) -> bytes:
        """Return the call ``f(*args, **kw)``, and MORE objects, as bytes.

        Raises `SerializationError`, which names the call as DESCRIBE returns it.
        """
        known = self._known.get(id(f))
        if known is None:
            known = self._remember(f)
        prefix = known[2] if kw else known[1]
        if prefix is not None and not more:
            try:
                return prefix + self._codec.dumps([args, dict(kw)] if kw else args)
            except BaseException:  # Pickling may raise anything. `dumpCall` finds out which object was refused.
                pass
        return _UNNAMED + self._codec.dumpCall((f, args, dict(kw), *more), f, args, kw, describe)

    def _remember(self, f: object) -> tuple[object, bytes | None, bytes | None]:
        name = _pickledName(f)
        if name is None:
            return f, None, None
        if len(self._known) >= KNOWN:
            self._known.clear()
        known = f, _LENGTH.pack(len(name)) + name, _LENGTH.pack(len(name) | _KEYWORDS) + name
        self._known[id(f)] = known
        return known


class CallDecoder:
    """Decodes calls, and remembers the callables of their bytes. Large arguments come over CHANNEL, if there is one."""

    def __init__(self, channel: SharedMemoryChannel | None = None) -> None:
        self._channel = channel
        self._known: dict[bytes, Any] = {}

    def load(self, payload: Payload) -> tuple[Any, tuple[Any, ...], dict[str, Any], list[Any]]:
        """Return callable, arguments, keywords and further objects of a call. Raises `SerializationError`."""
        payload = whole(payload)
        (length,) = _LENGTH.unpack_from(payload)
        if not length:
            f, args, kw, *more = loads(memoryview(payload)[2:], "the call", self._channel)
            return f, args, kw, more
        end = 2 + (length & ~_KEYWORDS)
        name = bytes(payload[2:end])
        known = self._known.get(name)
        if known is None:
            if len(self._known) >= KNOWN:
                self._known.clear()
            known = self._known[name] = loads(name, "the callable")
        passed = loads(memoryview(payload)[end:], "the call", self._channel)
        if length & _KEYWORDS:
            return known, *passed, []
        return known, passed, {}, []

    def drop(self, payload: Payload) -> None:
        """Discard a call that is not run, and the shared memory that its arguments are in."""
        payload = whole(payload)
        (length,) = _LENGTH.unpack_from(payload)
        passed = memoryview(payload)[2 + (length & ~_KEYWORDS) :]
        if self._channel is not None and referenceLength(passed):
            self._channel.drop(passed)


def _pickledName(f: object) -> bytes | None:
    """Return the pickle of F, by which any process can import it; None if F goes by value, or with an object."""
    kind = type(f)
    if kind is BuiltinFunctionType:
        if type(f.__self__) is not ModuleType and f.__self__ is not None:  # type: ignore[attr-defined]  # it has one
            return None
    elif kind is not FunctionType and kind is not type:
        return None
    name: Any = f.__module__
    if type(name) is not str or name == "__main__":
        return None
    module = sys.modules.get(name)
    try:
        if getattr(module, f.__qualname__, None) is not f:  # type: ignore[attr-defined]  # as above
            return None
    except BaseException:  # a module may have a `__getattr__`
        return None
    pickled = dumps(f)
    return pickled if len(pickled) < _KEYWORDS else None
