"""`map`: the results of many calls as one stream, in order.

A `MapSource` is an `asynqueue.interfaces.ItemSource` whose items are results: each granted item is one more call. So
the bound on items ahead is also a bound on calls ahead, and an endless iterable is read only as far as its results
are taken. Asynchronous iterables are read by an `asynqueue.iteration.sources.FetchSource`, others directly.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias, TypeVar, overload

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from typing_extensions import TypeIs, Unpack

from asynqueue.core.flow.reorder import Reorder
from asynqueue.core.records import CallSpec
from asynqueue.core.results import isA
from asynqueue.errors import QueueRunError
from asynqueue.interfaces import Clock, ItemSink
from asynqueue.iteration.deferator import Deferator
from asynqueue.iteration.sources import Fetched, FetchSource, closeNext
from asynqueue.queue.options import CallOptions, checkOptions
from asynqueue.queue.submission import Submission, Whatever
from asynqueue.reactor.failures import failureOf

AnyIterable: TypeAlias = Iterable[Any] | AsyncIterable[Any]

T = TypeVar("T")


class MappingSubmission(Submission):
    """The calls of a queue, and `map`."""

    @overload
    def map(
        self, f: Callable[..., Whatever], /, *iterables: AnyIterable, raw: bool | None = None,
        **options: Unpack[CallOptions],
    ) -> Deferator[Any]: ...  # fmt: skip
    @overload
    def map(
        self,
        f: Callable[..., T],
        /,
        *iterables: AnyIterable,
        raw: Literal[True],
        **options: Unpack[CallOptions],
    ) -> Deferator[T]: ...
    @overload
    def map(
        self, f: Callable[..., Iterator[T]], /, *iterables: AnyIterable, raw: Literal[False] | None = None,
        **options: Unpack[CallOptions],
    ) -> Deferator[Deferator[T]]: ...  # fmt: skip
    @overload
    def map(
        self, f: Callable[..., Deferred[T] | Coroutine[Any, Any, T]], /, *iterables: AnyIterable,
        raw: bool | None = None, **options: Unpack[CallOptions],
    ) -> Deferator[T]: ...  # fmt: skip
    @overload
    def map(
        self, f: Callable[..., T], /, *iterables: AnyIterable, raw: bool | None = None,
        **options: Unpack[CallOptions],
    ) -> Deferator[T]: ...  # fmt: skip

    @overload
    def map(self, f: str, /, *iterables: AnyIterable, **options: Any) -> Deferator[Any]: ...

    def map(self, f: Any, /, *iterables: AnyIterable, **options: Any) -> Deferator[Any]:
        """Call `f` on the items of the iterables and return the results as a stream, in order.

        The first call that fails ends the stream, after the results before it. The calls queued after it are cancelled.

        Args:
            f: A callable with one positional parameter for each iterable, or a name as for `call`.
            *iterables: Iterables, asynchronous ones too (a `Deferator`, for example), and endless ones. Items are
                taken in the main loop, at most a few hundred ahead of the results that are taken. The shortest
                iterable ends the stream.
            **options: Those of `call`, but for `consumer`.

        Returns:
            A `Deferator` over the results.

        Raises:
            TypeError: There is no iterable, or an option has a wrong type.
            ValueError: An option has a wrong value.
            asynqueue.errors.QueueRunError: The queue is shut down.
        """
        spec: CallSpec[Any] = CallSpec(self._byName(f, None)[0] if type(f) is str else f)
        checkOptions(spec, options)
        if not iterables:
            raise TypeError(f"map needs an iterable at least, whose items {spec} is called with")
        if "consumer" in options:
            raise ValueError("map gives a Deferator, which feeds a consumer by an IterationProducer, not by consumer=")
        if not self._scheduler.running:
            raise QueueRunError(f"{self._driver.refusal}: {spec} was not mapped")
        clock = self._driver.clock()
        return Deferator(MapSource(partial(self.call, f, **options), iterables, clock), reactor=clock)


class MapSource:
    """The results of CALL, which returns Deferreds, for the items of ITERABLES. The shortest ends the stream."""

    def __init__(
        self,
        call: Callable[..., Deferred[Any]],
        iterables: Iterable[AnyIterable],
        reactor: Clock | None = None,
    ) -> None:
        self._call = call
        iterators = [_iteratorOf(each) for each in iterables]
        self._arguments: Iterator[tuple[Any, ...]] = iter(())
        self._fetching: FetchSource | None = None  # the source of the arguments, if some are asynchronous
        if any(map(isAsync, iterators)):
            self._fetching = FetchSource(partial(_fetchAll, iterators), partial(_closeAll, iterators), reactor)
            self._fetching.begin(self)
        else:
            self._arguments = zip(*iterators)  # noqa: B905  # the shortest ends it, as in the built-in map
        self._sink: ItemSink | None = None
        self._order: Reorder[Any] = Reorder()
        self._ready: deque[Any] = deque()
        self._sending = False
        self._calls: dict[int, Deferred[Any]] = {}
        self._begun = 0
        self._exhausted = False
        self._ended = False

    def begin(self, sink: ItemSink) -> None:
        """Send the results to SINK."""
        self._sink = sink

    def grant(self, items: int) -> None:
        """Make ITEMS more calls."""
        if self._fetching is not None:
            self._fetching.grant(items)
            return
        for _ in range(items):
            if self._exhausted or self._ended:
                break
            try:
                arguments = next(self._arguments)
            except StopIteration:
                self._exhausted = True
            except BaseException as error:  # of an iterable, SystemExit too: it takes the place of the next result
                self._fail(error)
            else:
                self._make(arguments)
        self._endIfDone()

    def arrived(self, items: Sequence[tuple[Any, ...]], more: bool = False) -> None:
        """Make a call for each of ITEMS, the arguments that were fetched."""
        for arguments in items:
            if not (self._exhausted or self._ended):
                self._make(arguments)

    def over(self, error: BaseException | None) -> None:
        """Note that there are no more arguments to fetch; an ERROR takes the place of the next result."""
        if self._exhausted or self._ended:
            return
        if error is None:
            self._exhausted = True
        else:
            self._fail(error)
        self._endIfDone()

    def close(self) -> None:
        """Cancel the calls that have not ended."""
        self._end(None)

    def _make(self, arguments: tuple[Any, ...]) -> None:
        try:
            d = self._call(*arguments)
        except Exception as error:  # of the queue, which may have shut down
            self._fail(error)
            return
        number = self._begun
        self._begun += 1
        self._calls[number] = d
        d.addBoth(self._returned, number)

    def _fail(self, error: BaseException) -> None:
        self._exhausted = True
        self._begun += 1
        self._returned(failureOf(error), self._begun - 1)

    def _returned(self, result: Any, number: int) -> None:
        self._calls.pop(number, None)
        if self._ended or self._sink is None:
            return
        self._ready.extend(self._order.put(number, result))
        if self._sending:
            return
        self._sending = True  # the sink may grant more, and the results may be here at once
        while self._ready and not self._ended:
            item = self._ready.popleft()
            if isA(item, Failure):
                self._end(item.value)
            else:
                self._sink.arrived([item])
        self._sending = False
        self._endIfDone()

    def _endIfDone(self) -> None:
        if self._exhausted and not self._ready and self._order.next == self._begun:
            self._end(None)

    def _end(self, error: BaseException | None) -> None:
        if self._ended:
            return
        self._ended = True
        if self._fetching is not None:
            self._fetching.close()
        for d in reversed(list(self._calls.values())):  # the last first, so that none of the others starts meanwhile
            d.addErrback(lambda _: None)
            d.cancel()
        self._calls.clear()
        if self._sink is not None:
            self._sink.over(error)


def _iteratorOf(iterable: Iterable[Any] | AsyncIterable[Any]) -> Iterator[Any] | AsyncIterator[Any]:
    return aiter(iterable) if isAsync(iterable) else iter(iterable)


def isAsync(x: object) -> TypeIs[AsyncIterable[Any]]:
    """Return whether X is read by ``async for``; a `Deferator` is, though it can be read in two ways."""
    return hasattr(type(x), "__aiter__")


async def _fetchAll(iterators: Sequence[Iterator[Any] | AsyncIterator[Any]]) -> Fetched:
    """Fetch the next item of each of ITERATORS, one after another."""
    items: list[Any] = []
    for iterator in iterators:
        try:
            items.append(await iterator.__anext__() if isinstance(iterator, AsyncIterator) else next(iterator))
        except (StopIteration, StopAsyncIteration):
            return Fetched(None, False, False)
    return Fetched(tuple(items), True, None)


async def _closeAll(iterators: Sequence[Iterator[Any] | AsyncIterator[Any]]) -> None:
    for iterator in iterators:
        if isinstance(iterator, AsyncIterator):
            await closeNext(iterator)
