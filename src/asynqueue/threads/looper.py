"""A thread without a queue: `ThreadLooper`, and `deferToThread`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, ParamSpec, TypeVar, overload

from twisted.internet.defer import Deferred, succeed

from asynqueue.core.records import CallSpec, Lost
from asynqueue.errors import ThreadError
from asynqueue.iteration.deferator import Deferator
from asynqueue.reactor import forks
from asynqueue.reactor.lookup import installedReactor
from asynqueue.reactor.shutdowntrigger import ShutdownTrigger
from asynqueue.threads.directcaller import DirectCaller
from asynqueue.threads.jobs import DirectJob
from asynqueue.threads.slot import ThreadSlot

T = TypeVar("T")
P = ParamSpec("P")


class ThreadLooper(DirectCaller):
    """A thread that makes one call after another, without a queue's order, retries or timeouts.

    The thread starts with the first call. It ends with `stop`, or with the reactor. All methods are for the reactor's
    thread.

    Args:
        raw: With True, an iterator is a result like any other, unless the call has its own ``raw``.
        reactor: The reactor to use. None is the installed one.

    >>> looper = ThreadLooper()
    >>> d = looper.call(sum, range(10), doNext=True)                        # doctest: +SKIP
    """

    def __init__(self, raw: bool = False, *, reactor: Any = None) -> None:
        self._raw = raw
        self._reactor = reactor
        self._slot = ThreadSlot(reactor)
        self._stopped = False
        self._refusal = "the ThreadLooper is stopped"
        self._trigger = ShutdownTrigger(self._reactorStops)
        forks.watch(self._disown)

    @overload
    def call(
        self, f: Callable[..., T], /, *args: Any, raw: Literal[True], doNext: bool = False, **kw: Any
    ) -> Deferred[T]: ...
    @overload
    def call(
        self, f: Callable[..., Iterator[T]], /, *args: Any, doNext: bool = False, raw: bool | None = None, **kw: Any
    ) -> Deferred[Deferator[T]]: ...
    @overload
    def call(
        self, f: Callable[..., Deferred[T]], /, *args: Any, doNext: bool = False, raw: bool | None = None, **kw: Any
    ) -> Deferred[T]: ...
    @overload
    def call(
        self, f: Callable[..., T], /, *args: Any, doNext: bool = False, raw: bool | None = None, **kw: Any
    ) -> Deferred[T]: ...
    def call(
        self, f: Callable[..., Any], /, *args: Any, doNext: bool = False, raw: bool | None = None, **kw: Any
    ) -> Deferred[Any]:
        """Call ``f(*args, **kw)`` in the thread, after the calls before it.

        Args:
            f: What is called.
            args: Its arguments.
            raw: With True, an iterator is a result like any other. None is as the looper has it.
            doNext: With True, this call comes before those that wait.
            kw: The keywords of `f`.

        Returns:
            A Deferred of the result. An iterator comes as a `Deferator`, whose items the thread produces between other
            calls. A Deferred that `f` returns is waited for, and the thread goes on with other calls meanwhile.

            Cancel the Deferred to end the call: a call that has not started never runs. One that has started goes on in
            a thread that is abandoned, and its result is dropped. A Deferred that is waited for is cancelled.

        Raises:
            ThreadError: The looper is stopped.
        """
        return self._callDirectly(CallSpec(f, args, kw), raw, doNext)

    def stop(self) -> Deferred[None]:
        """Accept no more calls, and end the thread after the calls before. May be called again.

        Iterations that have not ended fail with `asynqueue.errors.WorkerLost`.

        Returns:
            A Deferred that fires when the thread has exited.
        """
        self._stopped = True
        return self._slot.leave().addCallback(self._forgetReactor)

    @property
    def stopped(self) -> bool:
        """True when no more calls are accepted."""
        return self._stopped

    def _callDirectly(self, call: CallSpec[Any], raw: bool | None, doNext: bool) -> Deferred[Any]:
        if self._stopped:
            raise ThreadError(f"{self._refusal}: {call} was not run")
        reactor = installedReactor(self._reactor)
        self._trigger.add(reactor)
        return DirectJob(call, self._raw if raw is None else raw, self._slot, reactor).start(doNext)

    def _forgetReactor(self, _: None) -> None:
        self._trigger.remove()

    def _disown(self) -> None:
        """Have no thread and take no calls, if this process is a fork of the program that uses the looper."""
        if forks.isRunning(self._reactor) and not self._stopped:
            forks.keep(self._slot)
            self._slot = ThreadSlot(self._reactor)
            self._stopped = True
            self._refusal = f"{forks.FORKED}, and this looper is the program's"

    def _reactorStops(self) -> None:
        """Abandon the thread: the reactor will call nothing any more."""
        self._stopped = True
        for job in self._slot.crash():
            job.deliver(Lost("the reactor has stopped"))


_shared: ThreadLooper | None = None


@overload
def deferToThread() -> Deferred[None]: ...
@overload
def deferToThread(f: Callable[P, Iterator[T]], /, *args: P.args, **kw: P.kwargs) -> Deferred[Deferator[T]]: ...
@overload
def deferToThread(f: Callable[P, Deferred[T]], /, *args: P.args, **kw: P.kwargs) -> Deferred[T]: ...
@overload
def deferToThread(f: Callable[P, T], /, *args: P.args, **kw: P.kwargs) -> Deferred[T]: ...
@overload
def deferToThread(
    f: Callable[..., Any], /, *args: Any, raw: bool, doNext: bool = False, **kw: Any
) -> Deferred[Any]: ...
@overload
def deferToThread(f: Callable[..., Any], /, *args: Any, doNext: bool, raw: None = None, **kw: Any) -> Deferred[Any]: ...
def deferToThread(f: Callable[..., Any] | None = None, /, *args: Any, **kw: Any) -> Deferred[Any]:
    """Call ``f(*args, **kw)`` in a thread that all such calls share, one after another.

    The thread starts with the first call and ends with the reactor. Without arguments, this function ends the thread;
    the next call starts another. Call it in the reactor's thread.

    Args:
        f: What is called. None ends the thread.
        args: Its arguments.
        raw: With True, an iterator is a result like any other.
        doNext: With True, this call comes before those that wait.
        kw: The keywords of `f`.

    Returns:
        A Deferred of the result. An iterator comes as a `Deferator`. A Deferred that `f` returns is waited for.
        Cancel it as for `ThreadLooper.call`. Without arguments, the Deferred fires when the thread has exited.

    >>> d = deferToThread(open, "/etc/hostname")                             # doctest: +SKIP
    """
    global _shared
    if f is None:
        looper, _shared = _shared, None
        return succeed(None) if looper is None else looper.stop()
    if _shared is None or _shared.stopped:
        _shared = ThreadLooper()
    return _shared.call(f, *args, **kw)
