"""Decide how the items of an iterator travel: credit, read-ahead, waiting, stopping, exhaustion.

The *remote* side has the iterator, the *local* side uses the items. The local side grants *credit*, a number of items,
and the remote side sends at most that many. Granted items that have not come are *in flight*. Items that have come and
have not been taken are *ahead*.

`Inflow` is the local side. It first grants one item, so that it soon knows whether there is any. Then each request for
an item grants as many as the *read-ahead* allows to be in flight or ahead. The read-ahead doubles, up to a limit, each
time a requested item is not here yet. So a slow consumer has few items fetched for it, and a fast one never waits long.
Without requests nothing is granted: to pause is to request nothing.

An item can be requested in two ways:

- Plainly: it is delivered as soon as it is here.
- With *lookahead*: it is delivered when it is known whether another item follows. A synchronous ``for`` needs that.
  The remote side may *promise* that another item follows. Breaking the promise is a failure.

`Outflow` is the remote side. It decides how many items may be sent, and whether to continue.

An iteration ends once: exhausted, failed (after the items before the failure), or stopped. The iterator may raise an
error after a stop, above all in its ``finally``. No request waits for that error, so it becomes a `LateError`, for the
log.

Child processes import this module, and they import neither attrs nor Twisted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from asynqueue.errors import ImplementationError, WorkerLost

AHEAD_LIMIT = 256
"""The maximum number of items in flight or ahead."""


class Grant(NamedTuple):
    """Allow the remote side ITEMS more items."""

    items: int


class Deliver(NamedTuple):
    """Answer the request with ITEM."""

    item: Any  # Any, because the user's iterator may yield anything


class Finish(NamedTuple):
    """Answer the request without an item: the iterator is exhausted, or raised ERROR."""

    error: BaseException | None


class FirstKnown(NamedTuple):
    """It has become known whether there is a first item."""


class Close(NamedTuple):
    """Make the remote side stop the iterator."""


class Ended(NamedTuple):
    """The iteration has ended. COMPLETE means that all items were taken."""

    complete: bool


class LateError(NamedTuple):
    """The iterator raised ERROR after the iteration was stopped."""

    error: BaseException


Command = Grant | Deliver | Finish | FirstKnown | Close | Ended | LateError


class Inflow:
    """The local side of an iteration: events in, commands out."""

    __slots__ = (
        "_ahead",
        "_asked",
        "_ended",
        "_error",
        "_inFlight",
        "_known",
        "_limit",
        "_lookahead",
        "_over",
        "_promised",
        "_readAhead",
    )

    def __init__(self, limit: int = AHEAD_LIMIT) -> None:
        if limit < 2:
            raise ValueError(f"limit must be at least 2 items, got {limit}")
        self._limit = limit
        self._ahead: deque[Any] = deque()
        self._inFlight = 0
        self._readAhead = 1  # how many items may be in flight or ahead
        self._known = False
        self._asked = False
        self._lookahead = False
        self._over = False  # nothing more comes from the remote side
        self._promised = False  # an item or an error follows what has come
        self._error: BaseException | None = None  # the iterator's error, until it is delivered
        self._ended = False

    @property
    def asked(self) -> bool:
        """True while a request waits for an item."""
        return self._asked

    @property
    def ended(self) -> bool:
        """True when there is nothing more to request."""
        return self._ended

    @property
    def more(self) -> bool:
        """False when it is known that neither an item nor an error follows."""
        return not self._ended and (bool(self._ahead) or not self._over or self._error is not None)

    def begin(self) -> list[Command]:
        """Start: the remote side has the iterator."""
        self._inFlight = 1
        return [Grant(1)]

    def ask(self, lookahead: bool = False) -> list[Command]:
        """Request the next item. Raise `ValueError` if a request waits already."""
        if self._asked:
            raise ValueError("a request for an item is waiting already")
        if self._ended:
            return [Finish(None)]
        self._asked = True
        self._lookahead = lookahead
        if not self._deliverable():
            self._readAhead = min(self._limit, 2 * self._readAhead)
        return self._proceed()

    def unask(self) -> None:
        """Withdraw the request. The item stays the next one."""
        self._asked = False

    def arrived(self, items: Sequence[Any], more: bool = False) -> list[Command]:
        """Record that ITEMS have come. MORE is the promise that an item or an error follows.

        Raise `ValueError` if the items exceed the credit.
        """
        if len(items) > self._inFlight:
            raise ValueError(f"{len(items)} items came where {self._inFlight} were granted")
        self._inFlight -= len(items)
        self._promised = more
        if not self._ended:
            self._ahead.extend(items)
        return self._proceed()

    def over(self, error: BaseException | None = None) -> list[Command]:
        """Record that nothing more comes: the iterator is exhausted or raised ERROR, or the remote side is lost."""
        if self._over:
            return []
        self._over = True
        self._inFlight = 0
        if self._ended:
            # The loss of a stopped iteration is not an error.
            return [] if error is None or issubclass(type(error), WorkerLost) else [LateError(error)]
        if error is None and self._asked and self._lookahead and self._promised:
            # The consumer's loop already requested the promised item, so it must get an error, not an end.
            error = ImplementationError("the iterator promised another item and then had none (see moreLeft)")
        self._error = error
        return self._proceed()

    def stop(self) -> list[Command]:
        """Stop: no further item is wanted."""
        if self._ended:
            return []
        commands: list[Command] = [] if self._known else [FirstKnown()]
        if not self._over:
            commands.append(Close())
        if self._asked:
            self._asked = False
            commands.append(Finish(None))
        return commands + self._end(False)

    def validate(self) -> None:
        """Assert that the credit is respected and that no item is held that can be delivered."""
        assert self._inFlight >= 0
        assert self._inFlight + len(self._ahead) <= self._limit
        if self._ended:
            assert not self._ahead
            assert not self._asked
        if self._over:
            assert not self._inFlight
        if self._asked:
            assert not self._deliverable()
            assert not self._over
            assert self._inFlight, "the requested item was granted"

    def _deliverable(self) -> bool:
        if not self._lookahead or len(self._ahead) > 1:
            return bool(self._ahead)
        return bool(self._ahead) and (self._over or self._promised)

    def _proceed(self) -> list[Command]:
        if self._ended:
            return []
        commands: list[Command] = []
        if not self._known and (self._ahead or self._over):
            self._known = True
            commands.append(FirstKnown())
        if self._asked:
            if self._deliverable():
                self._asked = False
                commands.append(Deliver(self._ahead.popleft()))
            elif self._over and not self._ahead:
                self._asked = False
                error, self._error = self._error, None
                commands.append(Finish(error))
                return commands + self._end(error is None)
            commands += self._grant()
        if self._over and not self._ahead and self._error is None:
            commands += self._end(True)
        return commands

    def _grant(self) -> list[Command]:
        room = self._readAhead - self._inFlight - len(self._ahead)
        if self._over or 2 * room < self._readAhead:
            return []
        self._inFlight += room
        return [Grant(room)]

    def _end(self, complete: bool) -> list[Command]:
        self._ended = True
        self._ahead.clear()
        self._error = None
        return [Ended(complete)]


class Outflow:
    """The remote side of an iteration: how many items may be sent, and whether it has ended."""

    __slots__ = ("credit", "ended")

    def __init__(self) -> None:
        self.credit: int = 0
        self.ended: bool = False

    @property
    def ready(self) -> bool:
        """True while an item may be sent."""
        return self.credit > 0 and not self.ended

    def granted(self, items: int) -> None:
        """Add credit for ITEMS items, unless the iteration has ended."""
        if not self.ended:
            self.credit += items

    def sent(self, items: int) -> None:
        """Record that ITEMS items were sent. Raise `ValueError` if they exceed the credit."""
        if items > self.credit:
            raise ValueError(f"{items} items were sent where {self.credit} were granted")
        self.credit -= items

    def end(self) -> None:
        """End: the iterator is exhausted, has failed, or was stopped."""
        self.ended = True
        self.credit = 0
