"""Encode calls so that each callable is pickled and looked up once for each link.

A function or class that pickle carries by name is the same few bytes in every call of it, and so is one of
``__main__``, which goes by key. The encoder therefore remembers the bytes of a callable, and the decoder remembers the
callable of the bytes. Neither needs to know what the other remembers. The arguments of each call are pickled by
themselves: two calls never share an object, even when they travel in one write.

A call is encoded as:

- the length of the callable's pickle: 2 bytes, little-endian, whose highest bit is set if there are keywords;
- that pickle;
- the pickle of the arguments.

With the length 0, one pickle follows, of the callable, arguments, keywords and further objects.

If the worker lacks definitions of ``__main__`` (see `asynqueue.transport.script.exports`), they come first: the length
`_DEFINITIONS`, then 8 bytes with the length of the definitions, then these.

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
from asynqueue.errors import SerializationError
from asynqueue.transport.pickler import dumps, dumpsByValue, dumpsPlainly, isForeign
from asynqueue.transport.script.context import current, keyed, using
from asynqueue.transport.script.exports import Definitions, Exports
from asynqueue.transport.script.namespace import Namespace
from asynqueue.transport.serialization import INLINE, Codec, loads
from asynqueue.transport.sharedmemory import SharedMemoryChannel, referenceLength

KNOWN = 1000
"""How many callables a side remembers before it starts over."""

_LENGTH = Struct("<H")
_KEYWORDS = 0x8000
_UNNAMED = _LENGTH.pack(0)
_DEFINITIONS = 0xFFFF
_SIZE = Struct("<HQ")

NUMBER = Struct("<Q")
"""What a call on a cluster begins with: the number of the last definitions that it needs."""


class _Known:
    """A callable, what its calls begin with, without and with keywords, and its key if it is of ``__main__``."""

    __slots__ = ("f", "key", "ofMain", "prefix", "prefixWithKeywords")

    def __init__(self, f: object, name: bytes, key: int | None) -> None:
        self.f = f  # It is kept, so that no other object gets its id.
        self.prefix = _LENGTH.pack(len(name)) + name
        self.prefixWithKeywords = _LENGTH.pack(len(name) | _KEYWORDS) + name
        self.key = key
        self.ofMain = False  # whether arguments of its last call were of ``__main__``: pickle alone is of no use then


class CallEncoder:
    """Encodes calls, and remembers the bytes of their callables. Large arguments go over CHANNEL, if there is one.

    BYNAME is as for `Exports`.
    """

    def __init__(self, channel: SharedMemoryChannel | None = None, byName: bool = False) -> None:
        self._codec = INLINE if channel is None else Codec(channel.dumps)
        self._codecForMain = Codec(dumpsByValue if channel is None else channel.dumpsByValue)
        self._dumpsPlainly = dumpsPlainly if channel is None else channel.dumpsPlainly
        self._known: dict[int, _Known] = {}  # by id()
        self._byName = byName
        self._exports = Exports(byName)
        self.header: bytes = b""
        """What a call begins with whose definitions the worker has."""

    def dump(
        self, f: object, args: tuple[Any, ...], kw: Mapping[str, Any], *more: Any, describe: Callable[[], str]
    ) -> bytes:
        """Return the call ``f(*args, **kw)``, and MORE objects, as bytes.

        Raises `SerializationError`, which names the call as DESCRIBE returns it.
        """
        exports = self._exports
        known = self._known.get(id(f))
        if known is not None and not (known.ofMain or more) and exports.allowsPlain(known.key):
            passed = self._dumpsPlainly([args, dict(kw)] if kw else args)
            if passed is not None:
                return self.header + (known.prefixWithKeywords if kw else known.prefix) + passed
        exports.mentions.clear()
        with using(exports):
            call = self._dump(f, args, kw, more, describe)
        definitions = exports.definitions() if exports.mentions or exports.dead else None
        return (self.header if definitions is None else self.carry(definitions)) + call

    def restart(self) -> None:
        """Send all definitions again when they are needed: the worker may not have those that were sent."""
        self._exports = Exports(self._byName)

    def carry(self, definitions: Definitions) -> bytes:
        """Return what a call begins with that needs DEFINITIONS. They are part of it, unless a subclass sends them."""
        payload = self._codec.dumps(definitions.stream)
        return _SIZE.pack(_DEFINITIONS, len(payload)) + payload

    def _dump(
        self,
        f: object,
        args: tuple[Any, ...],
        kw: Mapping[str, Any],
        more: tuple[Any, ...],
        describe: Callable[[], str],
    ) -> bytes:
        known = self._known.get(id(f)) or self._remember(f)
        if known is not None and not more:
            mentions = self._exports.mentions
            try:
                passed = (self._codecForMain if known.ofMain else self._codec).dumps([args, dict(kw)] if kw else args)
                known.ofMain = bool(mentions)
                if known.key is not None:
                    mentions[known.key] = f
                return (known.prefixWithKeywords if kw else known.prefix) + passed
            except BaseException:  # Pickling may raise anything. `dumpCall` finds out which object was refused.
                pass
        # Pickle alone refuses a function that has no name.
        byValue = type(f) is FunctionType if known is None else known.ofMain
        codec = self._codecForMain if byValue else self._codec
        return _UNNAMED + codec.dumpCall((f, args, dict(kw), *more), f, args, kw, describe)

    def _remember(self, f: object) -> _Known | None:
        """Return what there is to know of F, None if F has no name and no key."""
        name, key = _pickledName(f), None
        if name is None and _isOfMain(f):
            key = self._exports.mention(f)
            name = dumps(_Keyed(key))
        if name is None:
            return None
        if len(self._known) >= KNOWN:
            self._known.clear()
        known = self._known[id(f)] = _Known(f, name, key)
        return known


class _Keyed:
    """Is pickled as the object of KEY."""

    def __init__(self, key: int) -> None:
        self._key = key

    def __reduce__(self) -> tuple[Any, ...]:
        return keyed, (self._key,)


class CallDecoder:
    """Decodes calls, and remembers the callables of their bytes. Definitions go into NAMESPACE. Large arguments come
    over CHANNEL, if there is one."""

    def __init__(self, channel: SharedMemoryChannel | None = None, namespace: Namespace | None = None) -> None:
        self._namespace = namespace or Namespace()
        self._channel = channel
        self._known: dict[bytes, Any] = {}

    def load(self, payload: Payload | memoryview) -> tuple[Any, tuple[Any, ...], dict[str, Any], list[Any]]:
        """Return callable, arguments, keywords and further objects of a call. Raises `SerializationError`."""
        if current() is self._namespace:
            return self._load(payload)
        with using(self._namespace):
            return self._load(payload)

    def _load(self, payload: Payload | memoryview) -> tuple[Any, tuple[Any, ...], dict[str, Any], list[Any]]:
        call = self._define(payload)
        (length,) = _LENGTH.unpack_from(call)
        if not length:
            f, args, kw, *more = loads(call[2:], "the call", self._channel)
            return f, args, kw, more
        end = 2 + (length & ~_KEYWORDS)
        name = bytes(call[2:end])
        known = self._known.get(name)
        if known is None:
            if len(self._known) >= KNOWN:
                self._known.clear()
            known = self._known[name] = loads(name, "the callable")
        passed = loads(call[end:], "the call", self._channel)
        if length & _KEYWORDS:
            return known, *passed, []
        return known, passed, {}, []

    def drop(self, payload: Payload) -> None:
        """Discard a call that is not run, and the shared memory that its arguments are in. Its definitions count."""
        try:
            call = self._define(payload)
        except SerializationError:
            return
        (length,) = _LENGTH.unpack_from(call)
        passed = call[2 + (length & ~_KEYWORDS) :]
        if self._channel is not None and referenceLength(passed):
            self._channel.drop(passed)

    def _define(self, payload: Payload | memoryview) -> memoryview:
        """Take over the definitions in PAYLOAD, if it has some. Return the call in it."""
        view = payload if isinstance(payload, memoryview) else memoryview(whole(payload))
        if _LENGTH.unpack_from(view)[0] != _DEFINITIONS:
            return view
        _, size = _SIZE.unpack_from(view)
        end = _SIZE.size + size
        self._namespace.define(loads(view[_SIZE.size : end], "the definitions", self._channel))
        return view[end:]


def _isOfMain(f: object) -> bool:
    """Return whether F is a function or class that is a global of ``__main__``."""
    if type(f) is not FunctionType and type(f) is not type:
        return False
    try:
        return f.__module__ == "__main__" and vars(sys.modules["__main__"]).get(f.__qualname__) is f
    except BaseException:  # A class may raise anything when it is looked at.
        return False


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
    return pickled if len(pickled) < _KEYWORDS - 1 and not isForeign(pickled) else None
