"""A hash of anything."""

from __future__ import annotations

from typing import Any

from asynqueue.calltext import isA
from asynqueue.serialization import dumps

__all__ = ["hashIt"]


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
