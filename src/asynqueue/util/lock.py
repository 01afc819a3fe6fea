"""Twisted's lock, with a line for VIPs and an end.

A `DeferredLock` only carries out what a machine decides (`core.locking`), one command after another and never one
inside another, so a callback may do with it whatever it likes, a hundred thousand times in one turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Generic, ParamSpec, TypeVar, overload

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.internet.defer import DeferredLock as TwistedLock
from twisted.logger import Logger
from twisted.python.failure import Failure
from typing_extensions import Self

from asynqueue.core.flow.locking import Granted, Locking, Phase
from asynqueue.errors import InvariantError
from asynqueue.reactor.calling import make
from asynqueue.reactor.trampoline import Trampoline
from asynqueue.reactor.waiters import Waiters

__all__ = ["DeferredLock"]

P = ParamSpec("P")
T = TypeVar("T")

_log = Logger(namespace="asynqueue")


class DeferredLock(TwistedLock):
    """Twisted's `DeferredLock` with a line for VIPs, and an end.

    VIPs get the lock before others; each of the two lines is first come, first served. After `stop` it guards
    nothing: every `acquire` is granted at once, `release` does nothing, and `locked` is false.

    >>> lock = DeferredLock()
    >>> for name, vip in ("first", False), ("second", False), ("VIP", True):
    ...     d = lock.acquire(vip).addCallback(lambda _, name=name: print(name))
    first
    >>> lock.release()
    VIP
    >>> lock.release()
    second
    """

    def __init__(self) -> None:
        # The base class's would only make a list of those who wait, which our machine keeps.
        self._machine: Locking[_Claim[Self]] = Locking()
        self._perform: Trampoline[Granted[_Claim[Self]]] = Trampoline(self._granted)
        self._stoppers: deque[Callable[[], object]] = deque()
        self._stopping = Waiters[None]()

    @property
    def locked(self) -> bool:  # type: ignore[override]  # the base class says "do not change", we see to it
        """Whether somebody holds the lock."""
        return self._machine.held

    @property
    def waiting(self) -> list[Deferred[Self]]:  # type: ignore[override]  # read, never changed, by users
        """The Deferreds of those who wait, the next first."""
        return [claim.d for claim in self._machine.waiting if claim.d is not None]

    def acquire(self, vip: bool = False) -> Deferred[Self]:
        """A Deferred that fires with the lock once it is yours. Cancel it to wait no longer."""
        return self._claim(vip)[1]

    def release(self) -> None:
        """Let the next one have the lock. A lock that nobody holds is an `InvariantError`."""
        try:
            granted = self._machine.release()
        except ValueError as error:
            raise InvariantError(str(error)) from None
        self._perform(granted)

    @overload
    def acquireAndRelease(
        self, f: Callable[..., Deferred[T]], /, *args: Any, vip: bool = False, **kw: Any
    ) -> Deferred[T]: ...
    @overload
    def acquireAndRelease(
        self, f: Callable[..., Coroutine[Deferred[Any], Any, T]], /, *args: Any, vip: bool = False, **kw: Any
    ) -> Deferred[T]: ...
    @overload
    def acquireAndRelease(self, f: Callable[..., T], /, *args: Any, vip: bool = False, **kw: Any) -> Deferred[T]: ...
    def acquireAndRelease(self, f: Callable[..., Any], /, *args: Any, vip: bool = False, **kw: Any) -> Deferred[Any]:
        """Call F with what follows it while the lock is held, and fire with its result.

        F may return a Deferred or a coroutine; the lock is released when that has its result or failure.
        With VIP, wait in the VIPs' line. (`run`, the base class's, is the same without VIP and checks the
        arguments' types.)
        """

        def held(_: Self) -> Deferred[Any]:
            return make(f, args, kw).addBoth(self._releaseAndReturn)

        return self.acquire(vip).addCallback(held)

    def context(self, vip: bool = False) -> _LockContext:
        """A context in which the lock is yours: at its end released, or no longer waited for.

        >>> from twisted.internet.defer import ensureDeferred, inlineCallbacks
        >>> lock = DeferredLock()
        >>> async def careful():
        ...     async with lock.context(vip=True):
        ...         print("mine")
        >>> @inlineCallbacks
        ... def careful09():
        ...     with lock.context() as d:
        ...         yield d
        ...         print("mine again")
        >>> d = ensureDeferred(careful())
        mine
        >>> d = careful09()
        mine again
        """
        return _LockContext(self, vip)

    def addStopper(self, f: Callable[P, object], /, *args: P.args, **kw: P.kwargs) -> None:
        """Have F called with what follows it when the lock is stopped; at once if it is.

        F may return a Deferred or a coroutine. It must not wait for this very lock, which is held meanwhile.
        """
        self._stoppers.append(partial(f, *args, **kw))
        if self._machine.phase is Phase.OPEN:
            Deferred.fromCoroutine(self._runStoppers())

    def stop(self) -> Deferred[None]:
        """A Deferred that fires when the lock was had for the last time, as a VIP, and the stoppers have run.

        The stoppers run one after another, in the order in which they were added. One that fails is logged
        and keeps nobody from stopping. Whoever still waits then gets the lock at once. To stop again is to
        wait for the same end; to cancel the Deferred is to wait no longer, and stops nothing.
        """
        if self._machine.phase is Phase.OPEN:
            return succeed(None)
        d = self._stopping.add()
        if self._machine.phase is Phase.GUARDING:
            turn: Deferred[Self] = Deferred()
            turn.addCallback(lambda _: Deferred.fromCoroutine(self._close()))
            self._perform(self._machine.stop(_Claim(turn)))
        return d

    def _claim(self, vip: bool) -> tuple[_Claim[Self], Deferred[Self]]:
        d: Deferred[Self] = Deferred(lambda _: self._giveUp(claim))
        claim = _Claim(d)
        for granted in self._machine.acquire(claim, vip):
            # Nobody else has D yet, so this needs no turn.
            self._granted(granted)
        return claim, d

    def _giveUp(self, claim: _Claim[Self]) -> None:
        """Neither wait for nor hold the lock by CLAIM any more; nothing if it does not."""
        self._perform(self._machine.withdraw(claim))

    # Any: within __init__, where this is passed on, mypy takes Self for the class itself.
    def _granted(self, granted: Granted[_Claim[Any]]) -> None:
        d, granted.claim.d = granted.claim.d, None
        if d is not None and not d.called:
            d.callback(self)

    async def _close(self) -> None:
        await self._runStoppers()
        self._perform(self._machine.opened())
        self._stopping.fire(None)

    async def _runStoppers(self) -> None:
        while self._stoppers:
            stopper = self._stoppers.popleft()
            try:
                await maybeDeferred(stopper)
            except BaseException:  # SystemExit too: it must not keep others from stopping
                _log.failure("{stopper} failed as its lock was stopped", stopper=stopper)


class _Claim(Generic[T]):
    """One wish to hold a lock, with its Deferred until that is granted.

    A holder's Deferred is the holder's alone: kept by the lock, it would not report an unhandled error.
    """

    def __init__(self, d: Deferred[T]) -> None:
        self.d: Deferred[T] | None = d


class _LockContext:
    """One use of a lock, from entry to exit."""

    def __init__(self, lock: DeferredLock, vip: bool) -> None:
        self._lock = lock
        self._vip = vip
        self._claim: _Claim[DeferredLock] | None = None

    def __enter__(self) -> Deferred[DeferredLock]:
        if self._claim is not None:
            raise InvariantError("this context has been entered: ask the lock for another")
        self._claim, d = self._lock._claim(self._vip)
        return d

    def __exit__(self, *exception: object) -> None:
        if self._claim is None:
            return
        self._lock._giveUp(self._claim)
        d = self._claim.d
        if d is not None:
            # It never came: whoever still waits for it learns so.
            d.cancel()
            d.addErrback(_expectCancelled)

    def __aenter__(self) -> Deferred[DeferredLock]:
        return self.__enter__()

    def __aexit__(self, *exception: object) -> Deferred[None]:
        self.__exit__(*exception)
        return succeed(None)


def _expectCancelled(failure: Failure) -> None:
    failure.trap(CancelledError)
