"""Pickle functions and classes of ``__main__``, and what else pickle cannot find by name, for another process.

Three picklers share the reducers:

- `dumpsCall` pickles what goes with a call. Functions and classes go by key, and `Found` is told which.
- `DefinitionPickler` pickles what is under those keys.
- `dumpsForProgram` pickles what comes back. What the program has sent goes by key, and what it has itself by name.

What neither is in ``__main__`` nor has to go by value is left to cloudpickle.
"""

from __future__ import annotations

import _abc  # type: ignore[import-not-found]  # it has no types
import copyreg
import dis
import functools
import io
import marshal
import pickle
import re
import sys
from collections.abc import Callable, Iterator
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
from typing import Any

import cloudpickle.cloudpickle  # type: ignore[import-untyped]  # it has no types

from asynqueue.core.protocol.definitions import ABSENT, Node, contentOf
from asynqueue.transport.script import rebuilding
from asynqueue.transport.script.context import PROTOCOL, attributeOf, born, keyed, keyFor, mainDict, mainModule

internals: Any = cloudpickle.cloudpickle  # It has no types.
CACHED = type(functools.lru_cache(lambda: None))
_TYPEVAR = internals.typing.TypeVar
_DISPATCHER: CodeType = functools.singledispatch(len).__code__  # type: ignore[attr-defined]  # a function
_REDUCE: Any = object.__reduce__
_REDUCE_EX: Any = object.__reduce_ex__
_IN_STATE = (FunctionType, classmethod, staticmethod, property, functools.cached_property, str, int, float, type(None))
"""The attributes that a class needs before an object of it can be made."""


def isDefinable(obj: Any) -> bool:
    """Return whether OBJ is of a kind that goes by name or by key: a function or class, say."""
    kind = type(obj)
    return kind is FunctionType or kind is CACHED or kind is _TYPEVAR or issubclass(kind, type)


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
    if kind.__reduce__ is _REDUCE and kind.__reduce_ex__ is _REDUCE_EX:
        return None
    reduced = obj.__reduce_ex__(PROTOCOL)
    return reduced if type(reduced) is str else None


class _Pickler(internals.Pickler):  # type: ignore[misc]  # as above
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
        if kind is FunctionType or kind is CACHED or kind is _TYPEVAR or issubclass(kind, type):
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
        if kind is _TYPEVAR:
            return internals._typevar_reduce(obj)
        if kind is not FunctionType:
            return self._reducedClass(obj)
        if obj.__code__ is _DISPATCHER:
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
        basics = {name: state.pop(name) for name in ("__module__", "__qualname__") if name in state}
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
        basics = {name: state.pop(name) for name in ("__module__", "__qualname__") if name in state}
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


def annotationsOf(obj: Any) -> dict[str, Any]:
    """Return the annotations of OBJ, none if they cannot be evaluated yet."""
    if issubclass(type(obj), type) and sys.version_info < (3, 14):
        return dict(vars(obj).get("__annotations__", {}))  # To look at the attribute would make one.
    try:
        return dict(obj.__annotations__)
    except NameError:  # from Python 3.14 on
        return {}


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
            later["__annotations__"] = annotationsOf(cls)
        elif name != "__annotations_cache__":
            (state if kind in _IN_STATE else later)[name] = value
    return state, later, tuple(slots) if "__slots__" in vars(cls) else None


# What comes back.


class _ResultPickler(_Pickler):
    def __init__(self, file: Any, globals: dict[str, Any], keyOf: Callable[[object], int | None]) -> None:
        super().__init__(file, globals)
        self._keyOf = keyOf

    def reference(self, obj: Any) -> tuple[Any, ...] | None:
        """Return the key under which OBJ has come, if it has."""
        key = self._keyOf(obj)
        return None if key is None else (keyed, (key,))

    def _reducedClass(self, cls: type) -> Any:
        """Return how to pickle CLS, which a call has made. It is made in the program when it first comes there."""
        make, args, state, _, _, fill = super()._reducedClass(cls)
        mark = internals._get_or_create_tracker_id(cls)
        return rebuilding.makeOnce, (mark, make, *args), (fill, state), None, None, rebuilding.fillOnce


def dumpsForProgram(obj: Any, globals: dict[str, Any], keyOf: Callable[[object], int | None]) -> bytes:
    """Return OBJ, a result of a call, as bytes for the program.

    GLOBALS are those of its ``__main__`` here. KEYOF returns the key under which an object has come, or None.
    """
    file = io.BytesIO()
    _ResultPickler(file, globals, keyOf).dump(obj)
    return file.getvalue()


# What code needs.

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
    name = obj.__name__ if isinstance(obj, _TYPEVAR) else obj.__qualname__
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


# What goes with a call, and what is sent before it.


class QuickPickler(pickle.Pickler):
    """Does what a `CallPickler` does, in a fraction of the time, unless there is something that pickle refuses.

    With BYNAME, what has a name in ``__main__`` goes by that.
    """

    def __init__(self, globals: dict[str, Any], byName: bool) -> None:
        self._file = io.BytesIO()
        super().__init__(self._file, PROTOCOL)
        self._globals = globals
        self._byName = byName
        self._mentions: dict[Node, object] = {}

    def dumps(self, obj: Any, mentions: dict[Node, object]) -> bytes:
        """Return OBJ as bytes. What it mentions of ``__main__`` is put into MENTIONS."""
        self._mentions = mentions
        try:
            self.dump(obj)
            return self._file.getvalue()
        finally:
            self.clear_memo()
            self._file.seek(0)
            self._file.truncate()

    def reducer_override(self, obj: Any) -> Any:
        """Return how to pickle OBJ."""
        kind = type(obj)
        if kind.__module__ == "__main__":
            if kind.__reduce__ is not _REDUCE or kind.__reduce_ex__ is not _REDUCE_EX:
                name = nameGiven(obj)
                if name is not None:
                    self._mentions[name.partition(".")[0]] = obj
                    return attributeOf, (name,)
            if not issubclass(kind, type):
                return NotImplemented
        if kind is FunctionType or kind is CACHED or kind is _TYPEVAR or issubclass(kind, type):
            if obj.__module__ != "__main__" and (obj.__module__ == "builtins" or isElsewhere(obj)):
                return NotImplemented
            key = keyFor(obj)
            self._mentions[key] = obj
            if self._byName and kind is not _TYPEVAR and self._globals.get(obj.__qualname__) is obj:
                return NotImplemented
            return keyed, (key,)
        return NotImplemented


class CallPickler(_Pickler):
    """Pickles what goes with a call, to FILE. What it mentions of ``__main__`` is put into MENTIONS."""

    def __init__(self, file: Any, globals: dict[str, Any], mentions: dict[Node, object]) -> None:
        super().__init__(file, globals)
        self._mentions = mentions

    def reference(self, obj: Any) -> tuple[Any, ...] | None:
        """Return the key of OBJ."""
        key = keyFor(obj)
        self._mentions[key] = obj
        return keyed, (key,)

    def ofMain(self, obj: Any) -> Any:
        """Return how to pickle OBJ, whose class is of ``__main__``."""
        name = nameGiven(obj)
        if name is None:
            return NotImplemented
        self._mentions[name.partition(".")[0]] = obj
        return attributeOf, (name,)


class DefinitionPickler(_Pickler):
    """Pickles definitions, to FILE.

    REFER returns the key of an object that the worker has already, else None. DEFINE is called with each that it does
    not have, and returns its key. CELLKEY returns the key of a cell, or None, and whether the worker has it.
    ISTHERE returns whether the worker has an object as the global of a name.
    """

    def __init__(
        self,
        file: Any,
        globals: dict[str, Any],
        refer: Callable[[object], int | None],
        define: Callable[[Any], int],
        cellKey: Callable[[CellType], tuple[int | None, bool]],
        isThere: Callable[[str, object], bool],
    ) -> None:
        super().__init__(file, globals)
        self._isThere = isThere
        self._cellKey = cellKey
        self.rest: list[tuple[Any, ...]] = []
        """Elements of the stream that have to follow the present one."""
        self._refer = refer
        self._define = define

    def reference(self, obj: Any) -> tuple[Any, ...] | None:
        """Return the key of OBJ, if the worker has it."""
        key = self._refer(obj)
        return None if key is None else (keyed, (key,))

    def key(self, obj: Any) -> int:
        """Return the key of OBJ, which is written."""
        return self._define(obj)

    def cell(self, cell: CellType) -> Any:
        """Return how to pickle CELL, which functions may share that are sent one after the other."""
        reduced = super().cell(cell)
        if reduced is NotImplemented:
            return reduced
        key, known = self._cellKey(cell)
        if known:
            return keyed, (key,)
        return reduced if key is None else (born, (key, CellType))

    def ofMain(self, obj: Any) -> Any:
        """Return how to pickle OBJ, whose class is of ``__main__``. A name is of use once the worker has that."""
        name = nameGiven(obj)
        if name is None:
            return NotImplemented
        return (attributeOf, (name,)) if self._isThere(name, obj) else (copyreg.__newobj__, (type(obj),), vars(obj))  # type: ignore[attr-defined]  # it is there

    def contents(self, f: FunctionType) -> tuple[Any, ...]:
        """Return what the cells of F are to contain. Those that the worker has stay as they are there."""
        known = [self._cellKey(cell)[1] for cell in f.__closure__ or ()]
        return tuple(rebuilding.Kept if k else c for k, c in zip(known, super().contents(f), strict=True))

    def changed(self, f: FunctionType) -> tuple[Any, ...]:
        """Return an element that sets what the cells of F contain now."""
        return "fill", rebuilding.fillCells, f, super().contents(f)

    def later(self, cls: type, state: dict[str, Any]) -> dict[str, Any]:
        """Have the attributes STATE of CLS set when the class is complete: they may contain objects of it."""
        if state:
            self.rest.append(("fill", rebuilding.fillClass, cls, state))
        return {}

    def _reducedFunction(self, f: FunctionType) -> tuple[Any, ...]:
        values = [self.globals[name] for name in globalNames(f.__code__) if name in self.globals]
        for module in internals._find_imported_submodules(f.__code__, values):
            self.rest.append(("import", module.__name__))
        return super()._reducedFunction(f)
