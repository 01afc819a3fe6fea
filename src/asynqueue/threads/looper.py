"""A thread without a queue: `ThreadLooper`, and `deferToThread`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, overload

from twisted.internet.defer import Deferred, succeed

from asynqueue.core.records import CallSpec, Lost
from asynqueue.errors import ThreadError
from asynqueue.iteration.deferator import Deferator
from asynqueue.reactor.lookup import installedReactor
from asynqueue.reactor.shutdowntrigger import ShutdownTrigger
from asynqueue.threads.slot import ThreadSlot

if TYPE_CHECKING:
    from asynqueue.bridges.base import IterationGetter as IterationGetter
    from asynqueue.bridges.consumerator import Consumerator as Consumerator
    from asynqueue.bridges.consumerator import Filerator as Filerator
    from asynqueue.bridges.ordered import OrderedItemProducer as OrderedItemProducer
    from asynqueue.bridges.threadpool import PoolUser as PoolUser
from asynqueue.threads.jobs import _DirectJob

T = TypeVar("T")
P = ParamSpec("P")


class ThreadLooper:
    """A thread that makes one call after another, without a queue's order, retries or timeouts.

    It starts with the first call and ends with `stop`, or with the reactor. With RAW, an iterator is a result like any
    other, unless a call says otherwise. Everything here is for the reactor's thread. REACTOR is the installed one if it
    is not given.

    >>> looper = ThreadLooper()
    >>> d = looper.call(sum, range(10), doNext=True)                        # doctest: +SKIP
    """

    def __init__(self, raw: bool = False, *, reactor: Any = None) -> None:
        self._raw = raw
        self._reactor = reactor
        self._thread = ThreadSlot(reactor)
        self._stopped = False
        self._trigger = ShutdownTrigger(self._reactorStops)

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
        self, f: Callable[..., T], /, *args: Any, doNext: bool = False, raw: bool | None = None, **kw: Any
    ) -> Deferred[T]: ...
    def call(
        self, f: Callable[..., Any], /, *args: Any, doNext: bool = False, raw: bool | None = None, **kw: Any
    ) -> Deferred[Any]:
        """A Deferred of what ``f(*args, **kw)`` gives in the thread, after the calls before it.

        DONEXT puts it before those that wait. An iterator comes as a `Deferator`, whose items the thread makes between
        other calls; with RAW it is a result like any other. Cancelled, the call never runs; or, if it has started, its
        thread is abandoned, and what it gives is dropped.

        Raises `asynqueue.errors.ThreadError` after `stop`.
        """
        return self._start(CallSpec(f, args, kw), self._raw if raw is None else raw, doNext)

    @overload
    def deferToThread(
        self, f: Callable[P, Iterator[T]], /, *args: P.args, **kw: P.kwargs
    ) -> Deferred[Deferator[T]]: ...
    @overload
    def deferToThread(self, f: Callable[P, T], /, *args: P.args, **kw: P.kwargs) -> Deferred[T]: ...
    def deferToThread(self, f: Callable[..., Any], /, *args: Any, **kw: Any) -> Deferred[Any]:
        """As `call`, but every argument is F's own."""
        return self._start(CallSpec(f, args, kw), self._raw, False)

    def stop(self) -> Deferred[None]:
        """Take no more calls, and end the thread when it has made those before; fires when it is gone.

        What still iterates ends with `asynqueue.errors.WorkerLost`. May be called again.
        """
        self._stopped = True
        return self._thread.leave().addCallback(self._forgetReactor)

    @property
    def stopped(self) -> bool:
        """True once it takes no more calls."""
        return self._stopped

    def _start(self, spec: CallSpec[Any], raw: bool, urgent: bool) -> Deferred[Any]:
        if self._stopped:
            raise ThreadError(f"the ThreadLooper is stopped: {spec} was not run")
        reactor = installedReactor(self._reactor)
        self._trigger.add(reactor)
        return _DirectJob(spec, raw, self._thread, reactor).start(urgent)

    def _forgetReactor(self, _: None) -> None:
        self._trigger.remove()

    def _reactorStops(self) -> None:
        """Nothing can be waited for any more."""
        self._stopped = True
        for job in self._thread.crash():
            job.ended(Lost("the reactor has stopped"))


_shared: ThreadLooper | None = None


@overload
def deferToThread() -> Deferred[None]: ...
@overload
def deferToThread(f: Callable[P, Iterator[T]], /, *args: P.args, **kw: P.kwargs) -> Deferred[Deferator[T]]: ...
@overload
def deferToThread(f: Callable[P, T], /, *args: P.args, **kw: P.kwargs) -> Deferred[T]: ...
def deferToThread(f: Callable[..., Any] | None = None, /, *args: Any, **kw: Any) -> Deferred[Any]:
    """A Deferred of what ``f(*args, **kw)`` gives, called in a thread that all such calls share, one after another.

    An iterator comes as a `Deferator`. To cancel it is as for `ThreadLooper.call`. The thread starts with the first
    call and ends with the reactor, or when this is called with no arguments: then the Deferred fires when it is gone,
    and the next call starts another. For the reactor's thread.

    >>> d = deferToThread(open, "/etc/hostname")                             # doctest: +SKIP
    """
    global _shared
    if f is None:
        looper, _shared = _shared, None
        return succeed(None) if looper is None else looper.stop()
    if _shared is None or _shared.stopped:
        _shared = ThreadLooper()
    return _shared.deferToThread(f, *args, **kw)
