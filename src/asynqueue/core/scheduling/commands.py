"""The commands of the scheduler, as frozen records. `asynqueue.queue.driver` has them carried out."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, TypeAlias

import attrs

from asynqueue.core.frozen import record
from asynqueue.core.records import Lost, Raised, Returned, Settlement, Task


@record
class Assign:
    """Give `task` to `worker`. It reports the outcome under `ticket`."""

    worker: int
    ticket: int
    task: Task


@attrs.frozen
class Arm:
    """Call `Scheduler.expired` for `ticket` after so many seconds, unless its outcome comes first."""

    ticket: int
    seconds: float


@attrs.frozen
class Interrupt:
    """Have `worker` end the call under `ticket`: its result is dropped."""

    worker: int
    ticket: int


@attrs.frozen
class Recall:
    """Have `worker` give back what it has not started."""

    worker: int


@record
class Settle:
    """Fire the Deferred of the task of this number: it has ended."""

    task: int
    settlement: Settlement


@attrs.frozen
class WorkerReady:
    """Note that `worker` has run the saved updates and takes tasks."""

    worker: int


@attrs.frozen
class Updated:
    """Note that `update` has ended on `worker`; with `Lost`, it does not run there any more.

    There is another such command each time the worker has run the update again, after a restart.
    """

    update: int
    worker: int
    outcome: Returned | Raised | Lost


@attrs.frozen
class UpdateAbandoned:
    """Note that `update` has killed two workers in a row. No later worker runs it."""

    update: Task


@attrs.frozen
class Discard:
    """Close the iterator behind `source`: its items are not wanted."""

    source: Any  # an adapter's object, as in `Iterating`


@attrs.frozen
class Stop:
    """Stop `worker`, which holds nothing, and call `Scheduler.stopped` when it has stopped."""

    worker: int


@attrs.frozen
class Tick:
    """Call `Scheduler.tick` after so many `window.BUDGET`. It replaces the tick that was ordered before."""

    budgets: int = 1


@attrs.frozen
class Unserved:
    """Log that `calls` queued calls of `series` wait, and that no worker is qualified for them."""

    series: Hashable
    calls: int


@attrs.frozen
class Closed:
    """Note that the queue has shut down: no task is left and every worker is gone."""


Command: TypeAlias = (
    Assign
    | Arm
    | Interrupt
    | Recall
    | Settle
    | WorkerReady
    | Updated
    | UpdateAbandoned
    | Discard
    | Stop
    | Tick
    | Unserved
    | Closed
)


class CommandBuffer:
    """The commands that follow from one event.

    They are handed out in this order: deeds, for which workers wait; clocks; ends, on which callers go on.
    """

    __slots__ = ("clocks", "deeds", "ends")

    def __init__(self) -> None:
        self.deeds: list[Command] = []
        self.clocks: list[Arm | Tick] = []
        self.ends: list[Settle | Stop | Closed] = []

    def __bool__(self) -> bool:
        return bool(self.deeds or self.clocks or self.ends)

    def take(self) -> list[Command]:
        """Return all commands, and forget them."""
        commands, self.deeds = self.deeds, []
        if self.clocks:
            commands += self.clocks
            self.clocks.clear()
        if self.ends:
            commands += self.ends
            self.ends.clear()
        return commands
