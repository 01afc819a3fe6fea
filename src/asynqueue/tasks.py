"""The task of AsynQueue 0.9, for workers that were written for it.

A queue gives such a worker a `Task` of this module, to which the worker reports: see `asynqueue.interfaces.IWorker`.
Other workers are given an `asynqueue.Task`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from typing_extensions import Self

from asynqueue.core import records
from asynqueue.placeholders import gone

__all__ = ["Task"]


class Task:
    """A call, and the Deferred `d` to which a worker reports how the call has ended.

    It has the attributes of an `asynqueue.Task` too. Retries and time limits are the queue's.

    Args:
        f: A callable.
        args: Its arguments.
        kw: Its keywords.
        priority: The niceness of the call.
        series: The series of the call.
        timeout: The time limit in seconds.
        task: The task that a queue gives. None makes one.
    """

    def __init__(
        self,
        f: Callable[..., Any],
        args: Iterable[Any] = (),
        kw: Mapping[str, Any] = records.NO_KEYWORDS,
        priority: int = 0,
        series: Hashable = None,
        timeout: float | None = None,
        *,
        task: records.Task | None = None,
    ) -> None:
        self.callTuple: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]] = f, tuple(args), dict(kw)
        self.priority = priority
        self.series = series
        self.timeout = timeout
        if task is None:
            task = records.Task(0, records.CallSpec(*self.callTuple), series, priority, timeout=timeout)
        self._task = task
        self.d: Deferred[Any] = Deferred()

    @classmethod
    def of(cls, task: records.Task) -> Self:
        """Return the task of 0.9 for TASK."""
        call = task.call
        return cls(call.f, call.args, call.kw, task.niceness, task.series, task.timeout, task=task)

    def __repr__(self) -> str:
        return f"<Task: {self._task.call}>"

    if not TYPE_CHECKING:  # else a type checker would accept any name

        def __getattr__(self, name: str) -> Any:
            return getattr(self._task, name)

    def addCallback(self, f: Callable[..., Any], *args: Any, **kw: Any) -> Deferred[Any]:
        """Add a callback to `d`, and return `d`."""
        return self.d.addCallback(f, *args, **kw)

    def callback(self, result: Any) -> None:
        """Report how the call has ended.

        Args:
            result: A pair of a status and its result:

                ====== ==============================================================
                status result
                ====== ==============================================================
                "r"    What the call returned.
                "i"    An iterator, or a `Deferator`.
                "c"    The consumer, which has been fed.
                "n"    Not used: the call returned nothing.
                "e"    The text of the error that the call raised.
                "t"    Not used: the time limit has passed.
                ====== ==============================================================
        """
        if not self.d.called:
            self.d.callback(result)

    def errback(self, result: Any) -> None:
        """Report that the call has failed, by a Failure or an exception."""
        if not self.d.called:
            self.d.errback(result)

    def timedout(self) -> None:
        """Report that the time limit has passed."""
        self.callback(("t", None))

    def startTimer(self) -> None:
        """Do nothing: the queue has the timer."""

    def reset(self) -> None:
        """Forget what was reported."""
        self.d = Deferred()

    def rush(self) -> None:
        """Do nothing: the place of a call in a queue is fixed by its options, such as `doNext`."""

    def relax(self) -> None:
        """Do nothing, as `rush`."""

    def copy(self) -> Self:
        """Return another task of the same call."""
        return type(self)(*self.callTuple, self.priority, self.series, self.timeout, task=self._task)


if not TYPE_CHECKING:  # else a type checker would accept any name

    def __getattr__(name: str) -> Any:
        return gone(__name__, name)
