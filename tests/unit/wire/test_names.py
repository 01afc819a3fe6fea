"""Calls of methods by their names, which only the workers of wires take."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, gatherResults

from asynqueue import ProcessQueue, TaskQueue, ThreadWorker, WireWorker
from asynqueue.errors import ImplementationError, QueueRunError
from asynqueue.queue.options import ByName
from asynqueue.wire import ServerManager, WireServer, WireWorkerUniverse
from tests.support.calls import Collector, drained, failureOf, inLoop
from tests.support.wires import KEY, Things, served, wired


class TestCallsByName:
    @inLoop
    async def test_call_update_and_map_take_the_name_of_a_method(self, tmp_path: Path) -> None:
        async with wired("unix", tmp_path) as queue:
            assert await queue.call("add", 1, b=2) == 3
            assert await queue.call("add", 1, niceness=5, doNext=True) == 2
            assert await queue.update("add", 1, b=2) == [3]
            assert await drained(queue.map("add", [1, 2])) == [2, 3]
            consumer = Collector([])
            assert await queue.call("count", 3, consumer=consumer) is consumer
            assert consumer.got == [0, 1, 2]

    def test_have_a_series_that_no_user_has(self) -> None:
        assert ByName("a") == ByName("a") != ByName("b")
        assert ByName("a") not in {"a", ("a",), ("a", None)}

    @inLoop
    async def test_a_name_of_no_method_fails_that_call(self, tmp_path: Path) -> None:
        async with wired("unix", tmp_path) as queue:
            error = await failureOf(queue.call("nothing"))
            assert isinstance(error, ImplementationError)
            assert "public methods of Things" in str(error)

    @pytest.mark.parametrize("kind", [lambda: TaskQueue(ThreadWorker()), lambda: ProcessQueue(1)])
    @inLoop
    async def test_a_queue_without_a_wire_refuses_names(self, kind: Any) -> None:
        async with kind() as queue:
            for refused in queue.call, queue.update, queue.map:
                with pytest.raises(TypeError, match="got 'add': only a WireWorker calls a method by its name"):
                    refused("add", [1])

    @inLoop
    async def test_in_a_mixed_queue_only_the_wire_is_given_names(self, tmp_path: Path) -> None:
        async with served("unix", tmp_path) as (_, description, key):
            queue = TaskQueue(*(ThreadWorker(["both", "b"]) for _ in range(3)))
            wire = WireWorker(wwu=Things, description=description, series=["both", "w"], key=key)
            await queue.attachWorker(wire)
            async with queue:
                for series in None, "both", "w":
                    assert await gatherResults([queue.call("add", n, series=series) for n in range(20)]) == list(
                        range(1, 21)
                    )
                assert await queue.update("add", 1, series="both") == [2]
                queue.qualifyWorker(wire, "more")
                assert await queue.call("add", 1, series="more") == 2
                held = [queue.call("add", 1, series=series) for series in ("b", "none")]
                queue.cancelSeries("b")
                assert isinstance(await failureOf(held[0]), CancelledError)
                assert set(queue.stats().bySeries) == {None, "both", "w", "more", "b"}
            assert isinstance(await failureOf(held[1]), QueueRunError)

    @inLoop
    async def test_names_wait_in_an_empty_queue_for_a_wire(self, tmp_path: Path) -> None:
        async with served("unix", tmp_path) as (_, description, key):
            queue = TaskQueue()
            update, call = queue.update("add", 1), queue.call("add", 3)
            await queue.attachWorker(ThreadWorker())
            await queue.attachWorker(WireWorker(Things(), description, key=key))
            assert await update == []
            assert await call == 4
            await queue.shutdown()


class Served(WireWorkerUniverse):
    """Knows its server, as universes for 0.9 do."""

    def __init__(self, ws: WireServer) -> None:
        super().__init__(ws)

    def address(self) -> str:
        assert self.ws is not None
        return type(self.ws.address).__name__


class Plain(WireWorkerUniverse):
    def __init__(self, numbers: tuple[int, ...] = (1, 2)) -> None:
        self.numbers = numbers


class TestTheServerOfAUniverse:
    @inLoop
    async def test_is_its_attribute_ws(self, tmp_path: Path) -> None:
        async with served("unix", tmp_path, Served) as (server, description, key):
            assert server.universe.ws is server
            queue = TaskQueue(WireWorker(Served, description, key=key))
            assert await queue.call("address") == "UNIXAddress"
            with pytest.raises(ImplementationError, match="public methods of Served"):
                await queue.call("check", 1)
            await queue.shutdown()

    def test_is_passed_to_a_class_and_set_on_an_object(self) -> None:
        for universe in WireWorkerUniverse, Plain, Plain((3,)), "tests.unit.wire.test_names.Served":
            server = WireServer("unix:/nowhere", wwu=universe, key=KEY)
            assert server.universe.ws is server
        assert WireWorkerUniverse("the server").ws == "the server"  # type: ignore[arg-type,comparison-overlap]  # 0.9's
        made = WireServer("unix:/nowhere", Plain, key=KEY).universe
        assert isinstance(made, Plain)
        copy = pickle.loads(pickle.dumps(made))
        assert (copy.numbers, copy.ws) == ((1, 2), None)
        assert Plain().numbers == (1, 2)

    def test_check_refuses_what_is_no_universe(self) -> None:
        WireWorkerUniverse.check(Plain())
        with pytest.raises(ImplementationError, match="an object of a subclass of WireWorkerUniverse, got 5"):
            WireWorkerUniverse.check(5)


def test_a_manager_takes_the_name_of_09() -> None:
    assert ServerManager(wwuFQN="sums.Sums", key=KEY).universeName == "sums.Sums"
