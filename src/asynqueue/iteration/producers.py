"""The items of an iteration for a consumer, which may pause or end it at any time.

An `IterationProducer` writes the items of a `Deferator` to its consumer, one by one. While it is paused, it asks for no
item. A `ListConsumer` is a consumer that makes a list, and may need time for each item.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Generic, TypeVar, overload

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from asynqueue.core.flow.boundedbuffer import Action, BoundedBuffer
from asynqueue.core.flow.reorder import Reorder
from asynqueue.core.results import isA, isIterator
from asynqueue.interfaces import Clock, Consumer
from asynqueue.iteration.deferator import Deferator
from asynqueue.iteration.sources import Fetched, FetchSource
from asynqueue.reactor.calling import make
from asynqueue.reactor.failures import errorIn, failureOf
from asynqueue.reactor.waiters import Waiters

C = TypeVar("C", bound=Consumer)

IN_HAND = 16
"""The most items that a `ListConsumer` processes at once before it pauses its producer."""


@implementer(IPushProducer)
class IterationProducer(Generic[C]):
    """A producer of the items of a Deferator, which its consumer may pause, resume and stop at any time.

    Args:
        deferator: The `Deferator` that has the items.
        consumer: The `IConsumer` that is written to. None: to be registered later.
        dr: The name of `deferator` in 0.9.

    Raises:
        TypeError: `deferator` is not a Deferator.

    >>> d = IterationProducer(deferator, consumer).run()          # doctest: +SKIP
    """

    def __init__(
        self, deferator: Deferator[Any] | None = None, consumer: C | None = None, *, dr: Deferator[Any] | None = None
    ) -> None:
        if deferator is None:
            deferator = dr
        if not isinstance(deferator, Deferator):
            raise TypeError(f"an IterationProducer needs a Deferator, got {type(deferator).__name__}")
        self._deferator = deferator
        self._consumer: C | None = None
        self._paused = False
        self._writing = False
        self._waiting: Deferred[Any] | None = None
        self._done = Waiters[C]()
        self._outcome: C | Failure | None = None
        if consumer is not None:
            self.registerConsumer(consumer)

    def registerConsumer(self, consumer: C) -> None:
        """Set the consumer to be written to.

        A consumer may call this from its own `registerProducer`, as consumers for 0.9 do. It may also refuse to be
        registered a second time by RuntimeError: if it has this producer as an attribute, it is registered.

        Args:
            consumer: An `IConsumer`.

        Raises:
            RuntimeError: There is another consumer already, or the consumer has another producer.
        """
        if self._consumer is consumer:
            return
        if self._consumer is not None:
            raise RuntimeError("this producer has a consumer already")
        self._consumer = consumer
        try:
            consumer.registerProducer(self, True)
        except RuntimeError:
            if not any(each is self for each in getattr(consumer, "__dict__", {}).values()):
                self._consumer = None
                raise

    def run(self) -> Deferred[C]:
        """Begin to write items.

        Returns:
            A Deferred as of `deferUntilDone`.

        Raises:
            RuntimeError: There is no consumer.
        """
        if self._consumer is None:
            raise RuntimeError("there is no consumer to feed: call registerConsumer first")
        done = self.deferUntilDone()
        self._proceed()
        return done

    def deferUntilDone(self) -> Deferred[C]:
        """Wait for the end.

        Returns:
            A Deferred that fires with the consumer when all items were written, or when the consumer stopped this
            producer. It fails with the error of the iterator or of the consumer.
        """
        done = self._done.add()
        if self._outcome is not None:
            self._done.fire(self._outcome)
        return done

    def pauseProducing(self) -> None:
        """Write and fetch nothing until `resumeProducing`."""
        self._paused = True
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.cancel()  # the item stays the next

    def resumeProducing(self) -> None:
        """Write items again."""
        self._paused = False
        self._proceed()

    def stopProducing(self) -> None:
        """End the iteration: the consumer wants no more items."""
        self.stop()

    def stop(self) -> None:
        """End the iteration. The Deferreds of `deferUntilDone` fire with the consumer."""
        self._deferator.stop()
        self._finish(None)

    def _proceed(self) -> None:
        """Write the items that are here. (A loop and not a recursion, since their Deferreds fire at once.)"""
        if self._writing:
            return
        self._writing = True
        try:
            while not self._paused and self._outcome is None and self._waiting is None:
                waiting = self._deferator.__anext__()
                self._waiting = waiting
                waiting.addCallbacks(self._write, self._failed)
        finally:
            self._writing = False

    def _write(self, item: Any) -> None:
        self._waiting = None
        if self._outcome is None and self._consumer is not None:
            inLoop, self._writing = self._writing, True  # the consumer may call `resumeProducing` in `write`
            try:
                self._consumer.write(item)
            except BaseException as error:  # SystemExit too: the iteration ends, and not the caller
                self._deferator.stop()
                self._finish(failureOf(error))
            finally:
                self._writing = inLoop
        self._proceed()

    def _failed(self, reason: Failure) -> None:
        if self._waiting is None:
            return  # `pauseProducing` has cancelled it
        self._waiting = None
        self._finish(None if isA(errorIn(reason), StopAsyncIteration) else reason)

    def _finish(self, reason: Failure | None) -> None:
        if self._outcome is not None or self._consumer is None:
            return
        self._outcome = reason or self._consumer
        try:
            self._consumer.unregisterProducer()
        except BaseException as error:  # as above
            self._outcome = reason or failureOf(error)
        self._done.fire(self._outcome)


@implementer(IConsumer)
class ListConsumer:
    """A consumer that makes a list of the items, each as `processItem` returns it, in the order of writing.

    Call the consumer to get a Deferred of the list. It fires when the producer has unregistered and all items are
    processed. If the processing of an item fails, the producer is stopped, and the Deferred fails with that error. A
    producer that is registered after the end begins a new list.

    Args:
        attrs: Attributes of the new object. One of them may be ``processItem``.

    Raises:
        TypeError: An attribute has the name of one that the class has.

    >>> consumer = ListConsumer(processItem=str.upper)
    >>> consumer.registerProducer(producer, True)                            # doctest: +SKIP
    >>> consumer.write("spam")
    >>> consumer.unregisterProducer()
    >>> d = consumer().addCallback(print)
    ['SPAM']
    """

    def __init__(self, **attrs: Any) -> None:
        self._producer: Any = None  # Twisted's IPushProducer or IPullProducer
        self._unreported: Deferred[None] | None = None
        self._begin()
        for name, value in attrs.items():
            if name != "processItem" and hasattr(self, name):
                raise TypeError(f"a {type(self).__name__} has its own {name!r}: choose another name for the attribute")
            setattr(self, name, value)

    def processItem(self, item: Any) -> Any:
        """Return the entry of the list for ITEM, or a Deferred or a coroutine of it. Override this; here it is ITEM."""
        return item

    def __call__(self) -> Deferred[list[Any]]:
        """Return a Deferred of the list. May be called at any time, and again."""
        called: Deferred[list[Any]] = Deferred()
        self._callers.append(called)
        self._proceed()
        return called

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Accept the items of a producer.

        Args:
            producer: An `IPushProducer`, or an `IPullProducer` if not `streaming`.
            streaming: Whether the producer writes without being asked for each item.

        Raises:
            RuntimeError: There is a producer, or items of the last one are still being processed.
        """
        if self._producer is not None:
            raise RuntimeError(f"this {type(self).__name__} has a producer already")
        if self._ended:
            if not self._complete:
                raise RuntimeError(f"this {type(self).__name__} is still processing the items of its last producer")
            self._begin()
        self._producer = producer
        self._flow.attach(bool(streaming))
        self._proceed()

    def unregisterProducer(self) -> None:
        """Note that the producer writes no more items."""
        self._producer = None
        self._flow.detach()
        self._ended = True
        self._proceed()

    def write(self, data: Any) -> None:
        """Process DATA, the next item."""
        if self._failure is None:
            number = self._count
            self._count += 1
            self._flow.put(number)
            processed = make(self.processItem, (data,), {})
            processed.addCallbacks(self._processed, self._failed, (self._order, number), {}, (self._order,))
            self._proceed()

    @property
    def _complete(self) -> bool:
        return self._failure is not None or (self._ended and self._order.next == self._count)

    def _begin(self) -> None:
        self._list: list[Any] = []
        self._count = 0
        self._order = Reorder[Any]()
        self._flow = BoundedBuffer[int](IN_HAND)  # the items that are being processed
        self._resuming = False
        self._ended = False
        self._failure: Failure | None = None
        self._callers: list[Deferred[list[Any]]] = []

    def _processed(self, result: Any, order: Reorder[Any], number: int) -> None:
        if order is self._order and self._failure is None:
            self._flow.take(1)
            self._list.extend(order.put(number, result))
            self._proceed()

    def _failed(self, reason: Failure, order: Reorder[Any]) -> None:
        if order is self._order and self._failure is None:
            self._failure = reason
            self._flow.closeReader()
            self._unreported = fail(reason)  # Twisted logs it if the list is never asked for
            self._proceed()

    def _proceed(self) -> None:
        """Notify the producer of what is due, and fire the Deferreds of the list if it is complete."""
        while (due := self._flow.pending) is not None:
            if due is Action.RESUME and self._resuming:
                return  # else one resumption would be inside another
            self._flow.done(due)
            if due is Action.PAUSE:
                self._producer.pauseProducing()
            elif due is Action.RESUME:
                self._resuming = True
                self._producer.resumeProducing()
                self._resuming = False
            elif due is Action.STOP:
                self._producer.stopProducing()
        if self._complete:
            callers, self._callers = self._callers, []
            for called in callers:
                if self._unreported is not None:
                    self._unreported.addErrback(lambda _: None)
                called.callback(list(self._list) if self._failure is None else self._failure)


@overload
def iteratorToProducer(
    iterator: Iterator[Any],
    consumer: None = None,
    wrapper: Callable[..., Any] | None = None,
    *,
    reactor: Clock | None = None,
) -> Deferred[IterationProducer[Any]]: ...
@overload
def iteratorToProducer(
    iterator: Iterator[Any],
    consumer: C,
    wrapper: Callable[..., Any] | None = None,
    *,
    reactor: Clock | None = None,
) -> Deferred[C]: ...
def iteratorToProducer(
    iterator: Iterator[Any],
    consumer: Consumer | None = None,
    wrapper: Callable[..., Any] | None = None,
    *,
    reactor: Clock | None = None,
) -> Deferred[Any]:
    """Write the items of an iterator to a consumer.

    Args:
        iterator: The iterator, or a generator function without parameters. It runs in the main loop, in slices of a
            millisecond, unless there is a `wrapper`.
        consumer: The `IConsumer` that is written to from now on. None: to be registered later.
        wrapper: A callable for an iterator that blocks, such as `asynqueue.threads.deferToThread` or
            ``queue.deferToThread``. It is called with a function for each item, and with another to close the iterator.
            It returns the function's result, or a Deferred or a coroutine of it.
        reactor: The reactor to use. None is the installed one.

    Returns:
        With a consumer, a Deferred that fires with the consumer when all items were written, and fails with the
        iterator's error. Without one, a Deferred that fires with an `IterationProducer` when it is known whether there
        is a first item; call its `registerConsumer` and its `run`.

    Raises:
        TypeError: `iterator` is not an iterator.

    >>> d = iteratorToProducer(open("/var/log/syslog"), consumer, deferToThread)        # doctest: +SKIP
    """
    if wrapper is None:
        deferator: Deferator[Any] = Deferator(iterator, reactor=reactor)
    else:
        deferator = Deferator(_wrapped(iterator, wrapper, reactor), limit=2, reactor=reactor)
    if consumer is not None:
        return IterationProducer(deferator, consumer).run()
    return deferator.whenKnown().addCallback(IterationProducer)


def _wrapped(iterator: Any, wrapper: Callable[..., Any], reactor: Clock | None) -> FetchSource:
    """Return a source that fetches each item of ITERATOR by WRAPPER. (It may be a generator function: hence Any.)"""
    if inspect.isgeneratorfunction(iterator):
        iterator = iterator()
    if not isIterator(iterator):
        raise TypeError(f"an iterator is needed, got {type(iterator).__name__}")

    def step() -> Fetched:
        try:
            return Fetched(next(iterator), True, None)
        except StopIteration:  # a Deferred does not treat this like other errors
            return Fetched(None, False, False)

    async def fetch() -> Fetched:
        fetched: Fetched = await make(wrapper, (step,), {})
        return fetched

    close = getattr(iterator, "close", None)
    return FetchSource(fetch, partial(wrapper, close) if callable(close) else None, reactor)
