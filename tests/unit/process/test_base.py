"""Objects whose methods run in processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.defer import gatherResults

from asynqueue import ProcessBase, ProcessQueue, TaskQueue, ThreadWorker
from asynqueue.errors import QueueRunError, WorkerLost
from asynqueue.process import ProcessWorker
from tests.support import calls as kit
from tests.support.calls import failureOf, inLoop


class Reader(ProcessBase):
    """Keeps what could not cross, and counts."""

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.seen: list[int] = []

    def startProcess(self) -> None:
        self.null = open(os.devnull, "w")  # noqa: SIM115  # it stays open, and cannot be pickled

    def see(self, n: int) -> int:
        self.seen.append(n)
        return len(self.seen)

    def read(self, n: int) -> tuple[int, list[int]]:
        assert not self.null.closed
        return n + self.offset, self.seen

    def items(self, n: int) -> Iterator[int]:
        yield from range(self.offset, self.offset + n)

    def die(self) -> None:
        kit.die()


@inLoop
async def test_its_methods_run_on_the_copy_that_each_process_keeps() -> None:
    reader = Reader(40)
    async with ProcessQueue(2) as queue:
        await reader.attachQueue(queue)
        assert await reader.updateProcesses(reader.see, 7) == [1, 1]
        assert await gatherResults([reader.callInProcess(reader.read, 2) for _ in range(50)]) == [(42, [7])] * 50
        assert await queue.call(reader.read, 3, niceness=5) == (43, [7])
        assert await kit.drained(await reader.callInProcess(reader.items, 3)) == [40, 41, 42]
    assert reader.seen == []
    assert not hasattr(reader, "null")


@inLoop
async def test_a_replaced_process_has_a_fresh_copy_with_the_updates() -> None:
    reader = Reader(1)
    async with ProcessQueue(1) as queue:
        await reader.attachQueue(queue)
        await reader.updateProcesses(reader.see, 7)
        await reader.callInProcess(reader.see, 8)
        assert isinstance(await failureOf(reader.callInProcess(reader.die)), WorkerLost)
        assert await reader.callInProcess(reader.read, 2) == (3, [7])


@inLoop
async def test_its_methods_run_in_processes_though_the_queue_has_other_workers() -> None:
    class Plain(ProcessBase):
        def processID(self) -> int:
            return os.getpid()

    plain = Plain()
    async with TaskQueue(ThreadWorker(), ProcessWorker()) as queue:
        await plain.attachQueue(queue)
        assert os.getpid() not in await gatherResults([plain.callInProcess(plain.processID) for _ in range(20)])


@inLoop
async def test_it_is_refused_without_a_queue_and_for_what_is_no_method_of_its_own() -> None:
    reader = Reader(1)
    with pytest.raises(QueueRunError, match="this Reader is not attached to a queue: use attachQueue first"):
        reader.callInProcess(reader.read, 1)
    queue = ProcessQueue(1)
    await reader.attachQueue(queue)
    with pytest.raises(TypeError, match="run in its processes, got <built-in function len>"):
        reader.callInProcess(len, [])
    with pytest.raises(TypeError, match="only methods of this Reader"):
        reader.updateProcesses(Reader(2).read, 1)
    await queue.shutdown()
    with pytest.raises(QueueRunError, match="not running"):
        reader.callInProcess(reader.read, 1)
    with pytest.raises(QueueRunError, match="not running"):
        reader.attachQueue(queue)


@inLoop
async def test_what_raises_at_its_start_fails_the_attachment(tmp_path: Path) -> None:
    class Failing(ProcessBase):
        def startProcess(self) -> None:
            raise OSError("no database")

    async with ProcessQueue(1) as queue:
        error = await failureOf(Failing().attachQueue(queue))
        assert (type(error), str(error)) == (OSError, "no database")


@inLoop
async def test_its_module_costs_a_process_nothing() -> None:
    async with ProcessQueue(1) as queue:
        # Not as a bound method: where twisted.persisted is imported, Twisted has those pickled in a way of its own.
        await queue.call(ProcessBase.startProcess, ProcessBase())
        imported = {name.partition(".")[0] for name in await queue.call(kit.modules)}
    assert imported & {"twisted", "attr", "attrs", "zope"} == set()


class Counter09(ProcessBase):
    """Keeps its count in `data`, as programs for 0.9 do."""

    def count(self) -> tuple[int, int]:
        self.data["count"] = self.data.get("count", 0) + 1
        return self.pid, self.data["count"]


class Keeper(ProcessBase):
    def __init__(self) -> None:
        self.data = [5]
        self.pid = 7


@inLoop
async def test_data_of_a_process_stays_without_an_attachment() -> None:
    async with ProcessQueue(1) as queue:
        (pid, first), (again, second) = [await queue.call(Counter09().count) for _ in range(2)]
        assert (first, second) == (1, 2)
        assert pid == again != os.getpid()
    assert Counter09().data == {}
    assert Counter09().pid == os.getpid()
    assert (Keeper().data, Keeper().pid) == ([5], 7)
