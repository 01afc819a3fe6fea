"""The first guarantees of DESIGN 3 and 5 again, on real threads and real processes that are really killed."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path
from typing import Any

import attrs
import pytest_twisted
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, DeferredList

from asynqueue import NullQueue, ProcessQueue, TaskQueue, ThreadQueue
from asynqueue.process import ProcessWorker
from tests import workerkit as kit
from tests.workerkit import marks

EXAMPLES = max(8, settings.default.max_examples // 12) if settings.default else 8


@attrs.frozen
class Step:
    """A call of some KIND, with what it is asked for; with KILL, a worker process is killed after it was made."""

    kind: str
    niceness: int
    series: str | None
    kill: bool


steps = st.lists(
    st.builds(
        Step,
        kind=st.sampled_from(["return", "return", "raise", "iterate", "break", "cancel"]),
        niceness=st.sampled_from([-20, 0, 20]),
        series=st.sampled_from([None, "local"]),
        kill=st.sampled_from([False, False, False, True]),
    ),
    min_size=1,
    max_size=20,
)


async def items(queue: TaskQueue, path: Path, number: int, step: Step) -> tuple[list[int], BaseException | None]:
    """What an iteration gave, and what it ended with."""
    got: list[int] = []
    try:
        call = queue.call(
            kit.markAndIterate, path, number, step.kind == "break", niceness=step.niceness, series=step.series
        )
        async for item in await call:
            got.append(item)
    except Exception as error:  # KeyError, or the loss of its worker
        return got, error
    return got, None


async def run(queue: TaskQueue, schedule: list[Step], path: Path) -> list[Any]:
    """Make all calls at once; how each ended: (success, result or Failure)."""
    ends: list[Deferred[Any]] = []
    for number, step in enumerate(schedule):
        if step.kind in ("iterate", "break"):
            ends.append(Deferred.fromCoroutine(items(queue, path, number, step)))
        else:
            f = kit.markAndRaise if step.kind == "raise" else kit.markAndReturn
            ends.append(queue.call(f, path, number, niceness=step.niceness, series=step.series))
            if step.kind == "cancel":
                ends[-1].cancel()
        worker = queue.workers()[number % len(queue)]
        if step.kill and isinstance(worker, ProcessWorker):
            os.kill(worker.process.pid, signal.SIGKILL)
    results: list[Any] = await DeferredList(ends, consumeErrors=True)
    assert await queue.call(abs, -1) == 1, "the queue is whole"
    await queue.shutdown()
    return results


async def check(queue: TaskQueue, schedule: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "starts"
        results = await run(queue, schedule, path)
        starts = marks(path)
    killed = isinstance(queue, ProcessQueue) and any(step.kill for step in schedule)
    assert len(results) == len(schedule), "nothing is lost"
    for number, (step, (success, result)) in enumerate(zip(schedule, results, strict=True)):
        assert starts[str(number)] <= (2 if killed else 1), "nothing is doubled"
        name = type(result).__name__ if success else type(result.value).__name__
        if step.kind == "cancel":
            assert result.check(CancelledError)
        elif step.kind == "return":
            assert (success, result) == (True, number) or (killed and name == "WorkerLost"), name
        elif step.kind == "raise":
            assert result.check(KeyError) or (killed and name == "WorkerLost"), name
        else:
            got, error = result
            assert got == list(range(len(got))), "in order, each once"
            if killed and type(error).__name__ == "WorkerLost":
                continue
            assert len(got) == number, "exactly the iterator's items"
            assert (error is not None) == (step.kind == "break"), "an error comes after the items before it"
        if not killed and step.kind != "cancel":
            assert starts[str(number)] == 1


@given(steps)
@settings(max_examples=EXAMPLES)
@pytest_twisted.ensureDeferred
async def test_nothing_lost_nothing_doubled_in_the_main_loop(schedule: list[Step]) -> None:
    await check(NullQueue(), schedule)


@given(steps)
@settings(max_examples=EXAMPLES)
@pytest_twisted.ensureDeferred
async def test_nothing_lost_nothing_doubled_in_threads(schedule: list[Step]) -> None:
    await check(ThreadQueue(workers=2), schedule)


@given(steps)
@settings(max_examples=EXAMPLES)
@pytest_twisted.ensureDeferred
async def test_nothing_lost_nothing_doubled_in_processes_that_die(schedule: list[Step]) -> None:
    await check(ProcessQueue(2), schedule)


@given(steps, st.integers(1, 6))
@settings(max_examples=EXAMPLES)
@pytest_twisted.ensureDeferred
async def test_nothing_lost_nothing_doubled_in_processes_that_wear_out_and_die(schedule: list[Step], most: int) -> None:
    await check(ProcessQueue(2, maxTasks=most), schedule)


@given(st.lists(st.sampled_from([-20, 0, 20]), min_size=2, max_size=40))
@settings(max_examples=EXAMPLES)
@pytest_twisted.ensureDeferred
async def test_order_within_one_series_and_niceness_in_a_thread(nicenesses: list[int]) -> None:
    started: list[int] = []

    queue = ThreadQueue()
    await DeferredList([queue.call(started.append, n, niceness=x) for n, x in enumerate(nicenesses)])
    await queue.shutdown()
    for niceness in set(nicenesses):
        flow = [n for n in started if nicenesses[n] == niceness]
        assert flow == sorted(flow)
