"""Items in call order for a blocking function."""

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
from asynqueue.errors import ThreadError
from asynqueue.interfaces import ThreadCaller
from asynqueue.reactor.calling import make
from asynqueue.reactor.waiters import Waiters

T = TypeVar("T")
P = ParamSpec("P")


@define(eq=False)
class _Call(Generic[T]):
    """A call of a producing function: what is told of it, what it runs as, and what came of it."""

    index: int
    answer: Deferred[T | None] = field(factory=Deferred)
    running: Deferred[T] | None = None
    outcome: Any = None  # an item, or a Failure

    def tell(self, item: T | None) -> None:
        if not self.answer.called:
            self.answer.callback(item)


@implementer(IPushProducer)
class OrderedItemProducer(PoolUser, Generic[T]):
    """Feeds a blocking function with items in the order they were asked for, however long each of them takes.

    >>> async def main():                                                    # doctest: +SKIP
    ...     p = OrderedItemProducer()
    ...     await p.start(png.Writer(640, 480).write_rows)
    ...     for y in range(480):
    ...         await p.produceItem(queue.call, computeRow, y)
    ...     await p.stop()

    Items wait in `i`, a `Consumerator`, and LIMIT is how many; the arguments are those of `IterationGetter`. All of
    it is for the reactor's thread.
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
        self._over = False  # nothing more is iterated
        self._stopping = False
        self._started: Deferred[None] | None = None
        self._blocking = False
        self._reorder = Reorder[_Call[T]]()
        self._count = 0
        self._calls: dict[int, _Call[T]] = {}  # those under way
        self._early: dict[int, _Call[T]] = {}  # those that have their outcome, and it has not gone in
        self._failed: int | None = None  # the first call that is known to have failed
        self._waiting: list[_Call[T]] = []  # those whose item has gone in, when there was no room for another
        self._result: Any = None  # what FB returned, or a Failure
        self._failure: Failure | None = None
        self._stopped = Waiters[Any]()
        self._unheard: Deferred[None] | None = None
        self.i: Consumerator[T] = Consumerator(self, maxThreads, limit=limit, thread=thread, reactor=reactor)

    def start(
        self, fb: Callable[Concatenate[Iterator[T], P], object], /, *args: P.args, **kw: P.kwargs
    ) -> Deferred[None]:
        """Call FB in a thread with an iterator over the items, and what follows.

        Fires when it begins, which is when the pool has a thread for it. Raises RuntimeError when FB was started
        before, or it is too late. The iterator ends after `stop`, and raises what a producing call has raised.
        """
        if self._started is not None:
            raise RuntimeError("this OrderedItemProducer has been started")
        if self._stopping or self._over:
            raise RuntimeError("this OrderedItemProducer has been stopped")
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
    def produceItem(self, fp: Callable[..., Any], /, *args: Any, **kw: Any) -> Deferred[T | None]:
        """Call FP now with what follows; its result is an item, or a Deferred or a coroutine of one.

        Fires with the item when all items before it have gone in, it has too, and there is room for more: who waits
        for that never has more under way than can be taken. Who does not is not held back.

        If FP fails, the iteration ends with its error after the items before, and so does `stop`. This fires with
        None then, as it does for every item that nobody will iterate; and FP is not called at all once it is over.
        """
        if not self.wanted:
            return succeed(None)
        call: _Call[T] = _Call(self._count)
        self._count += 1
        self._calls[call.index] = call
        call.running = make(fp, args, kw)
        call.running.addBoth(self._made, call)
        if not self._isWanted(call):
            call.running.cancel()  # FP itself has ended it all
        return call.answer

    def stop(self) -> Deferred[Any]:
        """No more items are asked for. Fires with what the blocking function returns.

        The calls that were made go on to their end, their items are iterated, and then the iterator ends. Fails with
        what a producing call or the blocking function has raised, whichever ended it. Fires with None if there was no
        blocking function; then nobody wants the items, and calls under way are cancelled. May be called again.

        To cancel it is to end everything now: calls under way are cancelled, the iterator raises CancelledError, and
        the blocking function is not waited for.
        """
        self._stopping = True
        if self._unheard is not None:
            self._unheard.addErrback(lambda _: None)
        stopped = self._stopped.add(self._abort)
        if self._started is None:
            self._end()
        self._proceed()
        return stopped

    @property
    def wanted(self) -> bool:
        """False when no item that is asked for now would be iterated."""
        return not (self._over or self._stopping) and self._failed is None

    # What the Consumerator tells its producer.

    def pauseProducing(self) -> None:
        """There is no room."""
        self._room = False

    def resumeProducing(self) -> None:
        """There is room."""
        self._release()

    def stopProducing(self) -> None:
        """Nobody iterates any more."""
        self._end()
        self._proceed()

    # What happens to the calls.

    def _isWanted(self, call: _Call[T]) -> bool:
        return not self._over and (self._failed is None or call.index <= self._failed)

    def _made(self, outcome: Any, call: _Call[T]) -> None:
        del self._calls[call.index]
        if self._isWanted(call):
            call.outcome = outcome
            self._early[call.index] = call
            if isinstance(outcome, Failure):
                self._failed = call.index
                self._cancel(after=call.index)
            for ready in self._reorder.put(call.index, call):
                self._goIn(ready)
        else:
            call.tell(None)
        self._proceed()

    def _goIn(self, call: _Call[T]) -> None:
        """It is the turn of CALL's outcome."""
        if self._early.pop(call.index, None) is None:
            return  # it was told already that nobody wants it
        if isinstance(call.outcome, Failure):
            self._failure = call.outcome
            self._release()
            self.i.fail(call.outcome.value or ThreadError("an item could not be made"))
            call.tell(None)
            return
        self.i.write(call.outcome)
        if self._room:
            call.tell(call.outcome)
        else:
            self._waiting.append(call)

    def _release(self) -> None:
        """There is room, or nobody waits for it any more."""
        self._room = True
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            call.tell(call.outcome)

    def _cancel(self, after: int) -> None:
        """The items of the calls after that number are not wanted: those made, and those under way."""
        for index in [index for index in self._early if index > after]:
            self._early.pop(index).tell(None)
        # The last first: a call that waits somewhere must not start because the one before it is gone.
        for index, call in sorted(self._calls.items(), reverse=True):
            if index > after:
                if call.running is not None:
                    call.running.cancel()
                call.tell(None)

    # The end.

    def _begun(self) -> None:
        if self._started is not None and not self._started.called:
            self._started.callback(None)

    def _ended(self, result: Any) -> None:
        """The blocking function has returned, or failed."""
        self._blocking = False
        if isinstance(result, Failure):
            self._failure = self._failure or result
        else:
            self._result = result
        self._begun()
        self._end()
        self._proceed()

    def _end(self) -> None:
        """Nothing more is iterated."""
        if not self._over:
            self._over = True
            self.i.leave()
            self._release()
            self._cancel(after=-1)

    def _abort(self) -> None:
        """End everything now."""
        if not self._over:
            self._over = True
            error = CancelledError("this OrderedItemProducer was made to end")
            self._failure = self._failure or Failure(error)
            self.i.abort(error)
            self._release()
            self._cancel(after=-1)
            self._proceed()

    def _proceed(self) -> None:
        """Go on to the end, if it has come."""
        if self._calls:
            return
        if self._stopping and not self._over:
            self.i.unregisterProducer()
            self._release()
        if self._blocking or not self._over:
            return
        if self._failure is not None and not self._stopping:
            self._unheard = fail(self._failure)  # it is reported if nobody ever calls stop
        self._stopped.fire(self._failure or self._result)
