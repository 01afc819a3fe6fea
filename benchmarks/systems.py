"""The systems that are measured, each with two workers: what they have in common, and how each is used.

A system makes a `call`, whose result can be awaited. A blocking result blocks when it is awaited, so that a case is
written once, as a coroutine, for systems with an event loop and for those without. A system's library is imported when
the system is opened, in a process that measures nothing else.
"""

from __future__ import annotations

import pickle
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator
from importlib import import_module
from typing import Any, TypeVar

T = TypeVar("T")

WORKERS = 2


class System:
    """Something that makes calls elsewhere. (Any: each library returns objects of its own types.)"""

    flood = 20_000
    """The number of no-op calls that it is given at once."""
    largest = 64 << 20
    """The most bytes that it takes as one value."""
    cases: tuple[str, ...] = ("noop", "trip", "bytes", "arrays", "busy")
    """The cases that are measured of it."""

    def open(self) -> None:
        """Start."""

    def call(self, f: Callable[..., Any], *args: Any) -> Awaitable[Any]:
        """Make the call ``f(*args)`` elsewhere."""
        raise NotImplementedError

    async def close(self) -> None:
        """Leave nothing behind."""

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run WORK to its end, in the loop that the system needs."""
        try:
            work.send(None)
        except StopIteration as end:
            result: T = end.value
            return result
        raise RuntimeError("what blocks has not blocked")


class Blocking:
    """A result that is waited for by WAIT."""

    def __init__(self, wait: Callable[[], Any]) -> None:
        self._wait = wait

    def __await__(self) -> Generator[Any, None, Any]:
        return self._wait()
        yield


class Pool(System):
    """`multiprocessing.Pool`."""

    def open(self) -> None:
        self._pool = import_module("multiprocessing").Pool(WORKERS)

    def call(self, f: Callable[..., Any], *args: Any) -> Awaitable[Any]:
        return Blocking(self._pool.apply_async(f, args).get)

    async def close(self) -> None:
        self._pool.terminate()
        self._pool.join()


class Executor(System):
    """`concurrent.futures.ProcessPoolExecutor`."""

    def open(self) -> None:
        self._executor = import_module("concurrent.futures").ProcessPoolExecutor(WORKERS)

    def call(self, f: Callable[..., Any], *args: Any) -> Awaitable[Any]:
        return Blocking(self._executor.submit(f, *args).result)

    async def close(self) -> None:
        self._executor.shutdown()


class Loky(Executor):
    """`loky`'s reusable executor."""

    flood = 10_000

    def open(self) -> None:
        self._executor = import_module("loky").get_reusable_executor(WORKERS)


class Pebble(System):
    """`pebble.ProcessPool`."""

    flood = 10_000

    def open(self) -> None:
        self._pool = import_module("pebble").ProcessPool(WORKERS)

    def call(self, f: Callable[..., Any], *args: Any) -> Awaitable[Any]:
        return Blocking(self._pool.schedule(f, args=args).result)

    async def close(self) -> None:
        self._pool.close()
        self._pool.join()


class Dask(System):
    """A `distributed.LocalCluster`."""

    flood = 500
    largest = 8 << 20

    def open(self) -> None:
        distributed = import_module("distributed")
        self._client = distributed.Client(
            n_workers=WORKERS, threads_per_worker=1, dashboard_address=None, silence_logs=50
        )

    def call(self, f: Callable[..., Any], *args: Any) -> Awaitable[Any]:
        return Blocking(self._client.submit(f, *args, pure=False).result)

    async def close(self) -> None:
        self._client.shutdown()


class Pipe(System):
    """A bare `multiprocessing.Pipe` to one process, with one question at a time: the lower bound, without a queue."""

    cases = ("trip", "bytes", "arrays")

    def open(self) -> None:
        multiprocessing = import_module("multiprocessing")
        self._near, far = multiprocessing.Pipe()
        self._process = multiprocessing.Process(target=_answer, args=(far,))
        self._process.start()
        far.close()

    def call(self, f: Callable[..., Any], *args: Any) -> Awaitable[Any]:
        self._near.send((f, args))
        return Blocking(self._near.recv)

    async def close(self) -> None:
        self._near.send(None)
        self._process.join()


def _answer(far: Any) -> None:
    while (question := far.recv()) is not None:
        f, args = question
        far.send(f(*args))


class Twisted(System):
    """A system that needs a reactor."""

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        defer, task = import_module("twisted.internet.defer"), import_module("twisted.internet.task")
        results: list[T] = []
        done = lambda reactor: defer.Deferred.fromCoroutine(work).addCallback(results.append)  # noqa: E731  # for react
        try:
            task.react(done)
        except SystemExit:
            pass  # as it ends
        return results[0]


class Processes(Twisted):
    """AsynQueue's `ProcessQueue`."""

    cases = (*System.cases, "iteration", "queued", "doNext", "script")

    def open(self) -> None:
        self.queue = import_module("asynqueue").ProcessQueue(WORKERS)

    def call(self, f: Callable[..., Any], *args: Any) -> Awaitable[Any]:
        called: Awaitable[Any] = self.queue.call(f, *args)
        return called

    def items(self, deferator: Any) -> AsyncIterator[Any]:
        """The items of an iterator that a call gave."""
        return aiter(deferator)

    async def close(self) -> None:
        await self.queue.shutdown()


class Bare(Twisted):
    """AsynQueue, for the cases that make their own queues."""

    cases = ("startup", "mcm")


class Threads(Processes):
    """AsynQueue's `ThreadQueue` with one thread."""

    cases = ("noop", "trip")

    def open(self) -> None:
        self.queue = import_module("asynqueue").ThreadQueue()


class Old(Processes):
    """AsynQueue 0.9.9, in an environment of its own; a thousand calls at once may be too many for it."""

    flood = 500
    largest = 8 << 20
    cases = (*System.cases, "iteration")

    def items(self, deferator: Any) -> AsyncIterator[Any]:
        return _each(iter(deferator))


async def _each(deferreds: Iterator[Any]) -> AsyncIterator[Any]:
    for d in deferreds:
        yield await d


class DeferToThread(Twisted):
    """Twisted's `deferToThread`, on one thread."""

    cases = ("noop", "trip")

    def open(self) -> None:
        from twisted.internet import reactor

        loop: Any = reactor  # its type says nothing of threads
        loop.suggestThreadPoolSize(1)
        self._defer = import_module("twisted.internet.threads").deferToThread

    def call(self, f: Callable[..., Any], *args: Any) -> Awaitable[Any]:
        called: Awaitable[Any] = self._defer(f, *args)
        return called


class Ampoule(Twisted):
    """`ampoule`, whose processes take AMP commands: here one, a pickled call."""

    flood = 4_000
    largest = 32 << 10  # AMP takes 64 KiB
    cases = ("noop", "trip", "bytes", "busy")

    def open(self) -> None:
        from benchmarks import ampoulechild

        self._child = ampoulechild
        self._pool = import_module("ampoule.pool").ProcessPool(ampoulechild.Child, min=WORKERS, max=WORKERS)
        self._started = self._pool.start()  # a Deferred

    def call(self, f: Callable[..., Any], *args: Any) -> Awaitable[Any]:
        defer = import_module("twisted.internet.defer")
        called: Awaitable[Any] = defer.Deferred.fromCoroutine(self._made(pickle.dumps((f, args))))
        return called

    async def _made(self, call: bytes) -> Any:
        if self._started is not None:
            started, self._started = self._started, None
            await started
        answer = await self._pool.doWork(self._child.Call, call=call)
        return pickle.loads(answer["result"])

    async def close(self) -> None:
        await self._pool.stop()


SYSTEMS: dict[str, type[System]] = {
    "AsynQueue ProcessQueue": Processes,
    "AsynQueue ThreadQueue": Threads,
    "AsynQueue": Bare,
    "bare Pipe, one process": Pipe,
    "multiprocessing.Pool": Pool,
    "ProcessPoolExecutor": Executor,
    "loky": Loky,
    "pebble": Pebble,
    "ampoule": Ampoule,
    "Dask LocalCluster": Dask,
    "deferToThread": DeferToThread,
    "AsynQueue 0.9.9": Old,
}
"""Every system by its name, ours first."""
