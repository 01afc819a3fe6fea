"""Forks of a program whose reactor runs, and of one that becomes a daemon: nothing is used by the wrong process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from asynqueue import AsyncWorker, NullQueue, ProcessQueue, ThreadLooper, ThreadQueue, deferToProcess, deferToThread
from asynqueue.errors import QueueRunError, ThreadError
from asynqueue.reactor import forks
from asynqueue.wire import ServerManager, WireQueue, WireServer
from tests.support.calls import echo, inLoop, isAbsent, isAlive, until
from tests.support.programs import Program
from tests.support.wires import KEY, Things


def inFork(check: Callable[[], object]) -> None:
    """Call CHECK in a fork of this process, and fail as it does."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            check()
        except BaseException:
            os.write(writing, traceback.format_exc().encode()[-4000:])
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading) as report:
        text = report.read()
    os.waitpid(child, 0)
    if text:
        pytest.fail(f"in the fork: {text}")


def outcome(d: Deferred[Any]) -> Any:
    """What D has fired with."""
    assert d.called
    results: list[Any] = []
    d.addBoth(results.append)
    return results[0]


def makeProcesses(context: str) -> Callable[[Path], Any]:
    return lambda _: ProcessQueue(1, context=context)


QUEUES: dict[str, Callable[[Path], Any]] = {
    **{context: makeProcesses(context) for context in ("forkserver", "spawn", "fork")},
    "thread": lambda _: ThreadQueue(),
    "main loop": lambda _: NullQueue(),
    "wire": lambda place: WireQueue(f"unix:{place}/socket", Things, key=KEY),
}


@pytest.mark.parametrize("kind", QUEUES)
@inLoop
async def test_a_queue_that_was_used_refuses_everything_in_a_fork(kind: str, tmp_path: Path) -> None:
    server: Any = await WireServer(f"unix:{tmp_path}/socket", Things, key=KEY).start()
    f: Any = Things.echo if kind == "wire" else echo
    queue = QUEUES[kind](tmp_path)
    others: list[Any] = []
    try:
        assert await queue.call(f, 1) == 1
        pending = queue.call(f, 2)

        def check() -> None:
            refusals: tuple[Callable[[], object], ...] = (
                lambda: queue.call(f, 3),
                lambda: queue.update(f, 3),
                lambda: queue.map(f, [3]),
                lambda: queue.attachWorker(AsyncWorker()),
                lambda: queue.subscribe(Consumer()),
            )
            for refused in refusals:
                with pytest.raises(QueueRunError, match="a fork of a program that uses AsynQueue, and this queue is"):
                    refused()
            pending.addErrback(lambda reason: others.append(reason.type.__name__))
            pending.cancel()
            assert others == ["CancelledError"]
            assert (len(queue), queue.workers(), queue.isRunning(), queue.stats().running) == (0, [], False, 0)
            assert outcome(queue.detachWorker(1, crash=True)) == []
            queue.cancelAll()
            assert outcome(queue.ready()) is None
            assert outcome(queue.shutdown()) is None

        inFork(check)
        assert (await pending, await queue.call(f, 4)) == (2, 4)
    finally:
        await queue.shutdown()
        await server.stop()


class Stubborn:
    """It cannot give up what is the program's."""

    def disown(self) -> None:
        """Fail."""
        raise RuntimeError("not to be printed by a test that passes")


@inLoop
async def test_a_fork_of_a_fork_refuses_too_whatever_else_fails_there(monkeypatch: pytest.MonkeyPatch) -> None:
    stubborn = Stubborn()
    forks.watch(stubborn.disown)  # before the queue, which is disowned after it
    monkeypatch.setattr(traceback, "print_exc", lambda: None)
    async with ThreadQueue() as queue:
        assert await queue.call(echo, 1) == 1

        def check() -> None:
            with pytest.raises(QueueRunError, match="a fork of a program that uses AsynQueue, and this queue is"):
                queue.call(echo, 2)

        def checkTwice() -> None:
            check()
            inFork(check)

        inFork(checkTwice)
        assert await queue.call(echo, 3) == 3


class Consumer:
    """It would take numbers."""

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Take them."""

    def unregisterProducer(self) -> None:
        """Take no more."""

    def write(self, number: int) -> None:
        """Take one."""


@pytest.mark.parametrize("context", ["forkserver", "spawn", "fork"])
@inLoop
async def test_a_worker_that_a_fork_stops_or_crashes_is_the_programs(context: str) -> None:
    async with ProcessQueue(1, context=context) as queue:
        pid = await queue.call(os.getpid)
        worker: Any = queue.workers()[0]

        def check() -> None:
            worker.stop()
            worker.crash()
            assert not worker.process.is_alive()

        inFork(check)
        assert await queue.call(os.getpid) == pid


@inLoop
async def test_a_looper_that_was_used_refuses_calls_in_a_fork() -> None:
    looper: Any = ThreadLooper()
    assert await looper.call(abs, -1) == 1

    def check() -> None:
        with pytest.raises(ThreadError, match="a fork of a program that uses AsynQueue, and this looper is the"):
            looper.call(abs, -2)
        assert outcome(looper.stop()) is None

    inFork(check)
    assert await looper.call(abs, -3) == 3
    await looper.stop()


@pytest.mark.parametrize("used", [False, True])
@inLoop
async def test_what_is_made_in_a_fork_cannot_use_the_reactor_of_the_program(used: bool) -> None:
    if used:
        assert (await deferToThread(abs, -1), await deferToProcess(abs, -1)) == (1, 1)

    def check() -> None:
        made: tuple[Callable[[], object], ...] = (
            lambda: ProcessQueue(1),
            ThreadQueue,
            NullQueue,
            lambda: ThreadLooper().call(abs, -1),
            lambda: deferToThread(abs, -1),
            lambda: deferToProcess(abs, -1),
            lambda: WireServer("unix:/nowhere", Things, key=KEY).start(),
        )
        for make in made:
            with pytest.raises(QueueRunError, match="whose reactor cannot run here: start this process by another"):
                make()
        from twisted.internet.selectreactor import SelectReactor
        from twisted.internet.task import Clock

        reactor: Any = SelectReactor()
        results: list[object] = []

        def stop(result: object) -> None:
            results.append(result)
            queue.shutdown().addCallback(lambda _: reactor.stop())

        queue = ThreadQueue(reactor=reactor)
        queue.call(abs, -5).addBoth(stop)
        reactor.run(installSignalHandlers=False)
        assert results == [5]
        clock = Clock()
        assert NullQueue(reactor=clock).isRunning()

    inFork(check)
    assert (await deferToThread(abs, -3), await deferToProcess(abs, -3)) == (3, 3)
    await deferToThread()
    await deferToProcess()


PROGRAM = """
import os, signal, sys, time
from twisted.internet.task import react
from asynqueue.wire import ServerManager, WireQueue
from tests.support.wires import KEY, Things

async def main(reactor, address):
    manager = ServerManager("tests.support.wires.Things", key=KEY)
    await manager.spawn(manager.newSocket())
    server = next(iter(manager._servers))
    queue = WireQueue(address, Things, key=KEY)
    assert await queue.call(Things.echo, 1) == 1
    child = os.fork()
    if not child:
        manager.shutdown()
        time.sleep(100)
        os._exit(0)
    for _ in range(3):
        assert await queue.call(Things.echo, 1) == 1
    assert os.path.exists(f"/proc/{server}")
    print(server, child, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

react(main, sys.argv[1:])
"""


@inLoop
async def test_wires_and_servers_end_with_a_killed_program_though_a_fork_of_it_lives_on(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/socket"
    here = await WireServer(address, Things, key=KEY).start()
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", PROGRAM, address]
    with Program(command, stdout=subprocess.PIPE, text=True, env=environment) as program:
        assert program.stdout is not None
        line = await deferToThread(program.stdout.readline)  # the fork keeps it open
        server, child = map(int, line.split())
        program.wait()
        try:
            await until(lambda: not here._clients)
            await until(isAbsent, server)
            await until(lambda: not list(tmp_path.glob("asynqueue-*")))
            assert isAlive(child)
        finally:
            os.kill(child, signal.SIGKILL)
    await deferToThread()
    await here.stop()


@inLoop
async def test_a_fork_of_a_server_neither_serves_nor_stops_it(tmp_path: Path) -> None:
    server = await WireServer(f"unix:{tmp_path}/socket", Things, key=KEY).start()
    manager = ServerManager("tests.support.wires.Things", key=KEY)
    await manager.spawn(manager.newSocket())
    queue = WireQueue(f"unix:{tmp_path}/socket", Things, key=KEY)
    assert await queue.call(Things.echo, 1) == 1

    def check() -> None:
        assert outcome(server.stop()) is None
        assert outcome(manager.shutdown()) is None

    inFork(check)
    assert await queue.call(Things.echo, 2) == 2
    assert (tmp_path / "socket").exists()
    (pid,) = manager._servers
    assert isAlive(pid)
    await queue.shutdown()
    await manager.shutdown()
    await server.stop()


DAEMON = """
import os, sys, time
from asynqueue import ThreadLooper, ThreadQueue, deferToProcess, deferToThread
kinds = {
    "queue": lambda: ThreadQueue(workers=2).call,
    "looper": lambda: ThreadLooper().call,
    "deferToThread": lambda: deferToThread,
    "deferToProcess": lambda: deferToProcess,
}
call = kinds[sys.argv[1]]()
early = call(pow, 2, 5)  # before the fork
if os.fork():
    os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
from twisted.internet import reactor
from twisted.internet.defer import gatherResults

def stop(results):
    print(results)
    reactor.stop()

reactor.callWhenRunning(lambda: gatherResults([early, call(pow, 2, 7)]).addBoth(stop))
reactor.run()
"""


@pytest.mark.parametrize("kind", ["queue", "looper", "deferToThread", "deferToProcess"])
def test_a_daemon_goes_on_with_what_its_parent_has_made(kind: str) -> None:
    command = [sys.executable, "-c", DAEMON, kind]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("[32, 128]\n", "")


def test_what_is_gone_is_not_called_in_a_fork() -> None:
    class Watcher:
        def disown(self) -> None:
            """Do nothing."""

    watcher: Watcher | None = Watcher()
    before = len(forks._watched)
    forks.watch(watcher.disown)  # type: ignore[union-attr]  # it is one
    assert len(forks._watched) == before + 1
    watcher = None
    assert len(forks._watched) == before
