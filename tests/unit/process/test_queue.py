"""Calls in processes without a queue to make."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, gatherResults

from asynqueue import deferToProcess
from asynqueue.errors import ProcessError, QueueRunError, SerializationError, WorkerLost
from asynqueue.iteration import deferToDelay
from asynqueue.process import childprocess as workerprocess
from asynqueue.process import cores
from asynqueue.process import queue as processpool
from asynqueue.transport.errorcodec import RemoteTraceback
from tests.support import calls as kit
from tests.support.calls import failureOf, inLoop, isAbsent, marks, until


@pytest.fixture(autouse=True)
def pool() -> Iterator[None]:
    """A pool that is made anew, and ended."""
    from pytest_twisted import blockon

    yield
    blockon(deferToProcess())


@inLoop
async def test_the_name_is_in_the_process_module_too() -> None:
    from asynqueue.process import queue as process

    assert process.deferToProcess is deferToProcess


@inLoop
async def test_it_gives_the_result_from_a_process_that_stays() -> None:
    pid = await deferToProcess(os.getpid)
    assert pid != os.getpid()
    assert await deferToProcess(os.getpid) == pid
    assert await deferToProcess(int, "ff", base=16) == 255
    assert await deferToProcess(dict, niceness=1, timeout=2, series=3) == {"niceness": 1, "timeout": 2, "series": 3}


@inLoop
async def test_it_grows_when_no_process_is_free_up_to_the_number_of_cores(tmp_path: Path) -> None:
    running = [deferToProcess(kit.waitFor, tmp_path / "go", "done") for _ in range(cores() + 2)]
    assert processpool._shared is not None
    assert len(processpool._shared) == cores()
    kit.mark(tmp_path / "go")
    assert await gatherResults(running) == ["done"] * (cores() + 2)


@inLoop
async def test_errors_are_the_original_ones() -> None:
    error = await failureOf(deferToProcess(kit.raiseThis, KeyError("gone")))
    assert type(error) is KeyError
    assert isinstance(error.__cause__, RemoteTraceback)
    assert isinstance(await failureOf(deferToProcess(kit.local)), SerializationError)


@inLoop
async def test_an_iterator_comes_as_a_deferator(tmp_path: Path) -> None:
    assert await kit.drained(await deferToProcess(kit.markedItems, tmp_path / "items", 500)) == list(range(500))


@inLoop
async def test_a_cancelled_call_ends_with_its_process(tmp_path: Path) -> None:
    victim: Deferred[None] = deferToProcess(kit.markAndHang, tmp_path / "started", os.getpid())
    await until(marks, tmp_path / "started")
    victim.cancel()
    assert isinstance(await failureOf(victim), CancelledError)
    assert await deferToProcess(kit.echo, 1) == 1


@inLoop
async def test_a_process_that_dies_is_replaced() -> None:
    pid = await deferToProcess(os.getpid)
    assert isinstance(await failureOf(deferToProcess(kit.die)), WorkerLost)
    assert await deferToProcess(os.getpid) != pid


@inLoop
async def test_without_arguments_it_ends_and_the_next_call_starts_another() -> None:
    await deferToProcess()  # there is none yet
    pid = await deferToProcess(os.getpid)
    last = deferToProcess(kit.echo, 5)
    await deferToProcess()
    assert isAbsent(pid)
    assert await last == 5
    assert await deferToProcess(os.getpid) != pid


@inLoop
async def test_where_no_process_can_be_started_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "a sandbox forbids it")

    with monkeypatch.context() as patch:
        patch.setattr(workerprocess.WorkerProcess, "_begin", refuse)
        with pytest.raises(ProcessError, match="no process could be started"):
            deferToProcess(kit.echo, 1)
    running = deferToProcess(kit.waitFor, tmp_path / "go", "done")
    with monkeypatch.context() as patch:
        patch.setattr(workerprocess.WorkerProcess, "_begin", refuse)
        waiting = deferToProcess(kit.echo, 1)  # waits for the process that there is
    kit.mark(tmp_path / "go")
    assert (await running, await waiting) == ("done", 1)


@inLoop
async def test_where_none_can_be_kept_the_calls_fail_and_a_later_one_has_a_new_pool(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("asynqueue.process.child.main.main", kit.dieAtOnce)
        error = await failureOf(deferToProcess(kit.echo, 1))
        assert isinstance(error, (QueueRunError, WorkerLost))
        await until(lambda: not processpool._shared)
    assert await deferToProcess(kit.echo, 1) == 1


def test_it_ends_with_the_reactor(tmp_path: Path) -> None:
    program = """
        import os, sys
        from twisted.internet import reactor
        from asynqueue import deferToProcess

        def ready(pid):
            print(pid)
            deferToProcess(sys.stdin.read)  # for ever
            reactor.callLater(0, reactor.stop)

        reactor.callWhenRunning(lambda: deferToProcess(os.getpid).addCallback(ready))
        reactor.run()
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60, check=True
    )
    assert isAbsent(int(done.stdout))


def watched() -> set[object]:
    """What the reactor watches, and what it will call."""
    from twisted.internet import reactor

    loop: Any = reactor
    return {*loop.getReaders(), *loop.getWriters(), *loop.getDelayedCalls()}


async def watchedAtRest() -> set[object]:
    """The same when two turns have passed."""
    await deferToDelay(0)
    await deferToDelay(0)
    return watched()


@inLoop
async def test_it_leaves_nothing_in_the_reactor_while_there_is_no_call() -> None:
    before = await watchedAtRest()
    results = await gatherResults([deferToProcess(pow, 2, n) for n in range(cores() + 5)])
    assert results == [2**n for n in range(cores() + 5)]
    assert not await watchedAtRest() - before
    iteration = await deferToProcess(iter, [1, 2])
    assert await watchedAtRest() - before
    assert await kit.drained(iteration) == [1, 2]
    assert not await watchedAtRest() - before


@inLoop
async def test_a_process_that_dies_while_nothing_watches_it_is_replaced() -> None:
    before = await watchedAtRest()
    pid = await deferToProcess(os.getpid)
    assert not await watchedAtRest() - before
    os.kill(pid, signal.SIGKILL)
    await until(isAbsent, pid)
    assert await deferToProcess(os.getpid) != pid


TRIAL = """
import os
import signal
from asynqueue import deferToProcess, deferToThread, errors
from twisted.trial import unittest

class First(unittest.TestCase):
    async def test_call(self):
        self.assertEqual(await deferToProcess(pow, 2, 5), 32)
    async def test_death(self):
        with self.assertRaises(errors.WorkerLost):
            await deferToProcess(os._exit, 1)
    async def test_large(self):
        self.assertEqual(len(await deferToProcess(bytes, 10_000_000)), 10_000_000)
    async def test_items(self):
        items = await deferToProcess(iter, [1, 2])
        self.assertEqual([item async for item in items], [1, 2])
    async def test_thread(self):
        self.assertEqual(await deferToThread(pow, 2, 5), 32)

class Second(unittest.TestCase):
    async def test_call(self):
        self.assertEqual(await deferToProcess(pow, 2, 6), 64)
"""


@pytest.mark.parametrize("reactor", ["default", "select", "asyncio"])
def test_the_reactor_of_a_test_by_trial_is_clean_after_it(reactor: str, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TRIAL)
    done = subprocess.run(
        [sys.executable, "-m", "twisted.trial", f"--reactor={reactor}", "test_it"],
        capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "PASSED (successes=6)" in done.stdout
