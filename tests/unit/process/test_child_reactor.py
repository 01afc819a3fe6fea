"""Worker processes that run a reactor of their own."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, gatherResults

from asynqueue import errors
from asynqueue.errors import SerializationError, WorkerLost
from asynqueue.process import ProcessQueue, ProcessWorker
from asynqueue.transport.errorcodec import RemoteTraceback
from tests.support import calls as kit
from tests.support import reactorcalls as over
from tests.support.calls import failureOf, inLoop, isAbsent, marks, until


def queueOf(N: int = 1, **kw: Any) -> ProcessQueue:
    """A queue of N processes with a reactor."""
    return ProcessQueue(N, useReactor=True, **kw)


@pytest.mark.parametrize("method", [m for m in multiprocessing.get_all_start_methods() if m != "fork"])
@inLoop
async def test_a_call_may_return_a_deferred_or_a_coroutine_or_what_it_likes(method: str) -> None:
    queue = queueOf(context=method)
    pid = await queue.call(os.getpid)
    assert await queue.call(over.later, 0.001, 5) == 5
    assert await queue.call(over.sumOf, 1, 2, 3) == 6
    assert await queue.call(kit.echo, 7) == 7
    await queue.shutdown()
    assert isAbsent(pid)


@inLoop
async def test_calls_run_one_after_another(tmp_path: Path) -> None:
    async with queueOf() as queue:
        await gatherResults([queue.call(kit.echo, n) for n in range(500)])  # the window grows
        results = [queue.call(over.later, 0.002, n, tmp_path / "order") for n in range(20)]
        assert await gatherResults(results) == list(range(20))
    order = (tmp_path / "order").read_text().split()
    assert order == [f"{n}-{what}" for n in range(20) for what in ("begun", "ended")]


@inLoop
async def test_an_error_is_the_original_one_with_the_far_traceback() -> None:
    async with queueOf() as queue:
        for call in (queue.call(over.failLater, KeyError("gone")), queue.call(kit.raiseThis, KeyError("gone"))):
            error = await failureOf(call)
            assert type(error) is KeyError
            assert isinstance(error.__cause__, RemoteTraceback)
            assert "KeyError: 'gone'" in str(error.__cause__)
        assert "in raiseThis" in str(error.__cause__)
        assert isinstance(await failureOf(queue.call(kit.raiseThis, SystemExit(3))), SystemExit)
        assert isinstance(await failureOf(queue.call(kit.local)), SerializationError)
        assert await queue.call(over.sumOf, 1) == 1


@inLoop
async def test_the_reactor_goes_on_between_calls(tmp_path: Path) -> None:
    async with queueOf() as queue:
        await queue.call(over.beat, tmp_path / "beats")
        await until(lambda: marks(tmp_path / "beats")["started"] >= 5)
        assert await queue.call(kit.echo, 1) == 1


@inLoop
async def test_iterators_come_as_from_any_process_while_a_call_waits(tmp_path: Path) -> None:
    async with queueOf() as queue:
        iteration: Any = await queue.call(over.itemsLater, tmp_path / "items", 2000)
        slow = queue.call(over.later, 0.05, 1)
        assert await kit.drained(iteration) == list(range(2000))
        assert await slow == 1
        begun = await queue.call(kit.markedItems, tmp_path / "more", 10**9)
        await begun.__anext__()
        begun.stop()
        await until(lambda: marks(tmp_path / "more")["end"])
        assert await queue.call(kit.echo, 1) == 1


@inLoop
async def test_a_cancelled_call_and_one_out_of_time_end_with_their_process(tmp_path: Path) -> None:
    async with queueOf() as queue:
        pid = await queue.call(os.getpid)
        victim: Deferred[None] = queue.call(over.hangOver, tmp_path / "started")
        after = queue.call(os.getpid)
        await until(marks, tmp_path / "started")
        victim.cancel()
        assert isinstance(await failureOf(victim), CancelledError)
        assert isinstance(
            await failureOf(queue.call(over.hangOver, tmp_path / "started", timeout=0.05)), errors.TimeoutError
        )
        assert await after > 0
        await until(isAbsent, pid)


@inLoop
async def test_a_death_is_charged_to_the_running_call_alone(tmp_path: Path) -> None:
    async with queueOf() as queue:
        await gatherResults([queue.call(kit.echo, n) for n in range(500)])
        ran, killed = tmp_path / "ran", tmp_path / "killed"
        calls: list[Deferred[Any]] = []
        killers: list[Deferred[Any]] = []
        for n in range(60):
            if n == 30:
                killers.append(queue.call(kit.markAndDie, killed, n))
            calls.append(queue.call(kit.markAndReturn, ran, n, retries=0))
        for killer in killers:
            assert isinstance(await failureOf(killer), WorkerLost)
        assert await gatherResults(calls) == list(range(60))
    assert marks(ran) == Counter(map(str, range(60)))
    assert set(marks(killed).values()) == {2}


@inLoop
async def test_who_stops_the_reactor_over_there_loses_its_call_and_nothing_else() -> None:
    async with queueOf() as queue:
        assert isinstance(await failureOf(queue.call(over.stopReactor, retries=0)), WorkerLost)
        assert await queue.call(kit.echo, 1) == 1


@inLoop
async def test_ctrl_c_is_ignored_and_a_worn_process_is_replaced() -> None:
    async with queueOf(maxTasks=2) as queue:
        pid = await queue.call(os.getpid)
        os.kill(pid, signal.SIGINT)
        assert await queue.call(os.getpid) == pid
        assert await queue.call(os.getpid) != pid
        assert await queue.call(over.sumOf, 1, 2) == 3


@inLoop
async def test_shutting_down_waits_for_the_deferred(tmp_path: Path) -> None:
    queue = queueOf()
    result = queue.call(over.later, 0.05, 1, tmp_path / "ran")
    await until(marks, tmp_path / "ran")
    await queue.shutdown()
    assert await result == 1


def test_a_fork_of_a_running_reactor_is_refused() -> None:
    with pytest.raises(ValueError, match="useReactor=True does not work with the context fork"):
        ProcessWorker(context="fork", useReactor=True)
