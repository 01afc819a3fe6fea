"""Compute the window of a worker: how many unfinished tasks it may hold.

A link that waits for every answer before the next call wastes most of its time. So a worker may hold more calls than it
runs at once. But what it holds and has not started must be recalled before it can run elsewhere or give way. So the
unstarted calls may be about as much work as the worker does in one `BUDGET`, a millisecond:

    window = running + BUDGET / estimate

While a call takes at most `NEXT_LIMIT`, a worker may hold one unstarted call in any case. Without it, the worker would
wait for the next call after each one, for half a millisecond where the processors are busy. The scheduler recalls that
one call when a doNext call or an idle worker needs it.

The *estimate* follows the seconds that each answer reports: up at once, down by an eighth of the difference. The window
follows the estimate: down at once, up to at most its double in the time in which a full window is answered. A worker
without a known estimate, or with slow calls, holds only what it runs. When a call outlasts what is expected, the
scheduler recalls what has not started and calls `stalled`.

A worker is *resized* when its limits change (a cluster grows or shrinks). A worker that can start nothing for the time
being (its process is not up yet) is resized to None.

Bound: `size` <= running + BUDGET / estimate, or running + 1; between `running` and `most`.
"""

from __future__ import annotations

import attrs

BUDGET = 0.001
"""Seconds of unstarted work that a worker may hold."""

NEXT_LIMIT = 32 * BUDGET
"""The longest call, in seconds, during which a worker may hold the next one."""

LOOK = 0.1
"""Seconds between two looks for workers that have not started what an idle worker could run."""

_LEAST = 1e-9  # seconds


@attrs.frozen
class Window:
    """The limits of a worker's window.

    Args:
        running: The number of calls that the worker runs at once, 1 or more.
        most: The largest number of unfinished calls that it may hold, at least `running`. With more than `running`, the
            worker is given calls ahead while they return fast.

    Raises:
        ValueError: A limit is out of range.

    >>> Window(running=4, most=64).most
    64
    """

    running: int = 1
    most: int = 1

    def __attrs_post_init__(self) -> None:
        if self.running < 1:
            raise ValueError(f"a worker runs at least one call at once, got running={self.running}")
        if self.most < self.running:
            raise ValueError(f"a worker holds at least what it runs, got most={self.most}, running={self.running}")


THREAD = Window(1, 64)
PROCESS = Window(1, 32)
"""The windows of a thread and of a process."""

WIRE_AHEAD = 63
"""The most calls that a server may hold beyond those that it runs."""


class AdaptiveWindow:
    """The window of one worker, which follows how fast its calls return."""

    __slots__ = ("_answers", "_away", "_estimate", "limits", "size")

    def __init__(self, limits: Window) -> None:
        self.limits: Window = limits
        self.size: int = limits.running
        self._away = False
        self._estimate: float | None = None
        self._answers = 0

    def answered(self, seconds: float) -> None:
        """Note that a call took so many seconds from its start to its end."""
        limits = self.limits
        if limits.most == limits.running or self._away:
            return
        known = self._estimate
        if known is None or seconds > known:
            known = seconds
        else:
            known += (seconds - known) / 8
        if not known > _LEAST:  # true also for a NaN that a peer sends
            known = _LEAST
        self._estimate = known
        size = limits.running + (int(BUDGET / known) or known <= NEXT_LIMIT)
        if size > limits.most:
            size = limits.most
        if size <= self.size:
            self.size = size
            self._answers = 0
        else:
            self._answers += 1
            if self._answers >= self.size:
                self.size = min(size, 2 * self.size)
                self._answers = 0

    @property
    def slow(self) -> bool:
        """True if the worker may hold more than one budget of unstarted work."""
        return self._estimate is not None and self._estimate > BUDGET

    @property
    def patience(self) -> int:
        """The number of budgets without an answer after which a call has outlasted what is expected."""
        return 1 if self._estimate is None else 1 + int(min(self._estimate, NEXT_LIMIT) / BUDGET)

    def stalled(self) -> None:
        """Note that a call has outlasted what is expected and still runs: forget the estimate."""
        self._estimate = None
        self._answers = 0
        self.size = 0 if self._away else self.limits.running

    def resized(self, limits: Window | None) -> None:
        """Change the limits. With None, the worker may hold nothing until it has limits again."""
        self._away = limits is None
        self.limits = limits or self.limits
        self.stalled()

    def validate(self) -> None:
        """Assert the bound."""
        if self._away:
            assert self.size == 0
            return
        assert self.limits.running <= self.size <= self.limits.most
        if self._estimate is None:
            assert self.size == self.limits.running
        else:
            ahead = max(BUDGET / self._estimate, 1 if self._estimate <= NEXT_LIMIT else 0)
            assert self.size <= self.limits.running + ahead
