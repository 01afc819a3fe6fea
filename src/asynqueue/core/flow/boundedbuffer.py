"""Items from one side to another that goes at a pace of its own: how much waits, who goes on, how it ends.

Theory of operation. The *writing* side puts items in, the *reading* side takes them out, in the same order. What
was put and not taken *waits*; when LIMIT items wait the handover is *full*. Who is told to hold then is not told to go
on before half of them or more are gone, so that nobody is stopped and started for every item. An item that is put
nevertheless is kept: to be full is a request, not a wall.

Each side is in threads or in a loop, and the two are told in different ways.

- A thread asks, and if it has to wait it says so by asking: `take` with nothing there, `awaitRoom` with no room. From
  then on `readersDue` or `writersDue` says when to wake it. It asks again when it is woken.
- A loop is never made to wait. `due` says what there is to do in it: `PAUSE` or `RESUME` the producer, `STOP` it,
  say that it is `FINISHED`. `done` says that this is about to be done. So nothing that the other side does
  meanwhile can make what the loop does wrong: it is decided by what is, and at the time of doing it.

A *streaming* producer writes until paused. Any other one writes once for each `RESUME`, sooner or later.

    phase    event              next     what it means
    OPEN     put, take          OPEN
    OPEN     end                ENDED    the items that wait are taken, then comes the end, or its error
    OPEN     leave, abort       OVER     nobody wants what waits: it is dropped
    ENDED    take               ENDED    while items wait
    ENDED    take               OVER     when none do: the reading side has heard of the end; complete, if no error
    ENDED    leave, abort       OVER     as above
    OVER     put, end, leave    OVER     nothing

Cost: O(1) an item; O(items taken) a take. Nothing here is safe for threads: whoever shares it, locks it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import Enum, auto
from typing import Generic, TypeVar

from attrs import frozen

T = TypeVar("T")


class Phase(Enum):
    """How far the life of a handover has come."""

    OPEN = auto()
    ENDED = auto()
    OVER = auto()


class Due(Enum):
    """What there is to do in the loop."""

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
    """There is nothing yet."""


@frozen
class End:
    """There is nothing more; with ERROR, because of that."""

    error: BaseException | None


Answer = Items[T] | Wait | End


class BoundedBuffer(Generic[T]):
    """Decides what passes, and who waits, between a writing and a reading side.

    LIMIT is how many items may wait before it is full: 1 or more, else `ValueError`.

    >>> h = BoundedBuffer[str](limit=2)
    >>> h.attach(streaming=True)
    >>> h.take()
    Wait()
    >>> h.put("a"), h.readersDue(), h.put("b"), h.due
    (True, True, True, <Due.PAUSE: 1>)
    >>> h.done(Due.PAUSE)
    >>> h.take(), h.due
    (Items(items=['a', 'b']), <Due.RESUME: 2>)
    """

    __slots__ = (
        "_complete",
        "_crowded",
        "_error",
        "_finished",
        "_flowing",
        "_hungry",
        "_limit",
        "_phase",
        "_streaming",
        "_waiting",
    )

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"at least 1 item has to be allowed to wait, got a limit of {limit}")
        self._limit = limit
        self._waiting: deque[T] = deque()
        self._phase = Phase.OPEN
        self._error: BaseException | None = None  # what the end is to be heard with
        self._complete = False
        self._finished = False  # the loop was told that it is over
        self._hungry = False  # a reader waits for an item
        self._crowded = False  # a writer waits for room
        self._streaming: bool | None = None  # whether the producer is, if there is one
        # Of a streaming producer: it has not been paused. Of another: it has been resumed, and has not written.
        self._flowing = False

    def __len__(self) -> int:
        """The number of items that wait."""
        return len(self._waiting)

    @property
    def phase(self) -> Phase:
        """How far it has come."""
        return self._phase

    @property
    def complete(self) -> bool:
        """True when the reading side has taken all there was and heard of an end without an error."""
        return self._complete

    @property
    def full(self) -> bool:
        """True while no more should be put."""
        return self._phase is Phase.OPEN and len(self._waiting) >= self._limit

    # The writing side.

    def attach(self, streaming: bool) -> None:
        """There is a producer now, in the loop. Raises `ValueError` if there was one."""
        if self._streaming is not None:
            raise ValueError("there is a producer already")
        self._streaming = self._flowing = streaming

    def detach(self) -> None:
        """There is no producer any more, or there was none."""
        self._streaming = None

    def put(self, item: T) -> bool:
        """ITEM is the next. Gives True when somebody may have to be told: a reader, or the loop."""
        if self._phase is not Phase.OPEN:
            return self.due is not None
        self._waiting.append(item)
        if not self._streaming:
            self._flowing = False
        return self._hungry or self.due is not None

    def awaitRoom(self) -> bool:
        """Whether a writer in a thread has to wait for room; if so, `writersDue` says when that is over."""
        self._crowded = self._crowded or self.full
        return self.full

    def end(self, error: BaseException | None = None) -> None:
        """There is nothing more to put; with ERROR, because of that. The first end counts."""
        if self._phase is Phase.OPEN:
            self._phase = Phase.ENDED
            self._error = error

    # The reading side.

    def take(self, most: int | None = None) -> Answer[T]:
        """All the items that wait, or the first MOST (1 or more) of them; or else what there is instead."""
        if self._waiting:
            return Items(self._pop(most))
        if self._phase is Phase.OPEN:
            self._hungry = True
            return Wait()
        error, self._error = self._error, None
        if self._phase is Phase.ENDED:
            self._phase = Phase.OVER
            self._complete = error is None
        return End(error)

    def leave(self) -> None:
        """Nobody takes any more."""
        self._drop(None)

    # Either side, or whoever has the say over both.

    def abort(self, error: BaseException) -> None:
        """It is over: what waits is dropped, and whoever comes to take hears of ERROR, once."""
        self._drop(error)

    def readersDue(self) -> bool:
        """Whether to wake who waits for an item, for there is one, or an end. True once."""
        due = self._hungry and (bool(self._waiting) or self._phase is not Phase.OPEN)
        self._hungry = self._hungry and not due
        return due

    def writersDue(self) -> bool:
        """Whether to wake who waits for room, for there is some, or an end. True once."""
        due = self._crowded and (self._roomy or self._phase is not Phase.OPEN)
        self._crowded = self._crowded and not due
        return due

    # The loop.

    @property
    def due(self) -> Due | None:
        """What there is to do in the loop, or None."""
        if self._streaming is not None:
            if self._phase is not Phase.OPEN:
                return Due.STOP
            if self._flowing:
                if self._streaming and len(self._waiting) >= self._limit:
                    return Due.PAUSE
            elif self._roomy or (not self._streaming and len(self._waiting) < self._limit):
                return Due.RESUME
        if self._phase is Phase.OVER and not self._finished:
            return Due.FINISHED
        return None

    def done(self, due: Due) -> None:
        """DUE, which is what `due` gave, is about to be done."""
        if due is not self.due:
            raise ValueError(f"{due} is not due: {self.due} is")
        if due is Due.FINISHED:
            self._finished = True
        elif due is Due.STOP:
            self._streaming = None
        else:
            self._flowing = due is Due.RESUME

    def validate(self) -> None:
        """Assert that nobody is kept waiting for what is there, once those who are due have been told."""
        if self._phase is Phase.OVER:
            assert not self._waiting
        else:
            assert not self._complete
            assert not self._finished
        assert not (self._hungry and (self._waiting or self._phase is not Phase.OPEN)), "a reader is kept waiting"
        assert not (self._crowded and (self._roomy or self._phase is not Phase.OPEN)), "a writer is kept waiting"
        if self._streaming is not None and self.due is None:
            assert self._phase is Phase.OPEN
            assert self._flowing or not self._roomy, "a producer is kept waiting"
            assert self._flowing or self._streaming or self.full, "a producer is not asked"
            assert not (self._streaming and self._flowing and self.full), "a producer goes on when it is full"

    @property
    def _roomy(self) -> bool:
        return 2 * len(self._waiting) <= self._limit and len(self._waiting) < self._limit

    def _pop(self, most: int | None) -> Sequence[T]:
        if most is None or most >= len(self._waiting):
            items = list(self._waiting)
            self._waiting.clear()
            return items
        return [self._waiting.popleft() for _ in range(most)]

    def _drop(self, error: BaseException | None) -> None:
        if self._phase is not Phase.OVER:
            self._phase = Phase.OVER
            self._error = error
            self._waiting.clear()
