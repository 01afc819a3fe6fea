"""A user's keywords are the user's, whatever they are called."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from asynqueue import AsyncWorker, CallSpec, Deferator, DeferredLock, Delay, OrderedItemProducer, TaskQueue, ThreadQueue
from asynqueue.iteration import Prefetcherator
from asynqueue.reactor.calling import make
from asynqueue.testing import MemoryWorker
from asynqueue.threads import Consumerator, PoolUser
from asynqueue.util import callAfterDeferred
from tests.support.calls import inLoop
from tests.support.deferreds import outcomes, resultOf

NAMES: dict[str, Any] = dict.fromkeys(
    ["self", "cls", "f", "fb", "fp", "func", "callable", "checker", "reactor", "namespace", "dName", "onResult", "spec"]
)
"""Keywords that some function on a call's way has a parameter of."""


def given(*args: Any, **kw: Any) -> dict[str, Any]:
    return kw


async def givenLater(*args: Any, **kw: Any) -> dict[str, Any]:
    return kw


class TestInTheLoop:
    @pytest.mark.parametrize("f", [given, givenLater])
    @pytest.mark.parametrize("kind", [lambda clock: AsyncWorker(reactor=clock), MemoryWorker])
    def test_of_a_call_of_an_update_and_of_a_spec(self, kind: Callable[[Clock], Any], f: Callable[..., Any]) -> None:
        clock = Clock()
        queue = TaskQueue(kind(clock), reactor=clock)
        results = [outcomes(queue.call(f, **NAMES)), outcomes(queue.submit(CallSpec.of(f, **NAMES)))]
        updates = outcomes(queue.update(f, **NAMES))
        clock.pump([0] * 6)
        assert results == [[NAMES], [NAMES]]
        assert updates == [[NAMES]]

    def test_of_what_is_called_now(self) -> None:
        assert resultOf(make(given, (), NAMES)) == NAMES
        assert resultOf(make(givenLater, (), NAMES)) == NAMES

    def test_of_what_is_called_with_a_lock(self) -> None:
        lock, seen = DeferredLock(), list[Any]()
        assert resultOf(lock.acquireAndRelease(given, **NAMES)) == NAMES
        lock.addStopper(lambda **kw: seen.append(kw), **NAMES)
        resultOf(lock.stop())
        assert seen == [NAMES]

    def test_of_what_is_called_after_a_deferred(self) -> None:
        class Later:
            d: Deferred[None] = Deferred()

        assert resultOf(callAfterDeferred(Later, "none", given, **NAMES)) == NAMES
        after = callAfterDeferred(Later, "d", given, **NAMES)
        Later.d.callback(None)
        assert resultOf(after) == NAMES

    def test_of_what_looks_for_an_event(self) -> None:
        assert resultOf(Delay(reactor=Clock()).untilEvent(lambda **kw: kw == NAMES, **NAMES)) is True

    @inLoop
    async def test_of_what_fetches_items(self) -> None:
        items: Iterator[Any] = iter([1])

        def triple(**kw: Any) -> tuple[Any, bool, bool]:
            return kw, True, False

        def plain(**kw: Any) -> Any:
            next(items)
            return kw

        deferator: Deferator[Any] = Deferator("rep", triple, limit=5, **NAMES)
        assert [await d for d in deferator] == [NAMES | {"limit": 5}]
        fetched: Prefetcherator[Any] = Prefetcherator(reactor=Clock())
        assert resultOf(fetched.setup(plain, **NAMES)) is True
        assert resultOf(fetched.getNext())[0] == NAMES


class TestInThreads:
    @inLoop
    async def test_of_a_call_of_the_pool_and_of_a_queue(self) -> None:
        assert await PoolUser.deferToThreadInPool(given, **NAMES) == NAMES
        await PoolUser.shutdown()
        async with ThreadQueue() as queue:
            assert await queue.call(given, **NAMES) == NAMES
            assert await queue.deferToThread(given, **NAMES) == NAMES

    @inLoop
    async def test_of_the_sides_of_a_bridge(self) -> None:
        consumerator: Consumerator[int] = Consumerator()
        assert await consumerator.runInThread(given, **NAMES) == NAMES
        producer: OrderedItemProducer[Any] = OrderedItemProducer()
        await producer.start(lambda items, **kw: [kw, *items], **NAMES)
        assert await producer.produceItem(given, **NAMES) == NAMES
        assert await producer.stop() == [NAMES, NAMES]
        await PoolUser.shutdown()
