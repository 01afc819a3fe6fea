"""Take functions and classes apart for pickle, which takes them by name only.

What neither is of ``__main__`` nor has to go by value is left to cloudpickle. `asynqueue.transport.script.rebuilding`
builds the objects again.
"""

from __future__ import annotations

import _abc  # type: ignore[import-not-found]  # it has no types
import functools
import marshal
import sys
from enum import EnumMeta
from importlib import import_module
from importlib.util import MAGIC_NUMBER
from types import (
    CellType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    ModuleType,
)
from typing import TYPE_CHECKING, Any

from asynqueue.core.protocol.scriptdefinitions import ABSENT, contentOf
from asynqueue.transport.script import rebuilding
from asynqueue.transport.script.context import PROTOCOL, attributeOf, born, mainDict, mainModule
from asynqueue.transport.script.needs import (
    CACHED,
    DISPATCHER,
    TYPEVAR,
    annotationsOf,
    internals,
    isElsewhere,
    nameGiven,
)

_IN_STATE = (FunctionType, classmethod, staticmethod, property, functools.cached_property, str, int, float, type(None))
"""The attributes that a class needs before an object of it can be made."""


if TYPE_CHECKING:  # cloudpickle has no types, and its pickler is one of pickle's
    from pickle import Pickler
else:
    Pickler = internals.Pickler


class Reducer(Pickler):
    """Pickles for another process, which has a `Main` for the globals GLOBALS."""

    def __init__(self, file: Any, globals: dict[str, Any]) -> None:
        super().__init__(file, PROTOCOL)
        self.globals = globals
        self._cells: set[int] = set()  # by id(): those of functions that are pickled here, not by cloudpickle

    def reference(self, obj: Any) -> tuple[Any, ...] | None:
        """Return how OBJ, which is definable, is referred to; None if it goes by value."""
        raise NotImplementedError

    def key(self, obj: Any) -> int | None:
        """Return the key for OBJ, which goes by value."""
        return None

    def reducer_override(self, obj: Any) -> Any:
        """Return how to pickle OBJ."""
        kind = type(obj)
        if kind is FunctionType or kind is CACHED or kind is TYPEVAR or issubclass(kind, type):
            if kind is type and obj.__module__ == "builtins":
                return super().reducer_override(obj)
            if isElsewhere(obj):
                return NotImplemented
            reference = self.reference(obj)
            if reference is not None:
                return reference
            reduced = self.byValue(obj)
            if not isinstance(reduced, tuple):
                return reduced
            return (born, (self.key(obj), reduced[0], *reduced[1]), *reduced[2:])
        if kind is CellType:
            return self.cell(obj)
        if kind is ModuleType:
            assert isinstance(obj, ModuleType)
            if vars(obj) is self.globals:
                return mainModule, ()
            if sys.modules.get(obj.__name__) is obj and not internals._is_registered_pickle_by_value(obj):
                return import_module, (obj.__name__,)
        elif kind is CodeType:
            return _reducedCode(obj)
        elif kind.__module__ == "__main__":
            return self.ofMain(obj)
        elif kind is functools.singledispatchmethod:
            return rebuilding.makeDispatchMethod, (obj.func, obj.dispatcher)
        elif kind is functools.cached_property:
            return rebuilding.makeCachedProperty, (obj.func, obj.attrname), {"__doc__": obj.__doc__}
        return NotImplemented

    def ofMain(self, obj: Any) -> Any:
        """Return how to pickle OBJ, whose class is of ``__main__``: by name, if the class says so."""
        name = nameGiven(obj)
        return NotImplemented if name is None else (attributeOf, (name,))

    def cell(self, cell: CellType) -> Any:
        """Return how to pickle CELL. The function that it belongs to brings its content, if the function is of ours."""
        return (CellType, ()) if id(cell) in self._cells else NotImplemented

    def byValue(self, obj: Any) -> Any:
        """Return how to pickle OBJ, which is definable, by value."""
        kind = type(obj)
        if kind is CACHED:
            return rebuilding.makeCached, (obj.__wrapped__, obj.cache_parameters())
        if kind is TYPEVAR:
            return internals._typevar_reduce(obj)
        if kind is not FunctionType:
            return self._reducedClass(obj)
        if obj.__code__ is DISPATCHER:
            known = [(cls, f) for cls, f in obj.registry.items() if cls is not object]
            return rebuilding.makeDispatcher, (obj.registry[object], known)
        if obj.__globals__ is self.globals:
            return self._reducedFunction(obj)
        return super().reducer_override(obj)

    def _reducedFunction(self, f: FunctionType) -> tuple[Any, ...]:
        slots = {
            "__qualname__": f.__qualname__,
            "__module__": f.__module__,
            "__doc__": f.__doc__,
            "__defaults__": f.__defaults__,
            "__kwdefaults__": f.__kwdefaults__,
            "__annotations__": annotationsOf(f),
        }
        if getattr(f, "__type_params__", ()):
            slots["__type_params__"] = f.__type_params__  # type: ignore[attr-defined]  # from Python 3.12 on
        args = f.__code__, _MAIN_DICT, f.__name__, f.__closure__
        self._cells.update(map(id, f.__closure__ or ()))
        state = slots, dict(f.__dict__), self.contents(f)
        return rebuilding.makeFunction, args, state, None, None, rebuilding.fillFunction

    def contents(self, f: FunctionType) -> tuple[Any, ...]:
        """Return what the cells of F are to contain."""
        return tuple(map(_content, f.__closure__ or ()))

    def _reducedClass(self, cls: type) -> Any:
        if issubclass(type(cls), EnumMeta) and "_member_map_" in vars(cls):
            return self._reducedEnum(cls)
        state, later, slots = _partsOf(cls)
        basics = _basicsOf(cls, state)
        args = type(cls), cls.__name__, cls.__bases__, basics, slots
        state.update(self.later(cls, later))
        return rebuilding.makeClass, args, state, None, None, rebuilding.fillClass

    def later(self, cls: type, state: dict[str, Any]) -> dict[str, Any]:
        """Have the attributes STATE of CLS set later on, or leave them in it."""
        return state

    def _reducedEnum(self, cls: Any) -> Any:
        state, later, _ = _partsOf(cls)
        state.update(later)
        members = dict(cls.__members__)
        for name in list(state):
            if name in members or name in _ENUM or (name.startswith("_") and name in vars(EnumMeta)):
                del state[name]
        basics = _basicsOf(cls, state)
        values = {name: member._value_ for name, member in members.items()}
        extra = {name: {k: v for k, v in vars(m).items() if k not in _MEMBER} for name, m in members.items()}
        args = type(cls), cls.__name__, cls.__bases__, basics, values
        return rebuilding.makeEnum, args, (state, extra), None, None, rebuilding.fillEnum


_ENUM = {
    "_generate_next_value_", "_member_names_", "_member_map_", "_member_type_", "_value2member_map_", "_new_member_",
    "_use_args_", "_unhashable_values_", "_unhashable_values_map_", "_hashable_values_", "_value_repr_", "__new__",
    "_boundary_", "_flag_mask_", "_all_bits_", "_singles_mask_", "_inverted_", "_iter_member_", "_add_alias_",
    "_add_value_alias_",
}  # fmt: skip
_MEMBER = {"_value_", "_name_", "__objclass__", "_sort_order_", "_inverted_"}


class _MainDict:
    def __reduce__(self) -> tuple[Any, ...]:
        return mainDict, ()


_MAIN_DICT = _MainDict()


def _reducedCode(code: CodeType) -> Any:
    try:
        return rebuilding.loadCode, (MAGIC_NUMBER, marshal.dumps(code))
    except ValueError:  # A library has put objects among its constants.
        return NotImplemented


def _content(cell: CellType) -> Any:
    content = contentOf(cell)
    return rebuilding.Empty if content is ABSENT else content


def _basicsOf(cls: type, state: dict[str, Any]) -> dict[str, Any]:
    """Return what a class has to be made with, of CLS. It is removed from STATE."""
    basics = {"__qualname__": cls.__qualname__}  # not in its `__dict__`
    if "__module__" in state:
        basics["__module__"] = state.pop("__module__")
    return basics


def _partsOf(cls: type) -> tuple[dict[str, Any], dict[str, Any], tuple[str, ...] | None]:
    """Return the attributes of CLS that its objects need, the others, and the names of its slots if it has some."""
    state: dict[str, Any] = {}
    later: dict[str, Any] = {}
    slots: list[str] = []
    for name, value in vars(cls).items():
        kind = type(value)
        if (kind is MemberDescriptorType and value.__objclass__ is cls) or (
            kind is GetSetDescriptorType and name in ("__dict__", "__weakref__")
        ):
            slots.append(name)
        elif name == "_abc_impl":
            later["__abc_registry__"] = [each for each in (ref() for ref in _abc._get_dump(cls)[0]) if each]
        elif name == "__annotate_func__":
            if value is not None:
                later["__annotations__"] = annotationsOf(cls)
        elif name != "__annotations_cache__":
            (state if kind in _IN_STATE else later)[name] = value
    return state, later, tuple(slots) if "__slots__" in vars(cls) else None
