"""The sources of items in the main loop. Each class is an `asynqueue.interfaces.ItemSource`.

- A `LocalSource` runs an iterator.
- A `FetchSource` calls a function for each item, and waits for its result.

Both return to the reactor after one slice of time, so that other work has its turn.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from asynqueue.core.flow.iteration import Outflow
from asynqueue.core.flow.iterators import SLICE, closeIterator, takeSlice
from asynqueue.core.results import isA
from asynqueue.core.text import describe, errorText, valueText
from asynqueue.errors import ImplementationError
from asynqueue.interfaces import Clock, DelayedCall, ItemSink
from asynqueue.reactor.callercontext import Runner
from asynqueue.reactor.calling import make, run
from asynqueue.reactor.failures import errorIn
from asynqueue.reactor.lookup import installedReactor

_log = Logger(namespace="asynqueue")


class LocalSource:
    """The items of ITERATOR, which runs in the main loop, by CONTEXT, for one slice of time after another."""

    def __init__(self, iterator: Iterator[Any], reactor: Clock | None = None, context: Runner | None = None) -> None:
        self._iterator = iterator
        self._context = context
        self._next = partial(next, iterator) if context is None else partial(context, next, iterator)
        self._reactor = installedReactor(reactor)
        self._flow = Outflow()
        self._sink: ItemSink | None = None
        self._scheduled: DelayedCall | None = None
        self._producing = False

    def begin(self, sink: ItemSink) -> None:
        """Send what is granted to SINK."""
        self._sink = sink

    def grant(self, items: int) -> None:
        """Produce ITEMS more, from the reactor's next turn on."""
        self._flow.granted(items)
        self._schedule()

    def produceNow(self) -> None:
        """Produce the granted items now, and not in the reactor's next turn."""
        if self._scheduled is not None:
            self._scheduled.cancel()
            self._produce()

    def close(self) -> None:
        """Close the iterator, and notify the sink."""
        if self._producing:
            self._flow.end()  # the iterator calls this itself, and cannot be closed while it runs
        elif not self._flow.ended:
            self._end(None)

    def _schedule(self) -> None:
        if self._flow.ready and self._scheduled is None:
            self._scheduled = self._reactor.callLater(0, self._produce)

    def _produce(self) -> None:
        self._scheduled = None
        if self._flow.ended or self._sink is None:
            return
        self._producing = True
        items, over, error = takeSlice(self._next, self._flow, self._reactor.seconds)
        self._producing = False
        if self._flow.ended:
            self._end(error)
            return
        self._flow.sent(len(items))
        self._sink.arrived(items)
        if not over:
            self._schedule()
        elif not self._flow.ended:
            self._end(error)

    def _end(self, error: BaseException | None) -> None:
        self._flow.end()
        if self._scheduled is not None:
            self._scheduled.cancel()
            self._scheduled = None
        try:
            closeIterator(self._iterator) if self._context is None else self._context(closeIterator, self._iterator)
        except BaseException as raised:  # SystemExit too: the iteration ends, and not the reactor
            error = raised if error is None else error
        if self._sink is not None:
            self._sink.over(error)


class Fetched(NamedTuple):
    """The result of one fetch: the ITEM, if it is VALID, and whether MORE are left, if that is known."""

    item: Any  # the user's function returns anything
    valid: bool
    more: bool | None


class FetchSource:
    """The items that FETCH returns, one by one.

    CLOSE is called at the end, and when no more items are wanted. It may return a Deferred or a coroutine.
    """

    def __init__(
        self,
        fetch: Callable[[], Coroutine[Any, Any, Fetched]],
        close: Callable[[], object] | None = None,
        reactor: Clock | None = None,
    ) -> None:
        self._fetch = fetch
        self._close = close
        self._reactor = installedReactor(reactor)
        self._flow = Outflow()
        self._sink: ItemSink | None = None
        self._waiting: Deferred[Fetched] | None = None
        self._scheduled: DelayedCall | None = None
        self._fetching = False
        self._deadline = 0.0  # the end of the slice of time that began after the last wait

    def begin(self, sink: ItemSink) -> None:
        """Send what is granted to SINK."""
        self._sink = sink
        self._deadline = self._reactor.seconds() + SLICE

    def grant(self, items: int) -> None:
        """Fetch ITEMS more, from now on."""
        self._flow.granted(items)
        self._proceed()

    def close(self) -> None:
        """Cancel the fetch that is pending, call CLOSE, and notify the sink."""
        if self._flow.ended:
            return
        self._flow.end()
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            self._end(None)
        else:
            waiting.addCallbacks(lambda _: self._end(None), self._unwanted)
            waiting.cancel()

    def _proceed(self) -> None:
        """Fetch for one slice of time, or until a fetch has to be waited for. A nested call does nothing."""
        if self._fetching or self._scheduled is not None:
            return
        self._fetching = True
        while self._flow.ready and self._waiting is None:
            if self._reactor.seconds() > self._deadline:
                self._scheduled = self._reactor.callLater(0, self._resume)
                break
            self._waiting = waiting = run(self._fetch())
            waiting.addCallbacks(self._fetched, self._failed)
        if self._flow.ended and self._waiting is not None:
            self._waiting.addErrback(lambda _: None)  # FETCH itself has ended the iteration
            self._waiting.cancel()
        self._fetching = False

    def _resume(self) -> None:
        self._scheduled = None
        self._deadline = self._reactor.seconds() + SLICE
        self._proceed()

    def _fetched(self, fetched: Fetched) -> None:
        if self._flow.ended or self._sink is None:
            return
        self._waiting = None
        if not self._fetching:
            self._deadline = self._reactor.seconds() + SLICE
        if fetched.valid:
            self._flow.sent(1)
            self._sink.arrived([fetched.item], more=fetched.more is True)
        if not fetched.valid or fetched.more is False:
            if not self._flow.ended:
                self._end(None)
            return
        self._proceed()

    def _failed(self, reason: Failure) -> Failure | None:
        if self._flow.ended:
            return reason
        self._waiting = None
        self._end(reason.value)
        return None

    def _unwanted(self, reason: Failure) -> None:
        self._end(None if isA(errorIn(reason), CancelledError) else reason.value)

    def _end(self, error: BaseException | None) -> None:
        self._flow.end()
        if self._scheduled is not None:
            self._scheduled.cancel()
            self._scheduled = None
        close, self._close = self._close, None
        closed: Deferred[object] = make(close, (), {}) if close is not None else succeed(None)
        closed.addCallbacks(lambda _: error, lambda reason: errorIn(reason) if error is None else error).addCallback(
            self._over
        )

    def _over(self, error: BaseException | None) -> None:
        if self._sink is not None:
            self._sink.over(error)


async def fetchTriple(f: Callable[..., Any], args: tuple[Any, ...], kw: Mapping[str, Any]) -> Fetched:
    """Fetch an item by F, which returns ``(item, isValid, moreLeft)``, or a Deferred or a coroutine of that."""
    answer = await make(f, args, kw)
    try:
        item, valid, more = answer
    except (TypeError, ValueError) as error:
        raise ImplementationError(
            f"{describe(f, args, kw)} has to return (item, isValid, moreLeft), not {valueText(answer)}"
        ) from error
    return Fetched(item, bool(valid), bool(more))


async def fetchPlain(f: Callable[..., Any], args: tuple[Any, ...], kw: Mapping[str, Any]) -> Fetched:
    """Fetch an item by F, which returns it, or a Deferred or a coroutine of it. An error is the end."""

    def got(item: Any) -> Fetched:
        return Fetched(item, True, None)

    def ended(reason: Failure) -> Fetched | Failure:
        if isA(errorIn(reason), CancelledError):
            return reason
        if not isA(errorIn(reason), StopIteration, StopAsyncIteration, IndexError):
            call = describe(f, args, kw)
            _log.warn("the iteration of {call} has ended by {error}", call=call, error=errorText(reason.value))
        return Fetched(None, False, False)

    return await make(f, args, kw).addCallbacks(got, ended)


async def fetchNext(iterator: AsyncIterator[Any]) -> Fetched:
    """Fetch the next item of an asynchronous iterator."""
    try:
        return Fetched(await iterator.__anext__(), True, None)
    except StopAsyncIteration:
        return Fetched(None, False, False)


async def closeNext(iterator: AsyncIterator[Any]) -> None:
    """Run the ``finally`` of an asynchronous iterator, if it has one."""
    close: Any = getattr(iterator, "aclose", None)
    if close is not None:
        await close()
