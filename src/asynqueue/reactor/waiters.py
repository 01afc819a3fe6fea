"""Deferreds that wait for the same thing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")


class Waiters(Generic[T]):
    """Deferreds that all fire with one result, in the order in which they were added.

    One that is cancelled fails with `CancelledError` and is forgotten. A callback may add, cancel and fire: what it
    adds waits for the next `fire`.
    """

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[Deferred[T]] = []

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._waiting)

    def add(self, onCancel: Callable[[], None] | None = None) -> Deferred[T]:
        """Return a Deferred that waits from now on. ONCANCEL is called when it is cancelled, after it is forgotten."""

        def cancelled(d: Deferred[T]) -> None:
            if d in self._waiting:
                self._waiting.remove(d)
            if onCancel is not None:
                onCancel()

        waiting: Deferred[T] = Deferred(cancelled)
        self._waiting.append(waiting)
        return waiting

    def fire(self, result: T | Failure) -> None:
        """Fire all Deferreds that wait now with RESULT."""
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.called:  # A callback of an earlier one may have cancelled it.
                each.callback(result)
