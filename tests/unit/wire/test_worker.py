"""What a wire worker and a wire server do for one another, over real connections."""

from __future__ import annotations

import os
import re
import socket
import struct
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs

from asynqueue import Delay, TaskQueue, WireQueue, WireWorker
from asynqueue.core.flow.iterators import SLICE
from asynqueue.core.protocol import messages as m
from asynqueue.core.protocol.connectattempts import ATTEMPTS
from asynqueue.core.records import CallSpec, Recalled, RunOutcome, Task
from asynqueue.errors import AuthenticationError, ImplementationError, SerializationError, WorkerError, WorkerLost
from asynqueue.wire import Limits, Method, ServerManager, WireServer, WireWorkerUniverse, keys
from asynqueue.wire.client import ClientConnection
from asynqueue.wire.universe import load, methods
from tests.support.calls import Collector, drained, failureOf, inLoop, marks, until
from tests.support.deferreds import logged
from tests.support.wires import KEY, KINDS, Certificates, Things, peak, places, portOf, served, wired

kinds = pytest.mark.parametrize("kind", KINDS)


@kinds
class TestCalls:
    @inLoop
    async def test_results_come_back(self, kind: str, tmp_path: Path) -> None:
        async with wired(kind, tmp_path) as queue:
            things = Things()
            assert await queue.call(Things.add, 1, b=2) == 3
            assert await queue.call(things.add, 1) == 2
            assert await queue.call(Method("add"), 3, 4) == 7
            assert await queue.call(Things.twice, 4) == 8
            assert await queue.call(Things.name) == "Things"
            assert await queue.call(Things.remembered, 5) == await queue.call(things.remembered, 5) == 10

    @inLoop
    async def test_a_worker_that_was_stopped_is_refused(self, kind: str, tmp_path: Path) -> None:
        async with wired(kind, tmp_path) as queue:
            (worker,) = queue.workers()
            await queue.detachWorker(worker)
            with pytest.raises(WorkerError, match="was stopped: attach a new one"):
                queue.attachWorker(worker)
            assert not queue.workers()

    @inLoop
    async def test_an_error_is_the_original_one_with_its_traceback(self, kind: str, tmp_path: Path) -> None:
        async with wired(kind, tmp_path) as queue:
            error = await failureOf(queue.call(Things.fail, KeyError("here")))
            assert isinstance(error, KeyError)
            assert "in fail" in str(error.__cause__)

    @inLoop
    async def test_many_are_answered_in_order(self, kind: str, tmp_path: Path) -> None:
        async with wired(kind, tmp_path) as queue:
            answers: list[int] = []
            await gatherResults([queue.call(Things.echo, n).addCallback(answers.append) for n in range(300)])
            assert answers == list(range(300))

    @inLoop
    async def test_what_was_recalled_goes_before_what_came_later(self, kind: str, tmp_path: Path) -> None:
        async with wired(kind, tmp_path) as queue:
            await gatherResults([queue.call(Things.echo, n) for n in range(500)])  # it has room for many
            first = queue.call(Things.hang, tmp_path / "marks")
            calls = [queue.call(Things.keep, n) for n in range(5)]
            await until(lambda: marks(tmp_path / "marks")["started"] == 1 and not linkOf(queue)._writer.unsent())
            linkOf(queue).recall()
            calls += [queue.call(Things.keep, n) for n in range(5, 10)]
            first.addErrback(lambda reason: reason.trap(CancelledError)).cancel()
            assert await gatherResults(calls) == list(range(1, 11))

    @inLoop
    async def test_a_method_may_give_a_deferred_or_a_coroutine(self, kind: str, tmp_path: Path) -> None:
        async with wired(kind, tmp_path) as queue:
            assert await queue.call(Things.soon, 1) == 1
            assert await queue.call(Things.later, 2) == 2

    @inLoop
    async def test_large_ones_go_both_ways(self, kind: str, tmp_path: Path) -> None:
        async with wired(kind, tmp_path) as queue:
            assert await queue.call(Things.echo, b"x" * 3_000_000) == b"x" * 3_000_000

    @inLoop
    async def test_small_ones_are_answered_between_the_frames_of_a_large_one(self, kind: str, tmp_path: Path) -> None:
        async with wired(kind, tmp_path, N_concurrent=2) as queue:
            large = queue.call(Things.big, 50_000_000)
            assert await queue.call(Things.add, 1) == 2
            assert not large.called
            assert await large == bytes(50_000_000)

    @inLoop
    async def test_in_threads_they_may_block(self, kind: str, tmp_path: Path) -> None:
        async with wired(kind, tmp_path, thread=True, N_concurrent=3) as queue:
            names = await gatherResults([queue.call(Things.thread) for _ in range(20)])
            assert all(name.startswith("asynqueue-thread") for name in names)
            assert await queue.call(Things.later, 2) == 2

    @inLoop
    async def test_an_iterator_streams(self, kind: str, tmp_path: Path) -> None:
        async with wired(kind, tmp_path) as queue:
            assert await drained(await queue.call(Things.count, 2000)) == list(range(2000))
            got: list[int] = []
            await queue.call(Things.count, 300, consumer=Collector(got))
            assert got == list(range(300))

    @inLoop
    async def test_an_iterator_streams_from_a_thread(self, kind: str, tmp_path: Path) -> None:
        async with wired(kind, tmp_path, thread=True) as queue:
            assert await drained(await queue.call(Things.count, 2000)) == list(range(2000))


class TestWhatASocketTakesAtOnce:
    """A client that reads while the server writes: of what leaves at once, no transport says that it has left."""

    @pytest.mark.parametrize("size", [100_000, 300_000, 1_500_000])
    @inLoop
    async def test_large_items_keep_coming(self, size: int) -> None:
        manager = ServerManager("tests.support.wires.Things")
        place = manager.newSocket()
        await manager.spawn(place)
        async with WireQueue(place, Things, key=manager.key) as queue:
            for _ in range(5):
                items = await queue.call(Things.chunks, 60_000_000 // size // 5, size)
                assert {len(item) for item in await drained(items)} == {size}
        await manager.shutdown()

    @inLoop
    async def test_calls_behind_large_results_start(self) -> None:
        manager = ServerManager("tests.support.wires.Things")
        place = manager.newSocket()
        await manager.spawn(place)
        async with WireQueue(place, Things, key=manager.key) as queue:
            for size in (70_000, 150_000, 300_000):
                results = await gatherResults([queue.call(Things.big, size) for _ in range(60)])
                assert {len(result) for result in results} == {size}
        await manager.shutdown()


@kinds
class TestWhatALargeValueTakes:
    """Beside the value itself: nothing worth mention on either side, however it is carried."""

    @inLoop
    async def test_a_result_an_item_and_an_argument_are_in_memory_once_on_each_side(
        self, kind: str, tmp_path: Path
    ) -> None:
        size, little = 64 << 20, 16 << 20
        manager = ServerManager("tests.support.wires.Things")
        there, here = places(kind, manager, tmp_path)
        await manager.spawn(there)
        async with WireQueue(here, Things, key=manager.key) as queue:

            async def taken() -> tuple[int, int]:
                now = await queue.call(Things.peak), peak()
                return now[0] - before[0], now[1] - before[1]

            before = 0, 0
            await taken()
            before = await taken()
            result = await queue.call(Things.full, size)
            assert max(await taken()) < size + little
            assert await queue.call(Things.size, result) == size
            assert max(await taken()) < size + little
            del result
            (item,) = await drained(await queue.call(Things.chunks, 1, size))
            assert len(item) == size
            assert max(await taken()) < size + little
        await manager.shutdown()


class TestWhatRuns:
    @inLoop
    async def test_so_many_run_at_once_and_no_more(self, tmp_path: Path) -> None:
        path = tmp_path / "marks"
        async with (
            served("unix", tmp_path) as (_, description, key),
            WireQueue(description, Things, key=key, N_concurrent=3) as queue,
        ):
            calls = [queue.call(Things.hang, path, n) for n in range(5)]
            await until(lambda: sum(marks(path).values()) == 3)
            async with WireQueue(description, Things, key=key) as other:
                assert await other.call(Things.add, 1) == 2
            assert set(marks(path)) == {"0", "1", "2"}
            calls[0].cancel()
            await until(lambda: "3" in marks(path))
            assert marks(path)["cancelled"] == 1
            for call in calls:
                call.addErrback(lambda reason: reason.trap(CancelledError))
                call.cancel()

    @inLoop
    async def test_a_blocking_call_that_is_cancelled_frees_the_worker(self, tmp_path: Path) -> None:
        path, gate = tmp_path / "marks", tmp_path / "gate"
        os.mkfifo(gate)
        async with wired("unix", tmp_path, universe=Gates, thread=True) as queue:
            d = queue.call(Gates.passThrough, path, gate)
            await until(path.exists)
            d.cancel()
            await failureOf(d)
            assert await queue.call(Gates.one) == 1
            with open(gate, "wb"):
                pass

    @inLoop
    async def test_a_slow_one_is_answered_and_the_next_announced_in_one_message(self, tmp_path: Path) -> None:
        paths, gates = ([tmp_path / f"{name}{n}" for n in range(2)] for name in ("mark", "gate"))
        manager = ServerManager("tests.unit.wire.test_worker.Gates")  # a process: it blocks
        place = manager.newSocket()
        await manager.spawn(place)
        async with WireQueue(place, Gates, key=manager.key, N_concurrent=2) as queue:
            assert await queue.call(Gates.one) == 1
            runs = linkOf(queue)._runs
            calls = []
            for path, gate in zip(paths, gates, strict=True):
                os.mkfifo(gate)
                calls.append(queue.call(Gates.passThrough, path, gate))
            await until(lambda: paths[0].exists() and runs._started)
            await Delay(2 * SLICE)()  # the server's slice is over
            gates[0].open("wb").close()
            await calls[0]
            assert [*runs.calls] == [*runs._started], "the second has started, as this side knows"
            await until(paths[1].exists)
            gates[1].open("wb").close()
            await calls[1]
        await manager.shutdown()

    @inLoop
    async def test_an_update_runs_before_the_first_call_and_after_each_reconnection(self, tmp_path: Path) -> None:
        async with served("unix", tmp_path) as (server, description, key):
            async with WireQueue(description, Things, key=key) as queue:
                await queue.call(Things.add, 1)
                assert await queue.update(Things.keep, "a") == [1]
                next(iter(server._clients)).abort()
                assert await queue.call(Things.keep, "b") == 3

    @inLoop
    async def test_a_shutdown_waits_for_calls_and_iterations(self, tmp_path: Path) -> None:
        async with served("unix", tmp_path) as (server, description, key):
            queue = WireQueue(description, Things, key=key)
            items = await queue.call(Things.count, 600)
            slow = queue.call(Things.soon, "done", 0.1)
            done = queue.shutdown()
            assert await slow == "done"
            assert not done.called
            assert await drained(items) == list(range(600))
            await done
            await until(lambda: not server._clients)

    @pytest.mark.parametrize("crash", [False, True])
    @inLoop
    async def test_who_leaves_in_the_turn_in_which_it_connects_leaves_at_once(
        self, crash: bool, tmp_path: Path
    ) -> None:
        async with served("tcp", tmp_path) as (server, description, key):
            queue, worker = TaskQueue(), WireWorker(Things, description, key=key)
            leaving: list[Deferred[list[Task]]] = []
            established = worker._established

            def leave(link: ClientConnection) -> None:
                established(link)
                leaving.append(queue.detachWorker(worker, crash=crash))

            worker._established = leave  # type: ignore[method-assign]  # no event of the worker's is as early
            queue.attachWorker(worker).addErrback(lambda reason: reason.trap(WorkerLost))
            await until(lambda: leaving)
            assert await leaving[0] == []
            await until(lambda: not server._clients)
            await queue.shutdown()


class Gates(WireWorkerUniverse):
    """What blocks until the test says so."""

    def passThrough(self, path: Path, gate: Path) -> None:
        """Mark PATH, and wait for a writer of GATE."""
        path.touch()
        gate.read_bytes()

    def one(self) -> int:
        """1."""
        return 1


class TestIterations:
    @pytest.mark.parametrize("thread", [False, True])
    @inLoop
    async def test_an_asynchronous_one_streams(self, thread: bool, tmp_path: Path) -> None:
        path = tmp_path / "marks"
        async with wired("unix", tmp_path, thread=thread) as queue:
            assert await drained(await queue.call(Things.slowly, 600)) == list(range(600))
            items: Any = await queue.call(Things.slowly, 100_000, path)
            assert [await anext(items) for _ in range(3)] == [0, 1, 2]
            items.stop()
            await until(lambda: marks(path)["end"] == 1)
            got: list[int] = []
            with pytest.raises(KeyError):
                await queue.call(Things.slowlyAndFail, consumer=Collector(got))
            assert got == [0]

    @inLoop
    async def test_an_asynchronous_one_ends_with_the_connection(self, tmp_path: Path) -> None:
        path = tmp_path / "marks"
        async with served("unix", tmp_path) as (server, description, key):
            async with WireQueue(description, Things, key=key) as queue:
                items = await queue.call(Things.slowly, 100_000, path)
                next(iter(server._clients)).abort()
                with pytest.raises(WorkerLost):
                    await drained(items)
                await until(lambda: "end" in marks(path))

    @inLoop
    async def test_an_error_comes_after_the_items_before_it(self, tmp_path: Path) -> None:
        async with wired("unix", tmp_path) as queue:
            got: list[int] = []
            with pytest.raises(KeyError):
                await queue.call(Things.countAndFail, 10, consumer=Collector(got))
            assert got == list(range(10))

    @inLoop
    async def test_no_more_is_made_than_the_credit_and_a_stop_closes_it_there(self, tmp_path: Path) -> None:
        path = tmp_path / "marks"
        async with wired("unix", tmp_path) as queue:
            items = await queue.call(Things.marked, path, 100_000)
            assert [await anext(items) for _ in range(3)] == [0, 1, 2]
            items.stop()
            await until(lambda: "end" in marks(path))
            assert len(marks(path)) < 300

    @inLoop
    async def test_it_ends_with_the_connection_here_and_there(self, tmp_path: Path) -> None:
        path = tmp_path / "marks"
        async with served("unix", tmp_path) as (server, description, key):
            async with WireQueue(description, Things, key=key) as queue:
                items = await queue.call(Things.marked, path, 100_000)
                next(iter(server._clients)).abort()
                with pytest.raises(WorkerLost):
                    await drained(items)
                await until(lambda: "end" in marks(path))

    @inLoop
    async def test_what_pickle_refuses_fails_what_it_is_part_of(self, tmp_path: Path) -> None:
        async with wired("unix", tmp_path) as queue:
            with pytest.raises(SerializationError, match="argument 1"):
                await queue.call(Things.echo, (n for n in range(3)))
            assert await queue.call(Things.add, 1) == 2


class TestWhatMayBeCalled:
    def test_public_methods_of_ones_own_and_nothing_else(self) -> None:
        assert {"add", "twice", "name", "count"} <= set(methods(Things))
        assert not {"_private", "__init__", "attribute", "prop", "Nested", "secret", "kept"} & set(methods(Things))

    def test_what_is_inherited_from_elsewhere_is_not_reached(self) -> None:
        class Plumbing:
            def flush(self) -> None: ...

        class Base(WireWorkerUniverse):
            def one(self) -> int:
                return 1

            def gone(self) -> int:
                return 1

        class Derived(Plumbing, Base):
            gone = None  # type: ignore[assignment]  # what hides a method hides it

        assert set(methods(Derived)) == {"one"}
        assert methods(WireWorkerUniverse) == {}

    @pytest.mark.parametrize(
        "name",
        ["_private", "__init__", "__class__", "__reduce__", "attribute", "prop", "Nested", "kept", "secret", "nowhere"],
    )
    @inLoop
    async def test_anything_else_is_refused_there_and_logged(self, name: str, tmp_path: Path) -> None:
        async with served("unix", tmp_path) as (_, description, key):
            async with WireQueue(description, None, key=key) as queue:
                with logged() as events:
                    error = await failureOf(queue.call(Method(name), Bomb(tmp_path / "boom")))
                assert isinstance(error, ImplementationError)
                assert f"no public method '{name}'" in str(error)
                assert any(name == event.get("name") and event["log_level"].name == "warn" for event in events)
                assert await queue.call(Method("add"), 1) == 2
        assert not (tmp_path / "boom").exists()

    @inLoop
    async def test_what_is_no_method_of_the_universe_is_not_even_sent(self, tmp_path: Path) -> None:
        async with wired("unix", tmp_path) as queue:
            for f in (pow, Things._private, Gates.one, Method("nowhere")):
                assert "is not one of them" in str(await failureOf(queue.call(f, 1)))

    def test_a_name_cannot_be_called_here(self) -> None:
        with pytest.raises(ImplementationError, match="only a WireWorker"):
            Method("add")(1)

    def test_a_universe_is_found_by_name(self) -> None:
        assert type(load("tests.support.wires.Things")).__name__ == "Things"
        assert type(load("tests.support.wires:Things")).__name__ == "Things"
        for name in ("tests.support.wires.Nothing", "nowhere.At", "", "tests..x"):
            with pytest.raises(ValueError, match="there is no universe"):
                load(name)
        with pytest.raises(ImplementationError, match="a universe is a subclass"):
            load("tests.support.wires.KEY")


class Bomb:
    """Leaves a file at PATH when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


class Silent(Protocol):
    """Ends each connection without a word, and is then among ATTEMPTS: a tunnel at the far end of which nobody is."""

    def __init__(self, attempts: list[Silent]) -> None:
        self.attempts = attempts

    def connectionMade(self) -> None:
        self.attempts.append(self)
        transport: Any = self.transport
        transport.loseConnection()


class TestTrust:
    @pytest.mark.parametrize("kind", ["unix", "tcp"])
    @inLoop
    async def test_another_key_is_refused_on_both_sides(self, kind: str, tmp_path: Path) -> None:
        async with served(kind, tmp_path) as (server, description, _):
            queue = TaskQueue()
            with logged() as events, capturedLogs() as everything:
                hired = queue.attachWorker(WireWorker(Things, description, key=b"this is not that key"))
                error = await failureOf(hired)
                await until(lambda: not server._strangers)
            assert not [event for event in everything if event["log_level"].name == "critical"]
            assert isinstance(error, AuthenticationError)
            assert "does not have the server's key" in str(error)
            assert any("refused {peer}" in event["log_format"] for event in events)
            assert len(queue) == 0
            await queue.shutdown()

    @inLoop
    async def test_no_key_and_no_certificate_is_no_trust(self, tmp_path: Path) -> None:
        async with served("unix", tmp_path) as (_, description, _):
            queue = TaskQueue()
            error = await failureOf(queue.attachWorker(WireWorker(Things, description)))
            assert "the client has no key" in str(error)
            await queue.shutdown()

    @pytest.mark.parametrize("place", ["tcp:0:interface=127.0.0.1", "unix:socket", "tls"])
    @inLoop
    async def test_a_server_to_which_nobody_could_prove_itself_does_not_start(self, place: str, tmp_path: Path) -> None:
        if place == "tls":
            place = Certificates(tmp_path).listen(authenticate=False)
        with pytest.raises(
            AuthenticationError, match=f"at {re.escape(place)} could accept no client: it has neither a key"
        ):
            await WireServer(place, Things).start()
        assert not Path("socket").exists()

    @pytest.mark.parametrize("kind", ["tls", "ssl"])
    @inLoop
    async def test_a_private_key_of_another_certificate_is_found_before_anybody_comes(
        self, kind: str, tmp_path: Path
    ) -> None:
        certificates = Certificates(tmp_path)
        good = certificates.listen()
        if kind == "ssl":  # as Twisted has it
            good = f"ssl:0:interface=127.0.0.1:{certificates.pair('server')}".replace("certificate=", "certKey=")
        key = str(tmp_path / "client.key")
        wrong = good.replace(str(tmp_path / "server.key"), key)
        with pytest.raises(ValueError, match="private key") as raised:
            await WireServer(wrong, Things, key=KEY).start()
        assert key in str(raised.value)
        assert str(tmp_path / "server.pem") in str(raised.value)
        with pytest.raises(ValueError, match="private key") as raised:
            WireWorker(
                Things, certificates.connect(5).replace(str(tmp_path / "client.key"), str(tmp_path / "server.key"))
            )
        await (await WireServer(good, Things, key=KEY).start()).stop()

    @pytest.mark.parametrize(
        ("name", "text", "why"),
        [
            ("server.pem", None, "server.pem cannot be read: No such file"),
            ("server.pem", "nonsense", "there is no certificate, or a damaged one, in"),
            ("server.key", "nonsense", "there is no private key, or a damaged or encrypted one, in"),
            ("roots/ca.pem", "nonsense", "there is no certificate in"),
            ("roots/ca.pem", "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----", "or a damaged one, in"),
        ],
    )
    @inLoop
    async def test_so_is_a_file_that_has_nothing_of_the_kind(
        self, name: str, text: str | None, why: str, tmp_path: Path
    ) -> None:
        server = WireServer(Certificates(tmp_path).listen(), Things)
        if text is None:
            (tmp_path / name).unlink()
        else:
            (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=why):
            await server.start()

    @inLoop
    async def test_a_server_with_another_key_is_not_believed(self, tmp_path: Path) -> None:
        with logged():
            async with served("unix", tmp_path) as (server, description, key):
                server.key = b"somebody else's key"
                queue = WireQueue(description, Things, key=key)
                error = await failureOf(queue.call(Things.add, 1))
                assert "none is trusted" in str(error)
                await queue.shutdown()

    @pytest.mark.parametrize("lacks", ["certificate", "our certificate", "our authority", "our host", "tls"])
    @inLoop
    async def test_whoever_tls_does_not_trust_hears_so_and_the_server_logs_it(self, lacks: str, tmp_path: Path) -> None:
        import trustme

        certificates = Certificates(tmp_path)
        certificates.issue(trustme.CA(), "stranger", "client@example.com")
        server = await WireServer(certificates.listen(), Things).start()
        port = portOf(server)
        description = certificates.connect(port)
        if lacks == "certificate":
            description = certificates.connect(port, None)
        elif lacks == "our certificate":
            description = certificates.connect(port, "stranger")
        elif lacks == "our authority":
            trustme.CA().cert_pem.write_to_path(certificates.roots / "ca.pem")
        elif lacks == "our host":
            description = description.replace("127.0.0.1", "localhost")
        else:
            description = f"tcp:127.0.0.1:{port}"
        key = KEY if lacks == "tls" else None
        with logged() as events:
            queue = TaskQueue()
            hired = queue.attachWorker(WireWorker(Things, description, key=key, reconnect=lambda failures: 0.001))
            error = await failureOf(hired)
            await queue.shutdown()
            await until(lambda: any("peer" in event for event in events))
        assert isinstance(error, AuthenticationError)
        assert ("10 times in a row; does a wire server listen there" if lacks == "tls" else "trust") in str(error)
        told = next(event for event in events if "peer" in event)
        assert told["peer"].startswith("127.0.0.1:")
        assert told["log_format"] == "refused {peer}: {why}"
        assert "TLS reports: " in told["why"], told
        assert not server._clients
        await server.stop()

    @inLoop
    async def test_a_server_that_was_trusted_is_connected_to_until_it_is_there_again(self, tmp_path: Path) -> None:
        from twisted.internet import reactor
        from twisted.internet.endpoints import UNIXServerEndpoint

        attempts: list[Silent] = []
        with logged():
            async with served("unix", tmp_path) as (_, description, _):
                queue = WireQueue(description, Things, key=KEY, reconnect=lambda failures: 0.001)
                assert await queue.call(Things.add, 1) == 2
            tunnel = Factory.forProtocol(lambda: Silent(attempts))
            port = await UNIXServerEndpoint(reactor, str(tmp_path / "socket")).listen(tunnel)
            call = queue.call(Things.add, 2)
            await until(lambda: len(attempts) > 2 * ATTEMPTS)
            await port.stopListening()
            async with served("unix", tmp_path):
                assert await call == 3
                await queue.shutdown()

    @inLoop
    async def test_tls_without_certificates_of_clients_asks_for_the_key(self, tmp_path: Path) -> None:
        certificates = Certificates(tmp_path)
        server = await WireServer(certificates.listen(authenticate=False), Things, key=KEY).start()
        async with WireQueue(certificates.connect(portOf(server), None), Things, key=KEY) as queue:
            assert await queue.call(Things.add, 1) == 2
        await server.stop()

    @inLoop
    async def test_a_unix_socket_is_its_users_alone(self, tmp_path: Path) -> None:
        umask = os.umask(0)
        try:
            async with served("unix", tmp_path):
                assert (tmp_path / "socket").stat().st_mode & 0o777 == 0o600
        finally:
            os.umask(umask)

    def test_a_key_file_is_its_owners_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "key"
        path.write_bytes(b"0123456789abcdef\n")
        for mode in (0o640, 0o604, 0o620, 0o602):
            path.chmod(mode)
            with pytest.raises(AuthenticationError, match="chmod 600"):
                keys.key(path)
        path.chmod(0o600)
        assert keys.key(str(path)) == b"0123456789abcdef"
        with pytest.raises(AuthenticationError, match="cannot be read"):
            keys.key(tmp_path / "none")
        with pytest.raises(AuthenticationError, match="no regular file"):
            keys.key("/dev/null")
        os.mkfifo(tmp_path / "pipe", 0o600)  # which nobody writes to
        with pytest.raises(AuthenticationError, match="no regular file"):
            keys.key(tmp_path / "pipe")

    def test_a_key_has_a_length(self) -> None:
        with pytest.raises(ValueError, match="at least 16 bytes, got 5"):
            keys.key(b"short")

    def test_a_key_comes_from_the_environment(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert keys.key(None) is None
        path = tmp_path / "key"
        path.write_bytes(b"0123456789abcdef")
        path.chmod(0o600)
        monkeypatch.setenv(keys.KEY_FILE, str(path))
        assert keys.key(None) == b"0123456789abcdef"
        monkeypatch.setenv(keys.KEY, "another key of enough bytes")
        assert keys.key(None) == b"another key of enough bytes"


class TestRecalls:
    def test_one_that_the_quota_holds_back_is_never_sent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        reports: list[list[tuple[int, RunOutcome]]] = []
        link = ClientConnection(
            Clock(), "there", None, KEY, False, 1, False, 9.0, 9.0, lambda: None,
            lambda it: reports.append([*it]), plain=True,
        )  # fmt: skip
        transport: Any = StringTransport()  # its type says less than it can do
        link.makeConnection(transport)  # type: ignore[no-untyped-call]  # Twisted leaves it untyped
        link._accept(m.Terms(10, 10_000, 1))
        sent: list[m.Message] = []
        monkeypatch.setattr(link._writer, "add", sent.append)
        sizes = {7: 8_000, 8: 9_000, 9: 10}  # the second has to wait for the first, and the third for the second
        link.give([(n, Task(n, CallSpec(Method("echo"), (bytes(size),)))) for n, size in sizes.items()], False)
        link.recall()
        assert reports == [[(8, Recalled()), (9, Recalled())]]
        assert [message.id for message in sent if isinstance(message, m.Call)] == [1]
        assert m.Recall() in sent
        link.connectionLost()


class TestRefusals:
    def test_what_a_server_says_is_one_line_without_commands_to_a_terminal(self) -> None:
        link = ClientConnection(Clock(), "there", None, KEY, False, 1, False, 9.0, 9.0, lambda: None, lambda _: None)
        link.receiveOther(
            m.Refused(0, "go\n2026 [asynqueue] \x1b[2Jall is \u202ewell, é \udcff".encode(errors="replace"))
        )
        said = link.reason.removeprefix("there ended the connection: ")
        assert said == r"go\n2026 [asynqueue] \x1b[2Jall is \u202ewell, é ?"
        link.receiveOther(m.Refused(0, b"x" * 1_000_000))
        assert len(link.reason) < 1_100

    @inLoop
    async def test_a_frame_that_no_wire_has_ends_the_connection(self, tmp_path: Path) -> None:
        async with served("unix", tmp_path) as (server, description, key):
            with logged() as events:
                queue = WireQueue(description, Things, key=key, reconnect=False)
                assert await queue.call(Things.add, 1) == 2
                (client,) = server._clients
                transport: Any = client.transport
                transport.write(struct.pack("<IB", 1 << 17, 20))
                await until(lambda: not server._clients)
                await queue.shutdown()
            assert any("exceeds the limit of 65536" in str(event.get("error")) for event in events)


def linkOf(queue: TaskQueue) -> ClientConnection:
    """The link of the one worker of QUEUE, which is connected."""
    (worker,) = queue.workers()
    assert isinstance(worker, WireWorker)
    assert worker._link is not None
    return worker._link


class TestAServerThatLies:
    @inLoop
    async def test_about_an_iterator_of_a_call_that_has_ended_delays_no_shutdown(self, tmp_path: Path) -> None:
        async with served("unix", tmp_path) as (server, description, key):
            queue = WireQueue(description, Things, key=key)
            assert await queue.call(Things.add, 1) == 2
            (client,) = server._clients
            client.send(m.Opened(1, 0.0))
            assert await queue.call(Things.add, 2) == 3
            await queue.shutdown()

    @inLoop
    async def test_about_a_call_that_was_never_made_is_left(self, tmp_path: Path) -> None:
        async with served("unix", tmp_path) as (server, description, key):
            with logged() as events:
                queue = WireQueue(description, Things, key=key, reconnect=False)
                assert await queue.call(Things.add, 1) == 2
                (client,) = server._clients
                client.send(m.Returned(77, 0.0, bytes(1 << 20)))
                await until(lambda: not server._clients)
                await queue.shutdown()
            assert any("of an answer to call 77, which was never made" in str(event.get("error")) for event in events)

    @inLoop
    async def test_and_goes_on_answering_what_was_answered_has_nothing_held(self, tmp_path: Path) -> None:
        async with served("unix", tmp_path) as (server, description, key):
            async with WireQueue(description, Things, key=key) as queue:
                assert await queue.call(Things.add, 1) == 2
                (client,) = server._clients
                client.send(m.Returned(1, 0.0, bytes(1 << 20)))
                assert await queue.call(Things.add, 2) == 3
                await until(lambda: not client._writer.size)
                assert await queue.call(Things.add, 2) == 3
                decoder = linkOf(queue)._decoder
                assert (decoder._heldBytes, decoder._dropped) == (0, set())


class TestWhatAWorkerHolds:
    @inLoop
    async def test_an_answer_that_is_larger_fails_alone(self, tmp_path: Path) -> None:
        async with wired("unix", tmp_path, messages=1_000_000) as queue:
            calls = [queue.call(Things.add, n) for n in range(3)]
            with pytest.raises(SerializationError, match=r"answers with more than 1000000 bytes.* messages="):
                await queue.call(Things.big, 3_000_000)
            assert await gatherResults(calls) == [1, 2, 3]
            with pytest.raises(SerializationError, match="answers with more than 1000000 bytes"):
                await drained(await queue.call(Things.chunks, 3, 3_000_000))
            assert len(await queue.call(Things.big, 900_000)) == 900_000
            assert await drained(await queue.call(Things.chunks, 3, 300_000)) == [bytes(300_000)] * 3

    @inLoop
    async def test_nothing_of_a_large_answer_that_is_not_wanted_any_more(self, tmp_path: Path) -> None:
        async with wired("unix", tmp_path, N_concurrent=2) as queue:
            assert await queue.call(Things.add, 1) == 2
            large = queue.call(Things.big, 60_000_000)
            await until(lambda: linkOf(queue)._decoder._heldBytes > 2 << 20)
            large.addErrback(lambda reason: reason.trap(CancelledError))
            large.cancel()
            assert linkOf(queue)._decoder._heldBytes == 0
            assert await queue.call(Things.add, 1) == 2


class TestLimits:
    @inLoop
    async def test_of_connections(self, tmp_path: Path) -> None:
        async with served("unix", tmp_path, limits=Limits(connections=1)) as (_, description, key):
            async with WireQueue(description, Things, key=key) as queue:
                assert await queue.call(Things.add, 1) == 2
                with logged() as events:
                    other = WireQueue(description, Things, key=key, reconnect=False)
                    await failureOf(other.call(Things.add, 1))
                (refusal,) = [event for event in events if event["log_format"] == "refused {peer}: {why}"]
                assert re.fullmatch(r"the server takes \d clients at once, by its limit connections .*", refusal["why"])
                assert refusal["peer"] == f"a client of {tmp_path / 'socket'}"
                await other.shutdown()
                assert await queue.call(Things.add, 1) == 2

    @inLoop
    async def test_of_iterations(self, tmp_path: Path) -> None:
        async with served("unix", tmp_path, limits=Limits(iterations=2)) as (_, description, key):
            async with WireQueue(description, Things, key=key) as queue:
                open_ = [await queue.call(Things.count, 1000) for _ in range(2)]
                with logged():
                    error = await failureOf(queue.call(Things.count, 1000))
                assert isinstance(error, WorkerError)
                assert "no more than 2 iterators" in str(error)
                for items in open_:
                    items.stop()

    @inLoop
    async def test_a_call_that_is_larger_than_all_that_is_taken_fails_alone(self, tmp_path: Path) -> None:
        async with served("unix", tmp_path, limits=Limits(messages=100_000)) as (_, description, key):
            async with WireQueue(description, Things, key=key) as queue:
                calls = [queue.call(Things.add, n) for n in range(5)]
                error = await failureOf(queue.call(Things.echo, bytes(200_000)))
                assert isinstance(error, SerializationError)
                assert "takes no more than 100000 of a client at once" in str(error)
                assert await gatherResults(calls) == [1, 2, 3, 4, 5]

    @pytest.mark.parametrize(
        "limits",
        [Limits(running=4), Limits(messages=300_000), Limits(calls=4)],
        ids=["running", "messages", "calls"],
    )
    @inLoop
    async def test_a_client_keeps_to_what_the_server_takes(self, limits: Limits, tmp_path: Path) -> None:
        async with served("unix", tmp_path, limits=limits) as (_, description, key):
            with logged() as events:
                async with WireQueue(description, Things, key=key, N_concurrent=8) as queue:
                    calls = [queue.call(Things.soon, bytes(100_000), 0.001) for _ in range(40)]
                    for call in calls[10:20]:
                        call.addErrback(lambda reason: reason.trap(CancelledError))
                        call.cancel()
                    await gatherResults(calls)
                    assert await drained(await queue.call(Things.count, 300)) == list(range(300))
            told = [event for event in events if "calls at once for a client" in event["log_format"]]
            assert len(told) == (limits.running == 4)
            assert events == told, "nobody was refused"

    @inLoop
    async def test_what_waited_for_room_comes_back_when_the_connection_is_lost(self, tmp_path: Path) -> None:
        path = tmp_path / "marks"
        async with served("unix", tmp_path, limits=Limits(calls=2)) as (server, description, key):
            queue = WireQueue(description, Things, key=key, reconnect=lambda failures: 0.01)
            hung = queue.call(Things.hang, path, retries=0)
            await until(path.exists)
            calls = [queue.call(Things.add, n, retries=0) for n in range(9)]
            with logged():
                next(iter(server._clients)).abort()
                assert isinstance(await failureOf(hung), WorkerLost)
                assert await gatherResults(calls) == list(range(1, 10))
                await queue.shutdown()

    @inLoop
    async def test_whoever_is_one_client_too_many_comes_in_when_another_leaves(self, tmp_path: Path) -> None:
        async with served("unix", tmp_path, limits=Limits(connections=1)) as (_, description, key):
            with logged() as events:
                first = WireQueue(description, Things, key=key)
                assert await first.call(Things.add, 1) == 2
                failures: list[int] = []

                def soon(failed: int) -> float:
                    failures.append(failed)
                    return 0.01

                second = WireQueue(description, Things, key=key, reconnect=soon)
                call = second.call(Things.add, 2)
                await until(lambda: len(failures) > 3)
                assert failures[:4] == [1, 2, 3, 4], "each attempt that is refused has failed"
                await first.shutdown()
                assert await call == 3
                await second.shutdown()
            assert any("clients at once, by its limit connections" in str(event.get("error")) for event in events)

    @inLoop
    async def test_of_the_time_in_which_to_prove_oneself(self, tmp_path: Path) -> None:
        async with served("unix", tmp_path, limits=Limits(patience=0.05)) as (server, _, _):
            with logged() as events, socket.socket(socket.AF_UNIX) as stranger:
                stranger.connect(str(tmp_path / "socket"))
                await until(lambda: bool(server._strangers))
                await until(lambda: not server._strangers)
                assert stranger.recv(1) == b""
            assert "did not prove itself within 0.05 seconds" in str(events[0].get("why"))

    def test_none_is_nothing(self) -> None:
        with pytest.raises(ValueError, match="the limit calls must be above 0"):
            Limits(calls=0)


class TestConnections:
    @inLoop
    async def test_one_that_cannot_be_made_is_no_worker(self, tmp_path: Path) -> None:
        queue = TaskQueue()
        with logged():
            hired = queue.attachWorker(WireWorker(Things, f"unix:{tmp_path / 'none'}", key=KEY, reconnect=False))
            assert "cannot be reached" in str(await failureOf(hired))
        await queue.shutdown()

    @inLoop
    async def test_it_is_made_when_there_is_a_server(self, tmp_path: Path) -> None:
        with logged():
            queue = WireQueue(f"unix:{tmp_path / 'socket'}", Things, key=KEY, reconnect=lambda failures: 0.02)
            d = queue.call(Things.add, 1)
            async with served("unix", tmp_path):
                assert await d == 2
                await queue.shutdown()

    @inLoop
    async def test_one_that_is_lost_is_made_again_and_work_goes_on(self, tmp_path: Path) -> None:
        async with served("tcp", tmp_path) as (server, description, key):
            async with WireQueue(description, Things, key=key, reconnect=lambda failures: 0.01) as queue:
                for _ in range(3):
                    with logged():
                        calls = [queue.call(Things.soon, n, 0.001, retries=9) for n in range(50)]
                        await until(getattr, calls[5], "called")
                        next(iter(server._clients)).abort()
                        assert await gatherResults(calls) == list(range(50))

    @inLoop
    async def test_a_queue_shuts_down_though_its_worker_is_away(self, tmp_path: Path) -> None:
        with logged():
            queue = WireQueue(f"unix:{tmp_path / 'none'}", Things, key=KEY)
            d = queue.call(Things.add, 1)
            await queue.shutdown()
            assert "was not run" in str(await failureOf(d))

    @inLoop
    async def test_a_worker_that_crashes_gives_what_it_had(self, tmp_path: Path) -> None:
        path = tmp_path / "marks"
        async with served("unix", tmp_path) as (_, description, key):
            queue = TaskQueue()
            worker = WireWorker(Things, description, key=key)
            await queue.attachWorker(worker)
            d = queue.call(Things.hang, path)
            await until(path.exists)
            (task,) = await queue.detachWorker(worker, crash=True)
            assert task.call.f == Things.hang
            assert isinstance(await failureOf(d), WorkerLost)
            await until(lambda: "cancelled" in marks(path))
            await queue.shutdown()

    @pytest.mark.parametrize(
        "kw", [{"N_concurrent": 0}, {"N_concurrent": 1.5}, {"silence": 0}, {"messages": 0}, {"key": b"short"}]
    )
    def test_what_makes_no_sense_is_refused(self, kw: Any) -> None:
        with pytest.raises(ValueError, match="must"):
            WireWorker(Things, "unix:/tmp/x", **kw)

    @pytest.mark.parametrize(
        "description",
        ["", "nonsense:5", "tcp:x", "tcp:99999", "tls:5", "tls:x:certificate=a:privateKey=b", "tls:99999", "unix:"],
    )
    @inLoop
    async def test_a_server_says_what_is_wrong_with_its_description(self, description: str) -> None:
        with pytest.raises(ValueError, match=re.escape(repr(description))):
            await WireServer(description, Things, key=KEY).start()

    @pytest.mark.parametrize(
        "description",
        ["", "nonsense:5", "tcp:here:x", "tcp:here:99999", "tcp:here:port=-1", "tls:here:5:trustRoots=/nowhere"],
    )
    @inLoop
    async def test_and_a_worker_before_it_is_attached(self, description: str) -> None:
        with pytest.raises(ValueError, match=re.escape(f"{description!r} is no description of a client endpoint: ")):
            WireWorker(Things, description, key=KEY)
