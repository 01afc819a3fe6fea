"""Decide how items pass between a writing and a reading side that differ in speed.

The *writing* side puts items in. The *reading* side takes them out in the same order. Items between the two *wait*.
When LIMIT items wait, the buffer is *full* and the writing side is asked to pause. It is asked to resume when at least
half of them are gone, so that it is not stopped and started for each item. An item that is put into a full buffer is
kept: `full` is a request, not a barrier.

Each side runs in threads or in an event loop:

- A thread asks, and the question also registers it as waiting: `take` from an empty buffer, `awaitRoom` on a full one.
  From then on `shouldWakeReaders` or `shouldWakeWriters` says when to wake it. A woken thread asks again.
- A loop never blocks. `pending` says what the loop has to do: `PAUSE`, `RESUME` or `STOP` the producer, or report that
  the buffer is `FINISHED`. The loop calls `done` just before it does that. The decision depends on the state at that
  moment, so a change by the other side cannot make it wrong.

A *streaming* producer writes until it is paused. Any other producer writes once for each `RESUME`.

    phase    event                  next     effect
    OPEN     put, take              OPEN
    OPEN     end                    ENDED    the reader takes the waiting items, then gets the end or its error
    OPEN     closeReader, abort     OVER     the waiting items are dropped
    ENDED    take                   ENDED    while items wait
    ENDED    take                   OVER     when no items wait: the reader gets the end. Complete, if without an error
    ENDED    closeReader, abort     OVER     as above
    OVER     put, end, closeReader  OVER     none

Cost: O(1) per item, and O(items taken) for `take`. A buffer is not safe for threads, so an adapter has to lock it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import Enum, auto
from typing import Generic, TypeVar

from attrs import frozen

T = TypeVar("T")


class Phase(Enum):
    """The phase of a buffer's life."""

    OPEN = auto()
    ENDED = auto()
    OVER = auto()


class Action(Enum):
    """The next action of the loop."""

    PAUSE = auto()
    RESUME = auto()
    STOP = auto()
    FINISHED = auto()


@frozen
class Items(Generic[T]):
    """The next ITEMS: one or more."""

    items: Sequence[T]


@frozen
class Wait:
    """No item is available yet."""


@frozen
class End:
    """No more items follow. ERROR is the cause, if any."""

    error: BaseException | None


Answer = Items[T] | Wait | End


class BoundedBuffer(Generic[T]):
    """Decides which items pass and which side waits.

    LIMIT is the number of items that may wait before the buffer is full. Below 1 it raises `ValueError`.

    >>> h = BoundedBuffer[str](limit=2)
    >>> h.attach(streaming=True)
    >>> h.take()
    Wait()
    >>> h.put("a"), h.shouldWakeReaders(), h.put("b"), h.pending
    (True, True, True, <Action.PAUSE: 1>)
    >>> h.done(Action.PAUSE)
    >>> h.take(), h.pending
    (Items(items=['a', 'b']), <Action.RESUME: 2>)
    """

    __slots__ = (
        "_complete",
        "_error",
        "_finished",
        "_items",
        "_limit",
        "_phase",
        "_readerWaits",
        "_streaming",
        "_writerWaits",
        "_writing",
    )

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"limit must be 1 item or more, got a limit of {limit}")
        self._limit = limit
        self._items: deque[T] = deque()
        self._phase = Phase.OPEN
        self._error: BaseException | None = None  # the error that the reader gets at the end
        self._complete = False
        self._finished = False  # the loop knows that the buffer is over
        self._readerWaits = False  # a reader waits for an item, in a thread
        self._writerWaits = False  # a writer waits for room, in a thread
        self._streaming: bool | None = None  # None without a producer
        # A streaming producer is not paused. Another producer was resumed and has not written since.
        self._writing = False

    def __len__(self) -> int:
        """Return the number of items that wait."""
        return len(self._items)

    @property
    def phase(self) -> Phase:
        """The current phase."""
        return self._phase

    @property
    def complete(self) -> bool:
        """True when the reader has taken all items and the end came without an error."""
        return self._complete

    @property
    def full(self) -> bool:
        """True while the writing side should pause."""
        return self._phase is Phase.OPEN and len(self._items) >= self._limit

    # The writing side.

    def attach(self, streaming: bool) -> None:
        """Register a producer, which runs in the loop. Raise `ValueError` if there is one."""
        if self._streaming is not None:
            raise ValueError("the buffer has a producer already: detach it first")
        self._streaming = self._writing = streaming

    def detach(self) -> None:
        """Remove the producer, if there is one."""
        self._streaming = None

    def put(self, item: T) -> bool:
        """Add ITEM. Return True if a reader has to be woken or the loop has an action."""
        if self._phase is not Phase.OPEN:
            return self.pending is not None
        self._items.append(item)
        if not self._streaming:
            self._writing = False
        return self._readerWaits or self.pending is not None

    def awaitRoom(self) -> bool:
        """Return whether a writer in a thread has to wait for room, and register it if so."""
        self._writerWaits = self._writerWaits or self.full
        return self.full

    def end(self, error: BaseException | None = None) -> None:
        """End the writing side, with ERROR as the cause. Only the first call counts."""
        if self._phase is Phase.OPEN:
            self._phase = Phase.ENDED
            self._error = error

    # The reading side.

    def take(self, most: int | None = None) -> Answer[T]:
        """Return all waiting items, or at most MOST (1 or more). Without items, return `Wait` or `End`."""
        if self._items:
            return Items(self._pop(most))
        if self._phase is Phase.OPEN:
            self._readerWaits = True
            return Wait()
        error, self._error = self._error, None
        if self._phase is Phase.ENDED:
            self._phase = Phase.OVER
            self._complete = error is None
        return End(error)

    def closeReader(self) -> None:
        """End the reading side and drop the waiting items."""
        self._drop(None)

    # Both sides.

    def abort(self, error: BaseException) -> None:
        """End both sides and drop the waiting items. The next `take` returns ERROR, once."""
        self._drop(error)

    def shouldWakeReaders(self) -> bool:
        """Return whether to wake the waiting readers, because there is an item or an end. True once."""
        due = self._readerWaits and (bool(self._items) or self._phase is not Phase.OPEN)
        self._readerWaits = self._readerWaits and not due
        return due

    def shouldWakeWriters(self) -> bool:
        """Return whether to wake the writers that wait: the buffer is half empty at least, or has ended.

        True once for each time that writers began to wait.
        """
        due = self._writerWaits and (self._hasRoom or self._phase is not Phase.OPEN)
        self._writerWaits = self._writerWaits and not due
        return due

    # The loop.

    @property
    def pending(self) -> Action | None:
        """The action that the loop must take now, or None."""
        if self._streaming is not None:
            if self._phase is not Phase.OPEN:
                return Action.STOP
            if self._writing:
                if self._streaming and len(self._items) >= self._limit:
                    return Action.PAUSE
            elif self._hasRoom or (not self._streaming and len(self._items) < self._limit):
                return Action.RESUME
        if self._phase is Phase.OVER and not self._finished:
            return Action.FINISHED
        return None

    def done(self, action: Action) -> None:
        """Record that the loop is about to do ACTION, which is what `pending` returned."""
        if action is not self.pending:
            raise ValueError(f"{action} is not pending: {self.pending} is")
        if action is Action.FINISHED:
            self._finished = True
        elif action is Action.STOP:
            self._streaming = None
        else:
            self._writing = action is Action.RESUME

    def validate(self) -> None:
        """Assert that no side waits without a reason, once all wake-ups and actions are done."""
        if self._phase is Phase.OVER:
            assert not self._items
        else:
            assert not self._complete
            assert not self._finished
        assert not (self._readerWaits and (self._items or self._phase is not Phase.OPEN)), "a reader is kept waiting"
        assert not (self._writerWaits and (self._hasRoom or self._phase is not Phase.OPEN)), "a writer is kept waiting"
        if self._streaming is not None and self.pending is None:
            assert self._phase is Phase.OPEN
            assert self._writing or not self._hasRoom, "a producer is kept waiting"
            assert self._writing or self._streaming or self.full, "a producer is not asked"
            assert not (self._streaming and self._writing and self.full), "a producer goes on when it is full"

    @property
    def _hasRoom(self) -> bool:
        return 2 * len(self._items) <= self._limit and len(self._items) < self._limit

    def _pop(self, most: int | None) -> Sequence[T]:
        if most is None or most >= len(self._items):
            items = list(self._items)
            self._items.clear()
            return items
        return [self._items.popleft() for _ in range(most)]

    def _drop(self, error: BaseException | None) -> None:
        if self._phase is not Phase.OVER:
            self._phase = Phase.OVER
            self._error = error
            self._items.clear()
