"""The guarantees of DESIGN 3 and 5 once more, on workers that are real: the main loop, threads, processes.

Theory of operation. Hypothesis draws a schedule: calls and iterations of every sort, what is done to them, and which
processes are killed meanwhile. `Run.carryOut` does what it says to a queue, waits until all has ended, and keeps a
`Record` of each call. A call adds a line to a file when it *starts*, with its number and where it runs: what the
records say is held against that file.

What happens over there is not ours to order, so no property says when. A call that is `Hold` is the exception: it
runs until it is released, so that a schedule can cancel, or kill, what is certainly running. No more than one is held
at a time, and all are released before the end: no schedule can come to a standstill.
"""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from asynqueue import Deferator, NullQueue, ProcessQueue, ProcessWorker, TaskQueue, ThreadQueue
from asynqueue.errors import QueueRunError, WorkerLost
from tests import workerkit as kit

NOBODY = "nobody"
"""A series for which no worker is qualified."""

FAIR, NEXT, LAST = "fair", "next", "last"

QUEUES: dict[str, Callable[[], TaskQueue]] = {
    "main loop": NullQueue,
    "threads": lambda: ThreadQueue(workers=2),
    "processes": lambda: ProcessQueue(2),
}
SINGLES: dict[str, Callable[[], TaskQueue]] = {
    "main loop": NullQueue,
    "thread": ThreadQueue,
    "process": lambda: ProcessQueue(1),
}

onEach = pytest.mark.parametrize("make", QUEUES.values(), ids=QUEUES)
onSingles = pytest.mark.parametrize("make", SINGLES.values(), ids=SINGLES)
fewer = settings(max_examples=max(12, settings.get_profile(settings.get_current_profile_name()).max_examples // 8))


# What a schedule says.


@attrs.frozen
class Call:
    """A call that returns its number, or raises a KeyError of it."""

    series: Hashable = None
    niceness: int = 0
    place: str = FAIR
    fails: bool = False


@attrs.frozen
class Items:
    """A call that returns an iterator of NUMBER items, and a ValueError if it FAILS; TAKEN of them are asked for, or
    all. With PAUSES, other things go on between one and the next."""

    number: int
    fails: bool = False
    taken: int | None = None
    pauses: bool = False


@attrs.frozen
class Hold:
    """A call that runs until the next one that is held, or the end; with WAITS, nothing is done until it runs."""

    waits: bool = True


@attrs.frozen
class Cancel:
    """A call is not wanted any more: the LAST but so many."""

    last: int


@attrs.frozen
class Update:
    """Every worker does something, now and when it comes."""


@attrs.frozen
class Kill:
    """A worker process dies; where there are none, nothing happens."""

    worker: int


@attrs.frozen
class Turns:
    """Things go on for so many turns of the reactor."""

    number: int


Step: TypeAlias = Call | Items | Hold | Cancel | Update | Kill | Turns

calls = st.builds(
    Call,
    series=st.sampled_from([None, None, None, "local", NOBODY]),
    niceness=st.sampled_from([0, 0, -20, 10]),
    place=st.sampled_from([FAIR, FAIR, FAIR, NEXT, LAST]),
    fails=st.sampled_from([False, False, True]),
)
iterations = st.builds(
    Items,
    number=st.sampled_from([0, 1, 2, 7, 100, 1000]),
    fails=st.booleans(),
    taken=st.sampled_from([None, None, 0, 1, 5, 150]),
    pauses=st.booleans(),
)
holds = st.builds(Hold, st.booleans())
deaths = st.builds(Kill, st.integers(0, 1))
cancels = st.builds(Cancel, st.integers(0, 5))
updates = st.just(Update())
turns = st.builds(Turns, st.integers(1, 20))


def schedules(*more: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Step]]:
    """Schedules of calls, of what may befall them, and of MORE. One that does little says `Turns` often."""
    kinds: list[st.SearchStrategy[Any]] = [turns, calls, calls, calls, calls, holds, cancels, deaths, *more]
    return st.lists(st.sampled_from(kinds).flatmap(lambda kind: kind), min_size=12, max_size=25)


everything = schedules(iterations, iterations, updates)


# What happens over there. These functions are closures for them to go there by value: no process has to import this
# module, and Hypothesis with it.


@attrs.frozen
class Far:
    """The functions that are called."""

    give: Callable[[int], int]
    fail: Callable[[int], int]
    items: Callable[[int, int, bool], Iterator[int]]
    hold: Callable[[int, str], int]
    holdInLoop: Callable[[int, str], Any]


def functions(log: str) -> Far:
    """Those that tell LOG when they start."""

    def start(number: int) -> None:
        line = f"{number} {os.getpid()}/{threading.current_thread().name.split()[0]}\n"
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, line.encode())
        os.close(descriptor)

    def give(number: int) -> int:
        start(number)
        return number

    def fail(number: int) -> int:
        start(number)
        raise KeyError(number)

    def items(number: int, n: int, fails: bool) -> Iterator[int]:
        def generate() -> Iterator[int]:
            yield from range(n)
            if fails:
                raise ValueError(number)

        start(number)
        return generate()

    def hold(number: int, gate: str) -> int:
        start(number)
        while not os.path.exists(gate):
            time.sleep(0.001)
        return number

    async def holdInLoop(number: int, gate: str) -> int:
        start(number)
        await kit.until(os.path.exists, gate)
        return number

    return Far(give, fail, items, hold, holdInLoop)


# What comes of it.


@attrs.define(eq=False)
class Record:
    """A call, and all that came of it."""

    number: int
    step: Call | Items | Hold
    deferred: Deferred[Any]
    fired: int = 0
    result: Any = None
    error: BaseException | None = None
    cancelled: bool = False
    items: list[int] = attrs.field(factory=list)
    itemsError: BaseException | None = None
    iterated: bool = False  # the iteration, if any, has ended for the one who asked for items

    @property
    def runnable(self) -> bool:
        return not (isinstance(self.step, Call) and self.step.series == NOBODY)

    @property
    def over(self) -> bool:
        return self.fired > 0 and (self.iterated or not isinstance(self.result, Deferator))


@attrs.define(eq=False)
class Run:
    """A schedule on a queue."""

    queue: TaskQueue
    folder: Path
    records: list[Record] = attrs.field(factory=list)
    killed: set[str] = attrs.field(factory=set)
    updates: dict[int, Any] = attrs.field(factory=dict)  # what each came to, by number
    known: dict[int, set[str]] = attrs.field(factory=dict)  # the processes there were when it was made, by number
    starts: list[tuple[int, str]] = attrs.field(factory=list)  # when all is over: the number of a call, and where
    queuedAtEnd: int = -1
    lastResult: int = -1
    gates: list[Path] = attrs.field(factory=list)
    lastNumber: int = 0
    workers: int = attrs.field(init=False)
    far: Far = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.workers = len(self.queue)
        self.far = functions(str(self.folder / "starts"))

    # How it goes.

    async def carryOut(self, schedule: list[Step]) -> None:
        """Do what SCHEDULE says, and wait for the end of it."""
        try:
            for step in schedule:
                await self.do(step)
            self.release()
            await kit.until(lambda: all(record.over for record in self.records if record.runnable))
            await kit.until(lambda: all(result is not None for result in self.updates.values()))
            self.queuedAtEnd = self.queue.stats().queued
            self.lastResult = await self.queue.call(self.far.give, 0)
        except BaseException:
            for worker in self.queue.workers():
                self.queue.detachWorker(worker, crash=True)
            raise
        finally:
            self.release()
            await self.queue.shutdown()
            await kit.until(lambda: not [t for t in threading.enumerate() if t.name.startswith("asynqueue-thread")])
        self.starts = self.told()

    async def do(self, step: Step) -> None:
        """Take one STEP."""
        if isinstance(step, Call):
            f = self.far.fail if step.fails else self.far.give
            place = {"doNext": step.place == NEXT, "doLast": step.place == LAST}
            self.call(step, f, series=step.series, niceness=step.niceness, **place)
        elif isinstance(step, Items):
            self.call(step, self.far.items, step.number, step.fails)
        elif isinstance(step, Hold):
            await self.hold(step)
        elif isinstance(step, Cancel):
            if step.last < len(self.records):
                record = self.records[-1 - step.last]
                record.cancelled = record.cancelled or not record.fired
                record.deferred.cancel()
        elif isinstance(step, Update):
            self.update()
        elif isinstance(step, Kill):
            self.kill(step.worker)
        else:
            for _ in range(step.number):
                await turn()

    def call(self, step: Call | Items | Hold, f: Callable[..., Any], *args: Any, **options: Any) -> Record:
        """Queue a call of F, with its number before ARGS."""
        self.lastNumber += 1
        record = Record(self.lastNumber, step, self.queue.call(f, self.lastNumber, *args, **options))
        self.records.append(record)
        record.deferred.addCallbacks(self.gave, self.failed, callbackArgs=(record,), errbackArgs=(record,))
        return record

    def gave(self, result: Any, record: Record) -> None:
        record.fired += 1
        record.result = result
        if isinstance(result, Deferator):
            Deferred.fromCoroutine(take(result, record))

    def failed(self, reason: Failure, record: Record) -> None:
        record.fired += 1
        record.error = reason.value

    async def hold(self, step: Hold) -> None:
        """Release what was held, and hold another call."""
        self.release()
        gate = self.folder / f"gate{len(self.gates)}"
        self.gates.append(gate)
        f = self.far.holdInLoop if isinstance(self.queue, NullQueue) else self.far.hold
        record = self.call(step, f, str(gate))
        if step.waits:
            await kit.until(lambda: record.over or any(number == record.number for number, _ in self.told()))

    def release(self) -> None:
        for gate in self.gates:
            gate.touch()

    def update(self) -> None:
        self.lastNumber += 1
        number = self.lastNumber
        self.updates[number] = None
        self.known[number] = {str(worker.process.pid) for worker in self.processWorkers()}
        self.queue.update(self.far.give, number).addBoth(lambda result: self.updates.__setitem__(number, result))

    def kill(self, which: int) -> None:
        workers = self.processWorkers()
        if which < len(workers):
            pid = workers[which].process.pid
            if str(pid) not in self.killed:
                self.killed.add(str(pid))
                os.kill(pid, signal.SIGKILL)

    def processWorkers(self) -> list[ProcessWorker]:
        return [worker for worker in self.queue.workers() if isinstance(worker, ProcessWorker)]

    def told(self) -> list[tuple[int, str]]:
        """What the calls have told."""
        log = self.folder / "starts"
        lines = log.read_text().splitlines() if log.exists() else []
        return [(int(number), where) for number, _, where in (line.partition(" ") for line in lines)]

    # What can be asked when it is over.

    def placesOf(self, record: Record) -> list[str]:
        """Where the call of RECORD was started."""
        return [where for number, where in self.starts if number == record.number]

    def died(self, where: str) -> bool:
        """True if that was a process which the schedule killed."""
        return where.partition("/")[0] in self.killed

    def endedEarly(self, where: str) -> bool:
        """True if it is known why what ran there may have been lost: its worker died, or had to end a call."""
        return self.died(where) or any(where in self.placesOf(other) for other in self.records if other.cancelled)


async def carriedOut(make: Callable[[], TaskQueue], schedule: list[Step]) -> Run:
    """SCHEDULE, carried out on the queue that MAKE gives."""
    from twisted.internet import reactor

    clock: Any = reactor  # its type says nothing of time
    with tempfile.TemporaryDirectory() as folder:

        async def run() -> Run:
            run = Run(make(), Path(folder))
            await run.carryOut(schedule)
            return run

        return await Deferred.fromCoroutine(run()).addTimeout(2 * kit.PATIENCE, clock)


async def turn() -> None:
    """Let other things go on."""
    from twisted.internet import reactor

    clock: Any = reactor  # as above
    await deferLater(clock, 0)


async def take(deferator: Deferator[int], record: Record) -> None:
    """Take items as the step of RECORD says."""
    step = record.step
    assert isinstance(step, Items)
    try:
        if step.taken != 0:
            async for item in deferator:
                record.items.append(item)
                if step.pauses and len(record.items) < 20:
                    await turn()
                if len(record.items) == step.taken:
                    break
    except Exception as error:
        record.itemsError = error
    finally:
        deferator.stop()
        record.iterated = True


@pytest.fixture(autouse=True)
def wrappedOnce(request: pytest.FixtureRequest) -> Iterator[None]:
    """Undo what pytest-twisted does to a property in order to run it: else it does so again for each parameter."""
    handle = request.function.hypothesis
    test = handle.inner_test
    yield
    handle.inner_test = test


# The guarantees.


@onEach
@fewer
@given(schedule=everything)
@ensureDeferred
async def test_nothing_is_lost(make: Callable[[], TaskQueue], schedule: list[Step]) -> None:
    run = await carriedOut(make, schedule)
    for record in run.records:
        assert record.fired == 1
        places = run.placesOf(record)
        if record.cancelled:
            assert isinstance(record.error, CancelledError)
        elif not record.runnable:
            assert isinstance(record.error, QueueRunError)
        elif isinstance(record.error, WorkerLost):
            assert len(run.killed) >= 2  # for each of which it was charged
            assert all(run.died(where) for where in places)
        else:
            assert places
    for number, result in run.updates.items():
        if isinstance(result, Failure):
            assert result.check(WorkerLost)
            assert len(run.killed) >= 2
        else:
            assert result == [number] * run.workers


@onEach
@fewer
@given(schedule=everything)
@ensureDeferred
async def test_nothing_is_doubled(make: Callable[[], TaskQueue], schedule: list[Step]) -> None:
    run = await carriedOut(make, schedule)
    for record in run.records:
        places = run.placesOf(record)
        assert len(places) <= 2
        assert len(set(places)) == len(places)
        assert all(run.died(where) for where in places[:-1]), "only what died with its worker is started again"


@fewer
@given(schedule=schedules(iterations, deaths, deaths))
@ensureDeferred
async def test_a_death_is_charged_only_to_the_call_that_was_running(schedule: list[Step]) -> None:
    run = await carriedOut(QUEUES["processes"], schedule)
    charges = 0
    for record in run.records:
        if isinstance(record.error, WorkerLost):
            charges += 2
        elif not record.cancelled:
            charges += max(0, len(run.placesOf(record)) - 1)
    assert charges + 2 * sum(isinstance(result, Failure) for result in run.updates.values()) <= len(run.killed)


@onEach
@fewer
@given(schedule=schedules())
@ensureDeferred
async def test_a_call_runs_only_where_it_may(make: Callable[[], TaskQueue], schedule: list[Step]) -> None:
    run = await carriedOut(make, schedule)
    assert not [record for record in run.records if not record.runnable and run.placesOf(record)]


@onSingles
@fewer
@given(schedule=schedules())
@ensureDeferred
async def test_calls_of_one_flow_start_first_in_first_out(make: Callable[[], TaskQueue], schedule: list[Step]) -> None:
    run = await carriedOut(make, schedule)
    order = list(dict.fromkeys(number for number, _ in run.starts))  # the first start of each
    flows: dict[Hashable, list[int]] = defaultdict(list)
    for record in run.records:
        step = record.step
        if isinstance(step, Call) and record.number in order:
            flow: Hashable = step.place if step.place != FAIR else (step.series, step.niceness)
            flows[flow].append(order.index(record.number))
    for flow, positions in flows.items():
        assert positions == sorted(positions), flow


@onEach
@fewer
@given(schedule=everything)
@ensureDeferred
async def test_a_call_gives_its_own_result_and_an_error_arrives_as_itself(
    make: Callable[[], TaskQueue], schedule: list[Step]
) -> None:
    run = await carriedOut(make, schedule)
    for record in run.records:
        if record.cancelled or not record.runnable or isinstance(record.error, WorkerLost):
            continue
        if isinstance(record.step, Call) and record.step.fails:
            assert type(record.error) is KeyError
            assert record.error.args == (record.number,)
        else:
            assert record.error is None
            assert isinstance(record.step, Items) or record.result == record.number


@onEach
@fewer
@given(schedule=schedules(iterations, iterations, iterations))
@ensureDeferred
async def test_an_iteration_gives_exactly_its_items_in_order_each_once_and_its_error_after_them(
    make: Callable[[], TaskQueue], schedule: list[Step]
) -> None:
    run = await carriedOut(make, schedule)
    for record in run.records:
        step = record.step
        if not isinstance(step, Items) or record.error is not None:
            continue
        taken = step.number if step.taken is None else min(step.taken, step.number)
        whole = step.taken is None or step.taken > step.number
        assert record.items == list(range(len(record.items)))
        if isinstance(record.itemsError, WorkerLost):
            assert len(record.items) <= taken
            assert run.endedEarly(run.placesOf(record)[-1])
        else:
            assert len(record.items) == taken
            assert type(record.itemsError) is (ValueError if step.fails and whole else type(None))
            assert record.itemsError is None or record.itemsError.args == (record.number,)


@fewer
@given(schedule=schedules(updates))
@ensureDeferred
async def test_a_process_that_comes_later_runs_the_saved_updates_first(schedule: list[Step]) -> None:
    run = await carriedOut(QUEUES["processes"], schedule)
    if len(run.killed) >= 2:
        return  # an update under which two workers die is given up
    calls = {record.number for record in run.records}
    for update, known in run.known.items():
        for pid in {where.partition("/")[0] for _, where in run.starts} - known:
            numbers = [number for number, where in run.starts if where.partition("/")[0] == pid]
            if any(number in calls for number in numbers):
                done = numbers.index(update) if update in numbers else None
                assert done is not None
                assert not [number for number in numbers[:done] if number in calls and number > update]


@onEach
@fewer
@given(schedule=everything)
@ensureDeferred
async def test_the_queue_is_of_use_afterwards_and_a_shutdown_leaves_nothing(
    make: Callable[[], TaskQueue], schedule: list[Step]
) -> None:
    run = await carriedOut(make, schedule)
    assert run.queuedAtEnd == sum(not record.runnable and not record.cancelled for record in run.records)
    assert run.lastResult == 0
    assert 0 in {number for number, _ in run.starts}
    assert run.queue.stats().queued == run.queue.stats().running == 0
    assert not run.queue.workers()
