"""The public methods of a universe: a client can call them on a server, by their names.

A method can be called if

- its class is a subclass of `WireWorkerUniverse`, and not that class itself;
- its name does not begin with an underscore;
- it is made by ``def`` or ``async def``. It may be static, a class method, or have `functools.cache` or ``lru_cache``.

Nothing else can be called: no other callable, attribute, property or class, nothing that is inherited from other
classes, and nothing that only an instance has.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from functools import lru_cache
from inspect import Parameter, signature
from struct import Struct
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

from twisted.python.reflect import namedAny

from asynqueue.core.protocol.chunkedpayload import ChunkedPayload
from asynqueue.core.protocol.messages import Payload
from asynqueue.core.records import Method
from asynqueue.errors import ImplementationError

if TYPE_CHECKING:
    from asynqueue.wire.server import WireServer

_FUNCTIONS = (FunctionType, type(lru_cache(len)))  # the second is the type of a cached method
_HEAD = Struct("<BH")
_SIZE = Struct("<Q")
_THREAD = 1
_DEFINITIONS = 2

_known: WeakKeyDictionary[type, Mapping[str, Any]] = WeakKeyDictionary()  # as `methods` has them


class WireWorkerUniverse:
    """The base class of universes. The clients of a `WireServer` can call the methods of a subclass.

    These are the functions that the subclass, or a universe above it, defines by ``def`` or ``async def``, and whose
    names do not begin with an underscore. Methods that come from other classes cannot be called.

    >>> class Sums(WireWorkerUniverse):
    ...     def total(self, numbers: list[int]) -> int:
    ...         return sum(numbers)

    A method may return

    - a Deferred or a coroutine: the server waits for its result;
    - an iterator or an asynchronous iterator: its items are streamed. The iterator runs in the server's main loop.

    A method that blocks delays the whole server. Call it by a `WireWorker` with ``thread=True``.

    All clients of a server share one object. Each client repeats its updates (see `TaskQueue.update`) on that object
    after each reconnection.

    The attribute `ws` is the server, or None until there is one. It is set before the server starts, so that a method
    may end the server by ``self.ws.stop()``.

    Args:
        wireServer: The server, or None. A `WireServer` passes itself to a class of which it makes the object.
    """

    ws: WireServer | None = None

    def __init__(self, wireServer: WireServer | None = None) -> None:
        self.ws = wireServer

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled of the object: all but its server."""
        return {name: value for name, value in self.__dict__.items() if name != "ws"}

    @classmethod
    def check(cls, instance: object) -> None:
        """Raise `asynqueue.errors.ImplementationError` if `instance` is not an object of this class."""
        if not isinstance(instance, cls):
            raise ImplementationError(f"a universe is an object of a subclass of {cls.__name__}, got {instance!r}")


def methods(universe: type) -> Mapping[str, Any]:
    """Return the methods of UNIVERSE that can be called, by name: functions, static and class methods. (Hence Any.)"""
    known = _known.get(universe)
    if known is None:
        known = _known[universe] = _methods(universe)
    return known


def _methods(universe: type) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for cls in reversed(universe.__mro__):
        own = cls is not WireWorkerUniverse and issubclass(cls, WireWorkerUniverse)
        for name, value in vars(cls).items():
            found.pop(name, None)  # a subclass may override a method with something else
            function = value.__func__ if isinstance(value, (staticmethod, classmethod)) else value
            if own and isinstance(function, _FUNCTIONS) and not name.startswith("_"):
                found[name] = value
    return found


def nameOf(f: object, universe: type | None) -> str:
    """Return the name of F, which is a `Method`, or a method of UNIVERSE, bound or not.

    Raises `asynqueue.errors.ImplementationError` if F is not a method that can be called.
    """
    name = f.name if isinstance(f, Method) else getattr(f, "__name__", None)
    if universe is None and isinstance(f, Method):
        return f.name
    if universe is not None and isinstance(name, str):
        found = methods(universe).get(name)
        function = found.__func__ if isinstance(found, (staticmethod, classmethod)) else found
        if found is not None and (
            isinstance(f, Method) or function is (f.__func__ if isinstance(f, MethodType) else f)
        ):
            return name
    where = "the universe on the server" if universe is None else universe.__name__
    raise ImplementationError(f"a WireWorker calls public methods of {where}, and {f!r} is not one of them")


def load(
    universeOrName: WireWorkerUniverse | type[WireWorkerUniverse] | str | None, server: WireServer | None = None
) -> WireWorkerUniverse:
    """Return the universe that is given, or a new object of the class that is given, by its full name for example.

    The object has SERVER as its `ws`. The class is called with it, if it has a parameter for it.

    Raises `ValueError` if there is no such class, and `asynqueue.errors.ImplementationError` if it is not a universe.
    """
    found: object = universeOrName
    if isinstance(universeOrName, str):
        name = universeOrName.replace(":", ".")
        try:
            found = namedAny(name)
        except Exception as error:
            raise ValueError(
                f"there is no universe {universeOrName!r}: {type(error).__name__}: {error}. "
                "Give the full name of a class, as package.module.Class, that can be imported"
            ) from error
    if isinstance(found, type) and issubclass(found, WireWorkerUniverse):
        found = found(server) if _takesServer(found) else found()
    if not isinstance(found, WireWorkerUniverse):
        raise ImplementationError(f"a universe is a subclass of WireWorkerUniverse, or an object of one; got {found!r}")
    if found.ws is None:
        found.ws = server
    return found


def _takesServer(universe: type[WireWorkerUniverse]) -> bool:
    """Return whether the first positional parameter of UNIVERSE can be for its server: it has no other default."""
    positional = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD, Parameter.VAR_POSITIONAL)
    first = next(iter(signature(universe).parameters.values()), None)
    return first is not None and first.kind in positional and first.default in (None, Parameter.empty)


def pack(
    name: str, thread: bool, arguments: bytes | ChunkedPayload, definitions: bytes | None = None
) -> bytes | ChunkedPayload:
    """Return a call of the method NAME as bytes, to run in a THREAD or not, with ARGUMENTS, which are pickled.

    DEFINITIONS are those that the arguments need and the server lacks.
    """
    encoded = name.encode()
    flags = (_THREAD if thread else 0) | (0 if definitions is None else _DEFINITIONS)
    head = _HEAD.pack(flags, len(encoded)) + encoded
    if definitions is not None:
        head += _SIZE.pack(len(definitions)) + definitions
    if isinstance(arguments, ChunkedPayload):
        arguments.prepend(head)
        return arguments
    return head + arguments


class Packed(NamedTuple):
    """A call as it comes: the method's name, whether to run in a thread, definitions for it, and its arguments."""

    name: str
    inThread: bool
    definitions: bytes | None
    arguments: Payload


def unpack(payload: Payload) -> Packed:
    """Return the call in PAYLOAD. Raise `ValueError` for a bad one."""
    stream = payload if isinstance(payload, ChunkedPayload) else io.BytesIO(payload)
    head = stream.read(_HEAD.size)
    if len(head) < _HEAD.size:
        raise ValueError("a call without a head")
    flags, length = _HEAD.unpack(head)
    encoded, definitions = stream.read(length), None
    if len(encoded) < length or flags & ~(_THREAD | _DEFINITIONS):
        raise ValueError("a call with a bad head")
    if flags & _DEFINITIONS:
        size = stream.read(_SIZE.size)
        if len(size) < _SIZE.size:
            raise ValueError("a call with a bad head")
        definitions = stream.read(_SIZE.unpack(size)[0])
    name = encoded.decode(errors="backslashreplace")  # no method has a name that is not UTF-8
    arguments = stream if isinstance(stream, ChunkedPayload) else stream.read()
    return Packed(name, bool(flags & _THREAD), definitions, arguments)


def bound(descriptor: Any, universe: WireWorkerUniverse) -> Callable[..., Any]:
    """Return DESCRIPTOR, one of `methods`, as a callable. (A user's method takes and returns anything: hence Any.)"""
    method: Callable[..., Any] = descriptor.__get__(universe, type(universe))
    return method
