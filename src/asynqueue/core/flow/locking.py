"""Who holds a lock, who gets it next, and how it is stopped.

Theory of operation. A *claim* is one wish to hold the lock. At most one claim holds it; the others wait in
two lines, VIPs and ordinary, each first come first served, and a released lock goes to the first VIP, or
with none to the first of the others. A claim may be given up (`withdraw`) at any time, waiting or holding:
a holder that gives up releases. Giving up what is neither is nothing, so whoever lost count may do it
safely.

Stopping is a claim too, in the VIP line. From the moment it holds the lock (the *closing*, in which the
stoppers run) until `opened`, nobody else can, and then the lock is *open* for good: it guards nothing,
everyone who waits or comes later is granted at once, nobody holds it, and `release` means nothing.

    phase      event                       next       out
    GUARDING   acquire                     GUARDING   Granted, if nobody holds it
    GUARDING   release, withdraw           GUARDING   Granted to the next
    GUARDING   stop                        STOPPING   Granted, if nobody holds it
    STOPPING   acquire, release, withdraw  STOPPING   as above
    STOPPING   opened                      OPEN       Granted to all who wait, VIPs first
    OPEN       acquire                     OPEN       Granted
    OPEN       release, withdraw           OPEN       nothing

Any other event in any phase is an error. Claims are whatever hashable tokens the caller likes; events go in
by method, `Granted` comes out, and nothing is called back.

Cost: O(1) an event, but for `opened`, which is O(waiting).
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
    """A command: tell whoever made CLAIM that it holds the lock, or that there is none any more."""

    claim: C


class Phase(Enum):
    """How far the life of a lock has come."""

    GUARDING = auto()
    STOPPING = auto()
    OPEN = auto()


class Locking(Generic[C]):
    """Decides who holds a lock.

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
        # Ordered dictionaries: the first goes, and any may go, in O(1).
        self._vips: OrderedDict[C, None] = OrderedDict()
        self._ordinary: OrderedDict[C, None] = OrderedDict()

    @property
    def held(self) -> bool:
        """Whether somebody holds the lock."""
        return self._holder is not None

    @property
    def waiting(self) -> list[C]:
        """Who waits, the next first."""
        return [*self._vips, *self._ordinary]

    def acquire(self, claim: C, vip: bool) -> tuple[Granted[C], ...]:
        """CLAIM wants the lock. Raises `ValueError` if it waits or holds already."""
        if claim == self._holder or claim in self._vips or claim in self._ordinary:
            raise ValueError(f"{claim!r} is already a claim on this lock")
        if self.phase is Phase.OPEN:
            return (Granted(claim),)
        (self._vips if vip else self._ordinary)[claim] = None
        return () if self.held else self._next()

    def release(self) -> tuple[Granted[C], ...]:
        """The holder has done. Raises `ValueError` if there is none, or if it is the stopping itself."""
        if self.phase is Phase.OPEN:
            return ()
        if self._holder is None:
            raise ValueError("released a lock that nobody holds: each release needs an acquire of its own")
        if self._holder == self._stop:
            raise ValueError("released a lock that is held to run its stoppers: it opens when they have run")
        return self._next()

    def withdraw(self, claim: C) -> tuple[Granted[C], ...]:
        """CLAIM is given up, whether it waits or holds."""
        self._vips.pop(claim, None)
        self._ordinary.pop(claim, None)
        return self.release() if self._holder is not None and claim == self._holder else ()

    def stop(self, claim: C) -> tuple[Granted[C], ...]:
        """CLAIM wants the lock as a VIP and for the last time. Raises `ValueError` if another did before."""
        if self.phase is not Phase.GUARDING:
            raise ValueError("a lock is stopped once")
        granted = self.acquire(claim, vip=True)
        self.phase = Phase.STOPPING
        self._stop = claim
        return granted

    def opened(self) -> tuple[Granted[C], ...]:
        """The stoppers have run. Raises `ValueError` unless the stopping holds the lock."""
        if self.phase is not Phase.STOPPING or self._holder != self._stop:
            raise ValueError("a lock opens when it is held to be stopped, and not before")
        waiting = self.waiting
        self.phase = Phase.OPEN
        self._holder = self._stop = None
        self._vips.clear()
        self._ordinary.clear()
        return tuple(Granted(claim) for claim in waiting)

    def validate(self) -> None:
        """Assert what must hold between any two events."""
        claims = self.waiting if self._holder is None else [self._holder, *self.waiting]
        assert len(claims) == len(set(claims)), "a claim is in two places"
        assert self.held or not claims, "somebody waits for a lock that nobody holds"
        assert (self._stop is not None) == (self.phase is Phase.STOPPING)
        assert self._stop is None or self._stop == self._holder or self._stop in self._vips, "the stopping was lost"

    def _next(self) -> tuple[Granted[C], ...]:
        line = self._vips or self._ordinary
        if not line:
            self._holder = None
            return ()
        self._holder, _ = line.popitem(last=False)
        return (Granted(self._holder),)
