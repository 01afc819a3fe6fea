"""Decide which claim holds a lock, which gets it next, and how the lock is stopped.

A *claim* is one request for the lock. At most one claim holds it. The others wait in two queues, VIPs and ordinary,
each first come first served. A released lock goes to the first VIP, or else to the first ordinary claim. A claim can be
withdrawn at any time. If it holds the lock, that releases it. Withdrawing an unknown claim does nothing, so a caller
may withdraw twice.

Stopping is a claim as well, in the VIP queue. While it holds the lock, the stoppers run and no other claim can hold it.
After `opened` the lock is *open* for ever: it protects nothing, every claim is granted at once, no claim holds it, and
`release` does nothing.

    phase      event                       next       result
    GUARDING   acquire                     GUARDING   Granted, if no claim holds the lock
    GUARDING   release, withdraw           GUARDING   Granted to the next claim
    GUARDING   stop                        STOPPING   Granted, if no claim holds the lock
    STOPPING   acquire, release, withdraw  STOPPING   as above
    STOPPING   opened                      OPEN       Granted to all waiting claims, VIPs first
    OPEN       acquire                     OPEN       Granted
    OPEN       release, withdraw           OPEN       none

Any other event is an error in that phase. A claim is any hashable object. Events are methods, which return `Granted`
records. Nothing is called back.

Cost: O(1) per event, except `opened`: O(waiting claims).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from enum import Enum, auto
from typing import Generic, TypeVar

from attrs import frozen

C = TypeVar("C", bound=Hashable)


@frozen
class Granted(Generic[C]):
    """A command: notify the owner of CLAIM that it holds the lock, or that the lock is open."""

    claim: C


class Phase(Enum):
    """The phase of a lock's life."""

    GUARDING = auto()
    STOPPING = auto()
    OPEN = auto()


class Locking(Generic[C]):
    """Decides which claim holds a lock.

    >>> lock = Locking[str]()
    >>> lock.acquire("a", vip=False), lock.acquire("b", vip=False), lock.acquire("c", vip=True)
    ((Granted(claim='a'),), (), ())
    >>> lock.release()
    (Granted(claim='c'),)
    """

    __slots__ = ("_holder", "_ordinary", "_stop", "_vips", "phase")

    def __init__(self) -> None:
        self.phase: Phase = Phase.GUARDING
        self._holder: C | None = None
        self._stop: C | None = None
        # An OrderedDict removes its first item, and any other, in O(1).
        self._vips: OrderedDict[C, None] = OrderedDict()
        self._ordinary: OrderedDict[C, None] = OrderedDict()

    @property
    def held(self) -> bool:
        """True while a claim holds the lock."""
        return self._holder is not None

    @property
    def waiting(self) -> list[C]:
        """The waiting claims, the next first."""
        return [*self._vips, *self._ordinary]

    def acquire(self, claim: C, vip: bool) -> tuple[Granted[C], ...]:
        """Request the lock for CLAIM. Raise `ValueError` if CLAIM waits or holds already."""
        if claim == self._holder or claim in self._vips or claim in self._ordinary:
            raise ValueError(f"{claim!r} is already a claim on this lock")
        if self.phase is Phase.OPEN:
            return (Granted(claim),)
        (self._vips if vip else self._ordinary)[claim] = None
        return () if self.held else self._next()

    def release(self) -> tuple[Granted[C], ...]:
        """Release the lock, and return who has it next, which is nobody or one claim.

        Nothing happens to an open lock. Raises `ValueError` if the lock is not held, or if it is held for the shutdown,
        by the claim of `stop`: that claim ends by itself.
        """
        if self.phase is Phase.OPEN:
            return ()
        if self._holder is None:
            raise ValueError("released a lock that is not held: each release needs its own acquire")
        if self._holder == self._stop:
            raise ValueError("released a lock that is held to run its stoppers: it opens by itself after them")
        return self._next()

    def withdraw(self, claim: C) -> tuple[Granted[C], ...]:
        """Withdraw CLAIM. If it holds the lock, release it."""
        self._vips.pop(claim, None)
        self._ordinary.pop(claim, None)
        return self.release() if self._holder is not None and claim == self._holder else ()

    def stop(self, claim: C) -> tuple[Granted[C], ...]:
        """Request the lock for CLAIM, as a VIP and for the last time. Raise `ValueError` if it was stopped before."""
        if self.phase is not Phase.GUARDING:
            raise ValueError("a lock can be stopped only once")
        granted = self.acquire(claim, vip=True)
        self.phase = Phase.STOPPING
        self._stop = claim
        return granted

    def opened(self) -> tuple[Granted[C], ...]:
        """Open the lock after the stoppers have run. Raise `ValueError` unless the stopping holds the lock."""
        if self.phase is not Phase.STOPPING or self._holder != self._stop:
            raise ValueError("a lock opens only while the stopping holds it")
        waiting = self.waiting
        self.phase = Phase.OPEN
        self._holder = self._stop = None
        self._vips.clear()
        self._ordinary.clear()
        return tuple(Granted(claim) for claim in waiting)

    def validate(self) -> None:
        """Assert what holds between any two events."""
        claims = self.waiting if self._holder is None else [self._holder, *self.waiting]
        assert len(claims) == len(set(claims)), "a claim is in two places"
        assert self.held or not claims, "a claim waits for a lock that is free"
        assert (self._stop is not None) == (self.phase is Phase.STOPPING)
        stopping = self._stop is None or self._stop == self._holder or self._stop in self._vips
        assert stopping, "the stopping neither holds the lock nor waits"

    def _next(self) -> tuple[Granted[C], ...]:
        line = self._vips or self._ordinary
        if not line:
            self._holder = None
            return ()
        self._holder, _ = line.popitem(last=False)
        return (Granted(self._holder),)
