"""Hostile objects, which raise whenever they are looked at, in each place where an object of a user can stand.

Each call settles within a bounded time, with a result or with an error that names the object. Its neighbours have their
results, the shutdown ends, and nothing is left. The objects raise any error, SystemExit too, in one or several of their
special methods and in those of their metaclass.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from distributed import Client
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from asynqueue import (
    AsyncWorker,
    DaskWorker,
    Deferator,
    ListConsumer,
    ProcessQueue,
    ProcessWorker,
    TaskQueue,
    ThreadQueue,
)
from asynqueue.core.text import className, errorText
from asynqueue.transport.errorcodec import tracebackText
from asynqueue.wire import WireQueue
from tests.support import hostile
from tests.support.calls import Collector, inLoop
from tests.support.daskcluster import DaskCluster
from tests.support.hostile import ERRORS, META, METHODS, Hostilities, Kind, made
from tests.support.stories import stories
from tests.support.wires import served

PATIENCE = 10


def _withoutTheHostile(report: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a hook that passes to REPORT the errors of `__del__`, but for those of hostile objects.

    Such an object may end in any later test.
    """

    def hook(unraisable: Any) -> None:
        if getattr(unraisable.exc_value, "args", ()) != ("hostile",):
            report(unraisable)

    return hook


sys.unraisablehook = _withoutTheHostile(sys.unraisablehook)

clusters: list[DaskCluster] = []
"""The one that is there."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with DaskCluster(workers=1) as cluster:
        clusters.append(cluster)
        yield
        clusters.clear()


# Where calls run.


@asynccontextmanager
async def inMainLoop() -> AsyncIterator[TaskQueue]:
    yield TaskQueue(AsyncWorker())


@asynccontextmanager
async def inThread() -> AsyncIterator[TaskQueue]:
    yield ThreadQueue()


@asynccontextmanager
async def inProcess() -> AsyncIterator[TaskQueue]:
    yield ProcessQueue(1)


@asynccontextmanager
async def inProcessWithReactor() -> AsyncIterator[TaskQueue]:
    yield TaskQueue(ProcessWorker(useReactor=True))


@asynccontextmanager
async def onWire(thread: bool = False) -> AsyncIterator[TaskQueue]:
    with TemporaryDirectory() as directory:
        async with served("unix", Path(directory), Hostilities) as (_, description, key):
            yield WireQueue(description, Hostilities, key=key, thread=thread)


@asynccontextmanager
async def onDask() -> AsyncIterator[TaskQueue]:
    with Client(clusters[0].scheduler.address) as client:
        yield TaskQueue(DaskWorker(client))


# Where the objects stand.

PLACES: dict[str, Callable[[TaskQueue, Any, Kind], Any]] = {
    "function": lambda queue, on, kind: queue.call(made(kind), 1),
    "argument": lambda queue, on, kind: queue.call(on.taken, made(kind)),
    "nested argument": lambda queue, on, kind: queue.call(on.taken, [{"x": made(kind)}]),
    "keyword": lambda queue, on, kind: queue.call(on.taken, x=made(kind)),
    "series": lambda queue, on, kind: queue.call(on.taken, series=made(kind)).addTimeout(0.05, reactor),
    "qualification": lambda queue, on, kind: qualified(queue, on, made(kind)),
    "series that is cancelled": lambda queue, on, kind: cancelled(queue, on, made(kind)),
    "option": lambda queue, on, kind: queue.call(on.taken, timeout=made(kind), niceness=made(kind), raw=made(kind)),
    "result": lambda queue, on, kind: queue.call(on.returned, kind),
    "raw result": lambda queue, on, kind: queue.call(on.iterator, kind, raw=True),
    "error": lambda queue, on, kind: queue.call(on.raised, kind),
    "error that is logged": lambda queue, on, kind: queue.call(on.raised, kind, returnFailure=False),
    "item": lambda queue, on, kind: drained(queue.call(on.items, kind)),
    "iterator": lambda queue, on, kind: drained(queue.call(on.iterator, kind)),
    "fed item": lambda queue, on, kind: queue.call(on.items, kind, consumer=ListConsumer()),
    "consumer": lambda queue, on, kind: queue.call(on.items, kind, consumer=made(kind, Collector)),
    "result of a coroutine": lambda queue, on, kind: queue.call(on.returnedLater, kind),
    "error of a coroutine": lambda queue, on, kind: queue.call(on.raisedLater, kind),
    "item of an asynchronous iterator": lambda queue, on, kind: drained(queue.call(on.itemsLater, kind)),
    "result of a Deferred": lambda queue, on, kind: queue.call(on.fired, kind),
    "iterable": lambda queue, on, kind: drained(queue.map(on.taken, made(kind))),
    "item of an iterable": lambda queue, on, kind: drained(queue.map(on.taken, hostile.items(kind))),
    "result without a queue": lambda queue, on, kind: directly(queue, on.returned, kind),
    "error without a queue": lambda queue, on, kind: directly(queue, on.raised, kind),
    "iterator without a queue": lambda queue, on, kind: drained(directly(queue, on.items, kind)),
    "update": lambda queue, on, kind: queue.update(on.returned, kind, ephemeral=True),
    "error of an update": lambda queue, on, kind: queue.update(on.raised, kind, ephemeral=True),
    "error of a resident": lambda queue, on, kind: queue.update(hostile.Owner().raised, kind, ephemeral=True),
    "resident": lambda queue, on, kind: queue.update(made(kind, hostile.Owner).taken, ephemeral=True),
    "argument of an update": lambda queue, on, kind: queue.update(on.taken, made(kind), ephemeral=True),
}
NAMED = ("error", "error of a coroutine", "error of an update", "error without a queue")
"""Where the error has to name the object: it is the error itself."""


def qualified(queue: TaskQueue, on: Any, series: Any) -> Deferred[Any]:
    queue.qualifyWorker(1, series)
    return queue.call(on.taken, series=series)


def cancelled(queue: TaskQueue, on: Any, series: Any) -> Deferred[Any]:
    queue.cancelSeries(series)
    return queue.call(on.echo, 1)


def directly(queue: TaskQueue, f: Callable[[Kind], Any], kind: Kind) -> Deferred[Any]:
    return queue.deferToThread(f, kind) if isinstance(queue, ThreadQueue) else queue.call(f, kind)


def drained(iteration: Any) -> Deferred[Any]:
    async def drain() -> None:
        deferator = await iteration if isinstance(iteration, Deferred) else iteration
        if type(deferator) is Deferator:  # and not an asynchronous generator, which is the caller's own affair
            number = 0
            async for _ in deferator:
                number += 1
                if number > 5:  # a hostile iterator may be endless
                    deferator.stop()

    return Deferred.fromCoroutine(drain())


async def settled(place: str, kind: Kind, call: Callable[[], Deferred[Any]]) -> str | None:
    """Return as text what is wrong with how a call ends."""
    waiting = None
    try:
        waiting = call()
        result = className(await waiting)
    except BaseException as error:
        if waiting is None:
            return None  # `call` itself has raised it
        text = f"{className(error)} {errorText(error)}"
        # A thread awaits no coroutine. With that in its metaclass, Python itself raises another error in its place.
        named = "Hostile" in text or "returned a coroutine" in text or "__subclasscheck__" in kind.meta
        return f"it does not name the object: {text}" if place in NAMED and not named else None
    return f"it returned {result}" if place in NAMED else None


async def eachHarmsItsOwnCallAlone(
    where: Callable[[], AbstractAsyncContextManager[TaskQueue]], on: Any, places: list[tuple[str, Kind]]
) -> None:
    clock: Any = reactor  # its type says nothing of time
    async with where() as queue:
        try:
            assert await queue.call(on.echo, -1) == -1  # the worker is there, and runs updates
            calls = []
            neighbours = []
            for n, (place, kind) in enumerate(places):
                made_ = partial(PLACES[place], queue, on, kind)
                calls.append(Deferred.fromCoroutine(settled(place, kind, made_)))
                neighbours.append(queue.call(on.echo, n))
            for (place, kind), call in zip(places, calls, strict=True):
                call.addTimeout(PATIENCE, clock, lambda *_, place=place, kind=kind: "it never ends")
                wrong = await call
                assert wrong is None, (wrong, place, kind)
            for n, neighbour in enumerate(neighbours):
                assert await neighbour.addTimeout(PATIENCE, clock) == n
        finally:
            await queue.shutdown().addTimeout(PATIENCE, clock)


names = st.lists(st.sampled_from(METHODS), min_size=1, max_size=3, unique=True).map(tuple)
kinds = st.builds(
    Kind,
    names,
    st.lists(st.sampled_from(META), max_size=2, unique=True).map(tuple),
    st.sampled_from(ERRORS),
    st.booleans(),
)
manyPlaces = st.lists(st.tuples(st.sampled_from(sorted(PLACES)), kinds), min_size=1, max_size=12)


def property_(where: Callable[[], AbstractAsyncContextManager[TaskQueue]], on: Any, part: int) -> Callable[..., Any]:
    """The property on workers of one kind."""

    async def run(places: list[tuple[str, Kind]]) -> None:
        try:
            await eachHarmsItsOwnCallAlone(where, on, places)
        except BaseException as error:  # whose context may be a hostile error, which pytest cannot format
            raise AssertionError(tracebackText(error)) from None

    waited: Callable[..., Any] = inLoop(run)  # Hypothesis knows nothing of Deferreds
    return settings(max_examples=stories(part, least=2))(given(places=manyPlaces)(waited))


test_one_in_the_main_loop_harms_its_own_call_alone = property_(inMainLoop, hostile, 1)
test_one_in_a_thread_harms_its_own_call_alone = property_(inThread, hostile, 1)
test_one_in_a_process_harms_its_own_call_alone = property_(inProcess, hostile, 4)
test_one_in_a_process_with_a_reactor_harms_its_own_call_alone = property_(inProcessWithReactor, hostile, 10)
test_one_on_a_wire_harms_its_own_call_alone = property_(onWire, Hostilities, 4)
test_one_in_a_thread_on_a_wire_harms_its_own_call_alone = property_(lambda: onWire(thread=True), Hostilities, 8)
test_one_on_a_cluster_harms_its_own_call_alone = pytest.mark.usefixtures("cluster")(property_(onDask, hostile, 20))
