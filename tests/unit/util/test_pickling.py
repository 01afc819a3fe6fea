"""The small names of `asynqueue.util`: waiting for a readiness, killing, pickling, running."""

from __future__ import annotations

import gc
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from twisted.python.threadable import isInIOThread
from zope.interface import directlyProvides

from asynqueue import deferToDelay, deferToThread
from asynqueue.errors import SerializationError
from asynqueue.util import CallRunner, callAfterDeferred, killProcess, o2p, p2o
from tests.support.calls import inLoop
from tests.support.features import needs


def results(d: Deferred[Any]) -> list[Any]:
    """The results that D has had, kept up to date."""
    got: list[Any] = []
    d.addBoth(got.append)
    return got


class TestCallAfterDeferred:
    def test_it_waits_for_one_that_has_not_fired(self) -> None:
        place = SimpleNamespace(ready=Deferred())
        own = results(place.ready)
        got = results(callAfterDeferred(place, "ready", divmod, 7, 2))
        assert got == []
        place.ready.callback("mine")
        assert got == [(3, 1)]
        assert own == ["mine"]

    @pytest.mark.parametrize("place", [None, SimpleNamespace(ready=None), SimpleNamespace(ready=succeed(1))])
    def test_with_nothing_to_wait_for_it_calls_at_once(self, place: object) -> None:
        assert results(callAfterDeferred(place, "ready", int, "11", base=2)) == [3]

    def test_it_leaves_the_result_to_those_who_come_after(self) -> None:
        place = SimpleNamespace(ready=Deferred())
        callAfterDeferred(place, "ready", int)
        place.ready.callback("mine")
        assert results(place.ready) == ["mine"]

    @pytest.mark.usefixtures("unhandled")
    def test_a_failure_is_neither_passed_on_nor_hidden(self) -> None:
        place = SimpleNamespace(ready=Deferred())
        got = results(callAfterDeferred(place, "ready", int))
        with capturedLogs() as events:
            place.ready.errback(ValueError())
            assert got == [0]
            del place
            gc.collect()
        assert [e["log_failure"].type for e in events if e.get("log_failure")] == [ValueError]

    def test_the_calls_own_deferred_coroutine_or_error_is_the_result(self) -> None:
        async def later() -> int:
            return await succeed(2)

        assert results(callAfterDeferred(None, "ready", lambda: succeed(1))) == [1]
        assert results(callAfterDeferred(None, "ready", later)) == [2]
        assert results(callAfterDeferred(None, "ready", lambda: 1 // 0))[0].check(ZeroDivisionError)

    def test_cancelled_it_does_not_call(self) -> None:
        place = SimpleNamespace(ready=Deferred())
        calls: list[int] = []
        d = callAfterDeferred(place, "ready", calls.append, 1)
        got = results(d)
        d.cancel()
        assert got[0].check(CancelledError)
        assert not place.ready.called
        place.ready.callback(None)
        assert calls == []


class WatchingClock(Clock):
    """A clock that can watch file descriptors, by waiting for the one it was given."""

    def __init__(self) -> None:
        super().__init__()
        directlyProvides(self, IReactorFDSet)
        self.readers: list[IReadDescriptor] = []

    def addReader(self, reader: IReadDescriptor) -> None:
        self.readers.append(reader)

    def removeReader(self, reader: IReadDescriptor) -> None:
        if reader in self.readers:
            self.readers.remove(reader)

    def untilReadable(self) -> None:
        (reader,) = self.readers
        poll = select.poll()
        poll.register(reader.fileno(), select.POLLIN)
        assert poll.poll(30_000), "nothing happened"
        reader.doRead()


Child = subprocess.Popen[bytes]


@pytest.fixture
def sleeper() -> Iterator[Child]:
    """A process of ours that ends when told."""
    with subprocess.Popen(["sleep", "600"]) as child:
        yield child
        child.kill()


@pytest.fixture
def stubborn() -> Iterator[Child]:
    """A process of ours that ignores SIGTERM."""
    script = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); sys.stdin.read()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", script], stdin=pipe, stdout=pipe) as child:
        assert child.stdout is not None
        child.stdout.readline()
        yield child
        child.kill()


def untilEnded(pidfd: int) -> None:
    assert select.select([pidfd], [], [], 30)[0], "nothing happened"
    os.close(pidfd)


def untilZombie(pid: int) -> None:
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def isReaped(pid: int) -> bool:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return True
    return False


class TestKillProcess:
    @needs("pidfd_open")
    def test_a_child_is_ended_and_reaped_without_polling(self, sleeper: Child) -> None:
        clock = WatchingClock()
        got = results(killProcess(sleeper.pid, reactor=clock))
        assert got == []
        fd = clock.readers[0].fileno()
        clock.untilReadable()
        assert got == [True]
        assert isReaped(sleeper.pid)
        assert (clock.readers, clock.getDelayedCalls()) == ([], [])
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)

    @needs("pidfd_open")
    def test_one_that_ignores_sigterm_is_killed_after_the_grace(self, stubborn: Child) -> None:
        clock = WatchingClock()
        got = results(killProcess(stubborn.pid, 3, reactor=clock))
        clock.advance(2.9)
        assert stubborn.poll() is None
        clock.advance(0.1)
        clock.untilReadable()
        assert got == [True]
        assert isReaped(stubborn.pid)

    def test_where_nothing_can_watch_it_is_polled(self, stubborn: Child) -> None:
        clock, watcher = Clock(), os.pidfd_open(stubborn.pid)
        got = results(killProcess(stubborn.pid, 3, reactor=clock))
        clock.pump([0.1] * 29)
        assert got == []
        clock.advance(0.2)
        untilEnded(watcher)
        clock.pump([0.1] * 10)
        assert got == [True]
        assert isReaped(stubborn.pid)
        assert clock.getDelayedCalls() == []

    @needs("pidfd_open")
    @pytest.mark.parametrize("watching", [True, False])
    def test_a_process_that_is_no_child_is_ended(self, watching: bool) -> None:
        done = subprocess.run(["sh", "-c", "sleep 600 >&- & echo $!"], stdout=subprocess.PIPE, check=True)
        pid = int(done.stdout)
        clock = WatchingClock() if watching else Clock()
        watcher = os.pidfd_open(pid)
        got = results(killProcess(pid, reactor=clock))
        untilEnded(watcher)
        if isinstance(clock, WatchingClock):
            clock.untilReadable()
        else:
            clock.pump([0.1] * 10)
        assert got == [True]

    @pytest.mark.parametrize("clock", [WatchingClock(), Clock()])
    def test_a_zombie_was_not_alive_and_is_reaped(self, clock: Clock) -> None:
        with subprocess.Popen(["true"]) as child:
            untilZombie(child.pid)
            assert results(killProcess(child.pid, reactor=clock)) == [False]
            assert isReaped(child.pid)
        assert clock.getDelayedCalls() == []

    @pytest.mark.parametrize("clock", [WatchingClock(), Clock()])
    def test_what_is_gone_was_not_alive(self, clock: Clock) -> None:
        with subprocess.Popen(["true"]) as child:
            child.wait()
            assert results(killProcess(child.pid, reactor=clock)) == [False]

    @needs("pidfd_open")
    def test_one_that_goes_by_itself_meanwhile_was_alive(self, sleeper: Child, monkeypatch: pytest.MonkeyPatch) -> None:
        def tooLate(pidfd: int, number: int) -> None:
            os.kill(sleeper.pid, signal.SIGKILL)
            untilZombie(sleeper.pid)
            raise ProcessLookupError

        clock = WatchingClock()
        monkeypatch.setattr(signal, "pidfd_send_signal", tooLate)
        got = results(killProcess(sleeper.pid, reactor=clock))
        clock.untilReadable()
        assert got == [True]
        assert isReaped(sleeper.pid)

    @needs("pidfd_open")
    def test_cancelled_it_leaves_nothing(self, stubborn: Child) -> None:
        clock = WatchingClock()
        d = killProcess(stubborn.pid, reactor=clock)
        got = results(d)
        fd = clock.readers[0].fileno()
        d.cancel()
        assert got[0].check(CancelledError)
        assert (clock.readers, clock.getDelayedCalls()) == ([], [])
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)

    @pytest.mark.parametrize("pid", [0, -1, pytest.param(os.getpid(), id="ours")])
    def test_many_processes_or_ourselves_are_refused(self, pid: int) -> None:
        with pytest.raises(ValueError, match=f"pid must be the ID of one other process, got {pid}"):
            killProcess(pid)

    def test_what_is_not_ours_to_signal_fails(self, sleeper: Child, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(pid: int, number: int) -> None:
            raise PermissionError

        clock = WatchingClock()
        with monkeypatch.context() as patch:
            patch.setattr(os, "kill", refuse)
            got = results(killProcess(sleeper.pid, reactor=clock))
        assert got[0].check(PermissionError)
        assert clock.readers == []

    @pytest.mark.parametrize("name", ["epoll", "select", "asyncio"])
    def test_a_real_reactor_watches_it(self, name: str) -> None:
        script = (
            f"from twisted.internet import {name}reactor; {name}reactor.install()\n"
            "import subprocess\n"
            "from twisted.internet.task import react\n"
            "from asynqueue.util import killProcess\n"
            "child = subprocess.Popen(['sleep', '600'])\n"
            "react(lambda reactor: killProcess(child.pid).addCallback(print))\n"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert (done.stdout, done.returncode) == ("True\n", 0), done.stderr


class TestPickling:
    @pytest.mark.parametrize("obj", [None, [], {}, 0, "text", {"a": (1, 2.5)}, divmod, signal.SIGTERM])
    def test_what_goes_in_comes_out(self, obj: object) -> None:
        assert p2o(o2p(obj)) == obj

    def test_what_pickle_refuses_goes_by_cloudpickle(self) -> None:
        base = 40
        assert p2o(o2p(lambda x: base + x))(2) == 42

    def test_no_bytes_are_the_default(self) -> None:
        assert p2o(b"") is None
        assert p2o(b"", []) == []

    def test_what_is_no_pickle_is_refused(self) -> None:
        with pytest.raises(SerializationError, match="the pickled object cannot be unpickled"):
            p2o(b"not a pickle")

    def test_what_neither_can_carry_is_named(self) -> None:
        with pytest.raises(SerializationError, match=r"cannot pickle <generator object .*: "):
            o2p(i for i in range(3))

    def test_the_name_is_bounded_and_survives_a_bad_repr(self) -> None:
        class Unprintable:
            def __repr__(self) -> str:
                raise RuntimeError

            def __reduce__(self) -> str:
                raise RuntimeError("no")

        with pytest.raises(SerializationError, match=r"cannot pickle an unprintable .*Unprintable: no"):
            o2p(Unprintable())
        with pytest.raises(SerializationError) as caught:
            o2p([*range(10_000), (i for i in range(3))])
        assert len(str(caught.value)) < 400


class TestCallRunner:
    def test_what_a_call_returns_is_r(self) -> None:
        assert CallRunner()((int, ("11",), {"base": 2})) == ("r", 3)
        assert CallRunner()((list, ((1, 2),), {})) == ("r", [1, 2])

    def test_an_iterator_is_i_unless_raw(self) -> None:
        numbers = iter([1, 2])
        assert CallRunner()((lambda: numbers, (), {})) == ("i", numbers)
        assert CallRunner(raw=True)((lambda: numbers, (), {})) == ("r", numbers)

    def test_what_a_call_raises_is_e(self) -> None:
        status, result = CallRunner()((divmod, (1, 0), {}))
        assert status == "e"
        assert isinstance(result, Failure)
        assert isinstance(result.value, ZeroDivisionError)

    def test_what_means_to_end_the_program_goes_through(self) -> None:
        with pytest.raises(SystemExit):
            CallRunner()((sys.exit, (), {}))

    def test_it_can_time_each_call(self) -> None:
        runner, silent = CallRunner(callStats=True), CallRunner()
        for run in runner, silent:
            run((divmod, (1, 1), {}))
            run((divmod, (1, 0), {}))
        assert len(runner.callTimes) == 2
        assert all(0 <= seconds < 60 for seconds in runner.callTimes)
        assert silent.callTimes == []


class TestACallRunnerWithAReactor:
    @inLoop
    async def test_it_calls_in_the_reactors_thread_and_waits_for_a_deferred(self) -> None:
        from twisted.internet import reactor

        def f(n: int) -> Deferred[int]:
            assert isInIOThread()
            return deferToDelay(0).addCallback(lambda _: 1 // n)

        run: Any = CallRunner(reactor=reactor)
        assert await deferToThread(run, (f, (1,), {})) == ("r", 1)
        status, failure = await deferToThread(run, (f, (0,), {}))
        assert (status, failure.type) == ("e", ZeroDivisionError)
        await deferToThread()
