"""`deferToThread` as a method: a call in a thread, past any queue, with the type of its result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar, overload

from twisted.internet.defer import Deferred

from asynqueue.core.records import CallSpec
from asynqueue.iteration.deferator import Deferator

T = TypeVar("T")
P = ParamSpec("P")


class DirectCaller:
    """The base class of what has a `deferToThread` method: looper, thread worker and thread queue."""

    @overload
    def deferToThread(
        self, f: Callable[P, Iterator[T]], /, *args: P.args, **kw: P.kwargs
    ) -> Deferred[Deferator[T]]: ...
    @overload
    def deferToThread(self, f: Callable[P, Deferred[T]], /, *args: P.args, **kw: P.kwargs) -> Deferred[T]: ...
    @overload
    def deferToThread(self, f: Callable[P, T], /, *args: P.args, **kw: P.kwargs) -> Deferred[T]: ...
    @overload
    def deferToThread(
        self, f: Callable[..., Any], /, *args: Any, raw: bool, doNext: bool = False, **kw: Any
    ) -> Deferred[Any]: ...
    @overload
    def deferToThread(
        self, f: Callable[..., Any], /, *args: Any, doNext: bool, raw: None = None, **kw: Any
    ) -> Deferred[Any]: ...
    def deferToThread(self, f: Callable[..., Any], /, *args: Any, **kw: Any) -> Deferred[Any]:
        """Call ``f(*args, **kw)`` in the thread. Without options, type checkers check the arguments.

        The call runs after those that the thread already has. A `ThreadQueue` makes it past the queue, in the thread
        with the fewest unfinished calls. Its shutdown waits for the call, and not for its iterator.

        Args:
            f: What is called.
            args: Its arguments.
            raw: With True, an iterator is a result like any other. None is as this object has it.
            doNext: With True, this call comes before those that the thread has and has not started.
            kw: The keywords of `f`.

        Returns:
            A Deferred of the result. An iterator comes as a `Deferator`. A Deferred that `f` returns is waited for.
            Cancel it like a call of a queue.

        Raises:
            QueueRunError: The queue is shut down, or has no thread.
            ThreadError: The `ThreadLooper` is stopped.

        >>> d = queue.deferToThread(connection.interrupt)                   # doctest: +SKIP
        """
        raw, doNext = kw.pop("raw", None), kw.pop("doNext", False)
        return self._callDirectly(CallSpec(f, args, kw), raw, doNext)

    def _callDirectly(self, call: CallSpec[Any], raw: bool | None, doNext: bool) -> Deferred[Any]:
        """Make CALL, with DONEXT before the calls that wait. RAW None is as this object has it."""
        raise NotImplementedError
