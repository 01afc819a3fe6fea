"""The process worker, by real processes that really die."""

from __future__ import annotations

import atexit
import copy
import copyreg
import ctypes
import importlib
import multiprocessing
import os
import re
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import MethodType
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import deferLater

from asynqueue import TaskQueue, errors
from asynqueue.core.records import CallSpec, Recalled, Returned, Task
from asynqueue.core.scheduling import restarts, window
from asynqueue.core.scheduling import statistics as calltimes
from asynqueue.errors import ProcessError, QueueRunError, SerializationError, WorkerLost
from asynqueue.interfaces import Departed, Resignation
from asynqueue.process import ProcessQueue, ProcessWorker
from asynqueue.process import childprocess as workerprocess
from asynqueue.process.child import main as universe
from asynqueue.queue import driver as engine
from asynqueue.reactor import watchdog as closings
from asynqueue.transport.errorcodec import RemoteTraceback
from asynqueue.transport.link import Link
from asynqueue.transport.pickler import LARGE
from tests.support import calls as kit
from tests.support.calls import failureOf, inLoop, isAbsent, mark, marks, until
from tests.support.features import needs

# Some Pythons warn whenever a process with threads forks, which is what the start method "fork" is for.
forksFreely = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
methods = [pytest.param(name, marks=forksFreely) for name in multiprocessing.get_all_start_methods()]


def only(queue: ProcessQueue) -> ProcessWorker:
    """The only worker of QUEUE."""
    (worker,) = queue.workers()
    assert isinstance(worker, ProcessWorker)
    return worker


def pids(queue: ProcessQueue) -> list[int]:
    """The processes of QUEUE."""
    return [worker.process.pid for worker in queue.workers() if isinstance(worker, ProcessWorker)]


async def coroutine() -> None:
    """What a plain worker process does not wait for."""


async def warmUp(queue: ProcessQueue) -> None:
    """Have the windows of QUEUE's workers grow."""
    await gatherResults([queue.call(kit.echo, 1) for _ in range(3000)])


class TestResultsAndErrors:
    @inLoop
    async def test_a_call_gives_its_result_from_another_process(self) -> None:
        async with ProcessQueue(1) as queue:
            assert await queue.call(kit.echo, 42) == 42
            assert await queue.call(int, "ff", base=16) == 255
            assert await queue.call(os.getpid) == only(queue).process.pid != os.getpid()

    @inLoop
    async def test_an_error_is_the_original_one_with_the_far_traceback(self) -> None:
        async with ProcessQueue(1) as queue:
            error = await failureOf(queue.call(kit.raiseThis, KeyError("gone")))
        assert type(error) is KeyError
        assert error.args == ("gone",)
        assert isinstance(error.__cause__, RemoteTraceback)
        assert "in raiseThis" in str(error.__cause__)
        assert "KeyError: 'gone'" in str(error.__cause__)

    @inLoop
    async def test_what_a_test_defines_goes_there_and_comes_back_as_itself(self) -> None:
        class Broken(Exception):
            pass

        class Point:
            def __init__(self, x: int) -> None:
                self.x = x

            def moved(self, by: int) -> Point:
                return Point(self.x + by)

        def fail(message: str) -> None:
            raise Broken(message)

        offset = 40
        async with ProcessQueue(1) as queue:
            assert await queue.call(lambda x: x + offset, 2) == 42
            moved = await queue.call(Point(1).moved, 2)
            assert (type(moved), moved.x) == (Point, 3)
            error = await failureOf(queue.call(fail, "why"))
            assert type(error) is Broken
            assert error.args == ("why",)

    @inLoop
    async def test_an_argument_that_cannot_be_pickled_fails_its_own_call_alone(self) -> None:
        async with ProcessQueue(1) as queue:
            pid = only(queue).process.pid
            before, bad, after = queue.call(kit.echo, 1), queue.call(max, 1, threading.Lock()), queue.call(kit.echo, 2)
            error = await failureOf(bad)
            assert isinstance(error, SerializationError)
            assert "argument 2 of max(1, <unlocked _thread.lock" in str(error)
            assert "cannot pickle '_thread.lock'" in str(error)
            named = await failureOf(queue.call(int, "1", base=threading.Lock()))
            assert "argument base of int('1'" in str(named)
            assert (await before, await after) == (1, 2)
            assert await queue.call(os.getpid) == pid

    @pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
    @inLoop
    async def test_an_argument_that_would_end_a_program_fails_its_own_call_alone(
        self, error: type[BaseException]
    ) -> None:
        class Rude:
            def __reduce__(self) -> str:
                raise error("not me")

        async with ProcessQueue(1) as queue:
            pid = only(queue).process.pid
            before, bad, after = queue.call(kit.echo, 1), queue.call(repr, Rude()), queue.call(kit.echo, 2)
            refused = await failureOf(bad)
            assert isinstance(refused, SerializationError)
            assert f"{error.__name__}: not me" in str(refused)
            assert (await before, await after) == (1, 2)
            assert await queue.call(os.getpid) == pid

    @inLoop
    async def test_an_error_that_takes_no_cause_fails_its_own_call_alone(self) -> None:
        class Frozen(Exception):
            def __setattr__(self, name: str, value: object) -> None:
                raise AttributeError(f"{name} stays as it is")

        async with ProcessQueue(1) as queue:
            pid = only(queue).process.pid
            error = await failureOf(queue.call(kit.raiseThis, Frozen("so it is")))
            assert (type(error), error.args) == (Frozen, ("so it is",))
            assert isinstance(error.__cause__, RemoteTraceback)
            assert await queue.call(os.getpid) == pid

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda: threading.Lock(), "the result, of type lock, cannot be pickled: TypeError: cannot pickle"),
            (coroutine, "the call returned a coroutine, which its process does not wait for: one with useReactor=True"),
            (Deferred, "the call returned a Deferred, which its process does not wait for: one with useReactor=True"),
            (kit.local, "the result cannot be unpickled: LookupError: this is not process"),
            (kit.raiseLocal, "cannot be unpickled: LookupError: this is not process"),
        ],
        ids=["result", "coroutine", "Deferred", "result out", "exception out"],
    )
    @inLoop
    async def test_what_cannot_come_back_fails_its_own_call_alone(self, call: Callable[[], Any], message: str) -> None:
        async with ProcessQueue(1) as queue:
            pid = only(queue).process.pid
            error = await failureOf(queue.call(call))
            assert isinstance(error, TypeError if "useReactor" in message else SerializationError)
            assert message in str(error)
            assert await queue.call(os.getpid) == pid

    @inLoop
    async def test_an_error_that_pickle_refuses_arrives_as_itself(self) -> None:
        async with ProcessQueue(1) as queue:
            for call, kind, text in (
                (lambda: kit.raiseThis(Unpicklable()), Unpicklable, "it is here"),
                (lambda: kit.raiseThis(Picky(1, 2)), Picky, "1 and 2"),
            ):
                error = await failureOf(queue.call(call))
                assert (type(error), str(error)) == (kind, text)

    @inLoop
    async def test_an_argument_that_does_not_come_out_over_there_fails_its_own_call_alone(self) -> None:
        async with ProcessQueue(1) as queue:
            pid = only(queue).process.pid
            error = await failureOf(queue.call(repr, kit.local()))
            assert isinstance(error, SerializationError)
            assert "the call cannot be unpickled: LookupError: this is not process" in str(error)
            assert await queue.call(os.getpid) == pid

    @pytest.mark.parametrize("makeBad", [threading.Lock, kit.local], ids=["in", "out"])
    @inLoop
    async def test_an_item_that_cannot_cross_ends_its_own_iteration_alone(
        self, makeBad: Callable[[], Any], tmp_path: Path
    ) -> None:
        def items() -> Iterator[Any]:
            try:
                yield from (1, 2, makeBad(), 3)
            finally:
                mark(tmp_path / "closed")

        async with ProcessQueue(1) as queue:
            pid = only(queue).process.pid
            got: list[Any] = []
            d = queue.call(items, consumer=kit.Collector(got))
            error = await failureOf(d)
            assert isinstance(error, SerializationError)
            assert "an item" in str(error)
            assert got == [1, 2]
            assert await queue.call(os.getpid) == pid
            assert marks(tmp_path / "closed") == {"started": 1}

    @inLoop
    async def test_items_are_what_they_were_when_they_were_yielded(self) -> None:
        def reusing() -> Iterator[tuple[list[int], list[int]]]:
            reused = [0]
            for _ in range(300):
                reused[0] += 1
                yield reused, reused

        async with ProcessQueue(1) as queue:
            items = await kit.drained(await queue.call(reusing))
        assert items == [([n], [n]) for n in range(1, 301)]

    @inLoop
    async def test_twenty_megabytes_go_there_and_back(self) -> None:
        big = os.urandom(20_000_000)
        async with ProcessQueue(2) as queue:
            there = queue.call(bytes, big), queue.call(len, big)
            assert await queue.call(kit.echo, 1) == 1
            assert (await there[0], await there[1]) == (big, len(big))

    @pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), StopIteration(1)], ids=repr)
    @inLoop
    async def test_an_error_that_would_end_a_program_ends_the_call(self, error: BaseException) -> None:
        async with ProcessQueue(1) as queue:
            pid = only(queue).process.pid
            assert type(await failureOf(queue.call(kit.raiseThis, error))) is type(error)
            assert await queue.call(os.getpid) == pid

    def test_functions_and_errors_of_a_script_without_a_main_guard_cross(self, tmp_path: Path) -> None:
        out = script(
            tmp_path,
            """
            from twisted.internet import reactor
            from twisted.internet.defer import inlineCallbacks
            from asynqueue import ProcessQueue

            class Refused(Exception):
                pass

            def half(x):
                if x % 2:
                    raise Refused(x)
                return x // 2

            @inlineCallbacks
            def run():
                queue = ProcessQueue(1)
                print((yield queue.call(half, 84)))
                try:
                    yield queue.call(half, 3)
                except Refused as error:
                    print("refused", error)
                yield queue.shutdown()
                reactor.stop()

            reactor.callWhenRunning(run)
            reactor.run()
            """,
        )
        assert out.splitlines() == ["42", "refused 3"]


class Unpicklable(Exception):
    def __reduce__(self) -> str:
        raise TypeError("it stays where it is")

    def __str__(self) -> str:
        return "it is here"


class Picky(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def interruptProgram() -> int:
    """The exit status of another program after a Ctrl-C."""
    with subprocess.Popen(["sleep", "30"]) as program:
        program.send_signal(signal.SIGINT)
        return program.wait()


def readInterrupted() -> int:
    """How many bytes a C library reads while Ctrl-C comes, when there is one byte at last."""
    reading, writing = os.pipe()
    interrupt = threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGINT))
    write = threading.Timer(0.2, lambda: os.write(writing, b"x"))
    interrupt.start()
    write.start()
    try:
        number: int = ctypes.CDLL(None).read(reading, ctypes.create_string_buffer(1), 1)
        return number
    finally:
        write.join()
        os.close(reading)
        os.close(writing)


def blockedSignals() -> set[int]:
    """The signals that are blocked here."""
    return set(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, [])))


def isAsleep(pid: int) -> bool:
    """Whether a process waits to be woken, as the kernel tells."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


class TestTheProcess:
    @pytest.mark.parametrize("method", methods)
    @inLoop
    async def test_it_starts_by_each_method_and_is_gone_after_shutdown(self, method: str) -> None:
        queue = ProcessQueue(2, context=method)
        before = pids(queue)
        assert await gatherResults([queue.call(kit.echo, n) for n in range(100)]) == list(range(100))
        await queue.shutdown()
        assert all(isAbsent(pid) for pid in before)

    @needs("pthread_sigmask")
    @pytest.mark.parametrize("method", [m for m in methods if m.values[0] != "forkserver"])
    @inLoop
    async def test_ctrl_c_while_it_starts_is_not_heard_there(self, method: str) -> None:
        queue = ProcessQueue(1, context=method)
        its = only(queue).process
        for _ in range(20):
            os.kill(its.pid, signal.SIGINT)
        assert await queue.call(os.getpid) == its.pid
        assert await queue.call(blockedSignals) == set()
        await queue.shutdown()
        assert not blockedSignals()

    @pytest.mark.parametrize("useReactor", [False, True])
    @pytest.mark.parametrize("method", methods)
    @inLoop
    async def test_ctrl_c_ends_programs_that_a_call_starts_and_not_itself(self, method: str, useReactor: bool) -> None:
        if useReactor and method == "fork":
            pytest.skip("the two do not go together")
        async with ProcessQueue(1, context=method, useReactor=useReactor) as queue:
            assert await queue.call(interruptProgram) == -signal.SIGINT
            assert await queue.call(readInterrupted) == 1

    @pytest.mark.parametrize("method", methods)
    @inLoop
    async def test_it_is_replaced_by_each_method(self, method: str) -> None:
        async with ProcessQueue(2, context=method) as queue:
            before = pids(queue)
            results = [failureOf(queue.call(kit.die, retries=0)) for _ in range(4)]
            assert [type(await result) for result in results] == [WorkerLost] * 4
            assert await gatherResults([queue.call(kit.echo, n) for n in range(100)]) == list(range(100))
            assert not set(before) & set(pids(queue))

    @pytest.mark.parametrize("method", ["forkserver", "spawn"])
    @inLoop
    async def test_it_imports_neither_twisted_nor_attrs(self, method: str) -> None:
        async with ProcessQueue(1, context=method) as queue:
            imported = {name.partition(".")[0] for name in await queue.call(kit.modules)}
        assert "asynqueue" in imported
        assert imported & {"twisted", "attr", "attrs", "zope", "typing_extensions", "cloudpickle"} == set()

    @pytest.mark.parametrize("size", [1, LARGE])
    @inLoop
    async def test_a_method_takes_no_twisted_there_though_twisted_has_a_way_of_its_own_with_methods(
        self, size: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(copyreg.dispatch_table, MethodType, None)  # so that what follows is undone
        styles = importlib.import_module("twisted.persisted.styles")
        copyreg.pickle(MethodType, styles.pickleMethod)  # as that does when it is imported first
        async with ProcessQueue(1) as queue:
            method, _ = await queue.call(copy.copy, (Counter("aab").most_common, bytes(size)))
            assert method(1) == [("a", 2)]
            assert not any(name.startswith("twisted") for name in await queue.call(kit.modules))

    @inLoop
    async def test_it_sleeps_when_it_has_had_nothing_to_do_for_a_moment(self) -> None:
        async with ProcessQueue(1) as queue:
            assert await queue.call(kit.echo, 1) == 1
            await until(isAsleep, only(queue).process.pid)

    @inLoop
    async def test_a_context_may_be_passed_as_such(self) -> None:
        async with ProcessQueue(1, context=multiprocessing.get_context("spawn")) as queue:
            assert await queue.call(kit.echo, 1) == 1

    def test_a_start_method_that_does_not_exist_is_named(self) -> None:
        with pytest.raises(ValueError, match=r"context must be one of (\w+, )*or a .*got 'thread'"):
            ProcessWorker(context="thread")

    @pytest.mark.parametrize("number", [0, -1, 1.5, True, "2"])
    def test_a_number_of_workers_that_is_none_is_named(self, number: Any) -> None:
        with pytest.raises(ValueError, match="at least one worker, got N="):
            ProcessQueue(number)

    @needs("SCHED_BATCH")
    @inLoop
    async def test_it_does_not_interrupt_the_program_that_wakes_it(self) -> None:
        async with ProcessQueue(1) as queue:
            assert await queue.call(os.sched_getscheduler, 0) == os.SCHED_BATCH

    @inLoop
    async def test_its_quick_answers_are_looked_out_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        looked: list[Link] = []
        look = Link.poll

        def looking(link: Link) -> bool:
            looked.append(link)
            return look(link)

        monkeypatch.setattr(Link, "poll", looking)
        async with ProcessQueue(1) as queue:
            for _ in range(50):
                await queue.call(int)
            assert looked

    @inLoop
    async def test_it_has_a_pid_and_says_whether_it_is_alive(self) -> None:
        queue = ProcessQueue(1)
        its = only(queue).process
        assert await queue.call(os.getpid) == its.pid
        assert its.is_alive()
        assert its.exitcode is None
        await queue.shutdown()
        assert not its.is_alive()
        assert its.exitcode == 0

    @inLoop
    async def test_a_stopped_worker_starts_no_process(self) -> None:
        worker = ProcessWorker()
        await worker.stop()
        with pytest.raises(ProcessError, match="this worker was stopped"):
            worker.process  # noqa: B018  # asking starts it

    @inLoop
    async def test_stopping_waits_for_what_was_given_and_may_be_asked_for_again(self, tmp_path: Path) -> None:
        worker = ProcessWorker()
        run = worker.run(Task(1, CallSpec.of(kit.waitFor, tmp_path / "go", "done")))
        first, second = worker.stop(), worker.stop()
        assert not first.called
        mark(tmp_path / "go")
        await first
        await second
        outcome = await run
        assert isinstance(outcome, Returned)
        assert outcome.value == "done"

    @inLoop
    async def test_recalled_calls_come_back_and_never_run(self, tmp_path: Path) -> None:
        worker = ProcessWorker()
        running = worker.run(Task(1, CallSpec.of(kit.waitFor, tmp_path / "go", "done")))
        waiting = [worker.run(Task(n, CallSpec.of(mark, tmp_path / "ran", n))) for n in range(2, 60)]
        worker.recall()
        given = [d for d in waiting if d.called]
        assert len(given) >= 57  # the first may not have started either
        mark(tmp_path / "go")
        for d in given:
            assert await d == Recalled()
        await running
        await worker.stop()
        assert not marks(tmp_path / "ran")

    @inLoop
    async def test_one_that_will_not_exit_is_killed_after_its_grace(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def linger() -> int:
            threading.Thread(target=time.sleep, args=(3600,)).start()
            return os.getpid()

        monkeypatch.setattr(closings, "STOP_GRACE", 0.05)
        queue = ProcessQueue(1)
        its = only(queue).process
        pid = await queue.call(linger)
        await queue.shutdown()
        assert isAbsent(pid)
        assert its.exitcode == -signal.SIGKILL

    @pytest.mark.parametrize("crash", [False, True])
    @inLoop
    async def test_a_worker_that_was_stopped_starts_afresh_when_it_is_taken_again(self, crash: bool) -> None:
        worker = ProcessWorker(maxTasks=2)
        async with TaskQueue(worker) as queue:
            before = await gatherResults([queue.call(os.getpid) for _ in range(3)])
            await queue.detachWorker(worker, crash=crash)
            assert await queue.attachWorker(worker) == 2
            after = await gatherResults([queue.call(os.getpid) for _ in range(3)])
            assert not {*before} & {*after}
            assert len({*after}) == 2
        async with TaskQueue(worker) as queue:
            assert await queue.call(kit.echo, 1) == 1

    @inLoop
    async def test_one_that_was_halted_does_not_hold_up_the_shutdown(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(closings, "STOP_GRACE", 0.05)
        queue = ProcessQueue(1)
        pid = await queue.call(os.getpid)
        os.kill(pid, signal.SIGSTOP)
        await queue.shutdown()
        assert isAbsent(pid)

    @inLoop
    async def test_a_call_does_not_wait_for_one_that_was_halted_while_another_idles(self) -> None:
        async with ProcessQueue(2) as queue:
            pid = await queue.call(os.getpid)
            os.kill(pid, signal.SIGSTOP)
            try:
                assert pid not in await gatherResults([queue.call(os.getpid) for _ in range(20)])
            finally:
                os.kill(pid, signal.SIGCONT)

    @inLoop
    async def test_a_call_does_not_wait_for_an_iterator_while_another_idles(self, tmp_path: Path) -> None:
        def items() -> Iterator[int]:
            yield os.getpid()
            mark(tmp_path / "slow")
            kit.waitFor(tmp_path / "go", "")
            yield os.getpid()

        async with ProcessQueue(2) as queue:
            iteration = await queue.call(items)
            pid = await anext(iteration)
            waiting = anext(iteration)
            await until(marks, tmp_path / "slow")
            assert pid not in await gatherResults([queue.call(os.getpid) for _ in range(20)])
            mark(tmp_path / "go")
            assert await waiting == pid
            iteration.stop()

    @inLoop
    async def test_one_that_was_halted_is_replaced_when_the_time_of_its_call_is_up(self) -> None:
        async with ProcessQueue(1) as queue:
            pid = await queue.call(os.getpid)
            os.kill(pid, signal.SIGSTOP)
            assert await queue.call(os.getpid, timeout=0.2) != pid
            await until(isAbsent, pid)

    @pytest.mark.parametrize("items", [kit.itemsThatHang, kit.itemsThatStay])
    @inLoop
    async def test_one_that_does_not_come_back_from_an_iterator_is_replaced_when_that_is_stopped(
        self, items: Callable[[Path], Iterator[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(closings, "STOP_GRACE", 0.05)
        async with ProcessQueue(1) as queue:
            iteration = await queue.call(items, tmp_path / "stuck")
            pid = await anext(iteration)
            waiting = anext(iteration)
            if items is kit.itemsThatHang:
                await until(marks, tmp_path / "stuck")
            else:
                await waiting
            iteration.stop()
            assert await queue.call(os.getpid) != pid
            await until(isAbsent, pid)
            assert marks(tmp_path / "stuck") == {"started": 1}
            if items is kit.itemsThatHang:
                assert isinstance(await failureOf(waiting), StopAsyncIteration)

    @needs("pidfd_open")
    @pytest.mark.parametrize("method", methods)
    @inLoop
    async def test_a_grandchild_that_keeps_its_descriptors_open_hides_no_death(
        self, method: str, tmp_path: Path
    ) -> None:
        def forkAndExit() -> None:
            child = os.fork()
            if child:
                mark(tmp_path / "child", child)
                os._exit(3)
            signal.pause()

        async with ProcessQueue(1, context=method) as queue:
            assert isinstance(await failureOf(queue.call(forkAndExit, retries=0)), WorkerLost)
            assert await queue.call(kit.echo, 1) == 1
        (child,) = marks(tmp_path / "child")
        assert kit.isAlive(int(child))  # nothing has waited for it
        os.kill(int(child), signal.SIGKILL)

    @inLoop
    async def test_what_it_said_before_it_exited_is_heard_though_a_grandchild_holds_its_socket(self) -> None:
        def forkChild() -> int:
            child = os.fork()
            if not child:
                signal.pause()
            return child

        async with ProcessQueue(1) as queue:
            child = await queue.call(forkChild)
            its = only(queue).process
            transport: Any = its.link.transport
            transport.pauseProducing()  # we hear nothing
            call = queue.call(kit.echo, 5, retries=0)
            await until(lambda: select.select([transport], [], [], 0)[0])
            dying = queue.call(kit.die, retries=0)
            its.kill()
            assert await call == 5
            dying.addErrback(lambda reason: reason.trap(WorkerLost))
            await dying
        os.kill(child, signal.SIGKILL)

    def test_what_it_prints_is_not_lost(self, tmp_path: Path) -> None:
        out = script(
            tmp_path,
            """
            from twisted.internet import reactor
            from twisted.internet.defer import inlineCallbacks
            from asynqueue import ProcessQueue

            @inlineCallbacks
            def run():
                queue = ProcessQueue(1)
                yield queue.call(print, "a line")
                print("of ours")
                yield queue.call(print, "no line", end="")
                yield queue.shutdown()
                reactor.stop()

            reactor.callWhenRunning(run)
            reactor.run()
            """,
        )
        for printed in ("a line\n", "of ours\n", "no line"):  # in which order is up to two processes
            assert out.count(printed) == 1


class TestLettingGoOfACall:
    @inLoop
    async def test_a_queued_call_that_is_cancelled_never_runs(self, tmp_path: Path) -> None:
        async with ProcessQueue(1) as queue:
            pid = only(queue).process.pid
            running = queue.call(kit.waitFor, tmp_path / "go", "done")
            queued = queue.call(mark, tmp_path / "ran")
            queued.cancel()
            assert isinstance(await failureOf(queued), CancelledError)
            mark(tmp_path / "go")
            assert await running == "done"
            assert await queue.call(os.getpid) == pid
        assert not marks(tmp_path / "ran")

    @inLoop
    async def test_a_call_that_was_sent_and_not_started_never_runs_and_nothing_is_replaced(
        self, tmp_path: Path
    ) -> None:
        worker = ProcessWorker()
        running = worker.run(Task(1, CallSpec.of(kit.waitAfterMark, tmp_path / "started", tmp_path / "go")))
        unstarted = worker.run(Task(2, CallSpec.of(mark, tmp_path / "ran")))
        pid = worker.process.pid
        await until(marks, tmp_path / "started")
        unstarted.cancel()
        assert await unstarted == Recalled()
        assert not running.called
        mark(tmp_path / "go")
        assert isinstance(await running, Returned)
        assert worker.process.pid == pid
        await worker.stop()
        assert not marks(tmp_path / "ran")

    @inLoop
    async def test_a_running_call_that_is_cancelled_ends_with_its_process_and_harms_no_neighbour(
        self, tmp_path: Path
    ) -> None:
        async with ProcessQueue(1) as queue:
            await warmUp(queue)
            pid = only(queue).process.pid
            before = [queue.call(kit.markAndReturn, tmp_path / "ran", n) for n in range(20)]
            victim: Deferred[None] = queue.call(kit.markAndHang, tmp_path / "victim")
            after = [queue.call(kit.markAndReturn, tmp_path / "ran", n) for n in range(20, 80)]
            await until(marks, tmp_path / "victim")
            victim.cancel()
            assert isinstance(await failureOf(victim), CancelledError)
            assert await gatherResults(before + after) == list(range(80))
            assert only(queue).process.pid != pid
            await until(isAbsent, pid)
        assert marks(tmp_path / "ran") == Counter(map(str, range(80)))
        assert marks(tmp_path / "victim") == {"started": 1}

    @inLoop
    async def test_a_call_whose_time_runs_out_frees_its_worker_twice(self, tmp_path: Path) -> None:
        async with ProcessQueue(1) as queue:
            pid = only(queue).process.pid
            slow: Deferred[None] = queue.call(kit.markAndHang, tmp_path / "slow", timeout=1.0)
            after = queue.call(os.getpid)
            assert isinstance(await failureOf(slow), errors.TimeoutError)
            assert await after != pid
            await until(isAbsent, pid)
        assert marks(tmp_path / "slow") == {"started": 2}

    @inLoop
    async def test_shutting_down_waits_for_a_cancelled_call_s_process_too(self, tmp_path: Path) -> None:
        queue = ProcessQueue(1)
        pid = only(queue).process.pid
        victim: Deferred[None] = queue.call(kit.markAndHang, tmp_path / "victim")
        victim.addErrback(lambda reason: reason.trap(CancelledError))
        await until(marks, tmp_path / "victim")
        victim.cancel()
        await queue.shutdown()
        assert isAbsent(pid)


class TestKillOnCancel:
    """With killOnCancel=False, a running call that is cancelled goes on to its end."""

    @inLoop
    async def test_without_it_a_cancelled_call_goes_on_and_others_wait_for_it(self, tmp_path: Path) -> None:
        async with ProcessQueue(1, killOnCancel=False) as queue:
            pid = await queue.call(os.getpid)
            running: Deferred[Any] = queue.call(kit.waitAfterMark, tmp_path / "started", tmp_path / "go")
            after = [queue.call(kit.markAndReturn, tmp_path / "ran", n) for n in range(20)]
            await until(marks, tmp_path / "started")
            running.cancel()
            assert isinstance(await failureOf(running), CancelledError)
            assert not any(call.called for call in after)
            mark(tmp_path / "go")
            assert await gatherResults(after) == list(range(20))
            assert await queue.call(os.getpid) == pid
        assert marks(tmp_path / "started") == {"started": 1}
        assert marks(tmp_path / "ran") == Counter(map(str, range(20)))

    @inLoop
    async def test_without_it_a_call_that_was_not_started_never_runs(self, tmp_path: Path) -> None:
        async with ProcessQueue(1, killOnCancel=False) as queue:
            await warmUp(queue)
            running = queue.call(kit.waitAfterMark, tmp_path / "started", tmp_path / "go")
            waiting = queue.call(mark, tmp_path / "ran")
            await until(marks, tmp_path / "started")
            waiting.cancel()
            assert isinstance(await failureOf(waiting), CancelledError)
            mark(tmp_path / "go")
            await running
        assert not marks(tmp_path / "ran")

    @pytest.mark.parametrize("callStats", [False, True])
    @inLoop
    async def test_without_it_a_call_that_exceeds_its_timeout_is_killed(self, callStats: bool, tmp_path: Path) -> None:
        async with ProcessQueue(1, callStats, killOnCancel=False) as queue:
            pid = await queue.call(os.getpid)
            slow: Deferred[None] = queue.call(kit.markAndHang, tmp_path / "slow", timeout=0.3)
            after = queue.call(os.getpid)
            assert isinstance(await failureOf(slow), errors.TimeoutError)
            assert await after != pid

    @pytest.mark.parametrize("callStats", [False, True])
    @inLoop
    async def test_without_it_a_call_with_a_timeout_goes_on_when_cancelled(
        self, callStats: bool, tmp_path: Path
    ) -> None:
        async with ProcessQueue(1, callStats, killOnCancel=False) as queue:
            pid = await queue.call(os.getpid)
            running: Deferred[Any] = queue.call(kit.waitAfterMark, tmp_path / "started", tmp_path / "go", timeout=60)
            await until(marks, tmp_path / "started")
            running.cancel()
            assert isinstance(await failureOf(running), CancelledError)
            mark(tmp_path / "go")
            assert await queue.call(os.getpid) == pid

    @inLoop
    async def test_without_it_the_shutdown_waits_for_the_cancelled_call(self, tmp_path: Path) -> None:
        queue = ProcessQueue(1, killOnCancel=False)
        running: Deferred[Any] = queue.call(kit.waitAfterMark, tmp_path / "started", tmp_path / "go")
        await until(marks, tmp_path / "started")
        running.cancel()
        await failureOf(running)
        done = queue.shutdown()
        assert not done.called
        mark(tmp_path / "go")
        await done

    @pytest.mark.parametrize("value", [0, None, "no"])
    def test_what_is_no_bool_is_refused(self, value: Any) -> None:
        with pytest.raises(TypeError, match=f"killOnCancel must be True or False, got {value!r}"):
            ProcessWorker(killOnCancel=value)


def failToBegin(monkeypatch: pytest.MonkeyPatch, errors: list[Exception]) -> None:
    """Have the next processes fail to start, with ERRORS from the last to the first, and no more than those."""
    begin = workerprocess.WorkerProcess._begin

    def beginLater(self: Any, *args: Any) -> Any:
        if errors:
            raise errors.pop()
        return begin(self, *args)

    monkeypatch.setattr(workerprocess.WorkerProcess, "_begin", beginLater)


class TestDeath:
    @pytest.mark.parametrize(("retries", "starts"), [(None, 2), (0, 1), (3, 4)])
    @inLoop
    async def test_a_call_that_kills_its_worker_is_started_as_often_as_it_may_be(
        self, retries: int | None, starts: int, tmp_path: Path
    ) -> None:
        async with ProcessQueue(2) as queue:
            error = await failureOf(queue.call(kit.markAndDie, tmp_path / "killer", retries=retries))
            assert isinstance(error, WorkerLost)
            assert "markAndDie" in str(error)
            assert await queue.call(kit.echo, 1) == 1
            assert len(queue) == 2
        assert marks(tmp_path / "killer") == {"started": starts}

    @inLoop
    async def test_it_is_charged_to_the_running_call_alone(self, tmp_path: Path) -> None:
        async with ProcessQueue(1) as queue:
            await warmUp(queue)
            ran, killed = tmp_path / "ran", tmp_path / "killed"
            calls: list[Deferred[Any]] = []
            killers: list[Deferred[Any]] = []
            for n in range(300):
                if n % 60 == 30:
                    killers.append(queue.call(kit.markAndDie, killed, n))
                calls.append(queue.call(kit.markAndReturn, ran, n, retries=0))
            for killer in killers:
                assert isinstance(await failureOf(killer), WorkerLost)
            assert await gatherResults(calls) == list(range(300))
        assert marks(ran) == Counter(map(str, range(300)))
        assert set(marks(killed).values()) == {2}
        assert len(marks(killed)) == 5

    @inLoop
    async def test_again_and_again_under_load_loses_and_doubles_nothing(self, tmp_path: Path) -> None:
        async with ProcessQueue(2) as queue:
            ran = tmp_path / "ran"
            kills = 0

            def kill(result: int) -> int:
                nonlocal kills
                if result % 150 == 0:
                    victim = pids(queue)[kills % 2]
                    kills += 1
                    os.kill(victim, signal.SIGKILL)
                return result

            calls = [queue.call(kit.markAndReturn, ran, n, retries=5).addCallback(kill) for n in range(3000)]
            assert await gatherResults(calls) == list(range(3000))
            assert len(queue) == 2
            assert await gatherResults([queue.call(kit.echo, n) for n in range(100)]) == list(range(100))
            assert len(set(await gatherResults([queue.call(os.getpid) for _ in range(200)]))) >= 1
        started = marks(ran)
        assert kills == 20
        assert len(started) == 3000
        assert sum(started.values()) - 3000 <= kills  # each death is charged to the one call that was running

    @inLoop
    async def test_of_the_fork_server_settles_everything_and_leaves_the_queue_whole(self, tmp_path: Path) -> None:
        from multiprocessing import forkserver

        async with ProcessQueue(2) as queue:
            assert await queue.call(kit.echo, 1) == 1
            calls = [queue.call(kit.markAndReturn, tmp_path / "ran", n, retries=3) for n in range(500)]
            server: Any = forkserver
            os.kill(server._forkserver._forkserver_pid, signal.SIGKILL)
            assert await gatherResults(calls) == list(range(500))
            assert len(queue) == 2
            assert await gatherResults([queue.call(kit.echo, n) for n in range(100)]) == list(range(100))
        assert sum(marks(tmp_path / "ran").values()) <= 502

    @inLoop
    async def test_updates_are_run_again_before_the_replacement_s_first_task(self, tmp_path: Path) -> None:
        async with ProcessQueue(1) as queue:
            assert await queue.update(os.environ.__setitem__, "ASYNQUEUE_TEST", "is set") == [None]
            for _ in range(3):
                assert isinstance(await failureOf(queue.call(kit.die, retries=0)), WorkerLost)
                assert await queue.call(os.environ.get, "ASYNQUEUE_TEST") == "is set"

    @inLoop
    async def test_an_update_that_kills_is_given_up_after_the_second_time(self, tmp_path: Path) -> None:
        async with ProcessQueue(2) as queue:
            error = await failureOf(queue.update(kit.markAndDie, tmp_path / "killed"))
            assert isinstance(error, WorkerLost)
            assert await gatherResults([queue.call(kit.echo, n) for n in range(20)]) == list(range(20))
        assert marks(tmp_path / "killed")["started"] in (3, 4)  # each once, one again, and perhaps the other, too

    @inLoop
    async def test_an_iteration_ends_with_its_worker(self, tmp_path: Path) -> None:
        async with ProcessQueue(1) as queue:
            iteration = await queue.call(kit.markedItems, tmp_path / "items", 1000)
            first = await iteration.__anext__()
            os.kill(only(queue).process.pid, signal.SIGKILL)
            with pytest.raises(WorkerLost, match="ended early"):
                await kit.drained(iteration)
            assert first == 0
            assert await queue.call(kit.echo, 1) == 1

    @inLoop
    async def test_until_a_process_is_up_calls_wait_in_the_queue_where_no_time_runs_out(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(universe, "main", partial(kit.serveWhen, tmp_path / "go"))
        async with ProcessQueue(1) as queue:
            call = queue.call(kit.echo, 5, timeout=60, retries=0)
            assert (queue.stats().queued, queue.stats().running) == (1, 0)
            (tmp_path / "go").touch()
            assert await call == 5

    @inLoop
    async def test_at_every_start_makes_the_worker_give_up_and_the_calls_fail(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(universe, "main", kit.dieAtOnce)
        queue = ProcessQueue(2)
        calls = [queue.call(kit.echo, n) for n in range(10)]
        failures = [await failureOf(call) for call in calls]
        assert {type(error) for error in failures} <= {QueueRunError, WorkerLost}
        assert any("no worker process could be kept running" in str(error) for error in failures)
        assert isinstance(await failureOf(queue.call(kit.echo, 1)), QueueRunError)
        await queue.shutdown()
        assert len(queue) == 0

    @inLoop
    async def test_right_after_ready_makes_the_worker_resign_after_pauses(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(universe, "main", partial(kit.dieOnceReady, tmp_path / "started"))
        monkeypatch.setattr(restarts, "FIRST_PAUSE", 0.01)
        began = time.perf_counter()
        queue = ProcessQueue(1)
        calls = [queue.call(kit.echo, n) for n in range(10)]
        failures = [await failureOf(call) for call in calls]
        assert {type(error) for error in failures} == {QueueRunError}
        assert "no worker process could be kept running" in str(failures[0])
        assert marks(tmp_path / "started") == {"started": restarts.ATTEMPTS}
        assert time.perf_counter() - began > 0.01 * (2 ** (restarts.ATTEMPTS - 1) - 1)
        await queue.shutdown()

    @inLoop
    async def test_right_after_ready_is_named_by_the_error_of_the_worker(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(universe, "main", partial(kit.dieOnceReady, Path("/dev/null")))
        monkeypatch.setattr(restarts, "FIRST_PAUSE", 0.001)
        resigned: Deferred[BaseException | None] = Deferred()

        def resign(why: Resignation = Departed()) -> None:  # noqa: B008  # it is frozen
            if isinstance(why, Departed):
                resigned.callback(why.error)

        worker = ProcessWorker()
        worker.setResignator(resign)
        error = await resigned
        assert isinstance(error, ProcessError)
        pattern = r"6 times in a row, no process came to work; at last: process \d+ died as soon as it was ready, .* 3$"
        assert re.match(pattern, str(error))
        await worker.stop()

    @inLoop
    async def test_of_the_fork_server_again_and_again_costs_no_worker(self, tmp_path: Path) -> None:
        from multiprocessing import forkserver

        server: Any = forkserver
        async with ProcessQueue(2) as queue:
            calls: list[Deferred[int]] = []
            for n in range(12):
                calls += [queue.call(kit.echo, n, retries=20) for n in range(20)]
                await deferLater(reactor, 0.4 if n % 2 else 0.05)
                if server._forkserver._forkserver_pid is not None:
                    os.kill(server._forkserver._forkserver_pid, signal.SIGKILL)
            assert await gatherResults(calls) == 12 * list(range(20))
            assert len(queue) == 2
            assert await gatherResults([queue.call(kit.echo, n) for n in range(100)]) == list(range(100))

    @inLoop
    async def test_a_queue_whose_processes_cannot_be_started_says_so_and_leaves_none(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        begun: list[int] = []
        begin = workerprocess.WorkerProcess._begin

        def beginOne(self: Any, *args: Any) -> Any:
            if begun:
                raise PermissionError(1, "a sandbox forbids it")
            its = begin(self, *args)
            begun.append(its.pid)
            return its

        monkeypatch.setattr(workerprocess.WorkerProcess, "_begin", beginOne)
        with pytest.raises(ProcessError, match=r"no process could be started: .*a sandbox forbids it"):
            ProcessQueue(2)
        await until(isAbsent, begun[0])
        await until(lambda: not workerprocess._living)

    @inLoop
    async def test_a_start_that_fails_once_is_tried_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        failToBegin(monkeypatch, [EOFError(), ConnectionRefusedError()])
        async with ProcessQueue(1) as queue:
            assert await queue.call(kit.echo, 1) == 1

    @inLoop
    async def test_a_replacement_that_cannot_be_started_at_once_is_started_soon(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        failed: list[Exception] = [EOFError(), ConnectionRefusedError(111, "Connection refused")] * 4
        async with ProcessQueue(1) as queue:
            await queue.update(mark, "/dev/null")
            pid = await queue.call(os.getpid)
            monkeypatch.setattr(restarts, "FIRST_PAUSE", 0.001)
            failToBegin(monkeypatch, failed)
            os.kill(pid, signal.SIGKILL)
            assert len({*await gatherResults([queue.call(os.getpid) for _ in range(20)])} - {pid}) == 1
            assert not failed

    @inLoop
    async def test_an_update_that_was_running_waits_for_a_replacement_that_cannot_be_started_at_once(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        failed: list[Exception] = [ConnectionRefusedError(), EOFError()]
        tally = kit.Traveller()
        async with ProcessQueue(1) as queue:
            await queue.update(tally.see, 1)
            update = queue.update(kit.waitAfterMark, tmp_path / "begun", tmp_path / "go")
            await until(lambda: marks(tmp_path / "begun"))
            monkeypatch.setattr(restarts, "FIRST_PAUSE", 0.001)
            failToBegin(monkeypatch, failed)
            os.kill(only(queue).process.pid, signal.SIGKILL)
            mark(tmp_path / "go")
            assert await queue.call(tally) == [1]
            assert await update == [None]
            assert not failed

    @inLoop
    async def test_a_replacement_that_is_ready_when_it_is_due_goes_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async with ProcessQueue(1) as queue:
            pid = await queue.call(os.getpid)
            worker = only(queue)
            monkeypatch.setattr(restarts, "FIRST_PAUSE", 3600)
            monkeypatch.setattr(restarts, "LONGEST_PAUSE", 3600)
            failToBegin(monkeypatch, [EOFError()])
            os.kill(pid, signal.SIGKILL)
            await until(lambda: worker._restarting is not None)
            process = worker.process  # whoever asks for it has it started
            await until(lambda: process.link.ready)
            restarting: Any = worker._restarting  # the reactor's, which can do more than it has to
            restarting.reset(0)
            assert await queue.call(os.getpid) == process.pid

    @inLoop
    async def test_one_that_is_to_be_started_is_not_when_the_queue_shuts_down(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> None:
            raise OSError(24, "Too many open files")

        queue = ProcessQueue(1)
        pid = await queue.call(os.getpid)
        monkeypatch.setattr(restarts, "FIRST_PAUSE", 3600)
        monkeypatch.setattr(restarts, "LONGEST_PAUSE", 3600)
        monkeypatch.setattr(workerprocess.WorkerProcess, "_begin", refuse)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: only(queue)._restarting is not None)
        await queue.shutdown()

    @inLoop
    async def test_a_replacement_that_cannot_be_started_makes_the_calls_fail(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> None:
            raise PermissionError(1, "a sandbox forbids it")

        queue = ProcessQueue(1)
        assert await queue.call(kit.echo, 1) == 1
        monkeypatch.setattr(restarts, "FIRST_PAUSE", 0.001)
        monkeypatch.setattr(workerprocess.WorkerProcess, "_begin", refuse)
        os.kill(only(queue).process.pid, signal.SIGKILL)
        error = await failureOf(queue.call(kit.echo, 2))
        assert isinstance(error, QueueRunError)
        await queue.shutdown()


class TestResidents:
    @pytest.fixture
    def tally(self, monkeypatch: pytest.MonkeyPatch) -> kit.Traveller:
        monkeypatch.setattr(kit.Traveller, "pickled", 0)
        return kit.Traveller()

    @inLoop
    async def test_an_updated_object_travels_once_and_lives_on_over_there(self, tally: kit.Traveller) -> None:
        async with ProcessQueue(2) as queue:
            await queue.update(tally.see, 1)
            assert await gatherResults([queue.call(tally) for _ in range(100)]) == [[1]] * 100
            await queue.update(tally.see, 2)
            assert await gatherResults([queue.call(tally.__call__) for _ in range(100)]) == [[1, 2]] * 100
        assert kit.Traveller.pickled == 2  # once a worker
        assert tally.seen == []

    @inLoop
    async def test_a_callable_object_may_be_the_update_itself(self, tally: kit.Traveller) -> None:
        async with ProcessQueue(1) as queue:
            assert await queue.update(tally) == [[]]
            await queue.call(tally.see, 5)
            assert await queue.call(tally) == [5]
        assert kit.Traveller.pickled == 1

    @inLoop
    async def test_an_object_that_was_not_updated_travels_anew_each_time(self, tally: kit.Traveller) -> None:
        async with ProcessQueue(1) as queue:
            await queue.call(tally.see, 5)
            assert await queue.call(tally) == []
        assert kit.Traveller.pickled == 2

    @inLoop
    async def test_a_replaced_process_has_it_again(self, tally: kit.Traveller) -> None:
        async with ProcessQueue(1) as queue:
            await queue.update(tally.see, 1)
            await queue.call(tally.see, 2)
            assert isinstance(await failureOf(queue.call(kit.die, retries=0)), WorkerLost)
            assert await queue.call(tally) == [1]
        assert kit.Traveller.pickled == 2

    @pytest.mark.parametrize("name", ["seeBadly", "seeAndRaise"])
    @inLoop
    async def test_it_stays_though_the_update_s_result_could_not_come_back(
        self, name: str, tally: kit.Traveller
    ) -> None:
        async with ProcessQueue(1) as queue:
            await failureOf(queue.update(getattr(tally, name), 7))
            assert await queue.call(tally) == [7]

    @inLoop
    async def test_one_that_never_arrived_does_not_count_as_there(self) -> None:
        stranger = kit.local()
        async with ProcessQueue(1) as queue:
            assert isinstance(await failureOf(queue.update(stranger.__repr__)), SerializationError)
            error = await failureOf(queue.call(stranger.__repr__))
            assert "this is not process" in str(error)


class TestLettingGoOfAWorker:
    @inLoop
    async def test_with_crash_and_reassign_another_worker_finishes_its_calls(self, tmp_path: Path) -> None:
        async with ProcessQueue(1) as queue:
            await warmUp(queue)
            victim = only(queue)
            pid = victim.process.pid
            running = queue.call(kit.waitAfterMark, tmp_path / "started", tmp_path / "go")
            calls = [queue.call(kit.markAndReturn, tmp_path / "ran", n, retries=0) for n in range(100)]
            await until(marks, tmp_path / "started")
            assert await queue.detachWorker(victim, reassign=True, crash=True) == []
            assert isAbsent(pid)
            assert len(queue) == 0
            mark(tmp_path / "go")
            await queue.attachWorker(ProcessWorker())
            await running
            assert await gatherResults(calls) == list(range(100))
        assert marks(tmp_path / "started") == {"started": 2}
        assert marks(tmp_path / "ran") == Counter(map(str, range(100)))

    @inLoop
    async def test_with_crash_and_reassign_what_it_had_finished_is_not_run_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(window, "BUDGET", 100.0)  # the windows grow, however busy this machine is,
        monkeypatch.setattr(engine, "BUDGET", 100.0)  # and nothing is recalled
        async with ProcessQueue(1) as queue:
            await warmUp(queue)
            ran = tmp_path / "ran"
            transport: Any = only(queue).process.link.transport
            transport.pauseProducing()  # we hear nothing
            calls = [queue.call(kit.markAndReturn, ran, n, retries=1) for n in range(6)]
            last = queue.call(kit.waitAfterMark, ran, tmp_path / "go")
            await until(lambda: marks(ran)["started"])
            detached = queue.detachWorker(only(queue), reassign=True, crash=True)
            mark(tmp_path / "go")
            await queue.attachWorker(ProcessWorker())
            assert await detached == []
            assert await gatherResults(calls) == list(range(6))
            await last
        assert marks(ran) == Counter({**{str(n): 1 for n in range(6)}, "started": 2})

    @inLoop
    async def test_with_crash_alone_its_calls_are_lost_and_listed(self, tmp_path: Path) -> None:
        async with ProcessQueue(1) as queue:
            victim = only(queue)
            running: Deferred[None] = queue.call(kit.markAndHang, tmp_path / "started")
            await until(marks, tmp_path / "started")
            failure = failureOf(running)
            unfinished = await queue.detachWorker(victim, crash=True)
            assert [str(task.call) for task in unfinished] == [str(CallSpec.of(kit.markAndHang, tmp_path / "started"))]
            assert isinstance(await failure, WorkerLost)

    @inLoop
    async def test_without_crash_it_finishes_what_it_was_given(self, tmp_path: Path) -> None:
        async with ProcessQueue(2) as queue:
            calls = [queue.call(kit.markAndReturn, tmp_path / "ran", n) for n in range(50)]
            worker = queue.workers()[0]
            assert await queue.detachWorker(worker) == []
            assert await gatherResults(calls) == list(range(50))
            assert len(queue) == 1
        assert marks(tmp_path / "ran") == Counter(map(str, range(50)))

    @inLoop
    async def test_all_at_once_by_a_crash_lists_what_was_unfinished(self, tmp_path: Path) -> None:
        queue = ProcessQueue(2)
        before = pids(queue)
        running: list[Deferred[None]] = [queue.call(kit.markAndHang, tmp_path / "started") for _ in range(2)]
        queued = queue.call(kit.echo, 5)
        await until(lambda: marks(tmp_path / "started")["started"] == 2)
        failures = [failureOf(d) for d in running]
        unfinished = await queue.crashWorkers()
        assert sorted(task.id for task in unfinished) == [1, 2]  # which process is up first is theirs to say
        assert [type(await failure) for failure in failures] == [WorkerLost, WorkerLost]
        assert len(queue) == 0
        assert all(isAbsent(pid) for pid in before)
        assert await queue.crashWorkers() == []
        await queue.attachWorker(ProcessWorker())
        assert await queued == 5
        await queue.shutdown()


class TestCallTimes:
    @inLoop
    async def test_each_call_s_seconds_here_and_over_there_are_kept(self, tmp_path: Path) -> None:
        async with ProcessQueue(2, callStats=True) as queue:
            await queue.update(kit.echo, 1)
            slow = queue.call(kit.waitAfterMark, tmp_path / "started", tmp_path / "go")
            await until(marks, tmp_path / "started")
            await failureOf(queue.call(kit.raiseThis, ValueError()))
            await kit.drained(await queue.call(kit.markedItems, tmp_path / "items", 3))
            await failureOf(queue.call(kit.die, retries=0))
            mark(tmp_path / "go")
            await slow
            stats = queue.stats()
            assert (stats.done, stats.failed, stats.lost) == (2, 1, 1)
            assert len(stats.calls) == 3  # nothing is known of the one that died
            assert [(worker, process) for worker, process in stats] == list(stats.calls)
            assert all(0 < its.process <= its.worker for its in stats.calls)
            await queue.crashWorkers()
            assert len(queue.stats().calls) == 3

    @inLoop
    async def test_none_are_kept_unless_asked_for(self) -> None:
        async with ProcessQueue(1) as queue:
            await queue.call(kit.echo, 1)
            assert queue.stats().calls == ()
            assert only(queue).stats() == []

    @inLoop
    async def test_no_more_are_kept_than_is_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(calltimes, "CALLS_KEPT", 10)
        async with ProcessQueue(1, callStats=True) as queue:
            await gatherResults([queue.call(kit.echo, n) for n in range(50)])
            assert len(queue.stats().calls) == 10
            assert queue.stats().done == 50


class TestTheEndOfTheProgram:
    BUSY = """
        import os, signal, sys
        from pathlib import Path
        from twisted.internet import reactor
        from asynqueue import Delay, ProcessQueue
        from tests.support.calls import markAndSpin, marks

        here = Path(sys.argv[1])
        queue = ProcessQueue(2)
        for _ in range(2):
            queue.call(markAndSpin, here / "pids").addErrback(lambda _: None)

        def ready():
            return sum(marks(here / "pids").values()) == 2
        """

    def busy(self, here: Path, then: str) -> tuple[subprocess.Popen[str], list[int]]:
        """A program that does THEN when two workers are busy for ever; and their pids."""
        code = textwrap.dedent(self.BUSY) + f"Delay().untilEvent(ready).addCallback(lambda _: {then})\nreactor.run()\n"
        program = subprocess.Popen(
            [sys.executable, "-c", code, str(here)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "TMPDIR": str(here)},  # one that is killed leaves its fork server's directory there
        )
        assert program.stdout is not None
        program.stdout.readline()
        return program, [int(pid) for pid in marks(here / "pids")]

    @inLoop
    async def test_by_sigkill_ends_its_workers_though_they_are_busy(self, tmp_path: Path) -> None:
        program, busy = self.busy(tmp_path, "print('ready', flush=True)")
        with program:
            assert len(busy) == 2
            assert not any(isAbsent(pid) for pid in busy)
            program.kill()
            for pid in busy:
                await until(isAbsent, pid)

    @inLoop
    async def test_by_ctrl_c_is_prompt_and_leaves_no_process(self, tmp_path: Path) -> None:
        program, busy = self.busy(tmp_path, "print('ready', flush=True)")
        with program:
            os.killpg(program.pid, signal.SIGINT)
            _, err = program.communicate(timeout=10)
            assert len(busy) == 2
            assert all(isAbsent(pid) for pid in busy)
            assert "Traceback" not in err

    @inLoop
    async def test_by_stopping_the_reactor_is_prompt_and_leaves_no_process(self, tmp_path: Path) -> None:
        program, busy = self.busy(tmp_path, "(print('ready', flush=True), reactor.stop())")
        with program:
            _, err = program.communicate(timeout=10)
            assert len(busy) == 2
            assert all(isAbsent(pid) for pid in busy)
            assert (program.returncode, err) == (0, "")

    @inLoop
    async def test_by_its_last_line_leaves_no_process(self, tmp_path: Path) -> None:
        program, busy = self.busy(tmp_path, "(print('ready', flush=True), signal.raise_signal(signal.SIGTERM))")
        with program:
            program.communicate(timeout=10)
            assert all(isAbsent(pid) for pid in busy)


class TestAtExit:
    """What a call registers with `atexit` runs when its worker ends in peace."""

    @pytest.mark.parametrize("useReactor", [False, True])
    @pytest.mark.parametrize("method", methods)
    @inLoop
    async def test_functions_of_calls_run_and_those_of_the_parent_do_not(
        self, tmp_path: Path, method: str, useReactor: bool
    ) -> None:
        if method == "fork" and useReactor:
            return
        atexit.register(mark, tmp_path / "parent")
        try:
            queue = ProcessQueue(1, context=method, useReactor=useReactor)
            await queue.call(atexit.register, mark, tmp_path / "second")
            await queue.call(atexit.register, sys.exit, 3)
            await queue.call(atexit.register, mark, tmp_path / "first")
            await queue.shutdown()
        finally:
            atexit.unregister(mark)
        assert {path.name for path in tmp_path.iterdir()} == {"first", "second"}

    @inLoop
    async def test_functions_of_a_killed_process_do_not_run(self, tmp_path: Path) -> None:
        queue = ProcessQueue(1)
        await queue.call(atexit.register, mark, tmp_path / "killed")
        await queue.crashWorkers()
        await queue.shutdown()
        assert not list(tmp_path.iterdir())


def script(folder: Path, code: str) -> str:
    """What the program CODE, as a file in FOLDER, prints."""
    path = folder / "program.py"
    path.write_text(textwrap.dedent(code))
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout
