"""The picklers of what goes to a worker and of what comes back from it.

- `QuickPickler` and `CallPickler` pickle what goes with a call. Functions and classes go by key, and are noted.
- `DefinitionPickler` pickles what is under those keys.
- `dumpsForProgram` pickles what comes back. What the program has sent goes by its key.
"""

from __future__ import annotations

import copyreg
import io
import pickle
from collections.abc import Callable
from types import CellType, FunctionType
from typing import Any

from asynqueue.core.protocol.scriptdefinitions import Node
from asynqueue.transport.script import rebuilding
from asynqueue.transport.script.context import PROTOCOL, attributeOf, born, keyed, keyedOr, keyFor
from asynqueue.transport.script.needs import (
    CACHED,
    REDUCE,
    REDUCE_EX,
    TYPEVAR,
    globalNames,
    internals,
    isElsewhere,
    nameGiven,
)
from asynqueue.transport.script.reducers import Reducer

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
            if kind.__reduce__ is not REDUCE or kind.__reduce_ex__ is not REDUCE_EX:
                name = nameGiven(obj)
                if name is not None:
                    self._mentions[name.partition(".")[0]] = obj
                    return attributeOf, (name,)
            if not issubclass(kind, type):
                return NotImplemented
        if kind is FunctionType or kind is CACHED or kind is TYPEVAR or issubclass(kind, type):
            if obj.__module__ != "__main__" and (obj.__module__ == "builtins" or isElsewhere(obj)):
                return NotImplemented
            key = keyFor(obj)
            self._mentions[key] = obj
            if self._byName and kind is not TYPEVAR and self._globals.get(obj.__qualname__) is obj:
                return NotImplemented
            return keyed, (key,)
        return NotImplemented


class CallPickler(Reducer):
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


class DefinitionPickler(Reducer):
    """Pickles definitions, to FILE.

    REFER returns the key of an object that the worker has already, else None. DEFINE is called with each that it does
    not have, and returns its key. CELLKEY returns the key of a cell, or None, and whether the worker has it;
    ISUNCHANGED whether it has it with its present content.
    ISTHERE returns whether the worker has an object as the global of a name.
    """

    def __init__(
        self,
        file: Any,
        globals: dict[str, Any],
        refer: Callable[[object], int | None],
        define: Callable[[Any], int],
        cellKey: Callable[[CellType], tuple[int | None, bool]],
        isUnchanged: Callable[[CellType], bool],
        isThere: Callable[[str, object], bool],
    ) -> None:
        super().__init__(file, globals)
        self._isThere = isThere
        self._cellKey = cellKey
        self._isUnchanged = isUnchanged
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
        known = map(self._isUnchanged, f.__closure__ or ())
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


# What comes back.


class _ResultPickler(Reducer):
    """Pickles a result. The functions and classes PARENTS are being pickled by value, the last of them by this."""

    def __init__(
        self, file: Any, globals: dict[str, Any], keyOf: Callable[[object], int | None], parents: tuple[Any, ...] = ()
    ) -> None:
        super().__init__(file, globals)
        self._keyOf = keyOf
        self._parents = parents

    def reference(self, obj: Any) -> tuple[Any, ...] | None:
        """Return the key under which OBJ came, or None if it did not come from the program.

        An object without a name goes by value as well, because the program may have dropped it since.
        """
        key = self._keyOf(obj)
        if key is None or (self._parents and obj is self._parents[-1]):
            return None
        if self.globals.get(getattr(obj, "__qualname__", "")) is obj or any(obj is each for each in self._parents):
            return keyed, (key,)
        return keyedOr, (key, _dumpsResult(obj, self.globals, self._keyOf, (*self._parents, obj)))

    def _reducedClass(self, cls: type) -> Any:
        """Return how to pickle CLS, which a call has made. It is made in the program when it first comes there."""
        make, args, state, _, _, fill = super()._reducedClass(cls)
        mark = internals._get_or_create_tracker_id(cls)
        rebuilding.madeHere(mark, cls)
        return rebuilding.makeOnce, (mark, make, *args), (fill, state), None, None, rebuilding.fillOnce


def dumpsForProgram(obj: Any, globals: dict[str, Any], keyOf: Callable[[object], int | None]) -> bytes:
    """Return OBJ, a result of a call, as bytes for the program.

    GLOBALS are those of its ``__main__`` here. KEYOF returns the key under which an object has come, or None.
    """
    return _dumpsResult(obj, globals, keyOf, ())


def _dumpsResult(
    obj: Any, globals: dict[str, Any], keyOf: Callable[[object], int | None], parents: tuple[Any, ...]
) -> bytes:
    file = io.BytesIO()
    _ResultPickler(file, globals, keyOf, parents).dump(obj)
    return file.getvalue()
