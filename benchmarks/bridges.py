"""Pass a million small items between a thread and the loop, each way: items a second, and whether memory stays flat.

python benchmarks/bridges.py [ITEMS]
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from time import perf_counter

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPullProducer, IPushProducer
from twisted.internet.task import react
from zope.interface import implementer

from asynqueue.bridges import Consumerator, Filerator, OrderedItemProducer, PoolUser


@implementer(IPushProducer)
class Push:
    """Writes 0, 1, 2 ... to its consumer until it is paused."""

    def __init__(self, consumer: Consumerator[int], count: int) -> None:
        self.consumer, self.count = consumer, count
        self.next = 0
        self.paused = True
        consumer.registerProducer(self, True)

    def resumeProducing(self) -> None:
        self.paused = False
        while not self.paused and self.next < self.count:
            self.next += 1
            self.consumer.write(self.next - 1)
        if not self.paused and self.next == self.count:
            self.paused = True
            self.consumer.unregisterProducer()

    def pauseProducing(self) -> None:
        self.paused = True

    def stopProducing(self) -> None:
        self.paused = True


@implementer(IPullProducer)
class Pull:
    """Writes one number for each request."""

    def __init__(self, consumer: Consumerator[int], count: int) -> None:
        self.consumer, self.count = consumer, count
        self.next = 0
        consumer.registerProducer(self, False)

    def resumeProducing(self) -> None:
        self.next += 1
        self.consumer.write(self.next - 1)
        if self.next == self.count:
            self.consumer.unregisterProducer()

    def stopProducing(self) -> None:
        pass


def addUp(items: Iterator[int]) -> int:
    """Return the sum of ITEMS, which have to be 0, 1, 2 ..."""
    total = 0
    for number, item in enumerate(items):
        assert item == number
        total += item
    return total


def writeAll(filerator: Filerator[int], count: int) -> None:
    with filerator:
        filerator.writelines(range(count))


async def pushed(count: int) -> int:
    consumerator = Consumerator[int]()
    total = consumerator.runInThread(addUp)
    Push(consumerator, count).resumeProducing()
    return await total


async def pulled(count: int) -> int:
    consumerator = Consumerator[int]()
    total = consumerator.runInThread(addUp)
    Pull(consumerator, count)
    return await total


async def filedToLoop(count: int) -> int:
    filerator = Filerator[int]()
    written = PoolUser.deferToThreadInPool(writeAll, filerator, count)
    total = 0
    async for item in filerator:
        total += item
    await written
    return total


async def filedToThread(count: int) -> int:
    filerator = Filerator[int]()
    written = PoolUser.deferToThreadInPool(writeAll, filerator, count)
    total = await filerator.runInThread(addUp)
    await written
    return total


async def filedFromLoop(count: int) -> int:
    filerator = Filerator[int]()
    total = filerator.runInThread(addUp)
    for number in range(count):
        filerator.write(number)
        if number % 64 == 0:
            await filerator.ready()
    filerator.close()
    return await total


async def ordered(count: int) -> int:
    producer = OrderedItemProducer[int]()
    totals: list[int] = []
    await producer.start(lambda items: totals.append(addUp(items)))
    for number in range(count):
        await producer.produceItem(int, number)
    await producer.stop()
    return totals[0]


WARM_UP = 10_000
"""Items after which a bridge has all the memory that it needs: from then on it must stay flat."""


async def main(count: int) -> None:
    for what in pushed, pulled, filedToLoop, filedToThread, filedFromLoop, ordered:
        await what(WARM_UP)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = perf_counter()
        total = await what(count)
        seconds = perf_counter() - began
        assert total == count * (count - 1) // 2
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(
            f"{what.__name__:14} {count / seconds:10,.0f} items/s  peak RSS {peak / 1024:6.1f} MB (+{peak - before} kB)"
        )
    await PoolUser.shutdown()


if __name__ == "__main__":
    react(lambda _: Deferred.fromCoroutine(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)))
