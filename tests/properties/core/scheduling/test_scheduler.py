"""What the scheduler never does, whatever happens to it: the guarantees of DESIGN 3.

`SchedulerMachine` is everything that can happen, in any order, against `schedulermodel.Model`, which holds the
scheduler to every guarantee at once. The properties after it are the same guarantees one at a time, each in the
smallest world in which it says something, so that a failure has a name.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from asynqueue.core.records import Interrupted, Iterating, Lost, Raised, Recalled, Returned, RunOutcome, Task
from asynqueue.core.scheduling.commands import Assign, Command, Settle, Stop, Tick
from asynqueue.core.scheduling.fairness import weight
from asynqueue.core.scheduling.scheduler import Scheduler
from asynqueue.core.scheduling.window import Window
from tests.properties.core.scheduling.schedulermodel import CALL, FAIR, Model, ModelWorker

SERIES = (None, "a", "b", "c")
NICENESSES = (-20, -10, 0, 3, 20)
QUALIFICATIONS = st.frozensets(st.sampled_from(("a", "b", "c")))


@st.composite
def windows(draw: st.DrawFn) -> Window:
    running = draw(st.integers(1, 3))
    return Window(running, running + draw(st.sampled_from((0, 0, 1, 2, 60))))


class SchedulerMachine(RuleBasedStateMachine):
    """Everything that can happen to a queue and its workers."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()

    # Tasks.

    @rule(
        series=st.sampled_from(SERIES),
        niceness=st.sampled_from(NICENESSES),
        where=st.sampled_from(("", "", "", "next", "last")),
        timeout=st.sampled_from((None, None, 1.0)),
        retries=st.sampled_from((1, 1, 0, 2)),
        times=st.integers(1, 4),
    )
    def submit(
        self, series: str | None, niceness: int, where: str, timeout: float | None, retries: int, times: int
    ) -> None:
        for _ in range(times):
            self.model.submit(series, niceness, where == "next", where == "last", timeout, retries)

    @precondition(lambda self: self.model.entries)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.model.cancel(data.draw(st.sampled_from(sorted(self.model.entries))))

    @rule(series=st.sampled_from(SERIES))
    def cancelSeries(self, series: str | None) -> None:
        self.model.cancelSeries(series)

    @rule()
    def cancelAll(self) -> None:
        self.model.cancelAll()

    @precondition(lambda self: self.model.armed)
    @rule(data=st.data())
    def expire(self, data: st.DataObject) -> None:
        self.model.expire(data.draw(st.sampled_from(sorted(self.model.armed))))

    @precondition(lambda self: self.model.past)
    @rule(data=st.data())
    def expireLate(self, data: st.DataObject) -> None:
        self.model.expire(data.draw(st.sampled_from(self.model.past)))

    # What workers report.

    @precondition(lambda self: self._running())
    @rule(data=st.data(), how=st.sampled_from(("returned", "returned", "raised", "iterating", "lost", "interrupted")))
    def finish(self, data: st.DataObject, how: str) -> None:
        ticket = data.draw(st.sampled_from(self._running()))
        self.model.finish(ticket, self._outcome(how, data.draw(st.sampled_from((0.0, 0.00001, 0.0004, 2.0)))))

    @precondition(lambda self: self._back())
    @rule(data=st.data())
    def giveBack(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(self._back()))
        ticket, outcome = next(iter(worker.back.items()))
        self.model.finish(ticket, outcome)

    @precondition(lambda self: self.model.past)
    @rule(data=st.data(), how=st.sampled_from(("returned", "raised", "iterating", "lost", "interrupted", "recalled")))
    def finishAgain(self, data: st.DataObject, how: str) -> None:
        self.model.finishAgain(data.draw(st.sampled_from(self.model.past)), self._outcome(how, 0.0))

    @precondition(lambda self: any(worker.iterations for worker in self.model.workers.values()))
    @rule(data=st.data())
    def endIteration(self, data: st.DataObject) -> None:
        pairs = [(worker.id, taskID) for worker in self.model.workers.values() for taskID in sorted(worker.iterations)]
        self.model.endIteration(*data.draw(st.sampled_from(pairs)))

    @precondition(lambda self: self.model.ticking)
    @rule()
    def tick(self) -> None:
        self.model.tick()

    @rule()
    def look(self) -> None:
        self.model.look()

    @rule()
    def reviewUnserved(self) -> None:
        self.model.reviewUnserved()

    # Workers.

    @precondition(lambda self: any(not worker.run for worker in self.model.workers.values()))
    @rule(data=st.data())
    def stick(self, data: st.DataObject) -> None:
        idle = sorted(worker.id for worker in self.model.workers.values() if not worker.run)
        self.model.workers[data.draw(st.sampled_from(idle))].stuck = True

    @precondition(lambda self: any(worker.stuck for worker in self.model.workers.values()))
    @rule()
    def goOn(self) -> None:
        for worker in self.model.workers.values():
            worker.stuck = False

    @precondition(lambda self: len(self.model.workers) < 5)
    @rule(qualifications=QUALIFICATIONS, window=windows())
    def attach(self, qualifications: frozenset[str], window: Window) -> None:
        self.model.attach(qualifications, window)

    # A worker that disconnects from a queue that shuts down is lost.
    @precondition(lambda self: self._workers(away=False) and not self.model.closing)
    @rule(data=st.data(), reports=st.booleans())
    def disconnect(self, data: st.DataObject, reports: bool) -> None:
        self.model.disconnect(data.draw(st.sampled_from(self._workers(away=False))), reports)

    @precondition(lambda self: self._workers(away=True))
    @rule(data=st.data(), window=windows())
    def reconnect(self, data: st.DataObject, window: Window) -> None:
        self.model.reconnect(data.draw(st.sampled_from(self._workers(away=True))), window)

    @precondition(lambda self: self.model.workers)
    @rule(data=st.data(), series=st.sampled_from(("a", "b")))
    def qualify(self, data: st.DataObject, series: str) -> None:
        self.model.qualify(data.draw(self._worker()), series)

    @rule(
        data=st.data(),
        save=st.booleans(),
        retries=st.sampled_from((0, 1)),
        sequential=st.booleans(),
        series=st.sampled_from((None, None, "a", "b")),
    )
    def update(self, data: st.DataObject, save: bool, retries: int, sequential: bool, series: str | None) -> None:
        known = sorted({*self.model.workers, *self.model.gone})
        some = data.draw(st.lists(st.sampled_from(known), unique=True)) if known else []
        self.model.update(some, save, retries, sequential, series)

    @precondition(lambda self: self.model.workers)
    @rule(data=st.data(), reassign=st.booleans())
    def detach(self, data: st.DataObject, reassign: bool) -> None:
        self.model.detach(data.draw(self._worker()), reassign)

    @precondition(lambda self: self._workers(away=False))
    @rule(data=st.data(), ran=st.sampled_from((1, 1, 0, 3)))
    def restart(self, data: st.DataObject, ran: int) -> None:
        self.model.restart(data.draw(st.sampled_from(self._workers(away=False))), ran)

    @precondition(lambda self: self.model.workers)
    @rule(data=st.data(), window=st.none() | windows())
    def resize(self, data: st.DataObject, window: Window | None) -> None:
        self.model.resize(data.draw(self._worker()), window)

    @precondition(lambda self: self.model.workers)
    @rule(data=st.data(), reassign=st.sampled_from((True, True, False)))
    def lose(self, data: st.DataObject, reassign: bool) -> None:
        self.model.lose(data.draw(self._worker()), reassign)

    @precondition(lambda self: any(worker.stopping for worker in self.model.workers.values()))
    @rule(data=st.data())
    def stopped(self, data: st.DataObject) -> None:
        stopping = [worker.id for worker in self.model.workers.values() if worker.stopping]
        self.model.stopped(data.draw(st.sampled_from(stopping)))

    # Not too soon: little can happen afterwards.
    @precondition(lambda self: self.model.last > 12)
    @rule()
    def shutdown(self) -> None:
        self.model.shutdown()

    @precondition(lambda self: self.model.last > 16)
    @rule()
    def strand(self) -> None:
        self.model.strand()

    def teardown(self) -> None:
        """Whatever happened, everything ends."""
        for worker in list(self.model.workers):
            self.model.resize(worker, Window(2, 4))  # none stays shut
        self.model.finishAll()
        self.model.shutdown()
        self.model.finishAll()
        assert self.model.closed
        assert all(entry.settlement is not None for entry in self.model.entries.values())

    def _outcome(self, how: str, seconds: float) -> RunOutcome:
        if how == "iterating":
            return Iterating(self.model.number(), seconds)
        outcomes: dict[str, RunOutcome] = {
            "returned": Returned(None, seconds),
            "raised": Raised(ValueError(), seconds),
            "lost": Lost(),
            "interrupted": Interrupted(),
            "recalled": Recalled(),
        }
        return outcomes[how]

    def _worker(self) -> st.SearchStrategy[int]:
        return st.sampled_from(sorted(self.model.workers))

    def _workers(self, away: bool) -> list[int]:
        workers = self.model.workers.values()
        return sorted(worker.id for worker in workers if worker.away == away and not worker.leaving)

    def _running(self) -> list[int]:
        return [ticket for worker in self.model.workers.values() for ticket in worker.running]

    def _back(self) -> list[ModelWorker]:
        return [worker for worker in self.model.workers.values() if worker.back]


TestScheduler = SchedulerMachine.TestCase


# One guarantee at a time.


def crowd(model: Model, data: st.DataObject, atLeast: int = 1) -> list[int]:
    """A few workers of various qualifications."""
    return [
        model.attach(data.draw(QUALIFICATIONS), data.draw(windows())) for _ in range(data.draw(st.integers(atLeast, 4)))
    ]


def load(model: Model, data: st.DataObject, most: int = 12) -> list[int]:
    """A few tasks of various series."""
    return [model.submit(data.draw(st.sampled_from(SERIES))) for _ in range(data.draw(st.integers(1, most)))]


def finishOne(model: Model, data: st.DataObject) -> None:
    """One of the calls that are running returns, soon or late."""
    running = [ticket for worker in model.workers.values() for ticket in worker.running]
    if running:
        model.finish(data.draw(st.sampled_from(running)), Returned(None, data.draw(st.sampled_from((1e-5, 1.0)))))


@given(st.data())
def test_nothing_lost_nothing_doubled(data: st.DataObject) -> None:
    model = Model()
    crowd(model, data)
    tasks = load(model, data)
    for _ in range(data.draw(st.integers(0, 8))):
        what = data.draw(st.sampled_from(("finish", "lose", "restart", "detach", "attach")))
        if what == "finish":
            finishOne(model, data)
        elif what == "attach":
            model.attach(data.draw(QUALIFICATIONS))
        elif model.workers:
            workerID = data.draw(st.sampled_from(sorted(model.workers)))
            if what == "lose":
                model.lose(workerID)
            elif what == "restart":
                model.restart(workerID)
            else:
                model.detach(workerID, reassign=data.draw(st.booleans()))
    model.attach("abc")
    model.finishAll()
    assert [type(model.entries[t].settlement) in (Returned, Lost) for t in tasks] == [True] * len(tasks)
    assert model.scheduler.unfinished == 0


@given(st.data())
def test_qualified_and_never_head_of_line_blocked(data: st.DataObject) -> None:
    """With any number of tasks before it that nobody can run, a task that somebody can run runs."""
    model = Model()
    qualifications = data.draw(QUALIFICATIONS)
    worker = model.attach(qualifications)
    blocked = data.draw(st.lists(st.sampled_from(sorted({"a", "b", "c"} - qualifications) or ["d"]), max_size=9))
    for series in blocked:
        model.submit(series, niceness=-20, doNext=data.draw(st.booleans()))
    task = model.submit(data.draw(st.sampled_from([None, *sorted(qualifications)])), niceness=20)
    assert [t.id for t in model.workers[worker].run.values()] == [task]
    assert model.scheduler.queued == len(blocked)


@given(st.lists(st.tuples(st.sampled_from(("next", "", "last")), st.sampled_from((-20, 0, 20))), max_size=30))
def test_order(tasks: list[tuple[str, int]]) -> None:
    """doNext, then fair order, then doLast; first in, first out in each of them and in each flow."""
    model = Model()
    worker = model.attach()
    model.submit()
    for where, niceness in tasks:
        model.submit(None, niceness, where == "next", where == "last")
    went = []
    while model.workers[worker].run:
        (ticket, task), *_ = model.workers[worker].run.items()
        went.append(task)
        model.finish(ticket, Returned(None))
    assert len(went) == 1 + len(tasks)
    went = went[1:]
    bands = [0 if task.doNext else 2 if task.doLast else 1 for task in went]
    assert bands == sorted(bands)
    for niceness in (-20, 0, 20):
        for band in range(3):
            ids = [t.id for t, b in zip(went, bands, strict=True) if b == band and (t.niceness == niceness or b != 1)]
            assert ids == sorted(ids)


@given(st.data())
def test_fair_shares(data: st.DataObject) -> None:
    """Golestani's bound, for two flows that are backlogged throughout and that the same workers may run."""
    model = Model()
    one = ("a", data.draw(st.sampled_from(NICENESSES)))
    two = (data.draw(st.sampled_from(("a", "b"))), data.draw(st.sampled_from(NICENESSES)))
    if one == two:
        two = ("b", two[1])
    qualified = st.sampled_from(("", "c", "ab", "abc", "abd"))
    model.attach("ab")
    for _ in range(data.draw(st.integers(0, 3))):
        model.attach(data.draw(qualified), data.draw(windows()))
    # Others that came before, some of them on workers of their own, and have pushed the virtual times about.
    for _ in range(data.draw(st.integers(0, 6))):
        other = data.draw(st.sampled_from((None, "c", "d")))
        for _ in range(data.draw(st.integers(1, 6))):
            model.submit(other, data.draw(st.sampled_from(NICENESSES)))
        finishOne(model, data)
    lead: list[int] = []  # served_one * w_one - served_two * w_two, whenever both are backlogged
    begun = 0
    for _ in range(data.draw(st.integers(5, 30))):
        for flow in (one, two):
            while sum(e.queued and e.flow == flow and e.rank[0] == FAIR for e in model.entries.values()) < 6:
                model.submit(*flow)
        if not lead:
            begun = len(model.served)
            lead.append(0)
        what = data.draw(st.sampled_from(("finish", "finish", "finish", "submit", "attach", "detach", "lose")))
        if what == "finish":
            finishOne(model, data)
        elif what == "submit":
            model.submit(data.draw(st.sampled_from((None, "c", "d"))), data.draw(st.sampled_from(NICENESSES)))
        elif what == "attach" and len(model.workers) < 6:
            model.attach(data.draw(qualified))
        elif len(model.workers) > 1 and what in ("detach", "lose"):
            workerID = data.draw(st.sampled_from(sorted(model.workers)[1:]))
            if what == "lose":
                model.lose(workerID)
            else:
                model.detach(workerID, reassign=True)
        for entry in model.served[begun:]:
            lead.append(lead[-1] + weight(one[1]) * (entry.flow == one) - weight(two[1]) * (entry.flow == two))
        begun = len(model.served)
    assert max(lead) - min(lead) <= weight(one[1]) + weight(two[1])


@given(st.lists(st.sampled_from(NICENESSES), min_size=1, max_size=4), st.sampled_from(NICENESSES), st.integers(0, 25))
def test_a_new_flow_neither_waits_nor_overtakes(others: list[int], niceness: int, before: int) -> None:
    """Before the nth task of a new flow goes, each backlogged flow gets what n of the new flow's tasks weigh."""
    model = Model()
    worker = model.attach("abcdn")
    flows = list(zip("abcd", others, strict=False))
    for _ in range(70):
        for flow in flows:
            model.submit(*flow)

    def finish() -> None:
        model.finish(next(iter(model.workers[worker].run)), Returned(None))

    for _ in range(before):
        finish()
    for _ in range(3):
        model.submit("n", niceness)
    joined = len(model.served)
    for n in (1, 2):
        while [entry.flow for entry in model.served].count(("n", niceness)) < n:
            finish()
        counts = Counter(entry.flow for entry in model.served[joined:])
        for series, nice in flows:
            earned = n * weight(niceness) / weight(nice)
            assert earned - 1 <= counts[series, nice] <= earned + 1


@given(st.data())
def test_work_conserving(data: st.DataObject) -> None:
    """No worker with room idles beside what it may run, and the one with the fewest unfinished tasks is next.

    `Model.check` and `Model._checkTurn` assert it at each step. Here, also, among equals the load is level.
    """
    model = Model()
    qualifications = data.draw(QUALIFICATIONS)
    for _ in range(data.draw(st.integers(1, 5))):
        model.attach(qualifications, Window(4, 4))
    for _ in range(data.draw(st.integers(1, 25))):
        model.submit(data.draw(st.sampled_from([None, *sorted(qualifications)])))
        sizes = [len(worker.given) for worker in model.workers.values()]
        assert max(sizes) - min(sizes) <= 1
        assert sum(sizes) == min(4 * len(sizes), len(model.entries))


@given(st.data(), st.booleans())
def test_no_worker_idles_beside_another_that_holds_unstarted_tasks(data: st.DataObject, iterating: bool) -> None:
    """Ticks see to it beside an iterator, looks beside a worker that was halted."""
    model = Model()
    workers = [model.workers[worker] for worker in crowd(model, data, atLeast=2)]

    def proceed() -> None:
        while any(worker.back or worker.running for worker in workers):
            for worker in workers:
                for ticket in list(worker.back):
                    model.finish(ticket, worker.back[ticket])
                for ticket in worker.running:
                    model.finish(ticket, Iterating(model.number(), 2.0) if iterates else Returned(None, 2.0))

    iterates = iterating
    if iterating:
        load(model, data)
        proceed()
        iterates = False
    for worker in workers:
        worker.stuck = (bool(worker.iterations) or not iterating) and data.draw(st.booleans())
    load(model, data)
    for _ in range(80):  # more often than there are tasks and workers that could give them back
        proceed()
        if model.ticking:
            model.tick()
        if not iterating:
            model.look()
    stuck = [worker for worker in workers if worker.stuck]
    assert not any(
        worker.mayRun(task) for held in stuck for task in held.run.values() for worker in workers if not worker.stuck
    )
    model.tick()
    model.look()
    model.tick()
    assert not any(worker.back for worker in stuck), "what nobody starts goes round once, not for ever"


@given(st.data())
def test_a_death_is_charged_only_to_the_call_that_ran(data: st.DataObject) -> None:
    model = Model()
    worker = model.attach((), Window(1, 64))
    model.submit()
    for _ in range(data.draw(st.integers(0, 6))):  # the window grows
        model.finish(next(iter(model.workers[worker].run)), Returned(None, 1e-6))
        model.submit()
    for _ in range(data.draw(st.integers(0, 30))):
        model.submit()
    ran = model.workers[worker].running
    held = list(model.workers[worker].given.values())
    if data.draw(st.booleans()):
        model.lose(worker)
        model.attach()
    else:
        model.restart(worker)
    model.finishAll()
    charged = {task.id: task.id == held[0].id for task in held} if ran else {}
    assert {task.id: model.entries[task.id].attempt == 1 for task in held} == charged
    assert all(isinstance(entry.settlement, Returned) for entry in model.entries.values())


@given(st.integers(0, 3), st.lists(st.sampled_from(("lose", "restart", "expire")), min_size=4, max_size=8))
def test_two_starts_at_most(retries: int, deaths: list[str]) -> None:
    """A call that ends every worker it is given to is started once, and as often again as it may be: once."""
    model = Model()
    task = model.submit(timeout=9.0, retries=retries)
    starts = 0
    for death in deaths:
        if not model.workers:
            model.attach()
        (worker,) = model.workers
        if task in {t.id for t in model.workers[worker].run.values()}:
            starts += 1
        if death == "lose":
            model.lose(worker)
        elif death == "restart":
            model.restart(worker)
            model.finishAll() if model.entries[task].settlement is not None else None
            for ticket, outcome in list(model.workers[worker].back.items()):
                model.finish(ticket, outcome)
        else:
            for ticket in list(model.armed):
                model.expire(ticket)
            model.lose(worker)
    assert starts == min(retries + 1, len(deaths))
    assert (model.entries[task].settlement is not None) == (len(deaths) > retries)


@given(st.data())
def test_what_had_not_started_keeps_its_place(data: st.DataObject) -> None:
    """Tasks of one flow start in the order in which they were submitted, however often they were given back."""
    model = Model()
    model.attach((), Window(1, 8))
    for _ in range(3):
        model.submit()
        model.finish(next(iter(next(iter(model.workers.values())).run)), Returned(None, 1e-6))
    tasks = [model.submit() for _ in range(data.draw(st.integers(2, 15)))]
    started: list[int] = []
    while any(model.entries[t].settlement is None for t in tasks):
        (worker,) = model.workers.values()
        what = data.draw(st.sampled_from(("finish", "recall", "lose"))) if len(started) < 30 else "finish"
        ran = worker.running[0]
        if what == "finish":
            started.append(worker.run[ran].id)
            model.finish(ran, Returned(None, 1e-6))
        elif what == "recall":
            worker.recall()
        else:  # what it ran had not started either, as worker as anybody can see
            for ticket in list(worker.run):
                worker.back[ticket] = Recalled()
            worker.run.clear()
        for ticket, outcome in list(worker.back.items()):
            model.finish(ticket, outcome)
    assert started == tasks


@pytest.mark.parametrize("window", [Window(), Window(1, 64), Window(8, 8)])
def test_cost(window: Window) -> None:
    """What a task costs does not grow with how many are queued, but for the depth of a heap (in C)."""
    few, many = callsPerTask(300, window), callsPerTask(6_000, window)
    assert many <= 1.1 * few


def test_cost_does_not_grow_with_the_workers() -> None:
    """What a task costs, with all that happens on the way, is the same in a small crew and in a large one."""
    few, many = callsPerTaskOf(20), callsPerTaskOf(400)
    assert many <= 1.2 * few


def test_cost_is_no_recursion() -> None:
    """A hundred thousand queued tasks, in a stack with little more room than this test needs."""
    depth = 0
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        depth, frame = depth + 1, frame.f_back
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(depth + 150)
    try:
        assert runAll(100_000, Window(1, 64)) == 100_000
    finally:
        sys.setrecursionlimit(limit)


def runAll(n: int, window: Window) -> int:
    """How many of N tasks, of some fifty flows, are settled by two workers."""
    scheduler = Scheduler()
    scheduler.attach(1, ("a",), window)
    scheduler.attach(2, (), window)
    tickets: list[int] = []
    settled = 0

    def submit(taskID: int) -> None:
        series, niceness = ("a", None)[taskID % 2], taskID % 41 - 20
        for command in scheduler.submit(Task(taskID, CALL, series, niceness, doNext=taskID % 43 == 0)):
            if isinstance(command, Assign):
                tickets.append(command.ticket)

    for taskID in range(1, n + 1):
        submit(taskID)
    for ticket in tickets:  # which grows
        for command in scheduler.finished(ticket, Returned(None, 1e-5)):
            if isinstance(command, Assign):
                tickets.append(command.ticket)
            elif isinstance(command, Settle):
                settled += 1
    return settled


def callsPerTask(n: int, window: Window) -> float:
    return countCalls(lambda: runAll(n, window)) / n


def callsPerTaskOf(workers: int) -> float:
    """The calls that a task takes of so many WORKERS: with ticks, calls that go next, iterators, and a shutdown."""
    scheduler = Scheduler()
    tasks = 30 * workers
    tickets: list[tuple[int, int]] = []
    ticks: list[Tick] = []
    ticked = 0

    def obey(commands: list[Command]) -> None:
        for command in commands:
            if isinstance(command, Assign):
                tickets.append((command.ticket, command.task.id))
            elif isinstance(command, Stop):
                obey(scheduler.stopped(command.worker))
            elif isinstance(command, Tick):
                ticks.append(command)

    def run() -> None:
        nonlocal ticked
        for worker in range(1, workers + 1):
            obey(scheduler.attach(worker, ("a",) if worker % 2 else (), Window(1, 8)))
        for n in range(1, tasks + 1):
            obey(scheduler.submit(Task(n, CALL, ("a", None)[n % 2], doNext=n % 5 == 0)))
        for done, (ticket, task) in enumerate(tickets):  # which grows
            if task % 20 == 0:
                worker, _ = scheduler.assigned(ticket) or (0, None)
                obey(scheduler.finished(ticket, Iterating(task, 1e-5)))
                obey(scheduler.iterationEnded(worker, task))
            else:
                obey(scheduler.finished(ticket, Returned(None, 1e-5)))
            if done % workers == 0 and len(ticks) > ticked:
                ticked += 1
                obey(scheduler.tick())
        obey(scheduler.shutdown())
        assert scheduler.closed

    calls = countCalls(run)
    assert ticked >= 10
    return calls / tasks


def countCalls(f: Callable[[], object]) -> int:
    calls = 0

    def count(frame: FrameType, event: str, arg: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        f()
    finally:
        sys.setprofile(before)
    return calls


@given(st.lists(st.none() | st.integers(1, 5), max_size=12), st.integers(1, 12))
def test_a_worker_that_is_resized_is_given_what_it_has_room_for_and_one_that_is_away_nothing(
    sizes: list[int | None], tasks: int
) -> None:
    model = Model()
    worker = model.attach()
    for _ in range(tasks):
        model.submit()
    held = 1
    for size in sizes:
        model.resize(worker, None if size is None else Window(size, size))
        held = max(held, min(size or 0, tasks))
        assert len(model.scheduler.held(worker)) == held
    model.resize(worker, Window())
    model.finishAll()
    assert all(isinstance(entry.settlement, Returned) for entry in model.entries.values())
