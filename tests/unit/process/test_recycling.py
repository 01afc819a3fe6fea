"""Real processes that are worn out."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import gatherResults

from asynqueue.core.records import CallSpec, Recalled, Returned, RunOutcome, Task
from asynqueue.errors import ProcessError, WorkerLost
from asynqueue.process import ProcessQueue, ProcessWorker
from asynqueue.process import childprocess as workerprocess
from tests.support import calls as kit
from tests.support.calls import failureOf, inLoop, isAbsent, marks, until
from tests.support.features import needs


class TestLimits:
    @pytest.mark.parametrize("name", ["maxTasks", "maxMemory"])
    @pytest.mark.parametrize("value", [0, -1, 1.5, True, "2"])
    def test_a_limit_that_is_none_is_named(self, name: str, value: Any) -> None:
        with pytest.raises(ValueError, match=rf"{name} must be a number of .*; got "):
            ProcessWorker(**{name: value})
        with pytest.raises(ValueError, match=rf"{name} must be"):
            ProcessQueue(1, **{name: value})


class TestMaxTasks:
    @pytest.mark.parametrize(("most", "calls"), [(1, 6), (2, 9), (50, 500)])
    @inLoop
    async def test_no_process_has_more_calls_and_each_call_runs_once(
        self, most: int, calls: int, tmp_path: Path
    ) -> None:
        ran = tmp_path / "ran"
        async with ProcessQueue(2, maxTasks=most) as queue:
            results = [queue.call(kit.markPid, ran, n, retries=0) for n in range(calls)]
            assert await gatherResults(results) == list(range(calls))
            assert len(queue) == 2
            assert queue.stats().retried == 0
        assert marks(ran) == Counter(map(str, range(calls)))
        assert max(marks(ran.with_suffix(".pids")).values()) <= most
        for pid in marks(ran.with_suffix(".pids")):
            assert isAbsent(int(pid))

    @inLoop
    async def test_updates_do_not_count_and_are_run_again_in_each_fresh_process(self, tmp_path: Path) -> None:
        tally = kit.Tally()
        async with ProcessQueue(1, maxTasks=3) as queue:
            await queue.update(tally.see, tmp_path / "updated")
            assert await gatherResults([queue.call(tally, retries=0) for _ in range(10)]) == [1] * 10
        assert marks(tmp_path / "updated")["started"] >= 4  # one that gave calls back had fewer

    @inLoop
    async def test_what_it_is_given_at_once_beyond_its_limit_comes_back_for_after_the_updates(self) -> None:
        worker = ProcessWorker(maxTasks=3)
        reports: dict[int, RunOutcome] = {}
        returned: list[set[int]] = []
        worker.setReport(reports.update)
        worker.setResignator(lambda *_, **__: returned.append(set(reports)))
        worker.give([(n, Task(n, CallSpec.of(kit.echo, n))) for n in range(1, 6)])
        assert {ticket for ticket, outcome in reports.items() if isinstance(outcome, Recalled)} == {4, 5}
        assert returned == [set()], "it says first that it returns"
        await until(lambda: len(reports) == 5)
        ran = [outcome.value for _, outcome in sorted(reports.items()) if isinstance(outcome, Returned)]
        assert ran == [1, 2, 3]
        await worker.stop()

    @inLoop
    async def test_an_iteration_ends_where_it_began_while_the_fresh_process_works(self, tmp_path: Path) -> None:
        async with ProcessQueue(1, maxTasks=2) as queue:
            iteration = await queue.call(kit.markedItems, tmp_path / "items", 3000)
            pids = {await queue.call(os.getpid) for _ in range(5)}
            assert len(pids) == 3
            assert await kit.drained(iteration) == list(range(3000))
            for pid in await gatherResults([queue.call(os.getpid) for _ in range(4)]):
                pids.add(pid)
        assert all(isAbsent(pid) for pid in pids)

    @inLoop
    async def test_a_worn_process_that_is_shut_down_with_an_iteration_open_closes_it(self, tmp_path: Path) -> None:
        worker = ProcessWorker(maxTasks=1)
        queue = ProcessQueue(1)
        await queue.attachWorker(worker)
        worker.qualifications = frozenset({"worn"})
        queue.qualifyWorker(worker, "worn")
        iteration = await queue.call(kit.markedItems, tmp_path / "items", 100_000, series="worn")
        await iteration.__anext__()
        iteration.stop()
        await queue.shutdown()
        assert marks(tmp_path / "items")["end"] == 1

    @inLoop
    async def test_its_successor_is_there_before_it_is_worn(self) -> None:
        async with ProcessQueue(1, maxTasks=16) as queue:
            (worker,) = queue.workers()
            assert isinstance(worker, ProcessWorker)
            for _ in range(14):
                await queue.call(kit.echo, 1)
            successor = worker._successor
            assert successor is not None
            await until(lambda: successor.link.ready)
            for _ in range(2):
                await queue.call(kit.echo, 1)
            assert worker.process is successor
            assert await queue.call(os.getpid) == successor.pid

    @inLoop
    async def test_a_successor_that_dies_early_takes_nothing_along(self, tmp_path: Path) -> None:
        async with ProcessQueue(1, maxTasks=8) as queue:
            (worker,) = queue.workers()
            assert isinstance(worker, ProcessWorker)
            for n in range(40):
                assert await queue.call(kit.markAndReturn, tmp_path / "ran", n, retries=0) == n
                if worker._successor is not None:
                    worker._successor.kill()
        assert marks(tmp_path / "ran") == Counter(map(str, range(40)))

    @inLoop
    async def test_one_that_dies_before_it_is_worn_is_succeeded_all_the_same(self, tmp_path: Path) -> None:
        async with ProcessQueue(2, maxTasks=5) as queue:
            killers = [failureOf(queue.call(kit.markAndDie, tmp_path / "killed", n)) for n in range(6)]
            results = [queue.call(kit.markAndReturn, tmp_path / "ran", n, retries=0) for n in range(60)]
            for killer in killers:
                assert isinstance(await killer, WorkerLost)
            assert await gatherResults(results) == list(range(60))
        assert marks(tmp_path / "ran") == Counter(map(str, range(60)))
        assert set(marks(tmp_path / "killed").values()) == {2}

    @inLoop
    async def test_one_without_a_successor_goes_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> None:
            raise OSError(24, "Too many open files")

        queue = ProcessQueue(1, maxTasks=2)
        monkeypatch.setattr(workerprocess.WorkerProcess, "_begin", refuse)
        pid = await queue.call(os.getpid)
        assert [await queue.call(os.getpid) for _ in range(4)] == [pid] * 4
        await queue.shutdown()


class TestMaxMemory:
    @needs("/proc")
    @inLoop
    async def test_one_that_leaks_is_replaced_between_calls(self, tmp_path: Path) -> None:
        async with ProcessQueue(1, maxMemory=60_000) as queue:
            pids = [await queue.call(kit.grow, 30_000, retries=0) for _ in range(7)]
            assert len(set(pids)) > 2
            assert await gatherResults([queue.call(kit.echo, n, retries=0) for n in range(200)]) == list(range(200))
        assert all(isAbsent(pid) for pid in pids)

    @needs("/proc")
    @inLoop
    async def test_one_that_does_not_stays(self) -> None:
        async with ProcessQueue(1, maxMemory=1 << 30) as queue:
            assert len(set(await gatherResults([queue.call(os.getpid) for _ in range(300)]))) == 1

    def test_where_memory_cannot_be_told_it_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("asynqueue.process.worker.residentMemory", lambda pid: None)
        with pytest.raises(ProcessError, match="maxMemory needs to know the memory"):
            ProcessWorker(maxMemory=100_000)


class TestMemUsage:
    @needs("/proc")
    @inLoop
    async def test_it_is_what_the_process_uses_and_none_without_one(self) -> None:
        worker = ProcessWorker()
        assert worker.memUsage() is None
        queue = ProcessQueue(1)
        await queue.detachWorker(queue.workers()[0])
        await queue.attachWorker(worker)
        await queue.call(kit.echo, 1)
        before = worker.memUsage()
        await queue.call(kit.grow, 50_000)
        after = worker.memUsage()
        assert before is not None
        assert after is not None
        assert 49_000 < after - before < 80_000
        await queue.shutdown()
        assert worker.memUsage() is None
