"""Feed a blocking function with the results of calls, in the order of the calls.

- `asynqueue.core.flow.reorder.Reorder` decides which result comes next.
- A `Consumerator`, whose producer this is, decides how many results may wait.
- This module decides how it ends: by `stop`, when all results have been delivered, or when a call fails, or when the
  blocking function ends. Calls whose results are no longer needed are cancelled.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from asynqueue.bridges.base import LIMIT
from asynqueue.bridges.consumerator import Consumerator
from asynqueue.bridges.threadpool import PoolUser
from asynqueue.core.flow.reorder import Reorder
from asynqueue.interfaces import ThreadCaller
from asynqueue.reactor.calling import make
from asynqueue.reactor.failures import errorIn
from asynqueue.reactor.waiters import Waiters

T = TypeVar("T")
P = ParamSpec("P")


@define(eq=False)
class _Call(Generic[T]):
    """One call of a producing function: the Deferred of its caller, the running call, and its outcome."""

    index: int
    answer: Deferred[T | None] = field(factory=Deferred)
    running: Deferred[T] | None = None
    outcome: Any = None  # an item, or a Failure

    def notify(self, item: T | None) -> None:
        if not self.answer.called:
            self.answer.callback(item)


@implementer(IPushProducer)
class OrderedItemProducer(PoolUser, Generic[T]):
    """Feeds a blocking function with items in the order in which they were requested, however long each takes.

    The items go through `i`, a `Consumerator`. Everything is for the reactor's thread.

    Args:
        maxThreads: As for `PoolUser.setup`.
        limit: As for `IterationGetter`.
        thread: As for `IterationGetter`.
        reactor: The reactor. None is the installed one.

    Example:
        >>> async def main():                                                    # doctest: +SKIP
        ...     p = OrderedItemProducer()
        ...     await p.start(png.Writer(640, 480).write_rows)
        ...     for y in range(480):
        ...         await p.produceItem(queue.call, computeRow, y)
        ...     await p.stop()
    """

    def __init__(
        self,
        maxThreads: int | None = None,
        *,
        limit: int = LIMIT,
        thread: ThreadCaller | None = None,
        reactor: Any = None,
    ) -> None:
        self._room = True
        self._over = False  # no more items are read
        self._stopping = False
        self._started: Deferred[None] | None = None
        self._blocking = False
        self._reorder = Reorder[_Call[T]]()
        self._count = 0
        self._calls: dict[int, _Call[T]] = {}  # the calls under way, by number
        self._early: dict[int, _Call[T]] = {}  # the calls with an outcome that is not delivered yet
        self._failed: int | None = None  # the number of the first call that has failed
        self._waiting: list[_Call[T]] = []  # the calls whose item was delivered when there was no room for another
        self._result: Any = None  # what the blocking function returned
        self._failure: Failure | None = None
        self._stopped = Waiters[Any]()
        self._unreported: Deferred[None] | None = None
        self.i: Consumerator[T] = Consumerator(self, maxThreads, limit=limit, thread=thread, reactor=reactor)

    def start(
        self, fb: Callable[Concatenate[Iterator[T], P], object], /, *args: P.args, **kw: P.kwargs
    ) -> Deferred[None]:
        """Call the blocking function in a thread.

        Args:
            fb: The function. Its first parameter is an iterator over the items. The iterator ends after `stop`, and
                raises the error of a producing call.
            args: More positional arguments.
            kw: Keyword arguments.

        Returns:
            A Deferred that fires when the function starts, which is when the pool has a thread for it.

        Raises:
            RuntimeError: A function was started before, or this was stopped.
        """
        if self._started is not None:
            raise RuntimeError("this OrderedItemProducer has been started: make another for another function")
        if self._stopping or self._over:
            raise RuntimeError("this OrderedItemProducer has been stopped: make another")
        started: Deferred[None] = Deferred()
        self._started = started
        self._blocking = True
        reactor = self.i.reactor

        def run(items: Iterator[T]) -> object:
            reactor.callFromThread(self._begun)
            return fb(items, *args, **kw)

        self.i.runInThread(run).addBoth(self._ended)
        return started

    @overload
    def produceItem(
        self, fp: Callable[P, Deferred[T] | Coroutine[Any, Any, T]], /, *args: P.args, **kw: P.kwargs
    ) -> Deferred[T | None]: ...
    @overload
    def produceItem(self, fp: Callable[P, T], /, *args: P.args, **kw: P.kwargs) -> Deferred[T | None]: ...
    @overload  # `fp` is `queue.call`, whose own overloads no ParamSpec can stand for
    def produceItem(
        self, fp: Callable[..., Deferred[Any]], f: Callable[..., T], /, *args: Any, **kw: Any
    ) -> Deferred[T | None]: ...
    def produceItem(self, fp: Callable[..., Any], /, *args: Any, **kw: Any) -> Deferred[T | None]:
        """Call a function now, and deliver its result as the next item.

        A caller that waits for the Deferred before the next call never has more calls under way than the buffer has
        room for. A caller that does not wait is not held back.

        If the function fails, the iteration ends with its error after the earlier items, and so does `stop`.

        Args:
            fp: A callable. It may return a Deferred or a coroutine. After the end it is not called.
            args: Its positional arguments.
            kw: Its keyword arguments.

        Returns:
            A Deferred of the item. It fires when this item and all earlier ones were delivered and there is room for
            more. It fires with None if the item will not be read.
        """
        if not self.wanted:
            return succeed(None)
        call: _Call[T] = _Call(self._count)
        self._count += 1
        self._calls[call.index] = call
        call.running = make(fp, args, kw)
        call.running.addBoth(self._produced, call)
        if not self._isWanted(call):
            call.running.cancel()  # FP itself has ended the iteration
        return call.answer

    def stop(self, failureObj: Failure | None = None) -> Deferred[Any]:
        """Request no more items, and wait for the end.

        Running calls finish, their items are delivered, and then the iterator ends. Without a blocking function,
        running calls are cancelled instead. May be called again.

        Args:
            failureObj: A Failure that ends everything: running calls are cancelled, and the iterator raises its error
                after the items that it has.

        Returns:
            A Deferred of what the blocking function returns, or None without one. It fails with the error of a
            producing call or of the blocking function, whichever ended it. Cancelling it ends everything at once:
            running calls are cancelled, the iterator raises CancelledError, and the blocking function is not waited
            for.
        """
        self._stopping = True
        if self._unreported is not None:
            self._unreported.addErrback(lambda _: None)
        stopped = self._stopped.add(self._abort)
        if failureObj is not None and not self._over and self._failure is None:
            self._failure = failureObj
            self._failed = -1
            self._cancel(after=-1)
            self._release()
            self.i.fail(errorIn(failureObj))
        if self._started is None:
            self._end()
        self._proceed()
        return stopped

    @property
    def wanted(self) -> bool:
        """False when an item that is requested now would not be read."""
        return not (self._over or self._stopping) and self._failed is None

    # The Consumerator calls these: this is its producer.

    def pauseProducing(self) -> None:
        """Pause: there is no room."""
        self._room = False

    def resumeProducing(self) -> None:
        """Resume: there is room."""
        self._release()

    def stopProducing(self) -> None:
        """End: the reading side has left."""
        self._end()
        self._proceed()

    # The calls.

    def _isWanted(self, call: _Call[T]) -> bool:
        return not self._over and (self._failed is None or call.index <= self._failed)

    def _produced(self, outcome: Any, call: _Call[T]) -> None:
        del self._calls[call.index]
        if self._isWanted(call):
            call.outcome = outcome
            self._early[call.index] = call
            if isinstance(outcome, Failure):
                self._failed = call.index
                self._cancel(after=call.index)
            for ready in self._reorder.put(call.index, call):
                self._deliver(ready)
        else:
            call.notify(None)
        self._proceed()

    def _deliver(self, call: _Call[T]) -> None:
        """Deliver the outcome of CALL, whose turn has come."""
        if self._early.pop(call.index, None) is None:
            return  # it was cancelled, and its caller was notified
        if isinstance(call.outcome, Failure):
            self._failure = call.outcome
            self._release()
            self.i.fail(errorIn(call.outcome))
            call.notify(None)
            return
        self.i.write(call.outcome)
        if self._room:
            call.notify(call.outcome)
        else:
            self._waiting.append(call)

    def _release(self) -> None:
        """Fire the Deferreds of the calls that wait for room."""
        self._room = True
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            call.notify(call.outcome)

    def _cancel(self, after: int) -> None:
        """Cancel all calls with higher numbers than AFTER, running or finished."""
        for index in [index for index in self._early if index > after]:
            self._early.pop(index).notify(None)
        # The last call first: a waiting call must not start because the call before it was cancelled.
        for index, call in sorted(self._calls.items(), reverse=True):
            if index > after:
                if call.running is not None:
                    call.running.cancel()
                call.notify(None)

    # The end.

    def _begun(self) -> None:
        if self._started is not None and not self._started.called:
            self._started.callback(None)

    def _ended(self, result: Any) -> None:
        """Record the result of the blocking function."""
        self._blocking = False
        if isinstance(result, Failure):
            self._failure = self._failure or result
        else:
            self._result = result
        self._begun()
        self._end()
        self._proceed()

    def _end(self) -> None:
        """End the reading side."""
        if not self._over:
            self._over = True
            self.i.leave()
            self._release()
            self._cancel(after=-1)

    def _abort(self) -> None:
        """End everything now."""
        if not self._over:
            self._over = True
            error = CancelledError("this OrderedItemProducer was cancelled")
            self._failure = self._failure or Failure(error)
            self.i.abort(error)
            self._release()
            self._cancel(after=-1)
            self._proceed()

    def _proceed(self) -> None:
        """Finish, if nothing is under way any more."""
        if self._calls:
            return
        if self._stopping and not self._over:
            self.i.unregisterProducer()
            self._release()
        if self._blocking or not self._over:
            return
        if self._failure is not None and not self._stopping:
            self._unreported = fail(self._failure)  # Twisted logs it if `stop` is never called
        self._stopped.fire(self._failure or self._result)
