"""What becomes of calls when a server is killed, freezes or is cut off: each settles by the rules, and work goes on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.endpoints import TCP4ServerEndpoint, clientFromString
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from asynqueue import TaskQueue, WireQueue, WireWorker
from asynqueue.errors import WorkerLost
from asynqueue.wire import ServerManager
from tests.support.calls import drained, failureOf, inLoop, marks, until
from tests.support.deferreds import logged
from tests.support.wires import KINDS, Things, places, portOf, served

THINGS = "tests.support.wires.Things"


def soon(failures: int) -> float:
    """The seconds before a connection is tried again, here."""
    return 0.02


@asynccontextmanager
async def managed() -> AsyncIterator[ServerManager]:
    manager = ServerManager(THINGS)
    try:
        yield manager
    finally:
        await manager.shutdown()


@pytest.mark.parametrize("kind", KINDS)
class TestAServerThatIsKilled:
    @inLoop
    async def test_under_load_loses_nothing_and_doubles_nothing(self, kind: str, tmp_path: Path) -> None:
        path = tmp_path / "starts"
        async with managed() as manager:
            there, here = places(kind, manager, tmp_path)
            pid = await manager.spawn(there)
            with logged():
                queue = WireQueue(here, Things, key=manager.key, reconnect=soon)
                calls = [queue.call(Things.mark, path, n) for n in range(400)]
                await until(lambda: sum(c.called for c in calls) > 100)
                os.kill(pid, signal.SIGKILL)
                await manager.done(pid)
                await manager.spawn(there)
                results = await DeferredList(calls, consumeErrors=True)
            assert all(success for success, _ in results)
            assert set(marks(path)) == {str(n) for n in range(400)}
            assert set(marks(path).values()) <= {1, 2}
            assert sum(marks(path).values()) <= 401, "only what was running was started again"
            await queue.shutdown()

    @inLoop
    async def test_by_a_poisonous_call_charges_no_neighbour(self, kind: str, tmp_path: Path) -> None:
        path = tmp_path / "starts"
        async with managed() as manager:
            there, here = places(kind, manager, tmp_path)
            await manager.spawn(there)
            with logged():
                queue = WireQueue(here, Things, key=manager.key, reconnect=soon)
                await DeferredList([queue.call(Things.add, n) for n in range(300)])  # so that its window is wide
                before = [queue.call(Things.mark, path, f"a{n}", retries=0) for n in range(20)]
                poison = queue.call(Things.die, path, "poison")
                after = [queue.call(Things.mark, path, f"b{n}", retries=0) for n in range(20)]
                for deaths in (1, 2):
                    await until(_isMarked, path, "poison", deaths)
                    await manager.done()
                    await manager.spawn(there)
                assert isinstance(await failureOf(poison), WorkerLost)
                results = await DeferredList([*before, *after], consumeErrors=True)
            assert all(success for success, _ in results)
            assert {what: n for what, n in marks(path).items() if n > 1} == {"poison": 2}
            await queue.shutdown()


def _isMarked(path: Path, what: str, times: int) -> bool:
    return marks(path)[what] == times


class TestAServerThatFreezes:
    @pytest.mark.parametrize("kind", KINDS)
    @inLoop
    async def test_is_given_up_within_the_silence_and_used_again_when_it_is_back(
        self, kind: str, tmp_path: Path
    ) -> None:
        path = tmp_path / "starts"
        async with managed() as manager:
            there, here = places(kind, manager, tmp_path)
            pid = await manager.spawn(there)
            with logged() as events:
                queue = WireQueue(here, Things, key=manager.key, reconnect=soon, silence=0.8)
                hung = queue.call(Things.hang, path, retries=0)
                await until(path.exists)
                os.kill(pid, signal.SIGSTOP)
                frozen = time.monotonic()
                assert isinstance(await failureOf(hung), WorkerLost)
                assert 0.5 < time.monotonic() - frozen < 0.8 + 1.0  # with a second for a busy machine
                call = queue.call(Things.add, 1)
                os.kill(pid, signal.SIGCONT)
                assert await call == 2
                await queue.shutdown()
            assert any("was silent for 0.8 seconds" in str(event.get("why")) for event in events)

    @inLoop
    async def test_gives_its_calls_to_another(self, tmp_path: Path) -> None:
        async with managed() as manager:
            sockets = [manager.newSocket(), manager.newSocket()]
            pids = [await manager.spawn(socket) for socket in sockets]
            with logged():
                workers = [WireWorker(Things, socket, key=manager.key, silence=0.6) for socket in sockets]
                queue = TaskQueue()
                for worker in workers:
                    await queue.attachWorker(worker)
                os.kill(pids[0], signal.SIGSTOP)
                assert await DeferredList([queue.call(Things.pid) for _ in range(20)]) == [(True, pids[1])] * 20
                os.kill(pids[0], signal.SIGKILL)
                await queue.shutdown()


class Pipe(Protocol):
    """One end of a proxied connection."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.peer: Pipe | None = None
        self.waiting = b""

    def connectionMade(self) -> None:
        self.proxy.pipes.append(self)

    def dataReceived(self, data: bytes) -> None:
        self.proxy.passed(self, data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.proxy.pipes.remove(self)
        if self.peer is not None:
            transport: Any = self.peer.transport
            transport.loseConnection()


class Proxy(Factory):
    """Passes on what passes between clients and the server at DESCRIPTION, until it has passed LIMIT bytes."""

    noisy = False

    def __init__(self, description: str) -> None:
        self.description = description
        self.limit: float = float("inf")
        self.pipes: list[Pipe] = []
        self.cuts = 0

    def buildProtocol(self, addr: Any) -> Pipe:
        from twisted.internet import reactor

        here, there = Pipe(self), Pipe(self)
        here.peer, there.peer = there, here

        def connected(_: object) -> None:
            transport: Any = there.transport
            transport.write(here.waiting)

        endpoint = clientFromString(reactor, self.description)
        endpoint.connect(Factory.forProtocol(lambda: there)).addCallbacks(connected, lambda _: None)
        return here

    def passed(self, pipe: Pipe, data: bytes) -> None:
        sent, self.limit = data[: int(min(self.limit, len(data)))], self.limit - len(data)
        peer = pipe.peer
        assert peer is not None
        transport: Any = peer.transport
        if transport is None:
            peer = pipe
            peer.waiting += sent
        else:
            transport.write(sent)
        if self.limit <= 0:
            self.limit = float("inf")
            self.cuts += 1
            for each in self.pipes:
                end: Any = each.transport
                end.loseConnection()


@pytest.mark.parametrize("kind", ["unix", "tls"])
@pytest.mark.parametrize("limit", [3, 70, 1_000, 200_000, 2_000_000])
@inLoop
async def test_a_connection_cut_in_the_middle_of_a_frame_is_made_again_and_work_goes_on(
    limit: int, kind: str, tmp_path: Path
) -> None:
    from twisted.internet import reactor

    async with served(kind, tmp_path) as (server, description, key):
        proxy = Proxy(description if kind == "unix" else f"tcp:127.0.0.1:{portOf(server)}")
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(proxy)
        address: Any = port.getHost()
        target = f"tcp:127.0.0.1:{address.port}"
        if kind == "tls":
            target = description.replace(f":{portOf(server)}:", f":{address.port}:")
        with logged():
            queue = WireQueue(target, Things, key=key, reconnect=soon)
            if limit > 100:
                await queue.call(Things.add, 1)
            proxy.limit = limit
            calls: list[Deferred[Any]] = [queue.call(Things.echo, bytes(300_000), retries=5) for _ in range(4)]
            items = drained(await queue.call(Things.count, 500, retries=5)) if limit == 3 else None
            assert await DeferredList(calls) == [(True, bytes(300_000))] * 4
            assert proxy.cuts == 1
            if items is not None:
                assert await items == list(range(500))
            await queue.shutdown()
        await port.stopListening()
        await until(lambda: not proxy.pipes)


@inLoop
async def test_a_wire_whose_other_end_is_silent_is_given_up_by_the_server_too(tmp_path: Path) -> None:
    async with served("tcp", tmp_path, silence=0.3) as (server, description, key):
        proxy = Proxy(description)
        from twisted.internet import reactor

        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(proxy)
        address: Any = port.getHost()
        with logged() as events:
            queue = WireQueue(f"tcp:127.0.0.1:{address.port}", Things, key=key, reconnect=False)
            await queue.call(Things.add, 1)
            proxy.passed = lambda pipe, data: None  # type: ignore[method-assign]  # the network swallows all
            await until(lambda: not server._clients)
            await queue.shutdown()
        assert any("silent for 0.3 seconds" in str(event.get("why")) for event in events)
        await port.stopListening()
        await until(lambda: not proxy.pipes)
        assert portOf(server)
