"""Objects and callables in a form that can be sent."""

from __future__ import annotations

from types import MethodType, ModuleType
from typing import Any

from twisted.python.reflect import namedAny

from asynqueue.info.text import attribute, isA, qualname
from asynqueue.transport.pickler import dumps
from asynqueue.transport.serialization import loads

__all__ = ["Converter"]


class Converter:
    """Turns objects into what can be sent, and checks that it comes out again; None is what cannot be.

    >>> Converter().strToFQN("os.path.join")
    'posixpath.join'
    >>> Converter().objToFQN(Converter.objToFQN), Converter().objToFQN(Converter())
    ('asynqueue.info.conversion.Converter.objToFQN', None)
    """

    def strToFQN(self, x: str) -> str | None:
        """The fully qualified name of what is to be imported by the name X. Imports it."""
        try:
            found: object = namedAny(x)
        except Exception:  # what importing a module raises is anything
            return None
        return self.objToFQN(found)

    def objToPickle(self, x: object) -> bytes | None:
        """X as a pickle."""
        try:
            payload = dumps(x)
            loads(payload, "the object")
        except Exception:  # a user's __reduce__ may raise anything
            return None
        return payload

    def objToFQN(self, x: object) -> str | None:
        """The fully qualified name that X is imported by."""
        try:
            name = x.__name__ if isinstance(x, ModuleType) else f"{attribute(x, '__module__')}.{qualname(x)}"
            found: object = namedAny(name)
            return name if found is x or (isinstance(x, MethodType) and found == x) else None
        except Exception:  # as in strToFQN
            return None

    def processObject(self, x: object) -> bytes | str | None:
        """X as a pickle, or else its fully qualified name."""
        payload = self.objToPickle(x)
        return self.objToFQN(x) if payload is None else payload


# A hash of anything.


def hashIt(*args: object) -> int:
    """A hash of any objects at all, the unhashable included; within this process, as `hash` is.

    Lists, tuples, dicts and sets count by what is in them: equal ones have equal hashes, whatever the order in
    a dict or a set, and unequal ones have different hashes, but for the chance that every hash leaves. What can be
    neither hashed nor pickled counts by its identity.

    >>> hashIt({"a": [1], "b": 2}) == hashIt({"b": 2, "a": [1]}), hashIt([1, 2]) == hashIt([2, 1])
    (True, False)
    """
    return _hash(args, {}, 0)


def _hash(x: object, known: dict[int, int], depth: int) -> int:
    """KNOWN are the objects met, by their identities: what contains itself comes to an end, in linear time."""
    if not isA(x, list, tuple, dict, set, frozenset):
        return _hashOfOne(x)
    if id(x) not in known:
        known[id(x)] = 0
        try:
            known[id(x)] = _hashOfMany(x, known, depth + 1)
        except Exception:  # a user's own kind of list may raise anything for being iterated
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
        if isA(x, str, bytes) and not x:  # the hash of its own is that of 0
            return hash("an empty str" if isA(x, str) else "empty bytes")
        return hash(x)
    except Exception:  # a user's __hash__ may raise anything
        pass
    try:
        return hash(dumps(x))
    except Exception:  # a user's __reduce__ may raise anything
        return hash((type(x).__qualname__, id(x)))
