"""What cannot be is refused where it is asked for, by an error that names it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.task import Clock

from asynqueue import (
    AsyncWorker,
    Consumerator,
    DeferredTracker,
    ListConsumer,
    NullQueue,
    ProcessQueue,
    ProcessWorker,
    TaskQueue,
    ThreadQueue,
    ThreadWorker,
    WireQueue,
    WireWorker,
    deferToProcess,
    deferToThread,
)
from asynqueue.threads import PoolUser, ThreadLooper
from asynqueue.util import killProcess
from tests.support.calls import inLoop
from tests.support.deferreds import nothing, resultOf


@pytest.fixture
def queue() -> Any:
    """A queue that no type checker keeps from being asked for anything."""
    return NullQueue(reactor=Clock())


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"raw": 2}, TypeError, "raw must be True, False, or None for the worker's own; got 2"),
        ({"doNext": "no"}, TypeError, "doNext must be True or False, got 'no'"),
        ({"doLast": 1}, TypeError, "doLast must be True or False, got 1"),
        ({"doNext": True, "doLast": True}, ValueError, "cannot be both doNext and doLast"),
        (
            {"returnFailure": "no"},
            TypeError,
            "returnFailure must be True, False, or None for the queue's",
        ),
        ({"series": []}, TypeError, r"series must be hashable, got \[\]"),
        ({"consumer": ListConsumer(), "raw": True}, ValueError, "a raw call has no items to feed a consumer"),
    ],
)
def test_an_option_of_a_call(queue: Any, options: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        queue.call(nothing, **options)
    assert queue.stats().queued == 0
    resultOf(queue.shutdown())


@pytest.mark.parametrize("maxQueued", [0, 1.5, "a", True])
def test_a_limit_of_a_queue(maxQueued: Any) -> None:
    with pytest.raises(ValueError, match="maxQueued must be an integer of 1 or more, or None for no limit; got"):
        TaskQueue(maxQueued=maxQueued, reactor=Clock())


@pytest.mark.parametrize("workers", [0, 1.5, "x", True])
def test_a_number_of_threads(workers: Any) -> None:
    with pytest.raises(ValueError, match="a ThreadQueue has at least one worker, got"):
        ThreadQueue(workers=workers, reactor=Clock())


@pytest.mark.parametrize(
    "kind",
    [
        AsyncWorker,
        ThreadWorker,
        ProcessWorker,
        lambda series: ProcessQueue(1, series=series),
        lambda series: WireWorker(None, "unix:/nowhere", series),
        lambda series: WireQueue("unix:/nowhere", None, series),
    ],
)
def test_the_series_of_a_worker(kind: Callable[[Any], object]) -> None:
    with pytest.raises(TypeError, match=r"a worker's series are several: series=\['files'\], not series='files'"):
        kind("files")
    for wrong in 5, [[1]]:
        with pytest.raises(TypeError, match="a worker's series must be a collection of what is hashable, got"):
            kind(wrong)


def test_a_series_of_the_queue(queue: Any) -> None:
    for ask in queue.cancelSeries, lambda series: queue.qualifyWorker(1, series):
        with pytest.raises(TypeError, match=r"series must be hashable, got \[\]"):
            ask([])


def test_a_worker_by_what_only_equals_its_number(queue: Any) -> None:
    for wrong in True, 1.0:
        with pytest.raises(ValueError, match="no such worker is attached"):
            queue.qualifyWorker(wrong, "x")
        assert queue.detachWorker(wrong).result == []
    assert len(queue) == 1


@inLoop
async def test_what_is_called_in_a_thread_or_a_process() -> None:
    wrong: Any = 5
    looper = ThreadLooper()
    async with ThreadQueue() as queue:
        for ask in (
            deferToThread, deferToProcess, queue.deferToThread, looper.call, looper.deferToThread,
            PoolUser.deferToThreadInPool,
        ):  # fmt: skip
            with pytest.raises(TypeError, match="what is called must be callable, got 5"):
                ask(wrong)
    await looper.stop()
    await deferToThread()
    await deferToProcess()
    await PoolUser.shutdown()


@inLoop
async def test_a_producer() -> None:
    class Pulled:
        def resumeProducing(self) -> None: ...
        def stopProducing(self) -> None: ...

    wrong: Any = 5
    for producer in wrong, Pulled():
        with pytest.raises(TypeError, match="producer must provide IPushProducer, got"):
            Consumerator(producer)
    consumerator: Consumerator[Any] = Consumerator()
    with pytest.raises(TypeError, match="producer must provide IPullProducer, got 5"):
        consumerator.registerProducer(wrong, False)
    consumerator.registerProducer(Pulled(), False)
    consumerator.leave()
    await consumerator.deferUntilDone()


def test_a_number_of_deferreds() -> None:
    wrong: Any = "a"
    with pytest.raises(ValueError, match="N must be 1 or more, got 'a'"):
        DeferredTracker().deferUntilFewer(wrong)


@pytest.mark.parametrize("pid", ["a", 1.5, True, None, 2**70, 0, -1])
def test_a_process_to_kill(pid: Any) -> None:
    with pytest.raises(ValueError, match="pid must be the ID of one other process, got"):
        killProcess(pid)
