"""The Dask worker, on a real cluster whose parts really die."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from distributed import Client, Worker, core, get_worker
from distributed.core import send_recv
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from asynqueue import AsyncWorker, DaskWorker, Deferator, TaskQueue, errors
from asynqueue.core.scheduling.window import Window
from asynqueue.dask import internals
from asynqueue.dask import session as dasksession
from asynqueue.dask.workerplugin import PROTOCOL, op
from asynqueue.errors import SerializationError, WorkerError, WorkerLost
from asynqueue.transport.errorcodec import RemoteTraceback
from tests.support import calls as kit
from tests.support.calls import Collector, drained, failureOf, inLoop, mark, marks, until
from tests.support.daskcluster import DaskCluster

T = TypeVar("T")


@pytest.fixture(scope="module")
def cluster() -> Iterator[DaskCluster]:
    with DaskCluster(workers=2) as cluster:
        with Client(cluster.scheduler.address) as client:
            client.submit(bytes, 20_000_000).result()  # for which Dask starts a thread that it keeps
        yield cluster


@pytest.fixture
def client(cluster: DaskCluster) -> Iterator[Client]:
    while len(cluster.workers) < 2:
        cluster.addWorker()
    with Client(cluster.scheduler.address) as client:
        client.wait_for_workers(2, timeout=60)
        yield client


async def queueFor(client: Client, *series: str, window: int | None = None) -> TaskQueue:
    """A queue with a worker of two threads that is ready."""
    worker = DaskWorker(client, series, window)
    queue = TaskQueue(worker)
    await worker.whenReady()
    await until(lambda: worker.window != Window() or window)
    return queue


@contextmanager
def held(client: Client) -> Iterator[None]:
    """The loop of CLIENT stands still."""
    still, on = threading.Event(), threading.Event()

    def hold() -> None:
        still.set()
        on.wait()

    client.loop.asyncio_loop.call_soon_threadsafe(hold)
    still.wait()
    try:
        yield
    finally:
        on.set()


def cutAnswers(monkeypatch: pytest.MonkeyPatch, times: dict[str, int]) -> None:
    """The connection of a client ends as many TIMES as is said for an operation when that is done, but not answered."""

    async def cut(comm: core.Comm, *, op: str, **message: Any) -> Any:
        answer = await send_recv(comm, op=op, **message)
        if times.get(op):
            times[op] -= 1
            raise OSError("Stream is closed")
        return answer

    monkeypatch.setattr(core, "send_recv", cut)


def cutOneRequest(updated: bool) -> None:
    """In a worker of the cluster: the connection ends as it first asks for leave, having UPDATED or not."""

    async def cut(comm: core.Comm, *, op: str, **message: Any) -> Any:
        if op.endswith("starting") and (message["did"] is not None) == updated:
            core.send_recv = send_recv
            raise OSError("Stream is closed")
        return await send_recv(comm, op=op, **message)

    core.send_recv = cut


def forgetIterations(dask_worker: Worker) -> None:
    """In a worker of the cluster: forget every session, as when the scheduler says so."""
    side: Any = dask_worker.plugins.get(PROTOCOL)
    for session, _ in list(side._iterations) if side else ():
        side.forget(session)


class TestResultsAndErrors:
    @inLoop
    async def test_a_call_gives_its_result_from_another_process(self, client: Client) -> None:
        async with await queueFor(client) as queue:
            assert await queue.call(kit.echo, 42) == 42
            assert await queue.call(int, "ff", base=16) == 255
            assert await queue.call(os.getpid) != os.getpid()

    @inLoop
    async def test_a_worker_that_was_stopped_is_refused(self, client: Client) -> None:
        async with await queueFor(client) as queue:
            (worker,) = queue.workers()
            await queue.detachWorker(worker)
            with pytest.raises(WorkerError, match="was stopped: attach a new one"):
                queue.attachWorker(worker)
            assert not queue.workers()

    @inLoop
    async def test_an_error_is_the_original_one_with_the_far_traceback(self, client: Client) -> None:
        async with await queueFor(client) as queue:
            error = await failureOf(queue.call(kit.raiseThis, KeyError("gone")))
        assert type(error) is KeyError
        assert error.args == ("gone",)
        assert isinstance(error.__cause__, RemoteTraceback)
        assert "in raiseThis" in str(error.__cause__)

    @inLoop
    async def test_what_a_test_defines_goes_there_and_comes_back_as_itself(self, client: Client) -> None:
        class Point:
            def __init__(self, x: int) -> None:
                self.x = x

            def moved(self, by: int) -> Point:
                return Point(self.x + by)

        offset = 40
        async with await queueFor(client) as queue:
            assert await queue.call(lambda x: x + offset, 2) == 42
            moved = await queue.call(Point(1).moved, 2)
            assert (type(moved), moved.x) == (Point, 3)

    @inLoop
    async def test_what_cannot_be_pickled_fails_its_own_call_alone(self, client: Client) -> None:
        async with await queueFor(client) as queue:
            before, bad, after = queue.call(kit.echo, 1), queue.call(max, 1, threading.Lock()), queue.call(kit.echo, 2)
            error = await failureOf(bad)
            assert isinstance(error, SerializationError)
            assert "argument 2 of max(1, <unlocked _thread.lock" in str(error)
            assert (await before, await after) == (1, 2)
            error = await failureOf(queue.call(threading.Lock))
            assert isinstance(error, SerializationError)
            assert "the result, of type lock, cannot be pickled" in str(error)
            error = await failureOf(queue.call(kit.local))
            assert "the result cannot be unpickled: LookupError: this is not process" in str(error)
            error = await failureOf(queue.call(repr, kit.local()))
            assert "the call cannot be unpickled: LookupError: this is not process" in str(error)

    @inLoop
    async def test_a_coroutine_is_awaited_over_there(self, client: Client) -> None:
        async def later(value: int) -> int:
            import asyncio

            await asyncio.sleep(0)
            if value < 0:
                raise ValueError(value)
            return value

        async with await queueFor(client) as queue:
            assert await queue.call(later, 5) == 5
            assert type(await failureOf(queue.call(later, -1))) is ValueError

    @inLoop
    async def test_a_call_may_use_dask_over_there(self, client: Client, cluster: DaskCluster) -> None:
        def nested() -> int:
            from distributed import worker_client

            with worker_client() as inner:
                result: int = inner.submit(pow, 2, 5).result()
                return result

        async with await queueFor(client, window=1) as queue:
            assert await queue.call(lambda: get_worker().address) in {w.address for w in cluster.workers}
            assert await queue.call(nested) == 32
            assert await queue.call(kit.echo, 1) == 1

    @inLoop
    async def test_a_large_argument_and_a_large_result_pass(self, client: Client) -> None:
        payload = bytes(12_000_000)
        async with await queueFor(client) as queue:
            assert await queue.call(len, payload) == len(payload)
            assert len(await queue.call(bytes, len(payload))) == len(payload)

    @inLoop
    async def test_it_runs_tasks_of_its_series_alone(self, client: Client) -> None:
        async with await queueFor(client, "gpu") as queue:
            of: list[str | None] = ["dask", "remote", "gpu", None]
            results: list[Deferred[int]] = [queue.call(kit.echo, n, series=series) for n, series in enumerate(of)]
            stranger = queue.call(kit.echo, 9, series="local")
            assert await gatherResults(results) == [0, 1, 2, 3]
            stranger.cancel()
            assert type(await failureOf(stranger)) is CancelledError


class TestOrder:
    @inLoop
    async def test_the_window_follows_the_cluster(self, client: Client, cluster: DaskCluster) -> None:
        async with await queueFor(client) as queue:
            (worker,) = queue.workers()
            assert worker.window == Window(2, 2)
            cluster.addWorker()
            await until(lambda: worker.window == Window(3, 3))
            cluster.killWorker()
            await until(lambda: worker.window == Window(2, 2))

    @inLoop
    async def test_what_waits_goes_in_the_queues_order_whatever_the_cluster_thinks(
        self, client: Client, tmp_path: Path
    ) -> None:
        async with await queueFor(client, window=1) as queue:
            first = queue.call(kit.waitFor, tmp_path / "go", "first")
            path = tmp_path / "order"
            calls = [queue.call(mark, path, n, niceness=n) for n in (20, 0, -20)]
            calls.append(queue.call(mark, path, "last", doLast=True))
            calls.append(queue.call(mark, path, "next", doNext=True))
            mark(tmp_path / "go")
            assert await first == "first"
            await gatherResults(calls)
        assert path.read_text().split() == ["next", "-20", "0", "20", "last"]


class TestIteration:
    @inLoop
    async def test_the_items_come_in_order_each_once_and_then_the_error(self, client: Client) -> None:
        def broken() -> Iterator[int]:
            yield from range(1000)
            raise KeyError("broken")

        async with await queueFor(client) as queue:
            assert await drained(await queue.call(iter, range(5000))) == list(range(5000))
            assert await drained(await queue.call(iter, ())) == []
            got, error = await toItsEnd(await queue.call(broken))
            assert got == list(range(1000))
            assert type(error) is KeyError
            assert "in broken" in str(error.__cause__)
            collector = Collector([])
            assert await queue.call(iter, [1, 2, 3], consumer=collector) is collector
            assert collector.got == [1, 2, 3]

    @inLoop
    async def test_no_more_is_made_than_was_granted_and_a_stop_runs_the_finally(
        self, client: Client, tmp_path: Path
    ) -> None:
        path = tmp_path / "made"
        async with await queueFor(client) as queue:
            deferator = await queue.call(kit.markedItems, path, 1000)
            assert sum(marks(path).values()) == 1
            items = [await d for _, d in zip(range(3), deferator, strict=False)]
            assert items == [0, 1, 2]
            deferator.stop()
            await until(lambda: marks(path)["end"] == 1)
        assert sum(marks(path).values()) <= 10

    @inLoop
    async def test_an_iteration_keeps_no_call_from_its_place(self, client: Client) -> None:
        async with await queueFor(client) as queue:
            opened = [await queue.call(iter, range(10)) for _ in range(5)]
            assert await queue.call(kit.echo, 1) == 1
            assert [await drained(it) for it in opened] == [list(range(10))] * 5

    @inLoop
    async def test_iterations_that_wait_leave_room_for_calls_of_all_queues_of_a_client(
        self, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def wait(path: Path) -> Iterator[str]:
            mark(path.parent / "asked")
            yield kit.waitFor(path, "went")

        monkeypatch.setattr(dasksession, "ASKED", 1)
        async with await queueFor(client) as queue, await queueFor(client) as other:
            opened = [each.call(wait, tmp_path / "go") for each in (queue, other)]
            await until(lambda: marks(tmp_path / "asked")["started"])
            for number in range(9):
                assert [await each.call(kit.echo, number) for each in (queue, other)] == [number, number]
            asked = marks(tmp_path / "asked")["started"]
            mark(tmp_path / "go")
            assert asked == 1
            assert [await drained(await it) for it in opened] == [["went"]] * 2

    @inLoop
    async def test_an_iteration_that_the_cluster_has_forgotten_is_lost(self, client: Client) -> None:
        async with await queueFor(client) as queue:
            iteration = await queue.call(iter, range(1_000_000))
            client.run(forgetIterations)
            error = (await toItsEnd(iteration))[1]
            assert isinstance(error, WorkerLost)
            assert "the iteration ended early" in str(error)

    @inLoop
    async def test_an_item_that_cannot_cross_ends_its_own_iteration_alone(self, client: Client, tmp_path: Path) -> None:
        def items() -> Iterator[Any]:
            try:
                yield from (1, threading.Lock(), 3)
            finally:
                mark(tmp_path / "closed")

        async with await queueFor(client) as queue:
            got, error = await toItsEnd(await queue.call(items))
            assert got == [1]
            assert isinstance(error, SerializationError)
            assert "an item, of type lock, cannot be pickled" in str(error)
            assert marks(tmp_path / "closed")["started"] == 1
            assert await queue.call(kit.echo, 1) == 1

    @inLoop
    async def test_a_client_that_dies_leaves_no_iterator_open(
        self, client: Client, cluster: DaskCluster, tmp_path: Path
    ) -> None:
        path = tmp_path / "made"
        program = f"""
            import os, signal
            from pathlib import Path
            from twisted.internet.task import react
            from twisted.internet.defer import ensureDeferred
            from distributed import Client
            from asynqueue import DaskWorker, TaskQueue
            from tests.support.calls import markedItems

            async def main(reactor):
                queue = TaskQueue(DaskWorker(Client({cluster.scheduler.address!r})))
                items = await queue.call(markedItems, Path({str(path)!r}), 10)
                os.kill(os.getpid(), signal.SIGKILL)

            react(lambda reactor: ensureDeferred(main(reactor)))
        """
        done = run(program)
        assert done.returncode == -signal.SIGKILL, done.stderr
        await until(lambda: marks(path)["end"] == 1)


class TestLettingGo:
    @inLoop
    async def test_a_call_that_is_cancelled_ends_now_and_its_place_is_free(
        self, client: Client, tmp_path: Path
    ) -> None:
        def hang() -> None:
            mark(tmp_path / "hung")
            while not (tmp_path / "end").exists():
                time.sleep(0.01)

        def begun(number: int) -> bool:
            return marks(tmp_path / "hung")["started"] == number

        async with await queueFor(client) as queue:
            for n in range(1, 4):  # more than the cluster has threads
                hung = [queue.call(hang) for _ in range(2)]
                started = queue.call(kit.echo, n, doNext=True)
                await until(begun, 2 * n)
                for call in hung:
                    call.cancel()
                    assert type(await failureOf(call)) is CancelledError
                assert await started == n
            assert await gatherResults([queue.call(kit.echo, n) for n in range(4)]) == [0, 1, 2, 3]
        mark(tmp_path / "end")

    @inLoop
    async def test_an_iterator_that_nobody_waits_for_any_more_is_closed(self, client: Client, tmp_path: Path) -> None:
        class Closable:
            def __iter__(self) -> Iterator[int]:
                return self

            def __next__(self) -> int:
                return 1

            def close(self) -> None:
                mark(tmp_path / "closed")

        async with await queueFor(client) as queue:
            call = queue.call(Closable)
            while not client.futures:
                time.sleep(0.001)  # block the reactor's thread, so that it does not learn that the call has returned
            while client.futures:
                time.sleep(0.001)
            call.cancel()
            assert type(await failureOf(call)) is CancelledError
            await until(lambda: marks(tmp_path / "closed")["started"] == 1)

    @inLoop
    async def test_what_runs_out_of_time_is_tried_again_and_then_fails(self, client: Client, tmp_path: Path) -> None:
        def hang() -> None:
            mark(tmp_path / "hung")
            while not (tmp_path / "end").exists():
                time.sleep(0.01)

        async with await queueFor(client, window=1) as queue:
            error = await failureOf(queue.call(hang, timeout=0.5))
            assert isinstance(error, errors.TimeoutError)
            assert marks(tmp_path / "hung")["started"] == 2
            assert await queue.call(kit.echo, 1) == 1
        mark(tmp_path / "end")

    @inLoop
    async def test_a_worker_that_leaves_gives_back_what_the_cluster_has_not_started(
        self, client: Client, tmp_path: Path
    ) -> None:
        def waitFor(number: int) -> int:
            mark(tmp_path / "began")
            while not (tmp_path / "go").exists():
                time.sleep(0.001)
            return number

        async with await queueFor(client, window=4) as queue:
            calls = [queue.call(waitFor, n) for n in range(2)]
            await until(lambda: marks(tmp_path / "began")["started"] == 2)
            waiting = [queue.call(kit.markAndReturn, tmp_path / "ran", n) for n in range(2)]
            (worker,) = queue.workers()
            left = queue.detachWorker(worker, reassign=True)
            await until(lambda: queue.stats().queued == 2)
            mark(tmp_path / "go")
            assert await gatherResults(calls) == [0, 1]
            assert await left == []
            other = AsyncWorker()
            await queue.attachWorker(other)
            assert await gatherResults(waiting) == [0, 1]

    @inLoop
    async def test_a_crash_leaves_what_was_unfinished(self, client: Client, tmp_path: Path) -> None:
        async with await queueFor(client) as queue:
            calls = [queue.call(kit.waitFor, tmp_path / "go", str(n)) for n in range(2)]
            (worker,) = queue.workers()
            unfinished = await queue.detachWorker(worker, crash=True)
            assert [task.call.args[1] for task in unfinished] == ["0", "1"]
            for call in calls:
                assert isinstance(await failureOf(call), WorkerLost)
        mark(tmp_path / "go")


class TestStopping:
    @inLoop
    async def test_a_stop_waits_for_the_calls_that_were_given(self, client: Client, tmp_path: Path) -> None:
        worker = DaskWorker(client, window=2)
        async with TaskQueue(worker) as queue:
            calls = [queue.call(kit.waitFor, tmp_path / "go", n) for n in "ab"]
            stopped = worker.stop()
            mark(tmp_path / "go")
            assert await gatherResults(calls) == ["a", "b"]
            await stopped

    @inLoop
    async def test_a_stop_waits_for_the_iterations_that_were_begun(self, client: Client) -> None:
        worker = DaskWorker(client)
        async with TaskQueue(worker) as queue:
            iteration = await queue.call(iter, range(5000))
            stopped = worker.stop()
            assert await drained(iteration) == list(range(5000))
            await stopped

    @inLoop
    async def test_a_stop_waits_no_more_for_a_client_that_is_closed(self, cluster: DaskCluster, tmp_path: Path) -> None:
        client = Client(cluster.scheduler.address)
        worker = DaskWorker(client)
        queue = TaskQueue(worker, AsyncWorker())
        call = queue.call(kit.waitFor, tmp_path / "go", "ran", series="dask")
        await worker.whenReady()
        stopped = worker.stop()
        client.close()
        await stopped
        call.cancel()
        assert type(await failureOf(call)) is CancelledError
        mark(tmp_path / "go")
        await queue.shutdown()

    @inLoop
    @pytest.mark.parametrize("crash", [False, True])
    async def test_what_was_stopped_is_never_ready(self, client: Client, crash: bool) -> None:
        worker = DaskWorker(client)
        async with TaskQueue(worker) as queue:
            with held(client):
                ready = worker.whenReady()
                left = queue.detachWorker(worker, crash=crash)
                for d in (ready, worker.whenReady()):
                    error = await failureOf(d)
                    assert isinstance(error, WorkerError)
                    assert "this DaskWorker was stopped" in str(error)
            await left

    @inLoop
    async def test_what_hears_that_it_is_ready_may_cancel_another(self, client: Client) -> None:
        worker = DaskWorker(client)
        first, second = worker.whenReady(), worker.whenReady()
        first.addCallback(lambda _: second.cancel())
        async with TaskQueue(worker):
            await first
            assert type(await failureOf(second)) is CancelledError

    @inLoop
    async def test_a_crash_ends_a_stop(self, client: Client, tmp_path: Path) -> None:
        worker = DaskWorker(client)
        async with TaskQueue(worker) as queue:
            iteration = await queue.call(kit.markedItems, tmp_path / "made", 10)
            call = queue.call(kit.waitFor, tmp_path / "go", "ran")
            stopped = worker.stop()
            await queue.detachWorker(worker, crash=True)
            await stopped
            assert isinstance(await failureOf(call), WorkerLost)
            assert isinstance((await toItsEnd(iteration))[1], WorkerLost)
            await until(lambda: marks(tmp_path / "made")["end"] == 1)
        mark(tmp_path / "go")


class TestDeath:
    @inLoop
    async def test_a_call_that_kills_its_worker_restarts_once_and_charges_no_other(
        self, client: Client, cluster: DaskCluster, tmp_path: Path
    ) -> None:
        cluster.addWorker()
        client.wait_for_workers(3)
        async with await queueFor(client, window=3) as queue:
            neighbour = queue.call(kit.waitFor, tmp_path / "go", "here")
            killer = queue.call(kit.markAndDie, tmp_path / "died")
            error = await failureOf(killer)
            assert isinstance(error, WorkerLost)
            assert "the Dask worker that ran it died" in str(error)
            assert marks(tmp_path / "died")["started"] == 2
            mark(tmp_path / "go")
            assert await neighbour == "here"
            assert await queue.call(kit.echo, 1) == 1
            assert queue.stats().lost == 1
        cluster.workers = [worker for worker in cluster.workers if kit.isAlive(worker.pid)]

    @inLoop
    async def test_a_call_whose_worker_is_killed_is_run_again(
        self, client: Client, cluster: DaskCluster, tmp_path: Path
    ) -> None:
        def dieOnce() -> str:
            mark(tmp_path / "starts")
            if marks(tmp_path / "starts")["started"] == 1:
                kit.die()
            return "alive"

        async with await queueFor(client) as queue:
            calls = [queue.call(kit.markAndReturn, tmp_path / "ran", n) for n in range(20)]
            assert await queue.call(dieOnce) == "alive"
            assert await gatherResults(calls) == list(range(20))
            assert set(marks(tmp_path / "ran").values()) == {1}
        cluster.workers = [worker for worker in cluster.workers if kit.isAlive(worker.pid)]

    @inLoop
    async def test_a_call_whose_result_is_lost_on_its_way_is_started_once_more(
        self, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with await queueFor(client) as queue:
            cutAnswers(monkeypatch, {"gather": 1})
            assert await queue.call(kit.markAndReturn, tmp_path / "ran", 7) == 7
            assert marks(tmp_path / "ran") == {"7": 2}
            cutAnswers(monkeypatch, {"gather": 2})
            assert isinstance(await failureOf(queue.call(kit.echo, 1)), WorkerLost)
            assert queue.stats().lost == 1

    @inLoop
    async def test_what_was_lost_on_its_way_is_asked_about_until_there_is_an_answer(
        self, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with await queueFor(client) as queue:
            cutAnswers(monkeypatch, {"gather": 1, op("recall"): 2})
            assert await queue.call(kit.echo, 1) == 1

    @inLoop
    async def test_a_call_that_could_not_ask_for_leave_is_no_failure(self, client: Client) -> None:
        async with await queueFor(client) as queue:
            assert await queue.call(kit.echo, 1) == 1
            client.run(cutOneRequest, updated=False)
            assert await gatherResults([queue.call(kit.echo, n) for n in range(6)]) == list(range(6))

    @inLoop
    async def test_an_iteration_whose_worker_dies_ends_with_an_error(
        self, client: Client, cluster: DaskCluster
    ) -> None:
        def items() -> Iterator[int]:
            yield os.getpid()
            yield from range(1_000_000_000)

        async with await queueFor(client) as queue:
            iteration = await queue.call(items)
            first = await iteration.__anext__()
            os.kill(first, signal.SIGKILL)
            got, error = await toItsEnd(iteration)
            assert isinstance(error, WorkerLost)
            assert "the iteration ended early" in str(error)
            assert got == list(range(len(got)))
        await until(lambda: any(not kit.isAlive(worker.pid) for worker in cluster.workers))
        cluster.workers = [worker for worker in cluster.workers if kit.isAlive(worker.pid)]


class Tally:
    """What lives on over there."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, number: int) -> int:
        self.count += number
        return self.count


class TestUpdates:
    @inLoop
    async def test_an_update_runs_on_every_worker_and_on_those_that_come_later(
        self, client: Client, cluster: DaskCluster, tmp_path: Path
    ) -> None:
        path = tmp_path / "updated"
        async with await queueFor(client) as queue:
            assert await queue.update(kit.markAndReturn, path, 7) == [7]
            await queue.update(mark, path, "once", ephemeral=True)
            assert marks(path) == {"7": 2, "once": 2}
            cluster.addWorker()
            client.wait_for_workers(3)
            await gatherResults([queue.call(kit.waitFor, path, str(n)) for n in range(12)])
            await until(lambda: marks(path) == {"7": 3, "once": 2})
        cluster.killWorker()

    @inLoop
    async def test_the_object_of_an_update_lives_on_in_every_worker(self, client: Client, tmp_path: Path) -> None:
        tally = Tally()
        async with await queueFor(client) as queue:
            assert await queue.update(tally.add, 100) == [100]
            counts = sorted(await gatherResults([queue.call(tally.add, 1) for _ in range(6)]))
        assert counts[-1] > 101, "a later call runs on the same object"
        assert all(101 <= count <= 106 for count in counts)
        assert tally.count == 0

    @inLoop
    async def test_an_update_that_fails_on_one_fails(self, client: Client) -> None:
        async with await queueFor(client) as queue:
            error = await failureOf(queue.update(kit.raiseThis, KeyError("no")))
            assert type(error) is KeyError
            error = await failureOf(queue.update(iter, ()))
            assert type(error) is TypeError
            assert await queue.call(kit.echo, 1) == 1

    @inLoop
    async def test_an_update_without_an_answer_is_requested_again_and_runs_once(
        self, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with await queueFor(client) as queue:
            cutAnswers(monkeypatch, {op("update"): 2})
            assert await queue.update(kit.markAndReturn, tmp_path / "updated", 7) == [7]
            assert marks(tmp_path / "updated") == {"7": 2}
            assert queue.stats().lost == 0

    @inLoop
    async def test_an_update_that_was_run_and_not_heard_of_is_not_run_again(
        self, client: Client, tmp_path: Path
    ) -> None:
        async with await queueFor(client) as queue:
            assert await gatherResults([queue.call(kit.echo, n) for n in range(2)]) == [0, 1]
            client.run(cutOneRequest, updated=True)
            assert await queue.update(kit.markAndReturn, tmp_path / "updated", 7) == [7]
            assert marks(tmp_path / "updated") == {"7": 2}

    @inLoop
    async def test_an_update_waits_for_no_worker_that_has_left(self, client: Client, tmp_path: Path) -> None:
        def block(path: Path) -> int:
            mark(path, os.getpid())
            while not (path.parent / "go").exists():
                time.sleep(0.001)
            return 7

        with DaskCluster(workers=1) as other, Client(other.scheduler.address) as away:
            async with await queueFor(away, window=1) as queue:
                other.addWorker()
                away.wait_for_workers(2)
                update = queue.update(block, tmp_path / "begun")
                await until(lambda: marks(tmp_path / "begun"))
                (second,) = [worker for worker in other.workers if str(worker.pid) not in marks(tmp_path / "begun")]
                second.kill()
                await until(lambda: len(away.nthreads()) == 1)
                mark(tmp_path / "go")
                # Dask looks for the other for twice as long.
                assert await update.addTimeout(kit.PATIENCE / 2, IReactorTime(reactor)) == [7]

    @inLoop
    async def test_an_update_that_kills_is_given_up_after_the_second_worker(
        self, client: Client, cluster: DaskCluster, tmp_path: Path
    ) -> None:
        cluster.addWorker()
        # A worker that an earlier test has killed may not be missed yet, and to be sent there counts as a death.
        await until(lambda: set(client.nthreads()) == {w.address for w in cluster.workers if kit.isAlive(w.pid)})
        async with await queueFor(client) as queue:
            error = await failureOf(queue.update(kit.markAndDie, tmp_path / "died"))
            assert isinstance(error, WorkerLost)
            assert marks(tmp_path / "died")["started"] == 2
            assert await queue.call(kit.echo, 1) == 1
        cluster.workers = [worker for worker in cluster.workers if kit.isAlive(worker.pid)]


class TestTheScheduler:
    @inLoop
    async def test_calls_and_updates_run_after_a_lost_scheduler_is_found_again(
        self, client: Client, cluster: DaskCluster, tmp_path: Path
    ) -> None:
        async with await queueFor(client) as queue:
            await queue.update(mark, tmp_path / "updated")
            iteration = await queue.call(iter, range(10))
            running = queue.call(kit.waitFor, tmp_path / "go", "ran")
            queued = [queue.call(kit.echo, n) for n in range(5)]
            cluster.restartScheduler()
            mark(tmp_path / "go")
            assert await running == "ran"
            assert await gatherResults(queued) == list(range(5))
            assert marks(tmp_path / "updated")["started"] == 4
            assert isinstance((await toItsEnd(iteration))[1], WorkerLost)

    @inLoop
    async def test_what_a_lost_scheduler_had_goes_to_others(self, client: Client, tmp_path: Path) -> None:
        with DaskCluster(workers=1) as other, Client(other.scheduler.address) as away:
            async with await queueFor(away, window=1) as queue:
                call = queue.call(kit.waitFor, tmp_path / "go", "ran")
                await queue.attachWorker(DaskWorker(client))
                other.scheduler.kill()
                mark(tmp_path / "go")
                assert await call == "ran"
                away.close()

    @inLoop
    async def test_a_scheduler_that_dies_as_soon_as_it_has_spoken_is_lost_at_once(
        self, client: Client, tmp_path: Path
    ) -> None:
        with DaskCluster(workers=1) as other, Client(other.scheduler.address) as away:
            async with await queueFor(away, window=1) as queue:
                call = queue.call(kit.waitFor, tmp_path / "go", "ran")
                await queue.attachWorker(DaskWorker(client))
                with held(away):
                    other.addWorker()
                    with Client(other.scheduler.address) as another:
                        assert len(another.nthreads()) == 2  # which it has told of before
                    other.scheduler.kill()
                    other.scheduler.waitUntilGone()
                mark(tmp_path / "go")
                assert await call == "ran"
                away.close()

    @inLoop
    async def test_a_scheduler_that_is_silent_is_lost_until_it_speaks_again(
        self, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(dasksession, "HEARTBEAT", 0.2)
        monkeypatch.setattr(dasksession, "SILENCE", 2.0)
        with DaskCluster(workers=1) as other, Client(other.scheduler.address) as away:
            worker = DaskWorker(away, ["away"], window=1)
            async with TaskQueue(worker) as queue:
                assert await queue.call(kit.echo, 1) == 1
                call = queue.call(kit.waitFor, tmp_path / "go", "ran")
                await queue.attachWorker(DaskWorker(client))
                other.scheduler.kill(signal.SIGSTOP)
                mark(tmp_path / "go")
                assert await call == "ran"
                back = queue.call(kit.echo, 2, series="away")
                other.scheduler.kill(signal.SIGCONT)
                assert await back == 2

    @inLoop
    async def test_a_scheduler_that_is_lost_without_a_word_is_told_of_all_the_same(
        self, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def cut(comm: core.Comm, *, op: str, **message: Any) -> Any:
            monkeypatch.setattr(dasksession, "send_recv", send_recv)
            raise OSError

        monkeypatch.setattr(dasksession, "HEARTBEAT", 0.05)
        async with await queueFor(client) as queue:
            iteration = await queue.call(iter, range(1_000_000))
            monkeypatch.setattr(dasksession, "send_recv", cut)
            error = (await toItsEnd(iteration))[1]
            assert str(error) == "the iteration ended early: the cluster's scheduler was lost: OSError"

    @inLoop
    async def test_what_opens_is_not_given_up_half_way(self, client: Client) -> None:
        with DaskCluster(workers=1) as other, Client(other.scheduler.address) as away:
            other.scheduler.kill(signal.SIGSTOP)
            done = TaskQueue(DaskWorker(away)).shutdown()
            for _ in range(100):
                asyncio.run_coroutine_threadsafe(asyncio.sleep(0), away.loop.asyncio_loop).result()
                await deferLater(IReactorTime(reactor), 0)
            assert not done.called
            other.scheduler.kill(signal.SIGCONT)
            await done

    @inLoop
    async def test_a_call_never_starts_a_third_time_when_the_cluster_restarts(
        self, client: Client, tmp_path: Path
    ) -> None:
        def begun(times: int) -> bool:
            return marks(tmp_path / "hung")["started"] == times

        with DaskCluster(workers=1) as other, Client(other.scheduler.address) as away:
            async with await queueFor(away, window=1) as queue:
                call = queue.call(kit.markAndHang, tmp_path / "hung")
                for times in (1, 2):
                    await until(begun, times)
                    away.restart(wait_for_workers=False)
                    other.addWorker()
                assert isinstance(await failureOf(call), WorkerLost)

    @inLoop
    async def test_a_client_that_was_closed_before_its_worker_was_attached_is_told_of(
        self, cluster: DaskCluster
    ) -> None:
        client = Client(cluster.scheduler.address)
        worker = DaskWorker(client)
        client.close()
        queue = TaskQueue()
        await queue.attachWorker(worker)
        error = await failureOf(worker.whenReady())
        assert isinstance(error, WorkerError)
        assert "the client is closed" in str(error)
        await until(lambda: not queue.workers())
        await queue.shutdown()

    @inLoop
    async def test_a_client_that_is_closed_makes_its_worker_resign(self, cluster: DaskCluster, tmp_path: Path) -> None:
        client = Client(cluster.scheduler.address)
        queue = await queueFor(client)
        call = queue.call(kit.waitFor, tmp_path / "go", "ran")
        client.close()
        await until(lambda: not queue.workers())
        await queue.attachWorker(AsyncWorker())
        mark(tmp_path / "go")
        assert await call == "ran"
        await queue.shutdown()


class TestWhatItTakes:
    def test_a_client_is_needed(self, cluster: DaskCluster) -> None:
        with pytest.raises(TypeError, match=r"DaskWorker takes a distributed.Client, got str"):
            DaskWorker(cluster.scheduler.address)  # type: ignore[arg-type]  # that is the point
        with Client(cluster.scheduler.address) as client, pytest.raises(ValueError, match="an integer from 1"):
            DaskWorker(client, window=0)
        with pytest.raises(ValueError, match="the client must be running, but is closed"):
            DaskWorker(client)

    def test_a_client_that_lacks_a_part_of_dask_is_refused_at_once(
        self, cluster: DaskCluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(internals, "CLIENT", (*internals.CLIENT, "rpc.telepathy"))
        with (
            Client(cluster.scheduler.address) as client,
            pytest.raises(RuntimeError, match=r"its client has no rpc\.telepathy"),
        ):
            DaskWorker(client)

    @inLoop
    async def test_a_cluster_without_asynqueue_fails_with_the_reason(self, tmp_path: Path) -> None:
        program = """
            import subprocess, sys
            from twisted.internet.task import react
            from twisted.internet.defer import ensureDeferred
            from distributed import Client
            from asynqueue import DaskWorker, TaskQueue

            SCHEDULER = '''
            import asyncio, sys
            sys.modules["asynqueue.dask.schedulerplugin"] = None
            from distributed import Scheduler
            async def main():
                async with Scheduler(host="127.0.0.1", port=0, dashboard=False) as scheduler:
                    print(scheduler.address, flush=True)
                    await scheduler.finished()
            asyncio.run(main())
            '''

            async def main(reactor):
                import textwrap
                process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(SCHEDULER)], stdout=subprocess.PIPE)
                try:
                    with Client(process.stdout.readline().decode().strip()) as client:
                        worker = DaskWorker(client)
                        queue = TaskQueue(worker)
                        try:
                            await worker.whenReady()
                        except Exception as error:
                            print(type(error).__name__, error)
                        await queue.shutdown()
                        print(len(queue))
                finally:
                    process.kill()

            react(lambda reactor: ensureDeferred(main(reactor)))
        """
        done = run(program)
        assert done.returncode == 0, done.stderr
        assert "cannot be used: the cluster does not have this version of AsynQueue installed" in done.stdout
        assert done.stdout.endswith("0\n")
        assert issubclass(WorkerError, RuntimeError)

    def test_the_reactors_own_client_does_under_asyncio(self, cluster: DaskCluster) -> None:
        program = f"""
            from twisted.internet import asyncioreactor
            asyncioreactor.install()
            from twisted.internet.task import react
            from twisted.internet.defer import Deferred, ensureDeferred
            import asyncio
            from distributed import Client
            from asynqueue import DaskWorker, TaskQueue

            async def client():
                client = Client({cluster.scheduler.address!r}, asynchronous=True)
                try:
                    DaskWorker(client)
                except ValueError as error:
                    print(error)
                return await client

            def asDeferred(coroutine):
                return Deferred.fromFuture(asyncio.ensure_future(coroutine))

            async def main(reactor):
                it = await asDeferred(client())
                async with TaskQueue(DaskWorker(it)) as queue:
                    print(await queue.call(pow, 2, 10), [item async for item in await queue.call(iter, "abc")])
                await asDeferred(it.close())

            react(lambda reactor: ensureDeferred(main(reactor)))
        """
        done = run(program)
        assert done.returncode == 0, done.stderr
        assert "the client must be running, but is newly-created: pass one that is connected" in done.stdout
        assert "1024 ['a', 'b', 'c']" in done.stdout

    @pytest.mark.parametrize("processes", [True, False])
    def test_a_local_cluster_does(self, processes: bool) -> None:
        program = f"""
            from twisted.internet.task import react
            from twisted.internet.defer import ensureDeferred
            from distributed import Client, LocalCluster
            from asynqueue import DaskWorker, TaskQueue

            async def main(reactor, client):
                async with TaskQueue(DaskWorker(client)) as queue:
                    print(await queue.call(pow, 2, 10), [item async for item in await queue.call(iter, "abc")])

            if __name__ == "__main__":
                options = dict(n_workers=1, threads_per_worker=2, processes={processes}, dashboard_address=":0")
                with LocalCluster(**options) as cluster, Client(cluster) as client:
                    react(lambda reactor: ensureDeferred(main(reactor, client)))
        """
        done = run(program)
        assert done.returncode == 0, done.stderr
        assert done.stdout == "1024 ['a', 'b', 'c']\n"

    def test_without_dask_the_error_says_what_to_install(self) -> None:
        program = """
            import sys
            sys.modules["distributed"] = None
            from asynqueue import *
            try:
                DaskWorker(None)
            except ImportError as error:
                print(error)
        """
        assert "pip install 'asynqueue[dask]'" in run(program).stdout

    def test_importing_every_name_imports_no_dask(self) -> None:
        program = "import sys; from asynqueue import *; print({'dask', 'distributed'} & set(sys.modules))"
        assert run(program).stdout == "set()\n"

    def test_what_is_on_the_cluster_imports_neither_twisted_nor_attrs(self) -> None:
        program = """
            import sys, asynqueue.dask.schedulerplugin
            print({"twisted", "attr", "attrs"} & {name.split(".")[0] for name in sys.modules})
        """
        assert run(program).stdout == "set()\n"


async def toItsEnd(iteration: Deferator[T]) -> tuple[list[T], Exception | None]:
    """What there is left of ITERATION, and the error that ended it."""
    got: list[T] = []
    try:
        async for item in iteration:
            got.append(item)
    except Exception as error:
        return got, error
    return got, None


def run(program: str) -> subprocess.CompletedProcess[str]:
    """PROGRAM in an interpreter of its own."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False, timeout=60
    )
