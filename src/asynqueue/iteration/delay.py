"""Wait for a time, or for an event that has to be polled.

A `Delay` polls for a user: for a file that appears, or another program's state. AsynQueue itself never polls. Each wait
is a Deferred. If it is cancelled, no delayed call is left.

Importing this module installs no reactor. The default reactor is looked up when a wait begins.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from asynqueue.interfaces import Clock, DelayedCall
from asynqueue.reactor.calling import make
from asynqueue.reactor.failures import errorIn, printable
from asynqueue.reactor.lookup import installedReactor

__all__ = ["Delay", "deferToDelay"]

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")

_log = Logger(namespace="asynqueue")


def deferToDelay(
    seconds: float | None = None, *, delay: float | None = None, reactor: Clock | None = None
) -> Deferred[None]:
    """Wait for a time.

    Args:
        seconds: How long to wait, 0 or more.
        delay: The name of `seconds` in 0.9.
        reactor: The reactor to use. None is the installed one.

    Returns:
        A Deferred that fires with None after that. Cancel it to end the wait.

    Raises:
        ValueError: `seconds` is less than 0.
        TypeError: There is neither `seconds` nor `delay`.

    >>> from twisted.internet.task import Clock
    >>> clock = Clock()
    >>> d = deferToDelay(2.5, reactor=clock).addCallback(lambda _: print("now"))
    >>> clock.advance(2.5)
    now
    """
    if seconds is None:
        seconds = delay
    if seconds is None:
        raise TypeError("deferToDelay needs the seconds to wait")
    d: Deferred[None] = Deferred(lambda _: call.cancel())
    call = installedReactor(reactor).callLater(_duration("a delay", seconds), d.callback, None)
    return d


class Delay:
    """A maker of Deferreds that fire after a time, or when an event has happened.

    Args:
        interval: The seconds that a plain call waits, and between the first two checks of an event. More than 0. None
            is 0.001.
        backoff: The factor by which the time between checks grows after each check, 1.0 to 1.3. So the time between
            checks stays about in proportion to the time already waited. None is 1.1.
        timeout: The seconds to wait for an event, 0 or more. None is without end.
        reactor: The reactor to use. None is the installed one.

    Raises:
        ValueError: An argument is out of its range.

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
        interval: float | None = 0.001,
        backoff: float | None = 1.10,
        timeout: float | None = None,
        *,
        reactor: Clock | None = None,
    ) -> None:
        interval = 0.001 if interval is None else interval
        backoff = 1.10 if backoff is None else backoff
        if not interval > 0:
            raise ValueError(f"interval must be more than 0 seconds, got {interval!r}")
        if not 1.0 <= backoff <= 1.3:
            raise ValueError(f"backoff must be from 1.0 to 1.3, got {backoff!r}")
        self.interval: float = interval
        self.backoff: float = backoff
        self.timeout: float | None = None if timeout is None else _duration("timeout", timeout)
        self._reactor = reactor
        self._pending: dict[Hashable, Callable[[], None]] = {}  # how to end each wait early

    def __call__(self, seconds: float | None = None) -> Deferred[None]:
        """Wait for a time.

        Args:
            seconds: How long to wait, 0 or more. None is one interval.

        Returns:
            A Deferred that fires with None after that.

        Raises:
            ValueError: `seconds` is less than 0.
        """
        seconds = self.interval if seconds is None else _duration("a delay", seconds)
        d: Deferred[None] = Deferred(lambda d: call.cancel())
        call = installedReactor(self._reactor).callLater(seconds, d.callback, None)

        def end() -> None:
            call.cancel()
            d.callback(None)

        return self._keep(d, end)

    def untilEvent(self, checker: Callable[P, object], /, *args: P.args, **kw: P.kwargs) -> Deferred[bool | None]:
        """Wait for an event.

        The checker is called at once, then after one interval, then less and less often, and a last time at the end of
        the timeout.

        Args:
            checker: Returns a true value if the event has happened, or a Deferred or a coroutine of one. The next call
                comes after its result.
            args: The arguments of the checker.
            kw: Its keywords.

        Returns:
            A Deferred. It fires with True when the event has happened, with False at the end of the timeout, and with
            None if the checker raised an error, which is logged.

        Raises:
            TypeError: The checker is not callable.
        """
        if not callable(checker):
            raise TypeError(f"the checker must be callable, got {checker!r}")
        watch = _Watch(self, installedReactor(self._reactor), lambda: checker(*args, **kw))
        self._keep(watch.d, lambda: watch.end(False))
        watch.begin()
        return watch.d

    def shutdown(self) -> None:
        """End all waits now. Plain ones fire with None, those for an event with False."""
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
    """One wait for an event: the check in progress, the next and the last one, or None."""

    def __init__(self, delay: Delay, clock: Clock, check: Callable[[], object]) -> None:
        self.d: Deferred[bool | None] = Deferred(lambda d: self._stop())
        self._interval = delay.interval
        self._backoff = delay.backoff
        self._timeout = delay.timeout
        self._clock = clock
        self._check = check
        self._checking: Deferred[object] | None = None
        self._next: DelayedCall | None = None
        self._last: DelayedCall | None = None
        self._over = False

    def begin(self) -> None:
        if self._timeout is not None:
            self._last = self._clock.callLater(self._timeout, self._lastCheck)
        self._checkNow()

    def end(self, result: bool | None) -> None:
        self._stop()
        self.d.callback(result)

    def _checkNow(self) -> None:
        self._next = None
        checking = self._checking = make(self._check, (), {}).addCallback(bool)
        checking.addCallbacks(self._checked, self._raised)
        if self._over:
            # The checker has ended its own wait.
            checking.cancel()

    def _lastCheck(self) -> None:
        self._last = None
        if self._next is not None:
            self._next.cancel()
            self._checkNow()
        if not self._over:
            self.end(False)

    def _checked(self, happened: bool) -> None:
        self._checking = None
        if self._over:
            return
        if happened:
            self.end(True)
        else:
            self._next = self._clock.callLater(self._interval, self._checkNow)
            self._interval *= self._backoff

    def _raised(self, failure: Failure) -> None:
        self._checking = None
        if self._over:
            return
        _log.failure("the checker of an event raised an error: the wait has ended", printable(errorIn(failure)))
        self.end(None)

    def _stop(self) -> None:
        self._over = True
        for call in self._next, self._last:
            if call is not None:
                call.cancel()
        if self._checking is not None:
            self._checking.cancel()


def _duration(what: str, seconds: float) -> float:
    if not seconds >= 0:
        raise ValueError(f"{what} must be 0 seconds or more, got {seconds!r}")
    return seconds
