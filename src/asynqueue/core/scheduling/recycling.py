"""When a worker process is worn out.

Theory of operation. Code that leaks makes a process bigger with every call, so a process may be limited in how many
calls it is given and in how much memory it may come to use. It is *fit*, then *ageing*, then *worn*. A worn one is
given nothing more, and another takes its place between two calls; nobody has to wait for that other to start if it is
started while the first one ages: from an eighth before its limit.

The number of calls is known beforehand and is not exceeded, so long as another process can be started. Memory is
measured after each call, so it is exceeded by what the last call took. Updates are not counted: a fresh process runs
them too.
"""

from __future__ import annotations

from enum import Enum

import attrs

__all__ = ["Condition", "RecycleLimits", "RecyclePolicy"]


class Condition(Enum):
    """How a process is."""

    FIT = "it goes on"
    AGEING = "its successor should be started"
    WORN = "its successor should take over"


@attrs.frozen
class RecycleLimits:
    """How many calls a process may be given (1 or more), and how many kB of memory it may use (1 or more).

    None is no limit. Anything else is a `ValueError`.
    """

    maxTasks: int | None = None
    maxMemory: int | None = None

    def __attrs_post_init__(self) -> None:
        _checkLimit("maxTasks must be a number of calls", self.maxTasks)
        _checkLimit("maxMemory must be a number of kB", self.maxMemory)

    @property
    def any(self) -> bool:
        """True if there is a limit at all."""
        return self.maxTasks is not None or self.maxMemory is not None


class RecyclePolicy:
    """How much one process has been used.

    >>> wear = RecyclePolicy(RecycleLimits(maxTasks=2))
    >>> wear.given()
    >>> wear.condition.name
    'AGEING'
    >>> wear.given()
    >>> wear.condition.name
    'WORN'
    """

    __slots__ = ("_limits", "_memory", "tasks")

    def __init__(self, limits: RecycleLimits) -> None:
        self._limits = limits
        self._memory = 0
        self.tasks: int = 0

    def given(self) -> None:
        """It was given a call."""
        self.tasks += 1

    def recalled(self) -> None:
        """It gave a call back and has not started it."""
        if not self.tasks:
            raise ValueError("no call was given that could be recalled")
        self.tasks -= 1

    def measured(self, memory: int) -> None:
        """It uses MEMORY, in kB."""
        self._memory = memory

    @property
    def condition(self) -> Condition:
        """How it is now."""
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
        """Assert that what has used up a limit is worn."""
        assert self.tasks >= 0
        if self._limits.maxTasks is not None:
            assert (self.tasks < self._limits.maxTasks) or self.condition is Condition.WORN


def _checkLimit(what: str, value: object) -> None:
    if value is not None and (type(value) is not int or value < 1):
        raise ValueError(f"{what}, 1 or more, or None; got {value!r}")
