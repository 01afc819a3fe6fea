"""Feeding the items of an iteration to a consumer, which may hold it up or end it at any time.

An `IterationProducer` takes items of a `Deferator` for its consumer and writes them, one at a time. To pause is to ask
for nothing more. A `ListConsumer` is a consumer that makes a list of what it is given, and may take its time over each.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Generic, TypeVar, overload

from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from asynqueue.core.flow.boundedbuffer import Action, BoundedBuffer
from asynqueue.core.flow.iterators import isIterator
from asynqueue.core.flow.reorder import Reorder
from asynqueue.interfaces import Clock, Consumer
from asynqueue.iteration.deferator import Deferator
from asynqueue.iteration.sources import Fetched, FetchSource
from asynqueue.reactor.waiters import Waiters

C = TypeVar("C", bound=Consumer)

IN_HAND = 16
"""How many items a `ListConsumer` processes at once, at most, before it asks its producer to hold."""


@implementer(IPushProducer)
class IterationProducer(Generic[C]):
    """Feeds what a Deferator gives to a consumer, which may pause, resume and stop it at any time.

    >>> d = IterationProducer(deferator, consumer).run()          # doctest: +SKIP

    DEFERATOR is what gives the items, CONSUMER an `IConsumer` that takes them, or to be registered later.
    """

    def __init__(self, deferator: Deferator[Any], consumer: C | None = None) -> None:
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
        """Feed CONSUMER. Raises RuntimeError if there is one already."""
        if self._consumer is not None:
            raise RuntimeError("this producer has a consumer already")
        self._consumer = consumer
        consumer.registerProducer(self, True)

    def run(self) -> Deferred[C]:
        """Begin; fires with the consumer when it has had everything, or was enough for it."""
        if self._consumer is None:
            raise RuntimeError("there is no consumer to feed: call registerConsumer first")
        done = self.deferUntilDone()
        self._proceed()
        return done

    def deferUntilDone(self) -> Deferred[C]:
        """Fires with the consumer when it has had everything; fails with what the iterator raised."""
        done = self._done.add()
        if self._outcome is not None:
            self._done.fire(self._outcome)
        return done

    def pauseProducing(self) -> None:
        """Write nothing until told to resume, and fetch nothing more."""
        self._paused = True
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.cancel()  # the item stays the next

    def resumeProducing(self) -> None:
        """Go on writing."""
        self._paused = False
        self._proceed()

    def stopProducing(self) -> None:
        """Write nothing more: the consumer has enough."""
        self.stop()

    def stop(self) -> None:
        """End the iteration; the consumer counts as fed."""
        self._deferator.stop()
        self._finish(None)

    def _proceed(self) -> None:
        """Write what is here; a loop, since what is here already fires at once."""
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
            inLoop, self._writing = self._writing, True  # a consumer may resume us from inside
            try:
                self._consumer.write(item)
            except BaseException:  # SystemExit too: it is the iteration that ends, not whatever brought the item
                self._deferator.stop()
                self._finish(Failure())
            finally:
                self._writing = inLoop
        self._proceed()

    def _failed(self, reason: Failure) -> None:
        if self._waiting is None:
            return  # it was we who cancelled it
        self._waiting = None
        self._finish(None if reason.check(StopAsyncIteration) else reason)

    def _finish(self, reason: Failure | None) -> None:
        if self._outcome is not None or self._consumer is None:
            return
        self._outcome = reason or self._consumer
        try:
            self._consumer.unregisterProducer()
        except BaseException:  # as above
            self._outcome = reason or Failure()
        self._done.fire(self._outcome)


@implementer(IConsumer)
class ListConsumer:
    """A consumer that makes a list of what `processItem` makes of each item, in the order in which they were written.

    ATTRS become its attributes; one of them may be ``processItem``. Whoever calls it gets a Deferred of the list, which
    fires when the producer has no more and every item is processed. An item whose processing fails stops the producer,
    and the Deferred fails with that error. Another producer that is registered after the end begins a new list.

    >>> consumer = ListConsumer(processItem=str.upper)
    >>> consumer.registerProducer(producer, True)                            # doctest: +SKIP
    >>> consumer.write("spam")
    >>> consumer.unregisterProducer()
    >>> d = consumer().addCallback(print)
    ['SPAM']
    """

    def __init__(self, **attrs: Any) -> None:
        self._producer: Any = None  # Twisted's IPushProducer or IPullProducer
        self._unheard: Deferred[None] | None = None
        self._begin()
        for name, value in attrs.items():
            if name != "processItem" and hasattr(self, name):
                raise TypeError(f"a {type(self).__name__} has its own {name!r}: choose another name for the attribute")
            setattr(self, name, value)

    def processItem(self, item: Any) -> Any:
        """What is to be in the list for ITEM, or a Deferred or a coroutine of it: here, ITEM itself. For overriding."""
        return item

    def __call__(self) -> Deferred[list[Any]]:
        """A Deferred of the list. May be called at any time, and again."""
        called: Deferred[list[Any]] = Deferred()
        self._callers.append(called)
        self._proceed()
        return called

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Take what PRODUCER writes, STREAMING or when asked. Raises RuntimeError while there is another one."""
        if self._producer is not None:
            raise RuntimeError(f"this {type(self).__name__} has a producer already")
        if self._ended:
            if not self._complete:
                raise RuntimeError(f"this {type(self).__name__} is at work on the items of its last producer")
            self._begin()
        self._producer = producer
        self._flow.attach(bool(streaming))
        self._proceed()

    def unregisterProducer(self) -> None:
        """There is nothing more to take."""
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
            processed = maybeDeferred(self.processItem, data)
            processed.addCallbacks(self._processed, self._failed, (self._order, number), {}, (self._order,))
            self._proceed()

    @property
    def _complete(self) -> bool:
        return self._failure is not None or (self._ended and self._order.next == self._count)

    def _begin(self) -> None:
        self._list: list[Any] = []
        self._count = 0
        self._order = Reorder[Any]()
        self._flow = BoundedBuffer[int](IN_HAND)  # what is being processed
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
            self._unheard = fail(reason)  # it is reported if nobody ever asks for the list
            self._proceed()

    def _proceed(self) -> None:
        """Tell the producer what there is to tell, and those who wait for the list, if it is complete."""
        while (due := self._flow.pending) is not None:
            if due is Action.RESUME and self._resuming:
                return  # or one resumption would be inside another
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
                if self._unheard is not None:
                    self._unheard.addErrback(lambda _: None)
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
    """The items of ITERATOR, which may also be a generator function, for CONSUMER.

    With a CONSUMER, an `IConsumer`, it is fed at once; fires with it when it has had everything, and fails with what
    the iterator raised. Without one, fires with an `IterationProducer` once it is known whether there is a first item;
    call its `registerConsumer` and its `run`.

    The iterator runs in the main loop, a slice at a time. One that blocks needs a WRAPPER, which calls what it is given
    and gives the result, or a Deferred or a coroutine of it: `asynqueue.threads.deferToThread`, say, or
    ``queue.deferToThread``. Then each item is fetched by one call of it, and the iterator closed by another.

    Raises TypeError for what is no iterator. REACTOR is the installed one if it is not given.

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
    """The items of ITERATOR, each fetched by WRAPPER. (A generator function will do, too: hence Any.)"""
    if inspect.isgeneratorfunction(iterator):
        iterator = iterator()
    if not isIterator(iterator):
        raise TypeError(f"an iterator is needed, got {type(iterator).__name__}")

    def step() -> Fetched:
        try:
            return Fetched(next(iterator), True, None)
        except StopIteration:  # which no Deferred takes for an error like any other
            return Fetched(None, False, False)

    async def fetch() -> Fetched:
        fetched: Fetched = await maybeDeferred(wrapper, step)
        return fetched

    close = getattr(iterator, "close", None)
    return FetchSource(fetch, partial(wrapper, close) if callable(close) else None, reactor)
