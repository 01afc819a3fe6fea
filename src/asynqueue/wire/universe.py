"""What a client may call on a server: the public methods of a universe, by their names.

A method is reachable if the class that defines it is one of the user's own, a subclass of `WireWorkerUniverse`, and
its name has no underscore in front. A method is what ``def`` or ``async def`` makes, be it static, of the class, or
with `functools.cache` or ``lru_cache``. Nothing else is reachable: no other callable, no attribute, no property, no
class, nothing that was inherited from anywhere else, and nothing that an instance has and its class has not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from struct import Struct
from types import FunctionType, MethodType
from typing import Any, NoReturn
from weakref import WeakKeyDictionary

import attrs
from twisted.python.reflect import namedAny

from asynqueue.core.protocol.messages import Payload
from asynqueue.core.protocol.payload import ChunkedPayload
from asynqueue.errors import ImplementationError

_FUNCTIONS = (FunctionType, type(lru_cache(len)))  # the second is what a method is that remembers its results
_HEAD = Struct("<BH")
_THREAD = 1

_known: WeakKeyDictionary[type, Mapping[str, Any]] = WeakKeyDictionary()  # as `methods` has them


class WireWorkerUniverse:
    """Subclass it: its public methods are what a client of a `WireServer` may call.

    >>> class Sums(WireWorkerUniverse):
    ...     def total(self, numbers: list[int]) -> int:
    ...         return sum(numbers)

    A method may return a Deferred or a coroutine, which is waited for, or an iterator, which streams. So does an
    asynchronous iterator, of an ``async def`` with a ``yield`` say, which runs in the server's main loop. A method that
    blocks is to be called by a `WireWorker` with ``thread=True``, or the whole server waits for it. All clients of a
    server have one object; what `TaskQueue.update` calls on it, it is told by each client again after each
    reconnection.
    """


@attrs.frozen
class Method:
    """Stands for the method NAME of a universe, for a client that does not have the class.

    >>> d = queue.call(Method("total"), [1, 2, 3])          # doctest: +SKIP
    """

    name: str

    def __call__(self, *args: Any, **kw: Any) -> NoReturn:
        """A name cannot be called here: it is for a `WireWorker`."""
        raise ImplementationError(f"the method {self.name!r} is one of a WireServer, and only a WireWorker calls it")


def methods(universe: type) -> Mapping[str, Any]:
    """What may be called of a UNIVERSE, by name: functions, and static and class methods. (Hence Any.)"""
    known = _known.get(universe)
    if known is None:
        known = _known[universe] = _methods(universe)
    return known


def _methods(universe: type) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for cls in reversed(universe.__mro__):
        own = cls is not WireWorkerUniverse and issubclass(cls, WireWorkerUniverse)
        for name, value in vars(cls).items():
            found.pop(name, None)  # what is overridden is not there, whatever it is overridden with
            function = value.__func__ if isinstance(value, (staticmethod, classmethod)) else value
            if own and isinstance(function, _FUNCTIONS) and not name.startswith("_"):
                found[name] = value
    return found


def nameOf(f: object, universe: type | None) -> str:
    """The name under which F is called: a `Method`, or a method of UNIVERSE, bound or not.

    Raises `asynqueue.errors.ImplementationError` if it is no method that can be called.
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


def load(universeOrName: WireWorkerUniverse | type[WireWorkerUniverse] | str) -> WireWorkerUniverse:
    """The universe itself, an object of the class, or one of the class with that full name.

    Raises `ValueError` for a name of which there is none, and `asynqueue.errors.ImplementationError` for what is no
    universe.
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
        found = found()
    if not isinstance(found, WireWorkerUniverse):
        raise ImplementationError(f"a universe is a subclass of WireWorkerUniverse, or an object of one; got {found!r}")
    return found


def pack(name: str, thread: bool, arguments: bytes | ChunkedPayload) -> bytes | ChunkedPayload:
    """A call of the method NAME, to be run in a THREAD or not, with pickled ARGUMENTS."""
    encoded = name.encode()
    head = _HEAD.pack(_THREAD if thread else 0, len(encoded)) + encoded
    if isinstance(arguments, ChunkedPayload):
        arguments.prepend(head)
        return arguments
    return head + arguments


def unpack(payload: Payload) -> tuple[str, bool, Payload]:
    """The contrary of `pack`. Raises `ValueError` for what is none."""
    if len(payload) < _HEAD.size:
        raise ValueError("a call without a head")
    arguments: Payload
    if isinstance(payload, ChunkedPayload):
        flags, length = _HEAD.unpack(payload.read(_HEAD.size))
        encoded, arguments = payload.read(length), payload
    else:
        flags, length = _HEAD.unpack_from(payload)
        end = _HEAD.size + length
        encoded, arguments = bytes(payload[_HEAD.size : end]), payload[end:]
    if len(encoded) < length or flags > _THREAD:
        raise ValueError("a call with a bad head")
    return encoded.decode(errors="backslashreplace"), flags == _THREAD, arguments  # what is no UTF-8 no method has


def bound(descriptor: Any, universe: WireWorkerUniverse) -> Callable[..., Any]:
    """What `methods` has, as a callable. (A user's method takes and gives anything: hence Any.)"""
    method: Callable[..., Any] = descriptor.__get__(universe, type(universe))
    return method
