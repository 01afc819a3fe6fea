"""Which workers hold tasks that another could start sooner, and when these are recalled.

A worker holds tasks *ahead*: more than it runs at once, so that it never waits for the next one. They are recalled in
four cases. A recalled task goes back to its place in the queue, and from there to another worker.

- **The worker stalls.** While anything is ahead, a tick is ordered for the time when the worker has been silent for
  longer than its calls take. A stalled worker's window falls to what it runs at once. While another worker is idle, one
  `window.BUDGET` of silence is enough.
- **The window has shrunk** below what the worker holds.
- **A doNext call waits**, and the worker holds more than a budget of work. The call itself stays in the
  queue, where any worker may take it.
- **Another worker is idle**, and the worker may not have started what it holds: it makes an item of an iterator that
  takes long, or it was halted. Then it is *asked*: at the next tick if it has an iterator, else at the next look. It is
  asked once for each task: a task that it keeps has started. A task that a worker gave back is not taken from another
  worker for the benefit of the first.

Cost: O(1) an assignment, O(workers that hold tasks ahead) a tick, O(workers) a look.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Set

from asynqueue.core.records import Task
from asynqueue.core.scheduling.commands import CommandBuffer, Recall, Tick
from asynqueue.core.scheduling.matching import Matcher, WorkerEntry


class Stealing:
    """The tasks that workers hold ahead. Ticks are ordered by commands in `out`."""

    def __init__(self, matcher: Matcher, out: CommandBuffer) -> None:
        self._matcher = matcher
        self._out = out
        self._ahead: dict[int, WorkerEntry] = {}  # the workers that hold tasks ahead, and some that did
        self.givenBack: dict[int, set[int]] = {}  # by task, the workers that were asked for it and had not started it
        self.ticking: int = 0  # budgets until the tick that was ordered; 0 if there is none

    def watch(self, worker: WorkerEntry) -> None:
        """Watch a worker that holds tasks ahead."""
        self._ahead[worker.id] = worker

    def assignedAhead(self, worker: WorkerEntry) -> None:
        """Watch a worker that was just assigned a task ahead, and order a tick for when it counts as stalled."""
        self._ahead[worker.id] = worker
        if self.ticking != 1:
            self.orderTick(worker.window.patience)

    def orderTick(self, budgets: int = 1) -> None:
        """Order a tick after at most so many budgets."""
        if not self.ticking or budgets < self.ticking:
            self.ticking = budgets
            self._out.clocks.append(Tick(budgets))

    def hasten(self) -> None:
        """Order the next tick sooner if a worker is idle: it may run what is ahead at another."""
        if self._matcher.idle():
            self.orderTick()

    def tick(self, iterating: Iterable[WorkerEntry]) -> tuple[list[WorkerEntry], list[Recall]]:
        """A tick has come. Return the workers that are stalled, and what is recalled.

        `iterating` are the workers that have open iterations.
        """
        passed, self.ticking = self.ticking, 0
        idle = self._matcher.idle()
        stalled: list[WorkerEntry] = []
        recalled: list[WorkerEntry] = []
        soonest = 0
        for worker in self._holders():
            worker.silent = worker.silent + passed if worker.answered == worker.ticked else 0
            worker.ticked = worker.answered
            patience = 1 if idle else worker.window.patience
            if worker.silent >= patience:
                worker.window.stalled()
                stalled.append(worker)
                recalled.append(worker)
            else:
                if len(worker.held) > worker.window.size:
                    recalled.append(worker)
                left = patience - worker.silent
                soonest = min(soonest or left, left)
        # The order matters: what comes back first is assigned to an idle worker at once.
        recalled.sort(key=_foremost)
        recalls = [Recall(worker.id) for worker in recalled]
        if soonest:
            self.orderTick(soonest)
        if idle:
            recalls += self._askAll(worker for worker in iterating if worker.ahead <= 0)
        return stalled, recalls

    def look(self, workers: Iterable[WorkerEntry]) -> list[Recall]:
        """Return the recalls from workers that may not have started what an idle worker could run."""
        return self._askAll(workers) if self._matcher.idle() else []

    def makeWay(self, task: Task) -> list[Recall]:
        """Return the recalls that let `task`, which finds no room, go before more than a budget of unstarted work."""
        return [Recall(worker.id) for worker in self._holders() if worker.window.slow and worker.mayRun(task)]

    def gaveBack(self, worker: WorkerEntry, ticket: int, task: Task) -> None:
        """Note that a worker has given back a task, which it may have been asked for."""
        if ticket <= worker.asked:
            self.givenBack.setdefault(task.id, set()).add(worker.id)

    def preferred(self, worker: WorkerEntry, task: Task) -> WorkerEntry:
        """Return the worker to run `task`: an idle one that has not given it back, rather than one that has."""
        gave: Collection[int] = self.givenBack.get(task.id, ())
        return (worker.id in gave and self._matcher.idleFor(task, gave)) or worker

    def settled(self, taskID: int) -> None:
        """Forget a task that has settled."""
        self.givenBack.pop(taskID, None)

    def left(self, worker: WorkerEntry) -> None:
        """Watch a worker no longer."""
        self._ahead.pop(worker.id, None)

    def validate(self, workers: Iterable[WorkerEntry], unsettled: Set[int]) -> None:
        """Assert every invariant."""
        assert {worker.id for worker in workers if worker.ahead > 0} <= self._ahead.keys()
        assert self.givenBack.keys() <= unsettled, "only what is not settled is remembered"

    def _holders(self) -> list[WorkerEntry]:
        """Return the workers that hold tasks ahead."""
        for worker in [worker for worker in self._ahead.values() if worker.ahead <= 0]:
            del self._ahead[worker.id]
        return list(self._ahead.values())

    def _askAll(self, workers: Iterable[WorkerEntry]) -> list[Recall]:
        return [Recall(worker.id) for worker in workers if self._ask(worker)]

    def _ask(self, worker: WorkerEntry) -> bool:
        """Return whether `worker` is to be asked: it holds a task that an idle worker may run, and was not asked."""
        if not worker.held or next(reversed(worker.held)) <= worker.asked:
            return False
        for ticket, assignment in worker.held.items():
            task = assignment.task
            isNew = ticket > worker.asked and not task.update
            if isNew and self._matcher.idleFor(task, self.givenBack.get(task.id, ())):
                worker.asked = next(reversed(worker.held))
                return True
        return False


def _foremost(worker: WorkerEntry) -> int:
    """Return the lowest band of the tasks that a worker holds; it holds some."""
    return min(assignment.place.band for assignment in worker.held.values() if assignment.place)
