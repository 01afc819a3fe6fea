"""Twisted's lock with a second queue for VIPs, and with an end.

A `DeferredLock` only carries out the decisions of a state machine (`asynqueue.core.flow.locking`). It carries out one
command after another, never one inside another. So a callback may use the lock freely, a hundred thousand times in one
reactor turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Generic, ParamSpec, TypeVar, overload

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.defer import DeferredLock as TwistedLock
from twisted.logger import Logger
from twisted.python.failure import Failure
from typing_extensions import Self

from asynqueue.core.flow.locking import Granted, Locking, Phase
from asynqueue.core.text import valueText
from asynqueue.errors import InvariantError
from asynqueue.reactor.calling import make
from asynqueue.reactor.checks import checkCallable
from asynqueue.reactor.failures import printable
from asynqueue.reactor.trampoline import Trampoline
from asynqueue.reactor.waiters import Waiters

__all__ = ["DeferredLock"]

P = ParamSpec("P")
T = TypeVar("T")

_log = Logger(namespace="asynqueue")


class DeferredLock(TwistedLock):
    """Twisted's `DeferredLock` with a second queue for VIPs, and with an end.

    VIPs get the lock before others. Each of the two queues is first come, first served. After `stop` the lock protects
    nothing: every `acquire` is granted at once, `release` does nothing, and `locked` is False.

    Args:
        allowZombies: Not used. AsynQueue 0.9 had this parameter.

    Example:
        >>> lock = DeferredLock()
        >>> for name, vip in ("first", False), ("second", False), ("VIP", True):
        ...     d = lock.acquire(vip).addCallback(lambda _, name=name: print(name))
        first
        >>> lock.release()
        VIP
        >>> lock.release()
        second
    """

    def __init__(self, allowZombies: bool = False) -> None:
        # The base class's __init__ only makes a list of waiting Deferreds, which the state machine has.
        self._machine: Locking[_Claim[Self]] = Locking()
        self._perform: Trampoline[Granted[_Claim[Self]]] = Trampoline(self._granted)
        self._stoppers: deque[Callable[[], object]] = deque()
        self._stopping = Waiters[None]()

    @property
    def locked(self) -> bool:  # type: ignore[override]  # a read-only property for an attribute
        """True while the lock is held."""
        return self._machine.held

    @property
    def waiting(self) -> list[Deferred[Self]]:  # type: ignore[override]  # a read-only property for an attribute
        """The Deferreds of the waiting requests, the next first."""
        return [claim.d for claim in self._machine.waiting if claim.d is not None]

    def acquire(self, vip: bool = False) -> Deferred[Self]:
        """Request the lock.

        Args:
            vip: Wait in the queue for VIPs.

        Returns:
            A Deferred that fires with the lock when it is held. Cancel it to withdraw the request.
        """
        return self._claim(vip)[1]

    def release(self) -> None:
        """Release the lock. The next request gets it.

        Raises:
            InvariantError: The lock is not held, or is held to run its stoppers.
        """
        try:
            granted = self._machine.release()
        except ValueError as error:
            raise InvariantError(str(error)) from None
        self._perform(granted)

    @overload
    def acquireAndRelease(self, vip: bool = False, /) -> Deferred[None]: ...
    @overload
    def acquireAndRelease(self, /, *, vip: bool = False) -> Deferred[None]: ...
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
    def acquireAndRelease(
        self, f: Callable[..., Any] | bool = False, /, *args: Any, vip: bool = False, **kw: Any
    ) -> Deferred[Any]:
        """Call `f` while the lock is held. Without `f`, acquire the lock and release it: wait for a turn.

        `f` may return a Deferred or a coroutine. The lock is released when that has a result or a failure. (`run`, of
        the base class, does the same without `vip`, and type checkers check the arguments.)

        Args:
            f: Any callable. As in 0.9, it may be left out, and `vip` come in its place.
            args: Positional arguments for `f`.
            vip: Wait in the queue for VIPs.
            kw: Keyword arguments for `f`.

        Returns:
            A Deferred of the result of `f`, or of None without `f`.

        Raises:
            TypeError: `f` is not callable.
        """
        if isinstance(f, bool):
            return self.acquire(vip or f).addCallback(lambda _: self.release())
        checkCallable(f)

        def held(_: Self) -> Deferred[Any]:
            return make(f, args, kw).addBoth(self._releaseAndReturn)

        return self.acquire(vip).addCallback(held)

    def context(self, vip: bool = False) -> _LockContext:
        """Return a context that holds the lock. At its end the lock is released, or the request withdrawn.

        Args:
            vip: Wait in the queue for VIPs.

        Example:
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
        """Add a function that is called when the lock is stopped, or at once if it was stopped before.

        Args:
            f: Any callable. It may return a Deferred or a coroutine. It must not wait for this lock, which is held
                meanwhile.
            args: Positional arguments for `f`.
            kw: Keyword arguments for `f`.
        """
        self._stoppers.append(partial(f, *args, **kw))
        if self._machine.phase is Phase.OPEN:
            Deferred.fromCoroutine(self._runStoppers())

    def stop(self) -> Deferred[None]:
        """Stop the lock: acquire it a last time, as a VIP, and run the stoppers.

        The stoppers run one after another in the order in which they were added. A stopper that fails is logged, and
        the next one runs. After them all waiting requests are granted at once. A second call waits for the same end.

        Returns:
            A Deferred that fires after the stoppers. Cancelling it only ends the wait.
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
        d: Deferred[Self] = Deferred(lambda _: self._withdraw(claim))
        claim = _Claim(d)
        for granted in self._machine.acquire(claim, vip):
            # D has no callbacks yet, so this cannot re-enter and needs no trampoline.
            self._granted(granted)
        return claim, d

    def _withdraw(self, claim: _Claim[Self]) -> None:
        """Withdraw CLAIM, whether it waits or holds the lock. Do nothing if it does neither."""
        self._perform(self._machine.withdraw(claim))

    # Any, because mypy takes Self for the class itself in __init__, where this method is passed on.
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
                await make(stopper, (), {})
            except BaseException as error:  # SystemExit too, so that the other stoppers run
                text = "a stopper of a DeferredLock failed, and the others still run: {stopper}"
                _log.failure(text, printable(error), stopper=valueText(stopper))


class _Claim(Generic[T]):
    """One request for a lock, with its Deferred until it is granted.

    After that only the holder keeps the Deferred. If the lock kept it, an unhandled error would not be reported.
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
            raise InvariantError("this context has been entered before: call context() again for another")
        self._claim, d = self._lock._claim(self._vip)
        return d

    def __exit__(self, *exception: object) -> None:
        if self._claim is None:
            return
        self._lock._withdraw(self._claim)
        d = self._claim.d
        if d is not None:
            # The lock was never granted: code that still waits for it gets a CancelledError.
            d.cancel()
            d.addErrback(_expectCancelled)

    def __aenter__(self) -> Deferred[DeferredLock]:
        return self.__enter__()

    def __aexit__(self, *exception: object) -> Deferred[None]:
        self.__exit__(*exception)
        return succeed(None)


def _expectCancelled(failure: Failure) -> None:
    failure.trap(CancelledError)
