"""How long each call took, on this side and over there.

The last `CALLS_KEPT` calls of a worker are kept, so that one which works for a year does not grow for a year.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import attrs

from asynqueue.core.ledger import QueueStats

__all__ = ["CallTimes", "ProcessStats"]

CALLS_KEPT = 100_000
"""Of how many calls a worker keeps the times: those that ended last."""


class CallTimes(NamedTuple):
    """The seconds for which the WORKER waited for a call, and those for which its PROCESS was at it.

    The difference is what the way took, there and back: pickling, waiting behind other calls of the same batch, and
    for the main loop to be free.
    """

    worker: float
    process: float


@attrs.frozen
class ProcessStats(QueueStats):
    """A picture of a process queue: what `QueueStats` has, and the times of its CALLS, worker by worker.

    So how many calls are QUEUED and RUNNING; how many are DONE, FAILED, LOST, CANCELLED and were RETRIED; how long they
    had to WAIT and to RUN; and all that BYWORKER and BYSERIES.

    There are none of those unless the queue was made with ``callStats=True``. To iterate over a picture is to iterate
    over them, as in 0.9:

        for worker, process in queue.stats(): ...
    """

    calls: tuple[CallTimes, ...] = ()

    @classmethod
    def of(cls, stats: QueueStats, calls: Iterable[CallTimes]) -> ProcessStats:
        """STATS with CALLS."""
        fields: dict[str, Any] = {field.name: getattr(stats, field.name) for field in attrs.fields(QueueStats)}
        return cls(**fields, calls=tuple(calls))

    def __iter__(self) -> Iterator[CallTimes]:
        return iter(self.calls)


def callLog() -> deque[CallTimes]:
    """Where a worker keeps the times of its calls."""
    return deque(maxlen=CALLS_KEPT)
