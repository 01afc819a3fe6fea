"""Decide which definitions of a program's ``__main__`` a worker lacks, and which of those that it has are stale.

Theory of operation:

- A *node* is something that a worker can have: the value of a global (its name), or a function or class (its key).
- Each node has *values*. Those of a global are its one value; those of a function are the contents of its closure.
  A node is *stale* when one of its values is another object than the one that was sent. A change inside an object is
  not noticed, because a look into it would cost as much as sending it.
- A node *needs* others, for instance a function the globals that its code names. A node is *current* when neither it
  nor anything that it needs, directly or not, is missing or stale.

Cost: `Ledger.isCurrent` compares one reference for each global that is needed. It allocates nothing and calls no code
of users.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import repeat
from operator import is_
from types import CellType
from typing import NamedTuple, TypeAlias

Node: TypeAlias = str | int
"""The name of a global, or the key of a function or class."""


class _Absent:
    def __repr__(self) -> str:
        return "ABSENT"


ABSENT = _Absent()
"""The value of a global that is not bound, and the content of an empty cell."""


class Sent(NamedTuple):
    """The VALUES of a node that were sent, and the nodes that it NEEDS. CELLS are the cells that had those values."""

    values: tuple[object, ...]
    needs: tuple[Node, ...]
    cells: tuple[CellType, ...] = ()


class _Flat(NamedTuple):
    """All that a node needs, directly or not, as it was sent."""

    names: list[str]
    values: list[object]
    cells: list[CellType]
    contents: list[object]


class Ledger:
    """What one worker has of a program whose globals are in GLOBALS, which is the live namespace."""

    def __init__(self, globals: Mapping[str, object]) -> None:
        self._globals = globals
        self._sent: dict[Node, Sent] = {}
        self._flat: dict[Node, _Flat] = {}

    def isCurrent(self, node: Node) -> bool:
        """Return whether the worker has NODE and all that it needs, as they are now."""
        flat = self._flat.get(node)
        if flat is None:
            if node not in self._sent:
                return False
            flat = self._flat[node] = self._flatten(node)
        names, values, cells, contents = flat
        if not all(map(is_, map(self._globals.get, names, repeat(ABSENT)), values)):
            return False
        return not cells or all(map(is_, map(contentOf, cells), contents))

    def has(self, node: Node) -> bool:
        """Return whether the worker has NODE, current or not."""
        return node in self._sent

    def valueOf(self, name: str) -> object:
        """Return the value that was sent of the global NAME."""
        sent = self._sent.get(name)
        return ABSENT if sent is None else sent.values[0]

    def bring(self, nodes: Iterable[Node], send: Callable[[Node], Mapping[Node, Sent]]) -> None:
        """Make NODES current: call SEND for each node that is missing or stale, among them and all that they need.

        SEND returns what it has sent: the node itself, and maybe others with it. If it raises an error, this ledger
        stays as it was.
        """
        new: dict[Node, Sent] = {}
        seen: set[Node] = set()
        roots = set(nodes)
        todo = list(roots)
        while todo:
            node = todo.pop()
            if node in seen:
                continue
            seen.add(node)
            sent = new.get(node) or self._sent.get(node)
            if sent is None and isinstance(node, int) and node not in roots:
                continue  # It was forgotten. What needs it still has it.
            if sent is None or not _areSame(sent.values, self._valuesOf(node, sent.cells)):
                new.update(send(node))
                sent = new[node]
            todo.extend(sent.needs[::-1])
        if new:
            # Nodes that were sent together need all that any of them needs: a pickle does not tell of a reference to
            # an object that it contains already.
            together = [need for sent in new.values() for need in sent.needs]
            for node, sent in new.items():
                before = self._sent.get(node) if isinstance(node, int) else None
                needs = dict.fromkeys([*together, *(before.needs if before is not None else ())])
                self._sent[node] = sent._replace(needs=tuple(needs))
            self._flat.clear()

    def forget(self, node: Node) -> None:
        """Forget NODE, which exists no more, neither here nor there."""
        if self._sent.pop(node, None) is not None:
            self._flat.clear()

    def _valuesOf(self, node: Node, cells: tuple[CellType, ...]) -> tuple[object, ...]:
        if isinstance(node, str):
            return (self._globals.get(node, ABSENT),)
        return tuple(map(contentOf, cells))

    def _flatten(self, root: Node) -> _Flat:
        flat = _Flat([], [], [], [])
        seen: set[Node] = {root}
        todo: list[Node] = [root]
        while todo:
            node = todo.pop()
            sent = self._sent.get(node)
            if sent is None:
                continue  # it was forgotten
            if isinstance(node, str):
                flat.names.append(node)
                flat.values.append(sent.values[0])
            else:
                flat.cells.extend(sent.cells)
                flat.contents.extend(sent.values)
            for need in sent.needs:
                if need not in seen:
                    seen.add(need)
                    todo.append(need)
        return flat


class DefinitionLog:
    """The definitions of one program, for the workers of a cluster that still lack some.

    What later definitions have replaced is dropped, so that a global that is often bound anew takes no room.
    """

    def __init__(self) -> None:
        self.last: int = 0
        """The number of the last definitions."""
        self._entries: dict[int, tuple[set[Node], bytes]] = {}

    def add(self, number: int, nodes: Iterable[Node], dead: Iterable[Node], stream: bytes) -> None:
        """Add the STREAM of this NUMBER, which defines NODES. Those DEAD are not needed any more."""
        if number <= self.last:
            return  # The request was repeated.
        new = set(nodes)
        gone = new.union(dead)
        for each, (left, _) in list(self._entries.items()):
            left -= gone
            if not left:
                del self._entries[each]
        self._entries[number] = new, stream
        self.last = number

    def after(self, number: int) -> list[bytes]:
        """Return the streams after that of NUMBER, in order."""
        return [stream for each, (_, stream) in self._entries.items() if each > number]


def contentOf(cell: CellType) -> object:
    """Return what CELL contains, `ABSENT` if it is empty."""
    try:
        return cell.cell_contents
    except ValueError:
        return ABSENT


def _areSame(some: Sequence[object], others: Sequence[object]) -> bool:
    return len(some) == len(others) and all(map(is_, some, others))
