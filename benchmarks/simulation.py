"""Simulate the whole core with thousands of virtual workers, in virtual time, with every fault drawn from a seed.

    python -m benchmarks.simulation [--seed 1] [--workers N --tasks N]

Without figures of your own, a table shows how the cost of a task grows up to 10,000 workers and 1,000,000 tasks. The
same seed gives the same run, event by event. Its *digest*, a hash of everything that happened, shows that.

Theory of operation. A `Simulation` surrounds a `Scheduler`: it turns commands into later events, ordered by a heap.
Workers run what they hold, one call after another. They are slow, die, restart, leave during an update, or answer
twice. An answer takes its time, and arrives before the worker's end, as on a link. Or it is lost, and so is the
worker, later. Each start and each settlement is counted. `check` returns what violates the design.
"""

from __future__ import annotations

import argparse
import hashlib
import random
from collections import deque
from heapq import heappop, heappush
from time import process_time
from typing import Any, NoReturn

import attrs
from typing_extensions import assert_never

from asynqueue.core.records import CallSpec, Interrupted, Lost, Raised, Recalled, Returned, RunOutcome, Settlement, Task
from asynqueue.core.scheduling import commands as c
from asynqueue.core.scheduling.scheduler import Scheduler
from asynqueue.core.scheduling.window import BUDGET, Window

CALL = CallSpec.of(abs, -1)
SERIES = (None, None, "a", "b")
QUALIFICATIONS = ((), ("a",), ("b",), ("a", "b"))


@attrs.frozen
class Faults:
    """The probability of each fault, at each start of a call or at each answer."""

    death: float = 0.002  # the worker dies under the call, and another comes
    restart: float = 0.002  # the worker dies and restarts
    silence: float = 0.001  # an answer is lost on the way; that is noticed when the worker is lost, later
    doubled: float = 0.01  # the worker answers twice
    slow: float = 0.01  # the call takes a hundred times as long
    detach: float = 0.001  # the worker leaves while it runs
    update: float = 0.0005  # every worker runs an update
    cancel: float = 0.005  # the call is cancelled
    timeout: float = 0.3  # the call has a timeout


@attrs.define(eq=False)
class Virtual:
    """A virtual worker: the tasks that it holds, in order, by ticket."""

    id: int
    held: dict[int, Task] = attrs.field(factory=dict)
    running: int | None = None  # the ticket of what it runs
    said: dict[int, RunOutcome] = attrs.field(factory=dict)  # by ticket: the answers on their way, in order
    dead: bool = False


class Simulation:
    """A run of TASKS tasks on WORKERS workers, with FAULTS, all of it drawn from SEED."""

    def __init__(self, seed: int, workers: int, tasks: int, faults: Faults | None = None) -> None:
        self.seed = seed
        self.tasks = tasks
        self.faults = faults or Faults()
        self.now = 0.0
        self.starts: dict[int, int] = {}
        self.charges: dict[int, int] = {}  # how often a worker died, or time ran out, under a task
        self.settled: dict[int, Settlement] = {}
        self.again: list[int] = []  # tasks that settled when they had settled before
        self.events = 0
        self.closed = False
        self._ticks = 0  # ordered so far
        self._random = random.Random(seed)
        self._scheduler = Scheduler()
        self._heap: list[tuple[float, int, Any]] = []  # an event, and when; each knows what to do: hence Any
        self._workers: dict[int, Virtual] = {}
        self._lastWorker = 0
        self._lastTask = 0
        self._lastEvent = 0
        self._updates: set[int] = set()
        self._trace = hashlib.blake2b(digest_size=8)
        for _ in range(workers):
            self._hire()
        self._later(0.0, self._submit)

    @property
    def digest(self) -> str:
        """Return a hash of everything that happened."""
        return self._trace.hexdigest()

    def run(self, validate: bool = False) -> None:
        """Run to the end. With VALIDATE, check every invariant after each event."""
        while self._heap:
            self.now, _, event = heappop(self._heap)
            self.events += 1
            event()
            if validate:
                self._scheduler.validate()

    def check(self) -> list[str]:
        """Return what violates the design."""
        wrong = [f"task {task} settled twice" for task in self.again]
        ended = self.settled.keys() | self._updates
        wrong += [f"task {n} never settled" for n in range(1, self._lastTask + 1) if n not in ended]
        wrong += [f"task {task} was started {n} times" for task, n in self.starts.items() if n > 2]
        wrong += [
            f"task {task} was started {n} times, with {self.charges.get(task, 0)} deaths"
            for task, n in self.starts.items()
            if n > 1 + self.charges.get(task, 0)
        ]
        wrong += [
            f"task {task} was lost after {self.starts.get(task, 0)} starts"
            for task, how in self.settled.items()
            if isinstance(how, Lost) and self.charges.get(task, 0) < 2
        ]
        return wrong if self.closed else [*wrong, "the shutdown never ended"]

    # What happens.

    def _submit(self) -> None:
        """Submit a batch of tasks, and schedule the next batch, or the end after the last."""
        draw = self._random
        for _ in range(min(200, self.tasks - len(self.settled) - self._scheduler.unfinished, self.tasks)):
            self._lastTask += 1
            where = draw.random()
            task = Task(
                self._lastTask,
                CALL,
                draw.choice(SERIES),
                draw.choice((-20, 0, 0, 20)),
                doNext=where < 0.05,
                doLast=where > 0.95,
                timeout=0.5 if draw.random() < self.faults.timeout else None,
            )
            self._obey(self._scheduler.submit(task))
            if draw.random() < self.faults.cancel:
                self._later(draw.random() * 0.02, self._cancel, task)
        if self._lastTask - len(self._updates) < self.tasks:
            self._later(200 * 0.011 / max(1, len(self._workers)), self._submit)
        else:
            self._obey(self._scheduler.shutdown())

    def _cancel(self, task: Task) -> None:
        self._obey(self._scheduler.cancel(task))

    def _hire(self) -> None:
        self._lastWorker += 1
        self._workers[self._lastWorker] = Virtual(self._lastWorker)
        # Some are for every series, or those tasks would wait for a worker that never comes.
        qualified = QUALIFICATIONS[3 if self._lastWorker % 4 == 1 else self._lastWorker % 4]
        self._obey(self._scheduler.attach(self._lastWorker, qualified, Window(1, self._random.choice((1, 4, 64)))))

    def _begin(self, worker: Virtual) -> None:
        """Have WORKER start the next of what it holds."""
        if worker.running is not None or worker.dead or not worker.held:
            return
        draw, faults = self._random, self.faults
        ticket, task = next(iter(worker.held.items()))
        worker.running = ticket
        if not task.update:
            self.starts[task.id] = self.starts.get(task.id, 0) + 1
        seconds = draw.expovariate(100.0) * (100 if draw.random() < faults.slow else 1)
        chance = draw.random()
        if chance < faults.death:
            self._later(seconds * draw.random(), self._die, worker, False)
        elif chance < faults.death + faults.restart:
            self._later(seconds * draw.random(), self._die, worker, True)
        elif chance < faults.death + faults.restart + faults.detach:
            self._later(0.0, self._detach, worker)
        elif chance < faults.death + faults.restart + faults.detach + faults.update:
            self._later(0.0, self._update)
        self._later(seconds, self._end, worker, ticket, seconds)

    def _end(self, worker: Virtual, ticket: int, seconds: float) -> None:
        """End what WORKER runs. Its answer takes its time, and may be lost."""
        if worker.dead or worker.running != ticket:
            return
        draw, faults = self._random, self.faults
        task = worker.held.pop(ticket)
        worker.running = None
        outcome: RunOutcome = Raised(ValueError(), seconds) if draw.random() < 0.1 else Returned(task.id, seconds)
        if draw.random() < faults.silence:
            worker.held = {ticket: task, **worker.held}  # as far as the queue can know
            worker.running = ticket
            self._later(draw.random() * 0.1, self._die, worker, False)
            return
        worker.said[ticket] = outcome
        self._later(draw.random() * 1e-4, self._hear, worker, ticket, outcome)
        if draw.random() < faults.doubled:
            self._later(draw.random() * 0.1, self._hear, worker, ticket, outcome)
        self._begin(worker)

    def _hear(self, worker: Virtual, ticket: int, outcome: RunOutcome) -> None:
        if not worker.dead:
            worker.said.pop(ticket, None)
            self._obey(self._scheduler.finished(ticket, outcome))

    def _die(self, worker: Virtual, returning: bool) -> None:
        """Have WORKER die, unless it is dead. With RETURNING, it restarts and reports on all that it held."""
        if worker.dead or worker.id not in self._workers:
            return
        held = worker.held
        if returning:
            ran, worker.running, worker.held = worker.running, None, {}
            self._obey(self._scheduler.restarted(worker.id))
            for ticket in held:
                if ticket == ran:
                    self._charge(ticket)
                self._obey(self._scheduler.finished(ticket, Lost() if ticket == ran else Recalled()))
            return
        for ticket, outcome in list(worker.said.items()):  # a link ends when all that was sent has been received
            self._hear(worker, ticket, outcome)
        worker.dead = True
        del self._workers[worker.id]
        for task in self._scheduler.held(worker.id)[:1]:
            self.charges[task.id] = self.charges.get(task.id, 0) + 1
        self._obey(self._scheduler.lost(worker.id))
        if self._scheduler.running or not self._workers:
            self._hire()

    def _detach(self, worker: Virtual) -> None:
        if worker.id in self._workers and len(self._workers) > 1:
            self._obey(self._scheduler.detach(worker.id, reassign=self._random.random() < 0.5))
            if self._scheduler.running:
                self._hire()

    def _update(self) -> None:
        if self._scheduler.running:
            self._lastTask += 1
            self._updates.add(self._lastTask)
            some = self._scheduler.workers[:8]
            self._obey(self._scheduler.update(Task(self._lastTask, CALL, update=True), some, save=False))

    def _interrupt(self, worker: Virtual, ticket: int) -> None:
        """Interrupt a call as a process does: by its death if the call is running."""
        if ticket not in worker.held:
            return
        if worker.running == ticket:
            del worker.held[ticket]
            worker.running = None
            self._obey(self._scheduler.finished(ticket, Interrupted()))
            self._begin(worker)
        else:
            del worker.held[ticket]
            self._obey(self._scheduler.finished(ticket, Recalled()))

    def _recall(self, worker: Virtual) -> None:
        for ticket in [ticket for ticket in worker.held if ticket != worker.running]:
            del worker.held[ticket]
            self._obey(self._scheduler.finished(ticket, Recalled()))

    def _expire(self, ticket: int) -> None:
        self._obey(self._scheduler.expired(ticket))

    def _stop(self, worker: int) -> None:
        if self._workers.pop(worker, None) is not None:
            self._obey(self._scheduler.stopped(worker))

    def _tick(self, number: int) -> None:
        if number == self._ticks:  # no sooner one was ordered since
            self._obey(self._scheduler.tick())

    def _charge(self, ticket: int) -> None:
        assigned = self._scheduler.assigned(ticket)
        if assigned is not None:
            self.charges[assigned[1].id] = self.charges.get(assigned[1].id, 0) + 1

    # What is done.

    def _obey(self, commands: list[c.Command]) -> None:
        todo = deque(commands)
        while todo:
            self._do(todo.popleft())

    def _do(self, command: c.Command) -> None:
        if isinstance(command, c.Assign):
            worker = self._workers.get(command.worker)
            if worker is not None:
                worker.held[command.ticket] = command.task
                self._later(5e-5, self._begin, worker)
        elif isinstance(command, c.Settle):
            if command.task in self.settled:
                self.again.append(command.task)
            self.settled[command.task] = command.settlement
            self._note(command.task, type(command.settlement).__name__)
        elif isinstance(command, c.Arm):
            self._later(command.seconds, self._outOfTime, command.ticket)
        elif isinstance(command, c.Interrupt):
            worker = self._workers.get(command.worker)
            if worker is not None:
                self._later(5e-5, self._interrupt, worker, command.ticket)
        elif isinstance(command, c.Recall):
            worker = self._workers.get(command.worker)
            if worker is not None:
                self._later(5e-5, self._recall, worker)
        elif isinstance(command, c.Stop):
            self._later(1e-3, self._stop, command.worker)
        elif isinstance(command, c.Tick):
            self._ticks += 1
            self._later(command.budgets * BUDGET, self._tick, self._ticks)
        elif isinstance(command, c.Closed):
            self.closed = True
        elif isinstance(command, (c.WorkerReady, c.Updated)):
            self._note(command.worker, type(command).__name__)
        elif isinstance(command, (c.Discard, c.UpdateAbandoned, c.Unserved)):
            _cannotBe(command)
        else:
            assert_never(command)

    def _outOfTime(self, ticket: int) -> None:
        self._charge(ticket)
        self._expire(ticket)

    def _later(self, seconds: float, what: Any, *args: Any) -> None:
        """Call WHAT with ARGS, of any type, in so many SECONDS."""
        self._lastEvent += 1
        heappush(self._heap, (self.now + seconds, self._lastEvent, lambda: what(*args)))

    def _note(self, number: int, what: str) -> None:
        self._trace.update(f"{self.now!r} {number} {what}\n".encode())


def _cannotBe(command: c.Command) -> NoReturn:
    raise AssertionError(f"no virtual call gives an iterator, and yet: {command}")


def main() -> None:
    """Make the runs that the command line describes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--tasks", type=int)
    asked = parser.parse_args()
    sizes = [(10, 1_000), (100, 10_000), (1_000, 100_000), (10_000, 1_000_000)]
    if asked.workers is not None and asked.tasks is not None:
        sizes = [(asked.workers, asked.tasks)]
    print("| workers | tasks | events | settled twice or never | µs a task | µs an event | digest |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | --- |")
    for workers, tasks in sizes:
        begun = process_time()
        simulation = Simulation(asked.seed, workers, tasks)
        simulation.run()
        seconds = process_time() - begun
        wrong = simulation.check()
        print(
            f"| {workers:,} | {tasks:,} | {simulation.events:,} | {len(wrong)} | {1e6 * seconds / tasks:.0f} "
            f"| {1e6 * seconds / simulation.events:.1f} | `{simulation.digest}` |",
            flush=True,
        )
        for line in wrong[:5]:
            print(line)


if __name__ == "__main__":
    main()
