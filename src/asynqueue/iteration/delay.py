"""Waiting for time to pass, or for an event that only asking can tell.

A `Delay` is for what a user has to poll: a file that appears, another program's state. Nothing of AsynQueue
itself waits by polling. Each wait is a Deferred, may be cancelled, and then leaves no delayed call behind.

Importing this module installs no reactor. Where none is given, the installed one is asked for when a wait
begins.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import ParamSpec, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from asynqueue.interfaces import Clock, DelayedCall
from asynqueue.reactor.lookup import installedReactor

__all__ = ["Delay", "deferToDelay"]

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")

_log = Logger(namespace="asynqueue")


def deferToDelay(seconds: float, *, reactor: Clock | None = None) -> Deferred[None]:
    """A Deferred that fires with None in SECONDS (0 or more, else `ValueError`). Cancel it to end the wait.

    >>> from twisted.internet.task import Clock
    >>> clock = Clock()
    >>> d = deferToDelay(2.5, reactor=clock).addCallback(lambda _: print("now"))
    >>> clock.advance(2.5)
    now
    """
    d: Deferred[None] = Deferred(lambda _: call.cancel())
    call = installedReactor(reactor).callLater(_duration("a delay", seconds), d.callback, None)
    return d


class Delay:
    """Makes Deferreds that fire after a time, or when an event has happened.

    INTERVAL (seconds, more than 0) is how long a plain call waits, and the time between the first and the
    second look at an event; BACKOFF (1.0 to 1.3) is how many times longer each further time between looks
    is than the one before, so that it stays about in proportion to the time already waited. TIMEOUT
    (seconds, None for no end) is how long an event is waited for. Anything outside those ranges is a
    `ValueError`.

    >>> from twisted.internet.task import Clock
    >>> clock, seen = Clock(), []
    >>> delay = Delay(0.5, timeout=10, reactor=clock)
    >>> d = delay.untilEvent(lambda: "it" in seen).addCallback(print)
    >>> clock.advance(0.5)
    >>> seen.append("it")
    >>> clock.advance(0.55)
    True
    """

    def __init__(
        self,
        interval: float = 0.001,
        backoff: float = 1.10,
        timeout: float | None = None,
        *,
        reactor: Clock | None = None,
    ) -> None:
        if not interval > 0:
            raise ValueError(f"interval must be more than 0 seconds, got {interval!r}")
        if not 1.0 <= backoff <= 1.3:
            raise ValueError(f"backoff must be from 1.0 to 1.3, got {backoff!r}")
        self.interval = interval
        self.backoff = backoff
        self.timeout: float | None = None if timeout is None else _duration("timeout", timeout)
        self._reactor = reactor
        # How to end each wait of ours before its time.
        self._pending: dict[Hashable, Callable[[], None]] = {}

    def __call__(self, seconds: float | None = None) -> Deferred[None]:
        """A Deferred that fires with None in SECONDS (0 or more, else `ValueError`), or in one interval."""
        seconds = self.interval if seconds is None else _duration("a delay", seconds)
        d: Deferred[None] = Deferred(lambda d: call.cancel())
        call = installedReactor(self._reactor).callLater(seconds, d.callback, None)

        def end() -> None:
            call.cancel()
            d.callback(None)

        return self._keep(d, end)

    def untilEvent(self, checker: Callable[P, object], /, *args: P.args, **kw: P.kwargs) -> Deferred[bool | None]:
        """A Deferred that fires with True once CHECKER, called with what follows it, says it has happened.

        CHECKER is called at once, then after one interval, then less and less often, and for the last time
        when the timeout is up; whatever is true in the sense of `bool` says yes. It may return a Deferred
        or a coroutine, and is not called again before that has its result. Fires with False when the
        timeout is up, and with None when CHECKER raised, which is logged. A checker that cannot be called
        is a `TypeError`.
        """
        if not callable(checker):
            raise TypeError(f"the checker must be something to call, got {checker!r}")
        watch = _Watch(self, installedReactor(self._reactor), lambda: checker(*args, **kw))
        self._keep(watch.d, lambda: watch.end(False))
        watch.begin()
        return watch.d

    def shutdown(self) -> None:
        """End every wait in progress now: a plain one fires with None, one for an event with False."""
        for d, end in list(self._pending.items()):
            if d in self._pending:
                end()

    def _keep(self, d: Deferred[T], end: Callable[[], None]) -> Deferred[T]:
        self._pending[d] = end
        return d.addBoth(self._forget, d)

    def _forget(self, result: R, d: Hashable) -> R:
        del self._pending[d]
        return result


class _Watch:
    """One wait for an event: the look in progress, the next and the last to come, or None."""

    def __init__(self, delay: Delay, clock: Clock, check: Callable[[], object]) -> None:
        self.d: Deferred[bool | None] = Deferred(lambda d: self._letGo())
        self._interval = delay.interval
        self._backoff = delay.backoff
        self._timeout = delay.timeout
        self._clock = clock
        self._check = check
        self._looking: Deferred[object] | None = None
        self._next: DelayedCall | None = None
        self._last: DelayedCall | None = None
        self._over = False

    def begin(self) -> None:
        if self._timeout is not None:
            self._last = self._clock.callLater(self._timeout, self._lookLast)
        self._look()

    def end(self, result: bool | None) -> None:
        self._letGo()
        self.d.callback(result)

    def _look(self) -> None:
        self._next = None
        looking = self._looking = maybeDeferred(self._check)
        looking.addCallbacks(self._saw, self._raised)
        if self._over:
            # The checker itself ended the wait that it was called for.
            looking.cancel()

    def _lookLast(self) -> None:
        self._last = None
        if self._next is not None:
            self._next.cancel()
            self._look()
        if not self._over:
            self.end(False)

    def _saw(self, happened: object) -> None:
        self._looking = None
        if self._over:
            return
        if happened:
            self.end(True)
        else:
            self._next = self._clock.callLater(self._interval, self._look)
            self._interval *= self._backoff

    def _raised(self, failure: Failure) -> None:
        self._looking = None
        if self._over:
            return
        _log.failure("The checker of an event raised: no longer waiting for it", failure=failure)
        self.end(None)

    def _letGo(self) -> None:
        self._over = True
        for call in self._next, self._last:
            if call is not None:
                call.cancel()
        if self._looking is not None:
            self._looking.cancel()


def _duration(what: str, seconds: float) -> float:
    if not seconds >= 0:
        raise ValueError(f"{what} must be 0 seconds or more, got {seconds!r}")
    return seconds
