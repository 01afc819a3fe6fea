"""The kind of a result, found without running the result's own code.

An ``isinstance`` asks an object for its ``__class__``, and an abstract class asks the metaclass of the object. Either
may raise anything: a `weakref.proxy` of an object that is gone does so, and so does a proxy of `werkzeug` outside its
context. So `kindOf` looks only at the classes of the object, with the methods of `type` itself. It never raises.

A `weakref.proxy` is a value, and so is a file object, although each has ``__iter__`` and ``__next__``: a caller wants
the file, and not its lines.

Child processes import this module, which imports neither attrs nor Twisted.
"""

from __future__ import annotations

import enum
import sys
import weakref
from _io import _IOBase  # The base of all file objects. `io.IOBase` has a metaclass that asks the object.
from types import AsyncGeneratorType, CoroutineType, GeneratorType

from asynqueue.core.text import mroOf, namespaceOf

_FILES: type = _IOBase
PLAIN = frozenset(map(id, (type(None), bool, int, float, str, bytes, bytearray, list, tuple, dict, set, frozenset)))


class Kind(enum.Enum):
    """How a worker passes a result on."""

    VALUE = "value"
    ITERATOR = "iterator"
    ASYNC_ITERATOR = "asynchronous iterator"
    COROUTINE = "coroutine"
    DEFERRED = "Deferred"


def kindOf(x: object) -> Kind:
    """Return what the result X is. It never raises."""
    cls = type(x)
    if id(cls) in PLAIN:
        return Kind.VALUE
    if cls is GeneratorType:
        return Kind.ITERATOR
    if cls is CoroutineType:
        return Kind.COROUTINE
    if cls is AsyncGeneratorType:
        return Kind.ASYNC_ITERATOR
    try:
        for each in mroOf(x):
            if each is object:
                break
            namespace = namespaceOf(each)
            if "__next__" in namespace:
                return Kind.ITERATOR if isIterator(x) and not issubclass(cls, _FILES) else Kind.VALUE
            if "__anext__" in namespace:
                return Kind.ASYNC_ITERATOR if _has(x, "__anext__") and _has(x, "__aiter__") else Kind.VALUE
            if "addErrback" in namespace and isDeferred(x):
                return Kind.DEFERRED
        return Kind.VALUE
    except BaseException:  # a MemoryError, say
        return Kind.VALUE


def isA(x: object, *kinds: type) -> bool:
    """Return whether the class of X is, or is derived from, one of KINDS. None of these may be an abstract class."""
    return issubclass(type(x), kinds)


def isDeferred(x: object) -> bool:
    """Return whether X is a Deferred. If Twisted was not imported, it is none."""
    defer = sys.modules.get("twisted.internet.defer")
    deferred = getattr(defer, "Deferred", None)
    return any(cls is deferred for cls in mroOf(x))  # an ``issubclass`` of an abstract class asks the metaclass of X


def isIterator(x: object) -> bool:
    """Return True for an object whose class has ``__iter__`` and ``__next__``, and which is no `weakref.proxy`."""
    return _has(x, "__next__") and _has(x, "__iter__") and not issubclass(type(x), weakref.ProxyTypes)


def _has(x: object, name: str) -> bool:
    """Return whether a class of X defines the method NAME, and does not define it as None."""
    for cls in mroOf(x):
        namespace = namespaceOf(cls)
        if name in namespace:
            return namespace[name] is not None
    return False
