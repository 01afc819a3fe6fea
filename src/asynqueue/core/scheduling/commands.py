"""What the scheduler orders: the small frozen records that its events answer with."""

from __future__ import annotations

from typing import Any, TypeAlias

import attrs

from asynqueue.core.frozen import record
from asynqueue.core.records import Lost, Raised, Returned, Settlement, Task


@record
class Assign:
    """Have WORKER run TASK, and report its outcome under TICKET."""

    worker: int
    ticket: int
    task: Task


@attrs.frozen
class Arm:
    """Report `Scheduler.expired` for TICKET in SECONDS, unless its outcome comes first."""

    ticket: int
    seconds: float


@attrs.frozen
class Interrupt:
    """Have WORKER let go of the call under TICKET: its result is not wanted any more."""

    worker: int
    ticket: int


@attrs.frozen
class Recall:
    """Have WORKER give back what it has not started."""

    worker: int


@record
class Settle:
    """The task of number TASK has ended."""

    task: int
    settlement: Settlement


@attrs.frozen
class WorkerReady:
    """WORKER has run the saved updates and is open for its first task."""

    worker: int


@attrs.frozen
class Updated:
    """UPDATE has ended on WORKER; with Lost, it will not run there any more.

    It is ordered again whenever the worker ran UPDATE again, after a restart.
    """

    update: int
    worker: int
    outcome: Returned | Raised | Lost


@attrs.frozen
class UpdateAbandoned:
    """UPDATE has killed worker after worker, and is run on none any more: those to come do without it."""

    update: Task


@attrs.frozen
class Discard:
    """The iterator behind SOURCE is not wanted: close it."""

    source: Any  # an adapter's object, as in `records.Iterating`


@attrs.frozen
class Stop:
    """Stop WORKER, which holds nothing, and report `Scheduler.stopped`."""

    worker: int


@attrs.frozen
class Tick:
    """Report `Scheduler.tick` when so many of `window.BUDGET` have passed, and not when the `Tick` before said."""

    budgets: int = 1


@attrs.frozen
class Closed:
    """The queue has shut down: no task is left and every worker is gone."""


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
    | Closed
)


class CommandBuffer:
    """The commands that follow from one event, in the order in which they are handed out.

    First come the deeds, which workers wait for, then the clocks, then the ends, with which callers go on.
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
