"""The results of many calls as one stream, in order.

A `MapSource` is an `asynqueue.interfaces.ItemSource` whose items are results: each granted item is one more call. So
the bound on items ahead is also a bound on calls ahead, and an endless iterable is read only as far as its results
are taken.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from asynqueue.core.flow.reorder import Reorder
from asynqueue.interfaces import ItemSink


class MapSource:
    """The results of CALL, which returns Deferreds, for the items of ITERABLES. The shortest ends the stream."""

    def __init__(self, call: Callable[..., Deferred[Any]], iterables: Iterable[Iterable[Any]]) -> None:
        self._call = call
        self._arguments = zip(*iterables)  # noqa: B905  # the shortest ends it, as in the built-in map
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
        for _ in range(items):
            if self._exhausted or self._ended:
                break
            try:
                arguments = next(self._arguments)
                d = self._call(*arguments)
            except StopIteration:
                self._exhausted = True
            except Exception as error:  # of an iterable, or of the queue: it takes the place of the next result
                self._exhausted = True
                self._begun += 1
                self._arrived(Failure(error), self._begun - 1)
            else:
                number = self._begun
                self._begun += 1
                self._calls[number] = d
                d.addBoth(self._arrived, number)
        self._endIfDone()

    def close(self) -> None:
        """Cancel the calls that have not ended."""
        self._end(None)

    def _arrived(self, result: Any, number: int) -> None:
        self._calls.pop(number, None)
        if self._ended or self._sink is None:
            return
        self._ready.extend(self._order.put(number, result))
        if self._sending:
            return
        self._sending = True  # the sink may grant more, and the results may be here at once
        while self._ready and not self._ended:
            item = self._ready.popleft()
            if isinstance(item, Failure):
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
        for d in reversed(list(self._calls.values())):  # the last first, so that none of the others starts meanwhile
            d.addErrback(lambda _: None)
            d.cancel()
        self._calls.clear()
        if self._sink is not None:
            self._sink.over(error)
