"""Which definitions of a program a worker has, and which are stale."""

from __future__ import annotations

from collections.abc import Mapping
from types import CellType

import pytest

from asynqueue.core.protocol.scriptdefinitions import ABSENT, DefinitionLog, Ledger, Node, Sent


class Worker:
    """Is sent nodes of a program whose globals are NAMES. NEEDS says what each node needs, CELLS what it has."""

    def __init__(self, needs: dict[Node, tuple[Node, ...]], cells: dict[Node, tuple[CellType, ...]]) -> None:
        self.names: dict[str, object] = {}
        self.sent: list[Node] = []
        self._needs = needs
        self._cells = cells

    def send(self, node: Node) -> Mapping[Node, Sent]:
        self.sent.append(node)
        needs = self._needs.get(node, ())
        if isinstance(node, str):
            return {node: Sent((self.names.get(node, ABSENT),), needs)}
        cells = self._cells.get(node, ())
        return {node: Sent(tuple(cell.cell_contents for cell in cells), needs, cells)}

    def taken(self) -> list[Node]:
        sent, self.sent = self.sent, []
        return sorted(sent, key=str)


CELL = CellType(5)


@pytest.fixture
def worker() -> Worker:
    """A worker of a program where function 1 uses globals x and f, and f is function 2, which uses y and a cell."""
    worker = Worker({1: ("x", "f"), "f": (2,), 2: ("y",)}, {2: (CELL,)})
    worker.names |= {"x": [1], "y": [2], "f": worker.send, "z": [3]}
    return worker


def test_a_function_comes_with_all_that_it_needs_once(worker: Worker) -> None:
    ledger = Ledger(worker.names)
    assert not ledger.isCurrent(1)
    ledger.bring([1], worker.send)
    # Function 2 came with the global f in reality, and is not sent by itself.
    assert worker.taken() == [1, "f", "x"]
    assert ledger.isCurrent(1)
    ledger.bring([1], worker.send)
    assert worker.taken() == []


def brought(worker: Worker) -> Ledger:
    ledger = Ledger(worker.names)
    ledger.bring([1, 2], worker.send)
    assert worker.taken() == [1, 2, "f", "x", "y"]
    return ledger


def test_only_a_global_that_is_bound_anew_is_sent_again(worker: Worker) -> None:
    ledger = brought(worker)
    worker.names |= {"x": [1], "z": [4]}
    assert not ledger.isCurrent(1)
    ledger.bring([1], worker.send)
    assert worker.taken() == ["x"]
    assert ledger.isCurrent(1)


def test_a_global_that_another_function_needs_does_not_matter(worker: Worker) -> None:
    ledger = brought(worker)
    worker.names["z"] = [5]
    assert ledger.isCurrent(1)


def test_a_change_inside_of_an_object_is_not_noticed(worker: Worker) -> None:
    ledger = brought(worker)
    value = worker.names["x"]
    assert isinstance(value, list)
    value.append(2)
    assert ledger.isCurrent(1)


def test_no_comparison_of_objects_is_asked_for(worker: Worker) -> None:
    class Hostile:
        def __eq__(self, other: object) -> bool:
            raise AssertionError("it was compared")

        __hash__ = object.__hash__

    worker.names["x"] = Hostile()
    ledger = brought(worker)
    assert ledger.isCurrent(1)
    worker.names["x"] = Hostile()
    assert not ledger.isCurrent(1)


def test_a_global_that_is_deleted_or_bound_first_is_noticed(worker: Worker) -> None:
    ledger = brought(worker)
    del worker.names["y"]
    assert not ledger.isCurrent(1)
    ledger.bring([1], worker.send)
    assert worker.taken() == ["y"]
    worker.names["y"] = None
    assert not ledger.isCurrent(1)


def test_a_cell_of_a_closure_with_another_content_is_noticed(worker: Worker) -> None:
    ledger = brought(worker)
    CELL.cell_contents = 6
    assert not ledger.isCurrent(1)
    ledger.bring([1], worker.send)
    assert worker.taken() == [2]
    assert ledger.isCurrent(1)


def test_a_ledger_stays_as_it_was_if_sending_fails(worker: Worker) -> None:
    ledger = brought(worker)
    worker.names |= {"x": [0], "y": [0]}

    def failing(node: Node) -> Mapping[Node, Sent]:
        if worker.sent:
            raise ValueError("it cannot be sent")
        return worker.send(node)

    with pytest.raises(ValueError, match="it cannot be sent"):
        ledger.bring([1], failing)
    worker.taken()
    ledger.bring([1], worker.send)
    assert worker.taken() == ["x", "y"]


def test_a_function_that_is_forgotten_is_sent_again_only_if_a_call_mentions_it(worker: Worker) -> None:
    ledger = brought(worker)
    ledger.forget(2)
    assert not ledger.isCurrent(2)
    ledger.bring([1], worker.send)
    assert worker.taken() == []
    ledger.bring([2], worker.send)
    assert worker.taken() == [2]


def test_a_log_gives_a_late_worker_only_what_was_not_replaced() -> None:
    log = DefinitionLog()
    log.add(1, ["f", "x", 1], [], b"first")
    log.add(2, ["x"], [], b"second")
    log.add(3, ["x"], [], b"third")
    log.add(3, ["x"], [], b"repeated")
    assert (log.last, log.after(0), log.after(1), log.after(3)) == (3, [b"first", b"third"], [b"third"], [])
    log.add(4, ["x", "f"], [1], b"fourth")
    assert log.after(0) == [b"fourth"]
