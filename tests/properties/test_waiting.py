"""How long anything waits because a worker is given calls ahead: the bounds of DESIGN 3, "The window", in virtual time.

What a worker may hold is worked out from what its calls took. So a bound is for calls that take what the ones before
them took; but the calls that run when somebody begins to wait may take any time, and so may they all where nobody has
asked to be next.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle

import attrs
from hypothesis import given
from hypothesis import strategies as st

from asynqueue.core.records import Recalled, Returned, Task
from asynqueue.core.scheduling.commands import Assign, Command, Recall, Tick
from asynqueue.core.scheduling.scheduler import Scheduler
from asynqueue.core.scheduling.window import BUDGET, Window
from tests.properties.core.scheduling.schedulermodel import CALL

SILENCE = 2 * BUDGET
"""From the last answer of a worker to the second tick after it, at the latest."""

BOUND = SILENCE + BUDGET
"""A worker that is given the call falls silent, and the one that takes its place has a budget of work ahead of it."""

SECONDS = st.sampled_from(
    (1e-6, 1e-5, 1e-4, 0.6 * BUDGET, 0.9 * BUDGET, 1.5 * BUDGET, 3.9 * BUDGET, 31 * BUDGET)
) | st.floats(-6, 0).map(lambda exponent: 10.0**exponent)
SERIES = st.sampled_from((None, "a"))
MOST = st.sampled_from((1, 2, 8, 64))


@attrs.define(eq=False)
class Worker:
    """One that runs what it holds, one call at a time, each for SECONDS as long as nobody sets another figure."""

    id: int
    qualified: bool
    seconds: float
    thereafter: Iterator[tuple[int, float]] = attrs.field(
        factory=lambda: iter(())
    )  # how long so many calls take, and then so many
    left: int = 0  # how many take SECONDS, if others come thereafter
    held: dict[int, Task] = attrs.field(factory=dict)  # by ticket; the first is running
    began: float = 0.0
    ends: float = 0.0

    def took(self) -> float:
        """How long the call takes that begins now."""
        if not self.left:
            self.left, self.seconds = next(self.thereafter, (0, self.seconds))
        self.left = max(0, self.left - 1)
        return self.seconds

    def mayRun(self, task: Task) -> bool:
        return task.series is None or self.qualified


class World:
    """A queue and its workers, where what is said is heard at once."""

    def __init__(self) -> None:
        self.scheduler = Scheduler()
        self.now = 0.0
        self.workers: dict[int, Worker] = {}
        self.started: dict[int, float] = {}  # by task
        self.tickAt = float("inf")
        self.last = 0

    def attach(self, most: int, qualified: bool, seconds: float) -> Worker:
        self.last += 1
        worker = self.workers[self.last] = Worker(self.last, qualified, seconds)
        self.obey(self.scheduler.attach(worker.id, ("a",) if qualified else (), Window(1, most)))
        return worker

    def submit(self, series: str | None = None, doNext: bool = False) -> Task:
        self.last += 1
        task = Task(self.last, CALL, series, doNext=doNext)
        self.obey(self.scheduler.submit(task))
        return task

    def next(self) -> float:
        """When something happens next."""
        return min((w.ends for w in self.workers.values() if w.held), default=self.tickAt)

    def step(self) -> None:
        """Let that happen which comes next: a call ends, or it is time for a tick."""
        ending = min((w for w in self.workers.values() if w.held), key=lambda w: w.ends, default=None)
        if ending is not None and ending.ends <= self.tickAt:
            self.now = ending.ends
            ticket = next(iter(ending.held))
            del ending.held[ticket]
            took = self.now - ending.began
            self._begin(ending)
            self.obey(self.scheduler.finished(ticket, Returned(None, took)))
        else:
            self.now, self.tickAt = self.tickAt, float("inf")
            self.obey(self.scheduler.tick())

    def obey(self, commands: list[Command]) -> None:
        for command in commands:
            if isinstance(command, Assign):
                worker = self.workers[command.worker]
                worker.held[command.ticket] = command.task
                if len(worker.held) == 1:
                    self._begin(worker)
            elif isinstance(command, Recall):
                worker = self.workers[command.worker]
                back = list(worker.held)[1:]
                for ticket in back:
                    del worker.held[ticket]
                self.obey(self.scheduler.reported([(ticket, Recalled()) for ticket in back]))
            elif isinstance(command, Tick):
                self.tickAt = self.now + command.budgets * BUDGET

    def _begin(self, worker: Worker) -> None:
        """WORKER starts the first of what it holds, if there is any."""
        for task in worker.held.values():
            self.started[task.id] = worker.began = self.now
            worker.ends = self.now + worker.took()
            return


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Some workers, each with calls that take as long as one another; they are at it."""
    world = World()
    for n in range(draw(st.integers(1, 4))):
        world.attach(draw(MOST), n == 0 or draw(st.booleans()), draw(SECONDS))
    for _ in range(draw(st.integers(0, 300))):
        world.submit(draw(SERIES))
    for _ in range(draw(st.integers(0, 200))):
        if world.next() < float("inf"):
            world.step()
    return world


@given(worlds(), st.data())
def test_a_next_call_starts_within_1_ms_of_its_start_with_a_window_of_1(world: World, data: st.DataObject) -> None:
    """With a window of 1, it would start when the first of the calls that now run, where it may run, has ended."""
    for worker in world.workers.values():
        how = data.draw(st.sampled_from(("as before", "this call", "from this call on")))
        if how != "as before" and worker.held:  # it takes another time than was to be expected
            seconds = data.draw(SECONDS)
            worker.ends = world.now + seconds
            if how == "from this call on":
                worker.seconds = seconds
    series = data.draw(SERIES)
    able = [w for w in world.workers.values() if series is None or w.qualified]
    due = min(worker.ends if worker.held else world.now for worker in able)
    task = world.submit(series, doNext=True)
    while task.id not in world.started:
        world.step()
    assert world.started[task.id] - due <= BOUND * (1 + 1e-9)


@given(st.data())
def test_no_worker_idles_over_1_ms_while_another_holds_unstarted_tasks(
    data: st.DataObject,
) -> None:
    """Whatever the calls take."""
    world = World()
    paces = st.lists(st.tuples(st.integers(1, 60), SECONDS), min_size=1, max_size=3)
    for n in range(data.draw(st.integers(2, 4))):
        worker = world.attach(data.draw(MOST), n == 0 or data.draw(st.booleans()), 1.0)
        worker.thereafter = cycle(data.draw(paces))
    since = dict.fromkeys(world.workers, 0.0)  # when each began to idle beside another
    for burst in range(data.draw(st.integers(1, 3))):
        for _ in range(data.draw(st.integers(1, 100))):
            world.submit(data.draw(SERIES) if burst else None)
        while world.next() < float("inf"):
            ahead = [task for worker in world.workers.values() for task in list(worker.held.values())[1:]]
            busy: list[int] = []
            for worker in world.workers.values():
                if worker.held or not any(worker.mayRun(task) for task in ahead):
                    busy.append(worker.id)
                else:
                    assert world.now - since[worker.id] <= SILENCE * (1 + 1e-9)
            world.step()
            since.update(dict.fromkeys(busy, world.now))  # if one idles now, it has from now on
