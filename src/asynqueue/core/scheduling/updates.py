"""The updates of a queue: which are saved, which run on one worker after another, and which have killed workers.

An *update* is a call that every worker runs, past the queue; one of a series, every worker that is qualified for it. A
saved update also runs on every worker that comes later,
before its first task. A *sequential* update runs on the next worker when it has ended on the one before.

An update under which two workers die is *abandoned*: it runs on no other worker. Two rules keep a good update:

- A worker that survives the update clears the death before.
- A death counts only if that worker began the update after the death before. Several workers may die of one cause that
  is not the update.

Cost: O(saved updates) for each worker that joins, else O(1).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Hashable, Iterable, Mapping

import attrs

from asynqueue.core.records import Interrupted, Iterating, Lost, Raised, Recalled, Returned, RunOutcome, Task
from asynqueue.core.scheduling.assignments import Assignments
from asynqueue.core.scheduling.commands import CommandBuffer, UpdateAbandoned, Updated
from asynqueue.core.scheduling.matching import Assignment, WorkerEntry


@attrs.define
class _Deaths:
    """The deaths in a row under an update, and the last ticket of the queue when the last of them was counted."""

    number: int = 0
    counted: int = 0


@attrs.define
class _Sequence:
    """A sequential update: the worker that runs it now, and those that run it later."""

    current: int
    waiting: deque[int]


class Updates:
    """The updates of one queue, and which worker has which to run. Commands go to `out`.

    Methods that give a worker more to do, or less, add it to `changed`: the scheduler reviews it then.
    """

    def __init__(self, workers: Mapping[int, WorkerEntry], assignments: Assignments, out: CommandBuffer) -> None:
        self.changed: list[WorkerEntry] = []
        self._workers = workers
        self._assignments = assignments
        self._out = out
        self.turns: deque[tuple[Task, int]] = deque()  # of sequential updates, on the workers whose turn it is
        self._saved: dict[int, Task] = {}
        self._deaths: dict[int, _Deaths] = {}  # by update
        self._sequences: dict[int, _Sequence] = {}  # by update, while workers wait for it

    @property
    def sequential(self) -> bool:
        """True while an update is still to run on a worker that waits for its turn."""
        return bool(self._sequences)

    def begin(self, update: Task, workerIDs: Collection[int], save: bool, sequential: bool) -> None:
        """Have some workers run an update; with `save`, every later worker too."""
        if save:
            self._saved[update.id] = update
        waiting = deque(workerIDs if sequential else ())
        if len(waiting) > 1:
            self._sequences[update.id] = _Sequence(waiting.popleft(), waiting)
            workerIDs = list(workerIDs)[:1]
        for workerID in workerIDs:
            self._give(update, workerID)

    def goOn(self) -> bool:
        """Give sequential updates to the workers whose turn it is. Return whether any worker has changed."""
        while self.turns:
            self._give(*self.turns.popleft())
        return bool(self.changed)

    def dueOn(self, worker: WorkerEntry) -> list[Task]:
        """Return the saved updates that a joining worker runs: not those for which it waits in a sequence."""
        return [
            update
            for update in self._saved.values()
            if worker.mayRun(update)
            and (update.id not in self._sequences or worker.id not in self._sequences[update.id].waiting)
        ]

    def qualified(self, worker: WorkerEntry, series: Hashable) -> None:
        """Have a worker run the saved updates of a series for which it has just been qualified."""
        due = [update for update in self.dueOn(worker) if update.series == series]
        if series is not None and due:
            self.queue(worker, due)
            self.changed.append(worker)

    def restart(self, worker: WorkerEntry) -> None:
        """Have a fresh worker run the saved updates, but for one that comes back with the report of the old worker."""
        held = {assignment.task.id for assignment in worker.held.values()}
        self.queue(worker, [update for update in self.dueOn(worker) if update.id not in held])

    def ended(self, worker: WorkerEntry, assignment: Assignment, outcome: RunOutcome) -> None:
        """Note how an update has ended on a worker."""
        update = assignment.task
        if isinstance(outcome, (Lost, Interrupted)):
            self.charge(assignment)
        elif not isinstance(outcome, Recalled) and not self._isAbandoned(update):
            self._deaths.pop(update.id, None)
        if isinstance(outcome, (Returned, Raised)):
            self.answer(update, worker.id, outcome)
        elif isinstance(outcome, Iterating):
            refusal = TypeError(f"an update cannot return an iterator, as {update.call} did")
            self.answer(update, worker.id, Raised(refusal))
        elif worker.cls is None or self._isAbandoned(update):
            self.answer(update, worker.id, Lost("the worker died or left"))
        else:
            self.queue(worker, [update])

    def charge(self, assignment: Assignment) -> None:
        """Count the death of a worker under an update. An abandoned update runs on no other worker."""
        update = assignment.task
        deaths = self._deaths.setdefault(update.id, _Deaths())
        if assignment.ticket > deaths.counted:
            deaths.number += 1
            deaths.counted = self._assignments.lastTicket
        if not self._isAbandoned(update):
            return
        if self._saved.pop(update.id, None) is not None:
            self._out.deeds.append(UpdateAbandoned(update))
        for worker in self._workers.values():
            if update in worker.updates:
                worker.updates.remove(update)
                self.answer(update, worker.id, Lost("it killed two workers"))
                self.changed.append(worker)

    def answer(self, update: Task, workerID: int, outcome: Returned | Raised | Lost) -> None:
        """Report how an update has ended on a worker. A sequential one goes on to the next worker."""
        self._out.deeds.append(Updated(update.id, workerID, outcome))
        sequence = self._sequences.get(update.id)
        if sequence is not None and sequence.current == workerID:
            sequence.current = sequence.waiting.popleft()
            if not sequence.waiting:
                del self._sequences[update.id]
            self.turns.append((update, sequence.current))

    def forget(self, worker: WorkerEntry, reason: str) -> None:
        """Take from a worker the updates that it has not run."""
        updates, worker.updates = worker.updates, deque()
        for update in updates:
            self.answer(update, worker.id, Lost(reason))

    def _give(self, update: Task, workerID: int) -> None:
        worker = self._workers.get(workerID)
        if self._isAbandoned(update):
            self.answer(update, workerID, Lost("it killed two workers"))
        elif worker is None or worker.cls is None:
            self.answer(update, workerID, Lost("the worker left"))
        else:
            self.queue(worker, [update])
            self.changed.append(worker)

    def queue(self, worker: WorkerEntry, updates: Iterable[Task]) -> None:
        """Have a worker run updates too. It runs each once, in the order in which they were made."""
        due = {update.id: update for update in (*worker.updates, *updates)}
        worker.updates = deque(due[updateID] for updateID in sorted(due))

    def _isAbandoned(self, update: Task) -> bool:
        deaths = self._deaths.get(update.id)
        return deaths is not None and deaths.number > update.retries

    def validate(self) -> None:
        """Assert every invariant."""
        assert not self.changed, "every changed worker is reviewed"
        assert not self.turns, "no worker waits for a turn that has come"
        for update in self._saved.values():
            assert not self._isAbandoned(update), "an abandoned update is not saved"
        for sequence in self._sequences.values():
            assert sequence.waiting, "a sequence has workers that wait"
