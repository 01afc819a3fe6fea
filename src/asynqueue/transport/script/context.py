"""The ``__main__`` of a program as a process has it: the program its own, a worker one lasting namespace.

Functions and classes go by key. The program gives each a key when it first sends it, and keeps it under that key as
long as it exists. A worker keeps what came under a key. So an object that comes back is the very one that was sent.

Pickles call the functions `keyed`, `born`, `mainDict` and `mainModule`. These act on the *current* ``__main__``: that
of the process, unless `using` has set another one. A worker process has only one. A process that works for several
programs, such as a server, has one for each.

Worker processes import this module: it imports almost nothing, and cloudpickle only when needed.
"""

from __future__ import annotations

import itertools
import pickle
import sys
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from types import ModuleType
from typing import Any

from asynqueue.errors import SerializationError

PROTOCOL = 5

HINT = "put it into a module that the workers can import"


class Undelivered(SerializationError):
    """A call that could not be unpickled by its worker. No part of it has arrived."""


class Main:
    """The ``__main__`` of this process, which is the program's own or unknown to any program."""

    def module(self) -> ModuleType:
        """Return the module."""
        return sys.modules["__main__"]

    def keyed(self, key: int) -> Any:
        """Return the object of KEY, which is one that this program has sent."""
        found = _objects.get(key)
        found = None if found is None else found()
        if found is None:
            raise LookupError("a function or class that the program no longer has")
        return found

    def born(self, key: int | None, made: Any) -> None:
        """Note that MADE has come under KEY."""

    def dumps(self, obj: Any) -> bytes:
        """Return OBJ as bytes for any process. Raises whatever cloudpickle raises."""
        import cloudpickle

        payload: bytes = cloudpickle.dumps(obj, PROTOCOL)
        return payload


_OWN = Main()
_home: Main = _OWN
_current: ContextVar[Main | None] = ContextVar("main", default=None)


def current() -> Main:
    """Return the ``__main__`` for which this process pickles and unpickles at the moment."""
    return _current.get() or _home


class using:  # It is used like a function. A class is three times as fast as a generator.
    """Pickle and unpickle for MAIN in the body of a ``with`` statement."""

    __slots__ = ("_main", "_token")

    def __init__(self, main: Main) -> None:
        self._main = main

    def __enter__(self) -> None:
        self._token = _current.set(self._main)

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)


def sharesMain() -> bool:
    """Return whether names of ``__main__`` are the same here and in the program, because this is its worker."""
    return isWorker() and _current.get() is None


def isWorker() -> bool:
    """Return whether this process is a worker, which has definitions of its program under the name ``__main__``."""
    return _home is not _OWN


def setHome(main: Main) -> None:
    """Let MAIN be the ``__main__`` of this process."""
    global _home
    _home = main


# The keys of this program.


class Mourner:
    """Is notified of objects that cease to exist."""

    def died(self, key: int) -> None:
        """Note that the object of KEY exists no more."""
        raise NotImplementedError


_numbers = itertools.count(1)
_objects: dict[int, weakref.ref[Any]] = {}
_keys: dict[int, int] = {}  # by id()
mourners: weakref.WeakSet[Mourner] = weakref.WeakSet()


def newKey() -> int:
    """Return a key that no object has."""
    return next(_numbers)


def keyFor(obj: object) -> int:
    """Return the key of OBJ, which gets one if it has none."""
    key = _keys.get(id(obj))
    if key is None:
        key = newKey()
        _objects[key] = weakref.ref(obj, partial(_died, id(obj), key))
        _keys[id(obj)] = key
    return key


def _died(address: int, key: int, _: object) -> None:
    if _keys.get(address) == key:
        del _keys[address]
    _objects.pop(key, None)
    for each in list(mourners):
        each.died(key)


# What pickles call.


def keyed(key: int) -> Any:
    """Return the object of KEY."""
    return current().keyed(key)


def keyedOr(key: int, pickled: bytes) -> Any:
    """Return the object of KEY, or if that is no more, what is PICKLED."""
    try:
        return current().keyed(key)
    except LookupError:
        return pickle.loads(pickled)


def born(key: int | None, make: Callable[..., Any], *args: Any) -> Any:
    """Return what MAKE makes of ARGS, which comes under KEY from now on."""
    made = make(*args)
    current().born(key, made)
    return made


def attributeOf(name: str) -> Any:
    """Return the global NAME of ``__main__``, which may be a path."""
    found: Any = current().module()
    for part in name.split("."):
        found = getattr(found, part)
    return found


def mainDict() -> dict[str, Any]:
    """Return the globals of ``__main__``."""
    return vars(current().module())


def mainModule() -> ModuleType:
    """Return ``__main__``."""
    return current().module()
