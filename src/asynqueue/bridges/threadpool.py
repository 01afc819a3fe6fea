"""The threads that blocking sides of bridges run in: one pool for all of them.

Each bridge blocks a thread for as long as it lasts, so these threads are not those of the reactor's own pool, which
name lookups and `twisted.internet.threads` need. The pool is Twisted's; it starts when a first call is made, stops
with the reactor or when told to, and starts again if it is needed again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, ClassVar, ParamSpec, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.python import threadable
from twisted.python.threadpool import ThreadPool

from asynqueue.reactor.checks import checkCallable
from asynqueue.reactor.lookup import installedReactor
from asynqueue.reactor.shutdowntrigger import ShutdownTrigger
from asynqueue.reactor.waiters import Waiters

__all__ = ["PoolUser"]

P = ParamSpec("P")
R = TypeVar("R")


class _Pool:
    """Twisted's pool, started, and what runs in it."""

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
        for _ in range(self._threads.q.qsize()):  # for the calls that wait
            self._threads.startAWorker()

    def call(self, f: Callable[P, R], /, *args: P.args, **kw: P.kwargs) -> Deferred[R]:
        # A thread cannot be interrupted: who cancels hears no more of it, and shutdown still waits for it.
        checkCallable(f)
        result: Deferred[R] = Deferred()
        answer: Deferred[R] = Deferred()
        self._calls.add(result)
        result.addBoth(self._ended, result, answer)

        def tell(success: bool, value: Any) -> None:  # what F returned, or the Failure
            self.reactor.callFromThread(result.callback if success else result.errback, value)

        self._threads.callInThreadWithCallback(tell, lambda: f(*args, **kw))
        return answer

    def stop(self) -> Deferred[None]:
        self._mayStop = True
        stopped = self._stopping.add()
        self._stopIfIdle()
        return stopped

    def _ended(self, value: Any, result: Deferred[Any], answer: Deferred[Any]) -> None:
        self._calls.discard(result)
        if not answer.called:
            answer.callback(value)  # before it is told that all is over
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
    """Runs blocking calls in threads that it shares with every other `PoolUser`.

    >>> d = PoolUser.deferToThreadInPool(open, "/etc/hostname")             # doctest: +SKIP

    All of it may be asked of the class or of any instance, with the same result. Everything here is for the
    reactor's thread.
    """

    maxThreads: ClassVar[int] = 10
    _pool: ClassVar[_Pool | None] = None

    @classmethod
    def setup(cls, maxThreads: int | None = None) -> None:
        """Allow the pool MAXTHREADS threads (1 or more, else `ValueError`) from now on; with None, as many as before.

        Calls past that number wait for one to end.
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
        """A Deferred of what F returns, called in a thread with the arguments that follow it.

        It fails with what F raises. To cancel it is to hear no more of it: a thread cannot be interrupted.
        """
        return cls._callInPool(installedReactor(None), f, *args, **kw)

    @classmethod
    def shutdown(cls) -> Deferred[None]:
        """Let the calls that were made end, then end every thread; fires when that is done.

        Nothing is interrupted, so stop what feeds them first. A later call starts the pool again.
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
    """Whether this thread is the reactor's: before there is a running one, the main thread."""
    loop = threadable.ioThread
    return threading.get_ident() == (threading.main_thread().ident if loop is None else loop)
