"""The threads of the blocking sides of bridges: one pool for all of them.

A bridge blocks a thread for as long as it lasts. The reactor's own pool is therefore not used: name lookups and
`twisted.internet.threads` need it. This pool starts at the first call. It stops with the reactor or by `shutdown`, and
starts again when needed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, ClassVar, ParamSpec, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.python import threadable
from twisted.python.threadpool import ThreadPool

from asynqueue.core.results import isDeferred
from asynqueue.reactor.checks import checkCallable
from asynqueue.reactor.failures import delivered, failureOf
from asynqueue.reactor.lookup import installedReactor
from asynqueue.reactor.shutdowntrigger import ShutdownTrigger
from asynqueue.reactor.waiters import Waiters

__all__ = ["PoolUser"]

P = ParamSpec("P")
R = TypeVar("R")


class _Pool:
    """Twisted's pool, started, and the calls that run in it."""

    def __init__(self, reactor: Any, maxThreads: int) -> None:
        self.reactor = reactor
        self._calls: set[Deferred[Any]] = set()
        self._stopping = Waiters[None]()
        self._mayStop = False
        self._threads = ThreadPool(0, maxThreads, name="AsynQueue")
        self._threads.start()
        self._trigger = ShutdownTrigger(self._reactorStops)
        self._trigger.add(reactor)
        self.stopped = False

    def allow(self, maxThreads: int) -> None:
        self._threads.adjustPoolsize(0, maxThreads)
        for _ in range(self._threads.q.qsize()):  # one more for each waiting call
            self._threads.startAWorker()

    def call(self, f: Callable[P, R], /, *args: P.args, **kw: P.kwargs) -> Deferred[R]:
        # A thread cannot be interrupted. Cancelling only ends the caller's wait, and shutdown still waits for the call.
        checkCallable(f)
        result: Deferred[R] = Deferred()
        answer: Deferred[R] = Deferred()
        self._calls.add(result)
        result.addBoth(self._ended, result, answer)

        def run() -> None:
            value: Any  # the result of F, or a Failure
            try:
                value = delivered(f(*args, **kw))
            except BaseException as error:  # SystemExit too: the call ends, and not the thread
                value = failureOf(error)
            if isDeferred(value):
                self.reactor.callFromThread(value.chainDeferred, result)
            else:
                self.reactor.callFromThread(result.callback, value)

        self._threads.callInThread(run)
        return answer

    def stop(self) -> Deferred[None]:
        self._mayStop = True
        stopped = self._stopping.add()
        self._stopIfIdle()
        return stopped

    def _ended(self, value: Any, result: Deferred[Any], answer: Deferred[Any]) -> None:
        self._calls.discard(result)
        if not answer.called:
            answer.callback(value)  # before the Deferreds of `stop`
        self._stopIfIdle()

    def _stopIfIdle(self) -> None:
        if not self._mayStop or self._calls:
            return
        if not self.stopped:
            self._trigger.remove()
            self._end()
        self._stopping.fire(None)

    def _reactorStops(self) -> None:
        if not self.stopped:
            self._end()

    def _end(self) -> None:
        self.stopped = True
        PoolUser._forget(self)
        self._threads.stop()


class PoolUser:
    """Runs blocking calls in threads that all instances of this class share.

    Every method can be called on the class or on an instance, with the same effect. Everything is for the reactor's
    thread.

    Example:
        >>> d = PoolUser.deferToThreadInPool(open, "/etc/hostname")             # doctest: +SKIP
    """

    maxThreads: ClassVar[int] = 10
    _pool: ClassVar[_Pool | None] = None

    @classmethod
    def setup(cls, maxThreads: int | None = None) -> None:
        """Set the size of the pool. More calls than threads wait.

        Args:
            maxThreads: The maximum number of threads, 1 or more. None keeps the number, which is 10 at first.

        Raises:
            ValueError: `maxThreads` is below 1.
        """
        if maxThreads is None:
            return
        if maxThreads < 1:
            raise ValueError(f"maxThreads must be at least 1, got {maxThreads}")
        PoolUser.maxThreads = maxThreads
        if PoolUser._pool is not None:
            PoolUser._pool.allow(maxThreads)

    @classmethod
    def deferToThreadInPool(cls, f: Callable[P, R], /, *args: P.args, **kw: P.kwargs) -> Deferred[R]:
        """Call a blocking function in a thread of the pool.

        Args:
            f: Any callable.
            args: Its positional arguments.
            kw: Its keyword arguments.

        Returns:
            A Deferred of the result of `f`. A Deferred that `f` returns is waited for. Cancelling only ends the wait,
            because a thread cannot be interrupted.
        """
        return cls._callInPool(installedReactor(None), f, *args, **kw)

    @classmethod
    def shutdown(cls) -> Deferred[None]:
        """Wait for the running calls, then end all threads. A later call starts the pool again.

        Nothing is interrupted, so first stop what feeds the calls.

        Returns:
            A Deferred that fires when all threads have ended.
        """
        return succeed(None) if PoolUser._pool is None else PoolUser._pool.stop()

    @staticmethod
    def _callInPool(reactor: Any, f: Callable[P, R], /, *args: P.args, **kw: P.kwargs) -> Deferred[R]:
        if PoolUser._pool is None or PoolUser._pool.stopped:
            PoolUser._pool = _Pool(reactor, PoolUser.maxThreads)
        return PoolUser._pool.call(f, *args, **kw)

    @staticmethod
    def _forget(pool: _Pool) -> None:
        if PoolUser._pool is pool:
            PoolUser._pool = None


def isLoopThread() -> bool:
    """Return whether this is the reactor's thread. Before the reactor runs, that is the main thread."""
    loop = threadable.ioThread
    return threading.get_ident() == (threading.main_thread().ident if loop is None else loop)
