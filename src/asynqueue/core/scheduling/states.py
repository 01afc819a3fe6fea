"""The transition tables of tasks and workers, and the reasons why a worker resigns.

A transition that is not in these tables does not exist. `asynqueue.core.scheduling.scheduler` looks each transition
of a worker up in `WORKER`; its properties hold it to `TASK`. The diagrams in the documentation are drawn from the
tables.
"""

from __future__ import annotations

import enum
from typing import TypeAlias

import attrs


class TaskState(enum.Enum):
    """The state of a task."""

    QUEUED = "queued"
    ASSIGNED = "assigned"
    SETTLED = "settled"


class WorkerState(enum.Enum):
    """The state of a worker."""

    JOINING = "joining"
    OPEN = "open"
    FULL = "full"
    AWAY = "away"
    LEAVING = "leaving"
    GONE = "gone"


TASK: dict[tuple[TaskState, str], TaskState] = {
    (TaskState.QUEUED, "assign"): TaskState.ASSIGNED,
    (TaskState.ASSIGNED, "give back"): TaskState.QUEUED,
    (TaskState.QUEUED, "settle"): TaskState.SETTLED,
    (TaskState.ASSIGNED, "settle"): TaskState.SETTLED,
}
"""Every transition of a task."""

WORKER: dict[tuple[WorkerState, str], WorkerState] = {
    (WorkerState.JOINING, "updated"): WorkerState.OPEN,
    (WorkerState.OPEN, "fill"): WorkerState.FULL,
    (WorkerState.FULL, "free"): WorkerState.OPEN,
    (WorkerState.OPEN, "update"): WorkerState.JOINING,
    (WorkerState.FULL, "update"): WorkerState.JOINING,
    (WorkerState.JOINING, "restart"): WorkerState.JOINING,
    (WorkerState.OPEN, "restart"): WorkerState.JOINING,
    (WorkerState.FULL, "restart"): WorkerState.JOINING,
    (WorkerState.JOINING, "disconnect"): WorkerState.AWAY,
    (WorkerState.OPEN, "disconnect"): WorkerState.AWAY,
    (WorkerState.FULL, "disconnect"): WorkerState.AWAY,
    (WorkerState.AWAY, "reconnect"): WorkerState.JOINING,
    (WorkerState.JOINING, "leave"): WorkerState.LEAVING,
    (WorkerState.OPEN, "leave"): WorkerState.LEAVING,
    (WorkerState.FULL, "leave"): WorkerState.LEAVING,
    (WorkerState.AWAY, "leave"): WorkerState.LEAVING,
    (WorkerState.JOINING, "lose"): WorkerState.GONE,
    (WorkerState.OPEN, "lose"): WorkerState.GONE,
    (WorkerState.FULL, "lose"): WorkerState.GONE,
    (WorkerState.AWAY, "lose"): WorkerState.GONE,
    (WorkerState.LEAVING, "lose"): WorkerState.GONE,
    (WorkerState.LEAVING, "stopped"): WorkerState.GONE,
}
"""Every transition of a worker."""


@attrs.frozen
class Restarted:
    """A fresh worker has replaced this one under the same ID: a new process, for example.

    The worker reports the outcome of every task that it held. Then it runs the saved updates again.
    """


@attrs.frozen
class Disconnected:
    """The worker has no connection at present. It stays attached, and gets no task until it is `Reconnected`.

    A worker that is a `Recaller` is asked to `recall` first, and reports what it knows of each task. Of the tasks that
    it does not report, as many count as started as it runs at once.
    """


@attrs.frozen
class Reconnected:
    """The worker has a connection again. It runs the saved updates, and then takes tasks."""


@attrs.frozen
class Departed:
    """The worker is gone for good and reports nothing more.

    Args:
        error: The cause. A caller that still waits for `TaskQueue.attachWorker` receives it.
    """

    error: BaseException | None = None


Resignation: TypeAlias = Restarted | Disconnected | Reconnected | Departed
"""The reasons why a worker resigns."""
