"""Forks: of the program, which leave its workers alone, and of a worker, by a call. And a program that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from asynqueue import ProcessQueue
from asynqueue.capabilities import WITHOUT, has
from tests.support.calls import inLoop, isAlive, until
from tests.support.programs import Program

CONTEXTS = ("forkserver", "spawn", "fork")

PROGRAM = """
import multiprocessing, os, signal, sys, time
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import react
from asynqueue import ProcessQueue
from asynqueue.capabilities import WITHOUT, has

def sleepOn(path, blocked):
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    if blocked:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    open(path, "w").close()
    while True:
        time.sleep(100)

async def main(reactor, context, what, started):
    queue = ProcessQueue(1, context=context)
    worker = await queue.call(os.getpid)
    child = os.fork()
    if not child:
        time.sleep(100)
        os._exit(0)
    if what != "idle":
        queue.call(sleepOn, started, what == "blocked").addErrback(lambda reason: None)
        while not os.path.exists(started):
            d = Deferred()
            reactor.callLater(0.01, d.callback, None)
            await d
    if what == "stopped":
        os.kill(worker, signal.SIGSTOP)
    print(worker, child, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    from twisted.internet.defer import Deferred
    react(lambda reactor: ensureDeferred(main(reactor, *sys.argv[1:])))
"""


# Where the kernel cannot send SIGKILL, a thread of the worker process does.
@pytest.mark.parametrize("without", [os.environ.get(WITHOUT, ""), "F_SETSIG"])
@pytest.mark.parametrize("what", ["idle", "blocked", "stopped"])
@pytest.mark.parametrize("context", CONTEXTS)
@inLoop
async def test_workers_end_with_a_killed_program_though_a_fork_of_it_lives_on(
    context: str, what: str, without: str, tmp_path: Path
) -> None:
    if what == "stopped" and (without or not has("F_SETSIG")):
        pytest.skip("a thread that is stopped does nothing")
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    command = [sys.executable, str(script), context, what, str(tmp_path / "started")]
    with (
        tempfile.TemporaryDirectory() as place,  # for the socket of its fork server, which nobody removes
        Program(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": place, WITHOUT: without}
        ) as program,
    ):
        assert program.stdout is not None
        worker, child = map(int, program.stdout.readline().split())  # the fork keeps it open
        assert program.wait() == -signal.SIGKILL
    try:
        await until(lambda: not isAlive(worker))
        assert isAlive(child)
    finally:
        os.kill(child, signal.SIGKILL)
        if isAlive(worker):
            os.kill(worker, signal.SIGKILL)


def forkAndExit() -> int:
    """Fork this process, run the exit functions in the fork as at an exit, and return its exit status."""
    import atexit

    child = os.fork()
    if not child:
        atexit._run_exitfuncs()
        os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("context", CONTEXTS)
@inLoop
async def test_a_fork_that_exits_leaves_the_workers_of_its_program(context: str) -> None:
    async with ProcessQueue(1, context=context) as queue:
        worker = await queue.call(os.getpid)
        assert forkAndExit() == 7
        assert await queue.call(os.getpid) == worker


def forkAndReturn(fails: bool) -> int:
    """Fork this process. The fork returns, or fails. Return its exit status."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    time.sleep(0.01)
    return 1 // (not fails)


@pytest.mark.parametrize(
    ("context", "useReactor"), [*((context, False) for context in CONTEXTS), ("forkserver", True), ("spawn", True)]
)
@inLoop
async def test_a_call_that_forks_has_one_result_and_its_fork_none(context: str, useReactor: bool) -> None:
    async with ProcessQueue(1, context=context, useReactor=useReactor) as queue:
        worker = await queue.call(os.getpid)
        assert [await queue.call(forkAndReturn, fails) for fails in (False, True)] == [0, 1]
        assert await queue.call(os.getpid) == worker
