"""Build functions and classes from the parts that `asynqueue.transport.script.reducers` takes them into.

A class is built without its metaclass, and without the `__init_subclass__` of its bases: what those have done is part
of the state that comes with it. Worker processes import this module: it imports neither attrs nor Twisted, nor
cloudpickle.
"""

from __future__ import annotations

import _abc  # type: ignore[import-not-found]  # it has no types
import functools
import marshal
from abc import ABCMeta
from collections.abc import Callable, Mapping, Sequence
from importlib.util import MAGIC_NUMBER
from types import CellType, CodeType, FunctionType
from typing import Any
from weakref import WeakSet, WeakValueDictionary

from asynqueue.core.protocol.scriptdefinitions import ABSENT, contentOf


class Empty:
    """Stands for the content of an empty cell."""


class Kept:
    """Stands for the content of a cell that stays as it is."""


def loadCode(magic: bytes, marshalled: bytes) -> CodeType:
    """Return a code object. Raises `ValueError` if another version of Python has made it."""
    if magic != MAGIC_NUMBER:
        raise ValueError(
            "a function of the program's __main__ comes as byte code, and this is another version of Python: "
            "put the function into a module that both sides import"
        )
    code: CodeType = marshal.loads(marshalled)
    return code


def makeFunction(
    code: CodeType, namespace: dict[str, Any], name: str, cells: tuple[CellType, ...] | None
) -> FunctionType:
    """Return a function with CODE, whose globals are NAMESPACE. The rest of it follows, by `fillFunction`."""
    namespace.setdefault("__builtins__", __builtins__)
    return FunctionType(code, namespace, name, None, cells)


def fillFunction(function: FunctionType, state: tuple[dict[str, Any], dict[str, Any], tuple[Any, ...]]) -> None:
    """Set the attributes of FUNCTION, and what its cells contain."""
    slots, attributes, contents = state
    for name, value in slots.items():
        setattr(function, name, value)
    function.__dict__.update(attributes)
    fillCells(function, contents)


def fillCells(function: FunctionType, contents: Sequence[Any]) -> None:
    """Set what the cells of FUNCTION contain."""
    for cell, content in zip(function.__closure__ or (), contents, strict=True):
        if content is Kept:
            continue
        if content is not Empty:
            cell.cell_contents = content
        elif _isFilled(cell):
            del cell.cell_contents


def _isFilled(cell: CellType) -> bool:
    return contentOf(cell) is not ABSENT


def makeCached(function: Callable[..., Any], parameters: dict[str, Any]) -> Callable[..., Any]:
    """Return FUNCTION with a cache, as `functools.lru_cache` makes it, which is empty."""
    made: Callable[..., Any] = functools.lru_cache(**parameters)(function)
    return made


def makeCachedProperty(function: Callable[[Any], Any], name: str | None) -> functools.cached_property[Any]:
    """Return a `functools.cached_property` that belongs to the attribute NAME."""
    made: functools.cached_property[Any] = functools.cached_property(function)
    made.attrname = name
    return made


def makeDispatcher(function: Callable[..., Any], registered: Sequence[tuple[type, Callable[..., Any]]]) -> Any:
    """Return a `functools.singledispatch` function."""
    made = functools.singledispatch(function)
    for cls, each in registered:
        made.register(cls, each)
    return made


def makeDispatchMethod(function: Callable[..., Any], dispatcher: Any) -> functools.singledispatchmethod[Any]:
    """Return a `functools.singledispatchmethod` that has DISPATCHER."""
    made: functools.singledispatchmethod[Any] = functools.singledispatchmethod(function)
    made.dispatcher = dispatcher
    return made


def makeClass(
    meta: type, name: str, bases: tuple[type, ...], namespace: dict[str, Any], slots: tuple[str, ...] | None
) -> type:
    """Return a class that has nothing but its BASES and SLOTS yet. The rest of it follows, by `fillClass`."""
    namespace = dict(namespace)
    if slots is not None:
        namespace["__slots__"] = slots
    quiet = [cls for base in bases for cls in base.__mro__ if cls is not object and "__init_subclass__" in vars(cls)]
    if not quiet:
        made: type = type.__new__(meta, name, bases, namespace)
    else:
        made = _madeQuietly(meta, name, bases, namespace)
    if issubclass(meta, ABCMeta):
        _abc._abc_init(made)
    return made


class _Quiet:
    def __init_subclass__(cls, **kw: Any) -> None:
        pass


class _QuietWithSlots:
    __slots__ = ()

    def __init_subclass__(cls, **kw: Any) -> None:
        pass


def _madeQuietly(meta: type, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> type:
    """Return a class for whose making no `__init_subclass__` of its BASES is called: one of ours comes first."""
    for quiet in (_QuietWithSlots, _Quiet):
        try:
            made: type = type.__new__(meta, name, (quiet, *bases), namespace)
            made.__bases__ = bases
        except TypeError:  # the layouts of the two do not go together
            continue
        return made
    noisy: type = type.__new__(meta, name, bases, namespace)
    return noisy


def fillClass(cls: type, state: Mapping[str, Any]) -> None:
    """Set the attributes of CLS."""
    for name, value in state.items():
        if name == "__abc_registry__":
            for each in value:
                ABCMeta.register(cls, each)  # type: ignore[arg-type]  # its metaclass is one
        else:
            type.__setattr__(cls, name, value)
    if "__firstlineno__" in state:  # Setting `__module__` or another attribute has removed it.
        type.__setattr__(cls, "__firstlineno__", state["__firstlineno__"])


_made: WeakValueDictionary[str, type] = WeakValueDictionary()
_filled: WeakSet[type] = WeakSet()


def madeHere(mark: str, cls: type) -> None:
    """Note that CLS, which goes to another process with MARK, is what comes back with it."""
    _made[mark] = cls
    _filled.add(cls)


def makeOnce(mark: str, make: Callable[..., type], *args: Any) -> type:
    """Return the class that has come with MARK before, or else what MAKE makes of ARGS."""
    made = _made.get(mark)
    if made is None:
        made = _made[mark] = make(*args)
    return made


def fillOnce(cls: type, state: tuple[Callable[[type, Any], None], Any]) -> None:
    """Set the attributes of CLS, unless it has come before."""
    if cls not in _filled:
        _filled.add(cls)
        fill, attributes = state
        fill(cls, attributes)


def makeEnum(meta: Any, name: str, bases: tuple[type, ...], namespace: dict[str, Any], members: dict[str, Any]) -> type:
    """Return an enumeration with MEMBERS."""
    content = meta.__prepare__(name, bases)
    for key, value in [*namespace.items(), *members.items()]:
        content[key] = value
    made: type = meta.__new__(meta, name, bases, content)
    return made


def fillEnum(cls: Any, state: tuple[Mapping[str, Any], Mapping[str, dict[str, Any]]]) -> None:
    """Set the attributes of the enumeration CLS and of its members."""
    attributes, members = state
    fillClass(cls, attributes)
    for name, values in members.items():
        vars(cls._member_map_[name]).update(values)
