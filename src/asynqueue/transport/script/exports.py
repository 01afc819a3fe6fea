"""What one worker gets of the program's ``__main__``, and when.

A call mentions functions and classes. Those, and the globals that they need, go to the worker as a *stream of
definitions* before the call, unless the worker has them. `asynqueue.core.protocol.scriptdefinitions` decides which.

A global that cannot be pickled does not fail the call, which may not use it. The worker gets the reason why it is
missing.
"""

from __future__ import annotations

import io
import sys
from collections import deque
from types import CellType, FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple

from asynqueue.core.protocol.scriptdefinitions import ABSENT, Ledger, Node, Sent, contentOf
from asynqueue.core.text import errorText
from asynqueue.errors import SerializationError
from asynqueue.transport.script.context import HINT, Main, Mourner, isWorker, keyFor, mourners, newKey

if TYPE_CHECKING:
    from asynqueue.transport.script.picklers import QuickPickler

KEPT = 1000
"""How many functions and classes that have no name a worker keeps."""

_OWN = {"__name__", "__builtins__", "__spec__", "__loader__", "__package__"}
"""The globals that each ``__main__`` has of its own."""


class Definitions(NamedTuple):
    """A STREAM of definitions: the NODES that it defines, and those DEAD that no call mentions any more."""

    stream: bytes
    nodes: list[Node]
    dead: list[int]


class Exports(Main, Mourner):
    """What one worker has of the program's ``__main__``.

    With BYNAME, the worker finds what has a name there by that name.
    """

    def __init__(self, byName: bool = False) -> None:
        self.mentions: dict[Node, object] = {}
        """The functions and classes that the present call mentions, by key, and other objects by name."""
        self._byName = byName
        self._isOfWorker = isWorker()  # Its own worker lacks definitions that this process has.
        self._quick: QuickPickler | None = None
        self._globals = vars(sys.modules["__main__"])
        self._ledger = Ledger(self._globals)
        self._sent: dict[int, bool] = {}  # the keys that the worker has: True for those that have a name
        self._cells: dict[int, _Cell] = {}  # by id()
        self.dead: deque[int] = deque()
        """The keys of objects that exist no more, and that the worker is to forget."""
        self._refused: dict[str, tuple[object, str]] = {}  # by name: the value, and why it cannot be sent
        mourners.add(self)

    def mention(self, obj: object) -> int:
        """Note that the present call mentions OBJ. Return its key."""
        key = keyFor(obj)
        self.mentions[key] = obj
        return key

    def dumps(self, obj: Any) -> bytes:
        """Return OBJ, a part of a call, as bytes. Raises whatever the pickler raises."""
        quick, self._quick = self._quick, None  # Pickling runs code of the objects, which may come back here.
        if quick is None:
            from asynqueue.transport.script.picklers import QuickPickler

            quick = QuickPickler(self._globals, self._byName)
        try:
            return quick.dumps(obj, self.mentions)
        except BaseException:  # as above: it may raise anything
            from asynqueue.transport.script.picklers import CallPickler

            file = io.BytesIO()
            CallPickler(file, self._globals, self.mentions).dump(obj)
            return file.getvalue()
        finally:
            self._quick = quick

    def allowsPlain(self, key: int | None) -> bool:
        """Return whether pickle alone may carry a call of the function with KEY, None for one without a key.

        It may if the worker has all definitions for the call. What it pickles must have no foreign name all the same.
        """
        return not (self.dead or self._isOfWorker) and (key is None or self._ledger.isCurrent(key))

    def definitions(self) -> Definitions | None:
        """Return the definitions that the worker needs for the present call, None if it has them all.

        Raises `SerializationError`, if something that the call mentions cannot be sent.
        """
        if not self.dead and all(map(self._ledger.isCurrent, self.mentions)):
            return None
        forgotten: list[int] = []
        while self.dead:
            self._drop(self.dead.popleft(), forgotten)
        mentions, self.mentions = self.mentions, {}
        while True:
            stream = _Stream(self._globals, self._ledger, self._sent, self._cells, mentions, self._refused)
            try:
                self._ledger.bring(mentions, stream.send)
            except _Refused as refused:  # It is left out next time.
                self._refused[refused.name] = refused.value, refused.why
                continue
            break
        self._sent.update(stream.keys)
        self._cells.update(stream.cells)
        unnamed = [key for key, named in self._sent.items() if not named and key not in mentions]
        if len(unnamed) > KEPT:
            for key in unnamed[: KEPT // 2]:
                self._drop(key, forgotten)
        return stream.end(forgotten)

    def died(self, key: int) -> None:
        """Note that the object of KEY exists no more. This may be called at any time, and in any thread."""
        if key in self._sent:
            self.dead.append(key)

    def _drop(self, key: int, forgotten: list[int]) -> None:
        """Forget KEY and its cells. Append the keys of both to FORGOTTEN."""
        self._ledger.forget(key)
        if self._sent.pop(key, None) is not None:
            forgotten.append(key)
            for number, cell in list(self._cells.items()):
                if cell.owner == key:
                    del self._cells[number]
                    forgotten.append(cell.key)


class _Cell(NamedTuple):
    """A cell that the worker has under KEY, with the CONTENT that was sent. The function OWNER came with it first."""

    cell: CellType
    key: int
    owner: int
    content: object


class _Refused(Exception):
    def __init__(self, name: str, value: object, why: str) -> None:
        super().__init__(name)
        self.name = name
        self.value = value
        self.why = why


class _Stream:
    """One attempt to make a stream of definitions."""

    def __init__(
        self,
        globals: dict[str, Any],
        ledger: Ledger,
        sent: dict[int, bool],
        cells: dict[int, _Cell],
        mentions: dict[Node, object],
        refused: dict[str, tuple[object, str]],
    ) -> None:
        from asynqueue.transport.script.picklers import DefinitionPickler

        self.keys: dict[int, bool] = {}
        self._all: list[Node] = []
        self._globals = globals
        self._ledger = ledger
        self.cells: dict[int, _Cell] = {}
        self._before = sent
        self._cells = cells
        self._mentions = mentions
        self._refused = refused
        self._file = io.BytesIO()
        self._pickler = DefinitionPickler(
            self._file, globals, self._refer, self._define, self._cellKey, self._isUnchanged, self._isThere
        )
        self._new: dict[Node, Sent] = {}
        self._needs: dict[Node, None] = {}

    def send(self, node: Node) -> dict[Node, Sent]:
        """Write NODE to the stream. Return what was written."""
        self._new, self._needs = {}, {}
        if isinstance(node, str):
            self._sendGlobal(node)
        else:
            self._sendKeyed(node)
        self.keys.update((key, self._hasName(key)) for key in self._new if isinstance(key, int))
        self._all += self._new
        needs = tuple(self._needs)
        return {each: sent._replace(needs=needs) for each, sent in self._new.items()}

    def end(self, forgotten: list[int]) -> Definitions:
        """Return the stream. The worker drops the keys FORGOTTEN."""
        if forgotten:
            self._pickler.dump(("forget", forgotten))
        self._pickler.dump(None)
        return Definitions(self._file.getvalue(), self._all, forgotten)

    def _sendGlobal(self, name: str) -> None:
        value = self._globals.get(name, ABSENT)
        refused, why = self._refused.get(name, (ABSENT, None))
        if value is ABSENT or refused is value:
            if self._ledger.has(name) or value is not ABSENT:
                self._pickler.dump(("unbind", name, None if value is ABSENT else why))
        else:
            try:
                self._dump("bind", name, value)
            except BaseException as error:  # Pickling runs code of the objects, which may raise anything.
                raise _Refused(name, value, errorText(error)) from error
        self._new[name] = Sent((value,), ())

    def _sendKeyed(self, key: int) -> None:
        obj: Any = self._mentions.get(key)
        try:
            if obj is None or key in self._before:
                self._sendContents(key)
            else:
                self._dump("keep", obj)
                self._new.setdefault(key, Sent((), ()))
        except BaseException as error:  # as above
            name = getattr(obj, "__qualname__", "a function or class")
            raise SerializationError(
                f"the definition of {name} in the program's __main__ cannot be pickled: {errorText(error)}; {HINT}"
            ) from error

    def _sendContents(self, key: int) -> None:
        """Write what the cells of a function contain that the worker has already."""
        function = Main().keyed(key)
        self._define(function)
        if type(function) is FunctionType and function.__closure__:
            self._dump(*self._pickler.changed(function))

    def _dump(self, *element: Any) -> None:
        self._pickler.dump(element)
        while self._pickler.rest:
            self._pickler.dump(self._pickler.rest.pop(0))

    def _hasName(self, key: int) -> bool:
        obj = Main().keyed(key)
        if self._globals.get(getattr(obj, "__qualname__", "")) is obj:
            return True
        return any(value is obj for value in list(self._globals.values()))

    # For the pickler.

    def _refer(self, obj: object) -> int | None:
        """Return the key of OBJ if the worker has it already."""
        key = keyFor(obj)
        if key in self._before or key in self.keys:
            self._needs[key] = None
            return key
        return None

    def _isThere(self, name: str, obj: object) -> bool:
        """Return whether the worker has OBJ as the global NAME."""
        self._needs[name] = None
        return self._ledger.valueOf(name) is obj

    def _cellKey(self, cell: CellType) -> tuple[int | None, bool]:
        """Return the key of CELL, None if it has none, and whether the worker has it already."""
        found = self._cells.get(id(cell)) or self.cells.get(id(cell))
        return (None, False) if found is None else (found.key, id(cell) in self._cells)

    def _isUnchanged(self, cell: CellType) -> bool:
        """Return whether the worker has CELL with the content that it has now, as far as it was sent."""
        return id(cell) in self._cells and self._cells[id(cell)].content is contentOf(cell)

    def _define(self, obj: Any) -> int:
        """Note that OBJ is written. Return its key."""
        from asynqueue.transport.script.needs import isDefinable, namesOf

        key = keyFor(obj)
        cells: tuple[CellType, ...] = ()
        if type(obj) is FunctionType and obj.__closure__:
            # A cell is kept here. One that contains a function may contain this one, which could not cease to exist.
            cells = tuple(cell for cell in obj.__closure__ if not isDefinable(contentOf(cell)))
            for cell in obj.__closure__ if self._hasName(key) else cells:
                known = self._cells.get(id(cell)) or self.cells.get(id(cell))
                own, owner = (newKey(), key) if known is None else (known.key, known.owner)
                self.cells[id(cell)] = _Cell(cell, own, owner, contentOf(cell))
        self._new[key] = Sent(tuple(map(contentOf, cells)), (), cells)
        self._needs.update((name, None) for name in namesOf(obj, self._globals) if name not in _OWN)
        return key
