"""Decide when a worker process is recycled: replaced by a fresh one because of its number of calls or its size.

Code that leaks makes a process bigger with every call. So a process may be limited in its number of calls and in its
memory. A process is *fit*, then *ageing*, then *worn*:

- From an eighth before a limit it is ageing: its successor is started, so that no call waits for a start.
- At the limit it is worn: it gets no more calls, and the successor takes over between two calls.

The number of calls is never exceeded while another process can be started. Memory is measured after each call, so one
call may exceed it. Updates do not count: a fresh process runs them too.
"""

from __future__ import annotations

from enum import Enum

import attrs

__all__ = ["Condition", "RecycleLimits", "RecyclePolicy"]


class Condition(Enum):
    """The condition of a process."""

    FIT = "it goes on"
    AGEING = "its successor should be started"
    WORN = "its successor should take over"


@attrs.frozen
class RecycleLimits:
    """The limits of a process: `maxTasks` calls and `maxMemory` kB, each 1 or more. None is no limit.

    Raises:
        ValueError: A limit is out of range.
    """

    maxTasks: int | None = None
    maxMemory: int | None = None

    def __attrs_post_init__(self) -> None:
        _checkLimit("maxTasks must be a number of calls", self.maxTasks)
        _checkLimit("maxMemory must be a number of kB", self.maxMemory)

    @property
    def any(self) -> bool:
        """True if there is a limit."""
        return self.maxTasks is not None or self.maxMemory is not None


class RecyclePolicy:
    """How much one process has been used.

    >>> policy = RecyclePolicy(RecycleLimits(maxTasks=2))
    >>> policy.given()
    >>> policy.condition.name
    'AGEING'
    >>> policy.given()
    >>> policy.condition.name
    'WORN'
    """

    __slots__ = ("_limits", "_memory", "tasks")

    def __init__(self, limits: RecycleLimits) -> None:
        self._limits = limits
        self._memory = 0
        self.tasks: int = 0

    def given(self) -> None:
        """Count a call that the process was given."""
        self.tasks += 1

    def recalled(self) -> None:
        """Do not count a call that the process gave back unstarted."""
        if not self.tasks:
            raise ValueError("no call was given that could be recalled")
        self.tasks -= 1

    def measured(self, memory: int) -> None:
        """Note the memory that the process uses, in kB."""
        self._memory = memory

    @property
    def condition(self) -> Condition:
        """The present condition."""
        limits = self._limits
        worn = ageing = False
        if limits.maxTasks is not None:
            worn = self.tasks >= limits.maxTasks
            ageing = self.tasks >= limits.maxTasks - max(1, limits.maxTasks // 8)
        if limits.maxMemory is not None:
            worn = worn or self._memory > limits.maxMemory
            ageing = ageing or self._memory > limits.maxMemory - limits.maxMemory // 8
        return Condition.WORN if worn else Condition.AGEING if ageing else Condition.FIT

    def validate(self) -> None:
        """Assert that a process is worn at its limits."""
        assert self.tasks >= 0
        if self._limits.maxTasks is not None:
            assert (self.tasks < self._limits.maxTasks) or self.condition is Condition.WORN


def _checkLimit(what: str, value: object) -> None:
    if value is not None and (type(value) is not int or value < 1):
        raise ValueError(f"{what}, 1 or more, or None; got {value!r}")
