"""Describe any object, call or error as short text. None of these functions raises an error.

Objects of users may raise anything when they are looked at: in ``__repr__``, ``__str__``, ``__getattr__`` and
``__class__``, even SystemExit, and in the methods of their metaclasses. So three rules hold here:

- Code of a user's object runs only inside a ``try`` that catches `BaseException`.
- What that code returns is copied into a plain `str`: a subclass of `str` may raise anything when it is formatted.
- The texts of builtin types, of dataclasses and of attrs classes are made from a few members. So neither the time nor
  the memory for a text grows with the object. (A ``__repr__`` of the user's own is called as it is, and cut.)

Child processes import this module, which imports neither attrs nor Twisted.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from itertools import islice
from reprlib import Repr
from types import MappingProxyType, MethodType
from typing import Any

NO_KEYWORDS: Mapping[str, Any] = MappingProxyType({})

VALUE_LENGTH, ERROR_LENGTH = 1_000, 10_000
"""The most characters of a value, and of an error's message. Longer texts are shortened in the middle."""

_MRO: Any = type.__dict__["__mro__"]  # The descriptors of `type` itself, which a metaclass cannot override.
_NAME: Any = type.__dict__["__qualname__"]
_MODULE: Any = type.__dict__["__module__"]
_NAMESPACE: Any = type.__dict__["__dict__"]

_MOST = 6  # members shown
_SORTED = 64
_LONG_INTEGER = 400  # bits; the text of an integer takes time that grows with the square of its length


def mroOf(x: object) -> tuple[type, ...]:
    """Return the classes of X, without asking X or its metaclass."""
    mro: tuple[type, ...] = _MRO.__get__(type(x))
    return mro


def namespaceOf(cls: type) -> Mapping[str, Any]:
    """Return the namespace of CLS, without asking its metaclass."""
    namespace: Mapping[str, Any] = _NAMESPACE.__get__(cls)
    return namespace


def className(x: object) -> str:
    """Return the qualified name of the class of X."""
    return _nameOf(type(x))


def fullClassName(x: object) -> str:
    """Return the name of the class of X, with its module."""
    return fullName(type(x))


def fullName(cls: type) -> str:
    """Return the name of CLS, with its module, if that is a text."""
    name = _nameOf(cls)
    try:
        return f"{_plain(_MODULE.__get__(cls))[:200]}.{name}"
    except BaseException:  # its module may be anything
        return name


def errorMessage(error: BaseException) -> str:
    """Return ``str(error)``, or that it cannot be made."""
    try:
        return cut(_plain(str(error)), ERROR_LENGTH)
    except BaseException as refusal:  # a user's `__str__` may raise anything
        return f"(its str raised {className(refusal)})"


def errorText(error: BaseException | None) -> str:
    """Return the name of the class of ERROR, and its message."""
    if error is None:
        return "no error"
    message = errorMessage(error)
    return f"{className(error)}: {message}" if message else className(error)


def valueText(x: object) -> str:
    """Return X as text, like ``repr`` but short."""
    try:
        return cut(_plain(_SHORT.repr(x)), VALUE_LENGTH)
    except BaseException as error:  # a user's `__repr__` may raise anything
        return f"<{className(x)}: its repr raised {className(error)}>"


def describe(f: object, args: tuple[object, ...] = (), kw: Mapping[str, object] = NO_KEYWORDS) -> str:
    """Return the call ``f(*args, **kw)`` as text of bounded length."""
    parts = [valueText(x) for x in args[:8]] + [f"{_plain(k)[:60]}={valueText(v)}" for k, v in islice(kw.items(), 8)]
    if len(args) > 8 or len(kw) > 8:
        parts.append("...")
    return f"{callableName(f)}({', '.join(parts)})"


def callableName(f: object) -> str:
    """Return the qualified name of F, or else F as text."""
    try:
        name: Any = getattr(f, "__qualname__", None) or getattr(f, "__name__", None)
        return _plain(name)[:200] if issubclass(type(name), str) else valueText(f)
    except BaseException:  # a user's `__getattr__` may raise anything
        return valueText(f)


def cut(text: str, length: int, gap: str = " ") -> str:
    """Return TEXT. If it is longer than LENGTH, return its two ends."""
    if len(text) <= length:
        return text
    half = length // 2
    return f"{text[:half]}{gap}... {len(text) - 2 * half} characters ...{gap}{text[-half:]}"


def _nameOf(cls: type) -> str:
    try:
        return _plain(_NAME.__get__(cls))[:200]
    except BaseException:
        return "a class without a name"


def _plain(text: str) -> str:
    """Return TEXT as a `str` and not a subclass."""
    return text if type(text) is str else str.__str__(text)[:]


class _Short(Repr):
    """The texts of values: of at most so many members and levels."""

    def __init__(self) -> None:
        super().__init__()
        self.fillvalue = "..."  # Python 3.10 has no such attribute
        self.maxlevel = 4
        self.maxstring = self.maxother = 60

    def repr1(self, x: Any, level: int) -> str:
        """Return X, which is of any type, as text. LEVEL levels of its members are shown."""
        cls = type(x)
        show = _WAYS.get(id(cls))
        if show is not None:
            return show(self, x, level)
        for kind in mroOf(x):
            namespace = namespaceOf(kind)
            if "_fields" in namespace and issubclass(cls, tuple):
                return self._fields(cls, [(name, tuple.__getitem__(x, n)) for n, name in _first(kind._fields)], level)  # type: ignore[attr-defined]  # it is there
            if "__dataclass_fields__" in namespace or "__attrs_attrs__" in namespace:
                names = namespace.get("__dataclass_fields__") or [a.name for a in namespace["__attrs_attrs__"]]
                return self._fields(cls, [(name, getattr(x, name)) for _, name in _first(names)], level)
            if "__repr__" in namespace:
                show = _WAYS.get(id(kind))
                return self.repr_instance(x, level) if show is None else show(self, x, level)
        return self.repr_instance(x, level)

    def repr_instance(self, x: Any, level: int) -> str:
        """Return what the ``__repr__`` of X returns, which may raise anything, and cut it."""
        try:
            s = _plain(repr(x))
        except BaseException:  # a user's `__repr__` may raise anything
            return f"<{className(x)} instance at {id(x):#x}>"
        if len(s) > self.maxother:
            half = (self.maxother - 3) // 2
            s = s[:half] + self.fillvalue + s[half - self.maxother + 3 :]
        return s

    def _fields(self, cls: type, fields: list[tuple[str, Any]], level: int) -> str:
        name = _plain(_NAME.__get__(cls))[:200]
        if level <= 0:
            return f"{name}({self.fillvalue})"
        shown = [f"{field}={self.repr1(value, level - 1)}" for field, value in fields[:_MOST]]
        return f"{name}({', '.join([*shown, self.fillvalue][: len(fields)])})"

    def _integer(self, x: int, level: int) -> str:
        bits = int.bit_length(x)
        return f"<an integer of {bits} bits>" if bits > _LONG_INTEGER else self.repr_int(x, level)

    def _text(self, x: str, level: int) -> str:
        return self.repr_str(_plain(str.__getitem__(x, slice(200))), level)

    def _bytes(self, x: bytes | bytearray, level: int) -> str:
        if len(x) <= self.maxstring:
            return self.repr_instance(x, level)
        return f"<{len(x)} bytes, the first are {bytes(x[:16])!r}>"

    def _tuple(self, x: tuple[Any, ...], level: int) -> str:
        return self.repr_tuple(tuple(islice(tuple.__iter__(x), _MOST + 1)), level)

    def _list(self, x: list[Any], level: int) -> str:
        return self.repr_list(list(islice(list.__iter__(x), _MOST + 1)), level)

    def _set(self, x: frozenset[Any], level: int) -> str:
        members: list[Any] = list(islice(x, _SORTED))
        if all(type(member) is str or type(member) is int for member in members):
            members.sort(key=lambda member: (type(member) is str, member))
        ends = ("frozenset({", "})") if issubclass(type(x), frozenset) else ("{", "}")
        empty = f"{ends[0].strip('({') or 'set'}()"
        return self._braces(ends, empty, members, level, lambda member: self.repr1(member, level - 1))

    def _dict(self, x: dict[Any, Any], level: int) -> str:
        def one(item: tuple[Any, Any]) -> str:
            return f"{self.repr1(item[0], level - 1)}: {self.repr1(item[1], level - 1)}"

        return self._braces(("{", "}"), "{}", list(islice(dict.items(x), _MOST + 1)), level, one)

    def _braces(
        self, ends: tuple[str, str], empty: str, members: list[Any], level: int, one: Callable[[Any], str]
    ) -> str:
        if not members:
            return empty
        shown = [self.fillvalue]
        if level > 0:
            shown = [*map(one, members[:_MOST]), self.fillvalue][: len(members)]
        return ends[0] + ", ".join(shown) + ends[1]

    def _method(self, x: MethodType, level: int) -> str:
        owner = self.repr1(x.__self__, level - 1) if level > 0 else self.fillvalue
        return f"<bound method {callableName(x.__func__)} of {owner}>"

    def _partial(self, x: functools.partial[Any], level: int) -> str:
        if level <= 0:
            return "functools.partial(...)"
        f, args, kw = x.func, x.args, x.keywords
        shown = [self.repr1(f, level - 1), *(self.repr1(a, level - 1) for a in args[:_MOST])]
        shown += [f"{_plain(k)[:60]}={self.repr1(v, level - 1)}" for k, v in islice(kw.items(), _MOST)]
        return f"functools.partial({', '.join(shown)})"


def _first(names: Any) -> Any:
    """Return the numbers and texts of the first NAMES, one more than are shown."""
    return enumerate(islice(names, _MOST + 1))


_WAYS: dict[int, Callable[[_Short, Any, int], str]] = {
    id(kind): way
    for kind, way in (
        (int, _Short._integer),
        (str, _Short._text),
        (bytes, _Short._bytes),
        (bytearray, _Short._bytes),
        (tuple, _Short._tuple),
        (list, _Short._list),
        (set, _Short._set),
        (frozenset, _Short._set),
        (dict, _Short._dict),
        (MethodType, _Short._method),
        (functools.partial, _Short._partial),
    )
}
"""By id(), because the class of a user's object may have a ``__hash__`` that raises anything."""

_SHORT = _Short()
