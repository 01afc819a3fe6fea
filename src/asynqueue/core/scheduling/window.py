"""How much a worker may be given at once.

Theory of operation. A link that waits for every answer before the next question spends its time waiting, so a
worker may hold more calls than it runs. What it holds and has not started cannot go elsewhere or give way
without being taken back; so it may hold about as much as it gets done in a `BUDGET` of one millisecond, and no
more. The window is what it runs at once, plus that. While a call takes no longer than `NEXT_LIMIT`, a worker may in
any case hold the one that comes next: else it would wait for that after each call, half a millisecond where the
processors are busy. What that one call may cost others, the scheduler sees to: it takes it back for a call that is
to go before it, or for a worker that has nothing to do.

Each answer says how many seconds the call took. The *estimate* follows them: up at once, down by an eighth of the
way. From the estimate the window follows: down at once, up by no more than doubling in the time in which a full
window is answered. A worker of which nothing is known, or whose calls are slow, holds what it runs and nothing
more. When a call outlasts what is expected, the scheduler takes back what has not started and calls `stalled`.

A worker whose limits change (a cluster that grows or shrinks) is *resized*; one that can start nothing for
the time being (a process that is not up yet, a cluster that is away) is resized to nothing.

The bound: `size` <= running + BUDGET / estimate, or running + 1, between `running` and `most`.
"""

from __future__ import annotations

import attrs

BUDGET = 0.001
"""Seconds of unstarted work a worker may hold."""

NEXT_LIMIT = 32 * BUDGET
"""Seconds that a call may take for a worker to hold the next one meanwhile."""

LOOK = 0.1
"""Seconds after which it is looked, again and again, whether a worker has not started what another could."""

_LEAST = 1e-9  # seconds


@attrs.frozen
class Window:
    """How many calls a worker runs at once, RUNNING, and the MOST unfinished ones that it may hold.

    RUNNING is 1 or more and MOST not less than that, else it is a ValueError. A worker whose MOST is more than RUNNING
    is given calls ahead while they return fast.

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
        """A call took SECONDS from its start to its end."""
        limits = self.limits
        if limits.most == limits.running or self._away:
            return
        known = self._estimate
        if known is None or seconds > known:
            known = seconds
        else:
            known += (seconds - known) / 8
        if not known > _LEAST:  # which is so, too, if a peer says NaN
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
        """True if what may be held is more than a budget of work."""
        return self._estimate is not None and self._estimate > BUDGET

    @property
    def patience(self) -> int:
        """How many budgets may go by without an answer before a call has outlasted what is expected."""
        return 1 if self._estimate is None else 1 + int(min(self._estimate, NEXT_LIMIT) / BUDGET)

    def stalled(self) -> None:
        """A call has outlasted the budget and is still running; what is known is worth nothing now."""
        self._estimate = None
        self._answers = 0
        self.size = 0 if self._away else self.limits.running

    def resized(self, limits: Window | None) -> None:
        """The limits are others now. With None, nothing may be held until there are some again."""
        self._away = limits is None
        self.limits = limits or self.limits
        self.stalled()

    def validate(self) -> None:
        """Assert that no more is held than is run at once and done within the budget."""
        if self._away:
            assert self.size == 0
            return
        assert self.limits.running <= self.size <= self.limits.most
        if self._estimate is None:
            assert self.size == self.limits.running
        else:
            ahead = max(BUDGET / self._estimate, 1 if self._estimate <= NEXT_LIMIT else 0)
            assert self.size <= self.limits.running + ahead
