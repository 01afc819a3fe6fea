"""A coroutine is welcome wherever a Deferred is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.defer import succeed

from asynqueue import (
    DeferredLock,
    Delay,
    ListConsumer,
    NullQueue,
    OrderedItemProducer,
    Prefetcherator,
    ProcessWorker,
    TaskQueue,
    ThreadQueue,
    deferToDelay,
    showResult,
)
from asynqueue.bridges import PoolUser
from asynqueue.util import callAfterDeferred
from tests.support.calls import failureOf, inLoop


async def doubled(x: int) -> int:
    """Twice X, in a while."""
    await deferToDelay(0.001)
    return 2 * x


async def queued() -> object:
    async with NullQueue() as queue:
        return await queue.call(doubled, 21)


async def mapped() -> object:
    async with NullQueue() as queue:
        return await next(queue.map(doubled, [21]))


async def updated() -> object:
    async with NullQueue() as queue:
        return (await queue.update(doubled, 21))[0]


async def inAProcess() -> object:
    async with TaskQueue(ProcessWorker(useReactor=True)) as queue:
        return await queue.call(doubled, 21)


async def checked() -> object:
    async def happened() -> bool:
        return await doubled(21) == 42

    return await Delay().untilEvent(happened) and 42


async def locked() -> object:
    return await DeferredLock().acquireAndRelease(doubled, 21)


async def stopped() -> object:
    lock, got = DeferredLock(), []

    async def stopper() -> None:
        got.append(await doubled(21))

    lock.addStopper(stopper)
    await lock.stop()
    return got[0]


async def afterwards() -> object:
    return await callAfterDeferred(SimpleNamespace(ready=succeed(None)), "ready", doubled, 21)


async def produced() -> object:
    def consume(items: Iterator[int]) -> int:
        return next(items)

    producer = OrderedItemProducer[int]()
    await producer.start(consume)
    producer.produceItem(doubled, 21)
    result = await producer.stop()
    await PoolUser.shutdown()
    return result


async def processed() -> object:
    consumer = ListConsumer(processItem=doubled)
    producer: Any = SimpleNamespace(pauseProducing=int, resumeProducing=int, stopProducing=int)
    consumer.registerProducer(producer, True)
    consumer.write(21)
    consumer.unregisterProducer()
    return (await consumer())[0]


async def fetched() -> object:
    async def fetch() -> int:
        return await doubled(21)

    prefetcherator = Prefetcherator[int]()
    await prefetcherator.setup(fetch)
    item, _, _ = await prefetcherator.getNext()
    prefetcherator.stop()
    return item


async def shown() -> object:
    return await showResult(doubled)(21)


@pytest.mark.parametrize(
    "place",
    [
        *(queued, mapped, updated, inAProcess, checked, locked, stopped, afterwards),
        *(produced, processed, fetched, shown),
    ],
)
@inLoop
async def test_one_is_welcome_where_a_deferred_is(place: Callable[[], Awaitable[object]]) -> None:
    assert await place() == 42


@inLoop
async def test_a_thread_waits_for_none_and_says_so() -> None:
    async with ThreadQueue() as queue:
        error = await failureOf(queue.call(doubled, 21))
    assert isinstance(error, TypeError)
    assert str(error) == "doubled(21) returned a coroutine, which its worker does not wait for"
