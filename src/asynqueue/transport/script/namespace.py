"""The lasting namespace that a worker has for the ``__main__`` of a program.

Definitions come into it in streams. The functions and classes among them have keys, and stay until the program drops
them. Functions of the program have this namespace as their globals.

Worker processes import this module: it imports neither attrs nor Twisted, and cloudpickle only when needed.
"""

from __future__ import annotations

import builtins
import importlib
import io
import pickle
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from asynqueue.errors import SerializationError
from asynqueue.transport.script.context import HINT, Main, Undelivered, current, setHome, using


class Namespace(Main):
    """The lasting namespace that a worker has for the ``__main__`` of one program."""

    def __init__(self) -> None:
        self._module = ModuleType("__main__")
        self.names: dict[str, Any] = vars(self._module)
        self.names["__builtins__"] = builtins
        self._objects: dict[int, Any] = {}
        self._keys: dict[int, int] = {}  # by id()
        self._came: set[str] = {"__name__"}  # the globals that the program has sent
        self._defining = False
        self._refused: dict[str, str] = {}  # the globals that cannot come, and why

    def module(self) -> ModuleType:
        """Return the module."""
        return self._module

    def keyed(self, key: int) -> Any:
        """Return the object that has come under KEY."""
        try:
            return self._objects[key]
        except KeyError:
            if self._defining:
                return None  # It is no more. What refers to it is replaced by a later stream.
            raise LookupError("a function or class of the program's __main__ that has not arrived") from None

    def keyOf(self, obj: object) -> int | None:
        """Return the key under which OBJ came, or None if it did not come from the program."""
        return self._keys.get(id(obj))

    def born(self, key: int | None, made: Any) -> None:
        """Note that MADE has come under KEY."""
        if key is not None:
            self._objects[key] = made
            self._keys[id(made)] = key

    def dumps(self, obj: Any) -> bytes:
        """Return OBJ as bytes for the program. Raises whatever the pickler raises."""
        from asynqueue.transport.script.picklers import dumpsForProgram

        return dumpsForProgram(obj, self.names, self.keyOf)

    def define(self, stream: bytes) -> None:
        """Take over the definitions in STREAM. Raises `Undelivered`."""
        self._defining = True
        try:
            with using(self):
                unpickler = pickle.Unpickler(io.BytesIO(stream))
                for what, *more in iter(unpickler.load, None):
                    getattr(self, f"_{what}")(*more)
        except BaseException as error:  # Unpickling runs code of users, which may raise anything.
            raise Undelivered(
                f"a definition of the program's __main__ cannot be unpickled: {type(error).__name__}: {error}"
            ) from error
        finally:
            self._defining = False

    def explained(self, error: BaseException) -> BaseException:
        """Return ERROR, or if it is about a global that cannot come, one that says so."""
        if type(error) is NameError and self._refused:
            name = getattr(error, "name", None)
            if name in self._refused:
                told = SerializationError(
                    f"the global {name} of the program's __main__ cannot be sent to a worker: {self._refused[name]}; "
                    f"{HINT}, or set it there with an update"
                )
                told.__cause__ = error
                return BaseException.with_traceback(told, error.__traceback__)
        return error

    # What a stream of definitions consists of.

    def _bind(self, name: str, value: Any) -> None:
        # A name that a call has bound before the program's value came first is newer than that value.
        if name in self._came or name not in self.names or name.startswith("__"):
            self.names[name] = value
        self._came.add(name)
        self._refused.pop(name, None)

    def _unbind(self, name: str, why: str | None) -> None:
        if name in self._came:
            self.names.pop(name, None)
        if why is not None:
            self._refused[name] = why

    def _keep(self, obj: Any) -> None:
        """Do nothing: OBJ came under its key when it was unpickled."""

    def _fill(self, fill: Callable[[Any, Any], None], obj: Any, state: Any) -> None:
        fill(obj, state)

    def _import(self, name: str) -> None:
        importlib.import_module(name)

    def _forget(self, keys: Sequence[int]) -> None:
        for key in keys:
            self._keys.pop(id(self._objects.pop(key, None)), None)


def settled() -> Namespace | None:
    """Return the namespace that is the ``__main__`` of this process, None if it is no worker."""
    home = current()
    return home if isinstance(home, Namespace) else None


def settle() -> Namespace:
    """Make this process, which is a worker of one program, have a namespace for it, which is its ``__main__``."""
    namespace = Namespace()
    setHome(namespace)
    sys.modules["__main__"] = namespace.module()
    return namespace
