"""Iterations as Twisted programs want them: items as Deferreds, or fed to a consumer.

A `Deferator` stands for an iterator that lives somewhere else, in a process say, or in a thread that may block. It
drives the pure machine `asynqueue.core.iteration.Inflow`, which decides how much is fetched ahead. An
`IterationProducer` feeds the items to an `IConsumer`, which may pause it.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from asynqueue.core import iteration as core
from asynqueue.delay import Delay, deferToDelay, installedReactor
from asynqueue.errors import NotReadyError
from asynqueue.interfaces import Consumer, ItemSink, ItemSource
from asynqueue.universe import SLICE, isIterator

__all__ = ["Deferator", "Delay", "IterationProducer", "deferToDelay"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
C = TypeVar("C", bound=Consumer)


class ItemDeferred(Deferred[T]):
    """Fires with an item. STOP ends the iteration it comes from."""

    stop: Callable[[], None]


class _Intake:
    """Drives an `Inflow`: what comes from SOURCE goes to whoever waits for it.

    It lives as long as the source does; the `Deferator` lives as long as somebody has it.
    """

    def __init__(self, source: ItemSource, onEnded: Callable[[], None] | None) -> None:
        self.flow = core.Inflow()
        self.known: Deferred[None] = Deferred()
        self.ended: Deferred[bool] = Deferred()
        self._source = source
        self._onEnded = onEnded
        self._waiting: Deferred[Any] | None = None  # items are of the type that the user's iterator yields
        source.begin(self)
        self._do(self.flow.begin())

    def ask(self, waiting: Deferred[Any], lookahead: bool) -> None:
        self._waiting = waiting
        self._do(self.flow.ask(lookahead))

    def unask(self, _: Deferred[Any]) -> None:
        self._waiting = None
        self.flow.unask()

    def stop(self) -> None:
        self._do(self.flow.stop())

    def arrived(self, items: Sequence[Any]) -> None:
        self._do(self.flow.arrived(items))

    def over(self, error: BaseException | None) -> None:
        self._do(self.flow.over(error))
        if self._onEnded is not None:
            onEnded, self._onEnded = self._onEnded, None
            onEnded()

    def _do(self, commands: list[core.Command]) -> None:
        for command in commands:
            if isinstance(command, core.Grant):
                self._source.grant(command.items)
            elif isinstance(command, core.Deliver):
                self._answer(command.item)
            elif isinstance(command, core.Finish):
                self._answer(Failure(command.error or StopAsyncIteration()))
            elif isinstance(command, core.Known):
                self.known.callback(None)
            elif isinstance(command, core.Close):
                self._source.close()
            else:
                self.ended.callback(command.complete)

    def _answer(self, result: Any) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(result)


class Deferator(Generic[T_co]):
    """An iterator whose items come as Deferreds.

    In a function with inlineCallbacks, or in a coroutine::

        for d in deferator:             async for item in deferator:
            item = yield d                  print(item)
            print(item)

    A Deferred that `for` gives fires once it is known whether another item follows. An error that the iterator
    raised comes in the place of the next item. Leave a loop early with `stop`; a Deferator that nobody has any
    more stops by itself.

    SOURCE is an iterator, which is then run in the main loop, a slice at a time, or an
    `asynqueue.interfaces.ItemSource`. `d` fires True when all items have been taken, False when the iteration has
    ended otherwise.
    """

    def __init__(
        self,
        source: ItemSource | Iterator[T_co],
        *,
        onEnded: Callable[[], None] | None = None,
        reactor: IReactorTime | None = None,
    ) -> None:
        if isinstance(source, ItemSource):
            items: ItemSource = source
        elif isIterator(source):
            items = LocalSource(source, reactor)
        else:
            raise TypeError(f"a Deferator needs an iterator, got {type(source).__name__}")
        self._intake = _Intake(items, onEnded)
        self.d: Deferred[bool] = Deferred()
        self._intake.ended.addCallback(_tell, weakref.ref(self.d))
        weakref.finalize(self, _stopFromAnywhere, self._intake, installedReactor(reactor)).atexit = False

    @staticmethod
    def isIterator(x: object) -> bool:
        """True for generators, generator functions, and whatever else has ``__iter__`` and ``__next__``.

        >>> Deferator.isIterator(iter([1])), Deferator.isIterator([1]), Deferator.isIterator("one")
        (True, False, False)
        """
        return isIterator(x) or inspect.isgeneratorfunction(x)

    @property
    def moreLeft(self) -> bool:
        """False once it is known that there is nothing more to ask for."""
        return self._intake.flow.more

    def stop(self) -> None:
        """End the iteration. The iterator's ``finally`` is run where it lives; what waits for an item is told
        that there is none. May be called at any time, and again."""
        self._intake.stop()

    def whenKnown(self) -> Deferred[Deferator[T_co]]:
        """Fires with this Deferator once it is known whether there is a first item."""
        known: Deferred[Deferator[T_co]] = Deferred()
        if self._intake.known.called:
            return succeed(self)
        self._intake.known.addCallback(lambda _: known.callback(self))
        return known

    def __iter__(self) -> Iterator[Deferred[T_co]]:
        return self

    def __next__(self) -> Deferred[T_co]:
        """The Deferred of the next item. Raises `NotReadyError` while the last one has not fired."""
        if not self.moreLeft and not self._intake.flow.asked:
            raise StopIteration
        return self._ask(lookahead=True)

    def __aiter__(self) -> AsyncIterator[T_co]:
        return self

    def __anext__(self) -> Deferred[T_co]:
        """The Deferred of the next item; fails with StopAsyncIteration when there is none."""
        if not self.moreLeft and not self._intake.flow.asked:
            return fail(Failure(StopAsyncIteration()))
        return self._ask(lookahead=False)

    def _ask(self, lookahead: bool) -> ItemDeferred[T_co]:
        if self._intake.flow.asked:
            raise NotReadyError("the last item has not come: wait for its Deferred before you ask for the next")
        item: ItemDeferred[T_co] = ItemDeferred(self._intake.unask)
        item.stop = self.stop
        self._intake.ask(item, lookahead)
        return item


def _stopFromAnywhere(intake: _Intake, reactor: Any) -> None:
    """Have INTAKE stopped by REACTOR, in a turn of its own.

    Rubbish is collected in any thread, and in the middle of anything, this very iteration's machinery included.
    (A reactor has threads, a clock need not: hence Any.)
    """
    if not intake.flow.ended:
        getattr(reactor, "callFromThread", partial(reactor.callLater, 0))(intake.stop)


def _tell(complete: bool, whom: weakref.ref[Deferred[bool]]) -> None:
    """Fire the Deferred that WHOM refers to, if anybody has it still."""
    d = whom()
    if d is not None and not d.called:
        d.callback(complete)


class LocalSource:
    """The items of ITERATOR, which is run in the main loop: a slice at a time, so that other things go on."""

    def __init__(self, iterator: Iterator[Any], reactor: IReactorTime | None = None) -> None:
        self._iterator = iterator
        self._reactor = installedReactor(reactor)
        self._flow = core.Outflow()
        self._sink: ItemSink | None = None
        self._scheduled: IDelayedCall | None = None
        self._producing = False

    def begin(self, sink: ItemSink) -> None:
        """Send to SINK what is granted."""
        self._sink = sink

    def grant(self, items: int) -> None:
        """Produce ITEMS more, beginning in the reactor's next turn."""
        self._flow.granted(items)
        self._schedule()

    def close(self) -> None:
        """End the iterator, and say so."""
        if self._producing:
            self._flow.end()  # the iterator itself wants this, and cannot be closed while it runs
        elif not self._flow.ended:
            self._end(None)

    def _schedule(self) -> None:
        if self._flow.ready and self._scheduled is None:
            self._scheduled = self._reactor.callLater(0, self._produce)

    def _produce(self) -> None:
        self._scheduled = None
        if self._flow.ended or self._sink is None:
            return
        items: list[Any] = []
        error: BaseException | None = None
        exhausted = False
        deadline = self._reactor.seconds() + SLICE
        self._producing = True
        while len(items) < self._flow.credit:
            try:
                items.append(next(self._iterator))
            except StopIteration:
                exhausted = True
                break
            except BaseException as raised:  # SystemExit too: it is the iteration that ends, not the reactor
                exhausted, error = True, raised
                break
            if self._flow.ended or self._reactor.seconds() > deadline:
                break
        self._producing = False
        if self._flow.ended:
            self._end(None)
            return
        self._flow.sent(len(items))
        self._sink.arrived(items)
        if not exhausted:
            self._schedule()
        elif not self._flow.ended:
            self._end(error)

    def _end(self, error: BaseException | None) -> None:
        self._flow.end()
        if self._scheduled is not None:
            self._scheduled.cancel()
            self._scheduled = None
        close = getattr(self._iterator, "close", None)
        try:
            if callable(close):
                close()
        except Exception as raised:
            error = error or raised
        if self._sink is not None:
            self._sink.over(error)


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
        self._done: list[Deferred[C]] = []
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
        done: Deferred[C] = Deferred()
        if self._outcome is not None:
            done.callback(self._outcome)
        else:
            self._done.append(done)
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
            except Exception:
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
        except Exception:
            self._outcome = reason or Failure()
        done, self._done = self._done, []
        for each in done:
            each.callback(self._outcome)
