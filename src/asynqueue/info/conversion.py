"""Convert objects and callables to a form that can be sent, and hash any object."""

from __future__ import annotations

from types import MethodType, ModuleType
from typing import Any

from twisted.python.reflect import namedAny

from asynqueue.core.results import isA
from asynqueue.info.text import attribute, qualname
from asynqueue.transport.pickler import dumps
from asynqueue.transport.serialization import loads

__all__ = ["Converter"]


class Converter:
    """Converts objects to a form that can be sent, and checks that they can be restored.

    None means that it is impossible.

    Example:
        >>> Converter().strToFQN("os.path.join")
        'posixpath.join'
        >>> Converter().objToFQN(Converter.objToFQN), Converter().objToFQN(Converter())
        ('asynqueue.info.conversion.Converter.objToFQN', None)
    """

    def strToFQN(self, x: str) -> str | None:
        """Return the fully qualified name of the object that is imported as `x`. This imports it.

        Args:
            x: A dotted name.

        Returns:
            The name, or None if it cannot be imported.
        """
        try:
            found: object = namedAny(x)
        except Exception:  # an import may raise anything
            return None
        return self.objToFQN(found)

    def objToPickle(self, x: object) -> bytes | None:
        """Return an object as a pickle.

        Args:
            x: Any object.

        Returns:
            The bytes, or None if it cannot be pickled and unpickled.
        """
        try:
            payload = dumps(x)
            loads(payload, "the object")
        except Exception:  # a user's __reduce__ may raise anything
            return None
        return payload

    def objToFQN(self, x: object) -> str | None:
        """Return the fully qualified name of an object.

        Args:
            x: Any object.

        Returns:
            The name by which it can be imported, or None.
        """
        try:
            name = x.__name__ if isinstance(x, ModuleType) else f"{attribute(x, '__module__')}.{qualname(x)}"
            found: object = namedAny(name)
            return name if found is x or (isinstance(x, MethodType) and found == x) else None
        except Exception:  # as in strToFQN
            return None

    def processObject(self, x: object) -> bytes | str | None:
        """Return an object as a pickle, or else as its fully qualified name.

        Args:
            x: Any object.

        Returns:
            The bytes, the name, or None if both are impossible.
        """
        payload = self.objToPickle(x)
        return self.objToFQN(x) if payload is None else payload


def hashIt(*args: object) -> int:
    """Return a hash of any objects, also of unhashable ones. It is valid within this process, like `hash`.

    Lists, tuples, dicts and sets are hashed by their contents. Equal ones have equal hashes, independent of the order
    of a dict or set. An object that `hash` refuses is hashed by its pickle, so equal ones may have different hashes.
    One that cannot be pickled either is hashed by its identity.

    Args:
        args: Any objects.

    Returns:
        An integer.

    Example:
        >>> hashIt({"a": [1], "b": 2}) == hashIt({"b": 2, "a": [1]}), hashIt([1, 2]) == hashIt([2, 1])
        (True, False)
    """
    return _hash(args, {}, 0)


def _hash(x: object, known: dict[int, int], depth: int) -> int:
    """Hash X. KNOWN has the objects that were met, by identity.

    So an object that contains itself is hashed too, in linear time.
    """
    if not isA(x, list, tuple, dict, set, frozenset):
        return _hashOfOne(x)
    if id(x) not in known:
        known[id(x)] = 0
        try:
            known[id(x)] = _hashOfMany(x, known, depth + 1)
        except Exception:  # a user's subclass of list may raise anything when it is iterated
            known[id(x)] = _hashOfOne(x)
    return known[id(x)]


def _hashOfMany(x: Any, known: dict[int, int], depth: int) -> int:
    if depth > 100:
        return len(x)
    if isA(x, dict):
        return hash(("dict", frozenset((_hash(k, known, depth), _hash(v, known, depth)) for k, v in x.items())))
    hashes = [_hash(item, known, depth) for item in x]
    if isA(x, set, frozenset):
        return hash(("set", frozenset(hashes)))
    return hash(("list" if isA(x, list) else "tuple", *hashes))


def _hashOfOne(x: object) -> int:
    try:
        if isA(x, str, bytes) and not x:  # its own hash equals that of 0
            return hash("an empty str" if isA(x, str) else "empty bytes")
        return hash(x)
    except Exception:  # a user's __hash__ may raise anything
        pass
    try:
        return hash(dumps(x))
    except Exception:  # a user's __reduce__ may raise anything
        return hash((type(x).__qualname__, id(x)))
