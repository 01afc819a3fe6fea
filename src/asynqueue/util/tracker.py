"""Wait for all, any or enough of many Deferreds.

A `DeferredTracker` only carries out the decisions of a state machine (`asynqueue.core.flow.tracking`). It carries out
one command after another, never one inside another. So a callback may use the tracker freely, a hundred thousand times
in one reactor turn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar
from weakref import ReferenceType, ref

from twisted.internet.defer import Deferred

from asynqueue.core.flow.tracking import Tracking, WaitEnded
from asynqueue.errors import InvariantError
from asynqueue.interfaces import Clock, DelayedCall
from asynqueue.reactor.lookup import installedReactor
from asynqueue.reactor.trampoline import Trampoline
from asynqueue.util.callbacks import atChainEnd

__all__ = ["DeferredTracker"]

D = TypeVar("D", bound="Deferred[Any]")  # Any, because a tracker accepts Deferreds of any result


class DeferredTracker:
    """Waits for all, any or enough of the Deferreds that are put into it, and leaves them unchanged.

    A Deferred is outstanding until its callback chain reaches the point at which it was put. Its result, its chain and
    the report of an unhandled error stay the same. The tracker keeps no reference to it. The Deferred of a wait fires
    in the reactor turn in which its condition becomes true, and can be cancelled.

    Args:
        interval: Not used. AsynQueue 0.9, which polled, had this parameter.
        backoff: Not used, as `interval`.
        reactor: The reactor, for timeouts only. None is the installed one.

    Example:
        >>> tracker = DeferredTracker()
        >>> first, second = tracker.put(Deferred()), tracker.put(Deferred())
        >>> d = tracker.deferUntilFewer(2).addCallback(lambda met: print("room for another", met))
        >>> d = tracker.deferToAll().addCallback(lambda met: print("all", met))
        >>> first.callback(1)
        room for another True
        >>> second.callback(2)
        all True
    """

    def __init__(
        self,
        interval: float | None = None,
        backoff: float | None = None,
        *,
        reactor: Clock | None = None,
    ) -> None:
        self._reactor = reactor
        self._machine = Tracking[Deferred[bool]]()
        self._perform = Trampoline(self._ended)
        self._timers: dict[Deferred[bool], DelayedCall] = {}

    def put(self, d: D) -> D:
        """Track a Deferred.

        Args:
            d: The Deferred. If it is put again while it is outstanding, it counts once, until its chain reaches the
                later point.

        Returns:
            The Deferred `d` itself.

        Raises:
            TypeError: `d` is not a Deferred.
        """
        if not isinstance(d, Deferred):
            raise TypeError(f"a tracker tracks Deferreds, got {d!r}; Deferred.fromCoroutine makes one of a coroutine")
        self._machine.put(ref(d))
        atChainEnd(d, self._passed)
        return d

    def addWait(self) -> None:
        """Count one more as outstanding, without a Deferred."""
        self._machine.add()

    def removeWait(self) -> None:
        """Count one less as outstanding, after an `addWait`.

        Raises:
            InvariantError: There was no `addWait` for it.
        """
        try:
            ended = self._machine.remove()
        except ValueError as error:
            raise InvariantError(f"removeWait without an addWait of its own: {error}") from None
        self._perform(ended)

    def deferToAll(self, timeout: float | None = None) -> Deferred[bool]:
        """Wait until nothing is outstanding.

        Args:
            timeout: The time limit in seconds, 0 or more. None is no limit.

        Returns:
            A Deferred of True, or of False after the time limit.

        Raises:
            ValueError: `timeout` is negative.
        """
        return self.deferUntilFewer(1, timeout)

    def deferToAny(self, timeout: float | None = None) -> Deferred[bool]:
        """Wait until any of the outstanding Deferreds ends. If nothing is outstanding, do not wait.

        Args:
            timeout: The time limit in seconds, 0 or more. None is no limit.

        Returns:
            A Deferred of True, or of False after the time limit.

        Raises:
            ValueError: `timeout` is negative.
        """
        return self._wait(self._machine.waitAny, timeout)

    def deferUntilFewer(self, N: int, timeout: float | None = None) -> Deferred[bool]:
        """Wait until fewer than `N` are outstanding.

        Args:
            N: The number, 1 or more.
            timeout: The time limit in seconds, 0 or more. None is no limit.

        Returns:
            A Deferred of True, or of False after the time limit.

        Raises:
            ValueError: `N` is below 1, or `timeout` is negative.
        """
        return self._wait(lambda d: self._machine.waitFewer(d, N), timeout)

    def quitWaiting(self) -> None:
        """End every wait. Their Deferreds fire with False."""
        self._perform(self._machine.quit())

    def notWaiting(self) -> bool:
        """Return True if no wait is in progress."""
        return not self._machine

    def _wait(
        self, begin: Callable[[Deferred[bool]], tuple[WaitEnded[Deferred[bool]], ...]], timeout: float | None
    ) -> Deferred[bool]:
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"timeout must be 0 seconds or more, or None, got {timeout!r}")
        d: Deferred[bool] = Deferred(self._cancelled)
        for ended in begin(d):
            # D has no callbacks yet, so this cannot re-enter and needs no trampoline.
            self._ended(ended)
        if timeout is not None and not d.called:
            self._timers[d] = installedReactor(self._reactor).callLater(timeout, self._expired, d)
        return d

    def _passed(self, key: ReferenceType[Deferred[Any]]) -> None:
        self._perform(self._machine.passed(key))

    def _expired(self, d: Deferred[bool]) -> None:
        del self._timers[d]
        self._perform(self._machine.expired(d))

    def _cancelled(self, d: Deferred[bool]) -> None:
        self._machine.withdraw(d)
        self._stopTimer(d)

    def _ended(self, ended: WaitEnded[Deferred[bool]]) -> None:
        self._stopTimer(ended.wait)
        if not ended.wait.called:
            ended.wait.callback(ended.met)

    def _stopTimer(self, d: Deferred[bool]) -> None:
        timer = self._timers.pop(d, None)
        if timer is not None:
            timer.cancel()
