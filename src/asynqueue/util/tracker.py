"""Waiting for all, any or enough of many Deferreds.

A `DeferredTracker` only carries out what a machine decides (`core.tracking`), one command after another and never one
inside another, so a callback may do with it whatever it likes, a hundred thousand times in one turn.
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
from asynqueue.util.callbacks import atThisPlace

__all__ = ["DeferredTracker"]

D = TypeVar("D", bound="Deferred[Any]")  # any Deferred at all: a tracker hands it back as it was


class DeferredTracker:
    """Waits for all, any, or enough of the Deferreds that are put into it, and changes nothing about them.

    A Deferred is outstanding until its callback chain reaches the place where it was put. Its result, what
    is chained to it and the report of an unhandled error remain as they were, and the tracker keeps no
    reference to it. The wait's Deferred fires in the very turn in which its condition comes true, and may
    be cancelled.

    INTERVAL and BACKOFF are accepted for the sake of programs written for AsynQueue 0.9, whose tracker
    polled; they are not used. REACTOR is for timeouts only.

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
        """Track D, and return it. What is no Deferred is a `TypeError`.

        Put again while it is outstanding, it still counts once, until its chain reaches the later place.
        """
        if not isinstance(d, Deferred):
            raise TypeError(f"a tracker tracks Deferreds, got {d!r}; Deferred.fromCoroutine makes one of a coroutine")
        self._machine.put(ref(d))
        atThisPlace(d, self._passed)
        return d

    def addWait(self) -> None:
        """Count one more as outstanding, which has no Deferred of its own."""
        self._machine.add()

    def removeWait(self) -> None:
        """What an `addWait` counted is over. Without one it is an `InvariantError`."""
        try:
            ended = self._machine.remove()
        except ValueError as error:
            raise InvariantError(f"removeWait without an addWait of its own: {error}") from None
        self._perform(ended)

    def deferToAll(self, timeout: float | None = None) -> Deferred[bool]:
        """A Deferred that fires with True when nothing is outstanding.

        It fires with False in TIMEOUT seconds (None: never).
        """
        return self.deferUntilFewer(1, timeout)

    def deferToAny(self, timeout: float | None = None) -> Deferred[bool]:
        """A Deferred that fires with True when anything outstanding ends from now on, or when nothing is.

        It fires with False in TIMEOUT seconds (None: never).
        """
        return self._wait(self._machine.waitAny, timeout)

    def deferUntilFewer(self, N: int, timeout: float | None = None) -> Deferred[bool]:
        """A Deferred that fires with True when fewer than N (1 or more, else `ValueError`) are outstanding.

        It fires with False in TIMEOUT seconds (None: never).
        """
        return self._wait(lambda d: self._machine.waitFewer(d, N), timeout)

    def quitWaiting(self) -> None:
        """End every wait in progress; its Deferred fires with False."""
        self._perform(self._machine.quit())

    def notWaiting(self) -> bool:
        """Whether nobody waits."""
        return not self._machine

    def _wait(
        self, begin: Callable[[Deferred[bool]], tuple[WaitEnded[Deferred[bool]], ...]], timeout: float | None
    ) -> Deferred[bool]:
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"timeout must be 0 seconds or more, or None, got {timeout!r}")
        d: Deferred[bool] = Deferred(self._cancelled)
        for ended in begin(d):
            # Nobody else has D yet, so this needs no turn.
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
