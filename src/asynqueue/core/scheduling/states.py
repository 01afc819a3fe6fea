"""Every transition of a task and of a worker, as data.

A transition that is not in these tables does not exist: `asynqueue.core.scheduling.scheduler` moves a worker by
looking it up here, and is held to `TASK` by its properties. The diagrams in the documentation are drawn from them.
"""

from __future__ import annotations

import enum


class TaskState(enum.Enum):
    """Where a task is."""

    QUEUED = "queued"
    ASSIGNED = "assigned"
    SETTLED = "settled"


class WorkerState(enum.Enum):
    """Where a worker is in its life."""

    JOINING = "joining"
    OPEN = "open"
    FULL = "full"
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
    (WorkerState.JOINING, "leave"): WorkerState.LEAVING,
    (WorkerState.OPEN, "leave"): WorkerState.LEAVING,
    (WorkerState.FULL, "leave"): WorkerState.LEAVING,
    (WorkerState.JOINING, "lose"): WorkerState.GONE,
    (WorkerState.OPEN, "lose"): WorkerState.GONE,
    (WorkerState.FULL, "lose"): WorkerState.GONE,
    (WorkerState.LEAVING, "lose"): WorkerState.GONE,
    (WorkerState.LEAVING, "stopped"): WorkerState.GONE,
}
"""Every transition of a worker. One that is not here does not exist."""
