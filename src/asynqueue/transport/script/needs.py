"""What functions, classes and other objects of ``__main__`` are, and which globals they need.

Nothing here changes an object, not even by a look at it.
"""

from __future__ import annotations

import dis
import functools
import re
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any

import cloudpickle.cloudpickle  # type: ignore[import-untyped]  # it has no types

from asynqueue.transport.script.context import PROTOCOL

internals: Any = cloudpickle.cloudpickle  # It has no types.
CACHED = type(functools.lru_cache(lambda: None))
TYPEVAR = internals.typing.TypeVar
DISPATCHER: CodeType = functools.singledispatch(len).__code__  # type: ignore[attr-defined]  # a function
REDUCE: Any = object.__reduce__
REDUCE_EX: Any = object.__reduce_ex__


def isDefinable(obj: Any) -> bool:
    """Return whether OBJ is of a kind that goes by name or by key: a function or class, say."""
    kind = type(obj)
    return kind is FunctionType or kind is CACHED or kind is TYPEVAR or issubclass(kind, type)


def isElsewhere(obj: Any) -> bool:
    """Return whether any process can import OBJ, which is definable, by its name."""
    try:
        found = internals._lookup_module_and_qualname(obj)
        return found is not None and not internals._is_registered_pickle_by_value(found[0])
    except BaseException:  # A class may raise anything when it is looked at.
        return False


def nameGiven(obj: Any) -> str | None:
    """Return the name by which OBJ, an object of a class of ``__main__``, wants to be pickled, if it has one."""
    kind = type(obj)
    if kind.__reduce__ is REDUCE and kind.__reduce_ex__ is REDUCE_EX:
        return None
    reduced = obj.__reduce_ex__(PROTOCOL)
    return reduced if type(reduced) is str else None


def annotationsOf(obj: Any) -> dict[str, Any]:
    """Return the annotations of OBJ, none if they cannot be evaluated yet."""
    try:
        if not issubclass(type(obj), type):
            return dict(obj.__annotations__)
        own = vars(
            obj
        )  # To look at the attribute would change the class: it would make annotations, or a cache of them.
        known = own.get("__annotations__") or own.get("__annotations_cache__")
        evaluate = own.get("__annotate_func__")
        return dict(known or (evaluate(_VALUES) if evaluate else {}))
    except NameError:  # from Python 3.14 on
        return {}


_VALUES = 1  # `annotationlib.Format.VALUE`
_NAME = re.compile(r"[^\W\d]\w*")


@functools.lru_cache(1000)
def globalNames(code: CodeType) -> frozenset[str]:
    """Return the names of the globals that CODE uses, or the code of functions and classes in it."""
    names: set[str] = set()
    for each in dis.get_instructions(code):
        if "GLOBAL" in each.opname or each.opname == "LOAD_NAME":
            names.add(each.argval)
        elif each.opname == "IMPORT_NAME" and each.argval == "__main__":
            names.update(code.co_names)
    for const in code.co_consts:
        if isinstance(const, CodeType):
            names |= globalNames(const)
    return frozenset(names)


def namesIn(annotations: dict[str, Any]) -> Iterator[str]:
    """Yield the names in ANNOTATIONS that are texts."""
    for each in annotations.values():
        text = each if type(each) is str else getattr(each, "__forward_arg__", None)
        if type(text) is str:
            yield from _NAME.findall(text)


def namesOf(obj: Any, globals: dict[str, Any]) -> Iterator[str]:
    """Yield the names of the globals that OBJ, a function or class, needs, among them its own name in GLOBALS."""
    name = obj.__name__ if isinstance(obj, TYPEVAR) else obj.__qualname__
    if globals.get(name) is obj:
        yield name
    if type(obj) is FunctionType:
        if obj.__globals__ is globals:
            yield from globalNames(obj.__code__)
    elif not issubclass(type(obj), type):
        return
    for each in namesIn(annotationsOf(obj)):
        if each in globals:
            yield each
