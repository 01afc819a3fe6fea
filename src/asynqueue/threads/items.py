"""The items of an iterator that runs in a thread of ours, one slice of time after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

from asynqueue.core.flow.iteration import Outflow
from asynqueue.core.flow.iterators import closeIterator, takeSlice
from asynqueue.errors import WorkerLost
from asynqueue.interfaces import ItemSink
from asynqueue.reactor.callercontext import Runner

if TYPE_CHECKING:
    from asynqueue.threads.thread import WorkerThread


class ThreadItemSource:
    """An `asynqueue.interfaces.ItemSource`: the items of ITERATOR, which runs in THREAD.

    Each grant and each slice is a job of the thread.
    """

    def __init__(self, thread: WorkerThread, iterator: Iterator[Any], context: Runner | None = None) -> None:
        self._thread = thread
        self._iterator = iterator
        self._context = context  # that of the caller
        self._next = partial(next, iterator) if context is None else partial(context, next, iterator)
        self._flow = Outflow()
        self._sink: ItemSink | None = None
        self._missed: BaseException | None = None  # the error of an end that came before there was a sink
        thread.iterating[self] = None

    # For the reactor's thread.

    def begin(self, sink: ItemSink) -> None:
        """Send what is granted to SINK."""
        self._sink = sink
        if self._missed is None:
            self._thread.sources[self] = None

    def grant(self, items: int) -> None:
        """Produce ITEMS more."""
        if self._thread.abandoned:
            self.over(WorkerLost("the iteration ended early: its thread was abandoned"))
        elif self._missed is not None:
            self.over(self._missed)
        else:
            self._thread.do(lambda _: self._granted(items))

    def close(self) -> None:
        """Close the iterator in its thread. The sink is notified when that has happened."""
        if self._missed is not None:
            self.over(self._missed)
            return
        self._thread.do(lambda _: self.end())
        if self in self._thread.sources:
            self._thread.closings.closeSent(self)

    def over(self, error: BaseException | None) -> None:
        """Notify the sink that the iteration is over, with ERROR if it has failed."""
        self._thread.sources.pop(self, None)
        self._thread.closings.ended(self)
        if self._sink is not None:
            self._sink.over(error)
        else:
            self._missed = error

    def _arrived(self, items: Sequence[Any]) -> None:
        if self._sink is not None:
            self._sink.arrived(items)

    # For the iterator's thread.

    def end(self, error: BaseException | None = None) -> None:
        """Close the iterator. The iteration ends with ERROR, if there is one."""
        if not self._flow.ended:
            self._end([], error)

    def _granted(self, items: int) -> None:
        idle = not self._flow.ready
        self._flow.granted(items)
        if idle and self._flow.ready:
            self._thread.do(self._produce)

    def _produce(self, thread: WorkerThread) -> None:
        """Post the items of one slice. The next slice comes after the jobs that wait."""
        items, over, error = takeSlice(self._next, self._flow, perf_counter)
        if over:
            self._end(items, error)
            return
        if items:
            self._flow.sent(len(items))
            thread.post(lambda: self._arrived(items))
        if self._flow.ready:
            thread.do(self._produce)

    def _end(self, items: list[Any], error: BaseException | None) -> None:
        self._flow.end()
        self._thread.iterating.pop(self, None)
        try:
            closeIterator(self._iterator) if self._context is None else self._context(closeIterator, self._iterator)
        except BaseException as raised:
            if error is None:
                error = raised
            else:
                self._thread.logError(raised)
        if items:
            self._thread.post(lambda: self._arrived(items))
        self._thread.post(lambda: self.over(error))
