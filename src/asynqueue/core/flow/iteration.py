"""One iteration's life: credit, fetched ahead, waited for, stopped, exhausted.

Theory of operation. The items of an iterator go from the *far* side, which has the iterator, to the *near* side,
which wants the items. Between them flows *credit*: the near side grants a number of items, the far side sends
at most that many. What is granted and has not come is *in flight*; what has come and has not been taken is
*ahead*.

An `Inflow` is the near side. It grants one item to begin with, so that it is soon known whether there is any;
and then, whenever an item is asked for, as many as its *reach* allows to be in flight or ahead. The reach doubles,
up to a limit, each time that an item is asked for and is not here. So a slow taker has little fetched for it, and
a fast one is kept supplied. Nothing is granted while nothing is asked for: to pause is to ask for nothing.

An item may be asked for in two ways. Plainly: it is delivered as soon as it is here. With *lookahead*: it is
delivered once it is known whether another comes after it, which is what a synchronous ``for`` must know. A far side may
*promise* that another does; one that breaks its promise has failed.

An `Outflow` is the far side: how much may be sent, and whether to go on.

An iteration ends once: exhausted, failed (after the items before the failure), or stopped. What goes wrong on the
far side after a stop, in the iterator's ``finally`` above all, is nobody's answer any more; so that it is not lost, it
is `Unheard`, and for the log.

This module is read by worker processes, which import neither attrs nor Twisted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from asynqueue.errors import ImplementationError, WorkerLost

AHEAD_LIMIT = 256
"""The most items in flight or ahead."""


class Grant(NamedTuple):
    """Allow the far side ITEMS more items."""

    items: int


class Deliver(NamedTuple):
    """ITEM is what was asked for."""

    item: Any  # whatever the user's iterator yields


class Finish(NamedTuple):
    """There is no item: the iterator is exhausted, or raised ERROR. Comes in answer to what was asked for."""

    error: BaseException | None


class Known(NamedTuple):
    """It is known now, and was not before, whether there is a first item."""


class Close(NamedTuple):
    """Have the far side stop the iterator."""


class Ended(NamedTuple):
    """The iteration has ended: with COMPLETE, all items were taken."""

    complete: bool


class Unheard(NamedTuple):
    """The iterator raised ERROR when nobody listened any more."""

    error: BaseException


Command = Grant | Deliver | Finish | Known | Close | Ended | Unheard


class Inflow:
    """The near side of an iteration: events in, commands out."""

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
        "_reach",
    )

    def __init__(self, limit: int = AHEAD_LIMIT) -> None:
        if limit < 2:
            raise ValueError(f"at least 2 items have to be allowed ahead, got {limit}")
        self._limit = limit
        self._ahead: deque[Any] = deque()
        self._inFlight = 0
        self._reach = 1  # how many may be in flight or ahead
        self._known = False
        self._asked = False
        self._lookahead = False
        self._over = False  # nothing more comes from the far side
        self._promised = False  # something follows what has come
        self._error: BaseException | None = None  # what the iterator raised, until that is delivered
        self._ended = False

    @property
    def asked(self) -> bool:
        """True while an item is waited for."""
        return self._asked

    @property
    def ended(self) -> bool:
        """True when there is nothing more to ask for."""
        return self._ended

    @property
    def more(self) -> bool:
        """True unless it is known that there is no further item, nor an error, to ask for."""
        return not self._ended and (bool(self._ahead) or not self._over or self._error is not None)

    def begin(self) -> list[Command]:
        """The far side has the iterator."""
        self._inFlight = 1
        return [Grant(1)]

    def ask(self, lookahead: bool = False) -> list[Command]:
        """The next item is wanted, while none is waited for."""
        if self._asked:
            raise ValueError("an item is being waited for")
        if self._ended:
            return [Finish(None)]
        self._asked = True
        self._lookahead = lookahead
        if not self._deliverable():
            self._reach = min(self._limit, 2 * self._reach)
        return self._proceed()

    def unask(self) -> None:
        """The item that is waited for is not waited for any more; it stays the next."""
        self._asked = False

    def arrived(self, items: Sequence[Any], more: bool = False) -> list[Command]:
        """ITEMS have come; with MORE, it is known that something follows: an item, or an error.

        Raises `ValueError` if they exceed the credit.
        """
        if len(items) > self._inFlight:
            raise ValueError(f"{len(items)} items came where {self._inFlight} were granted")
        self._inFlight -= len(items)
        self._promised = more
        if not self._ended:
            self._ahead.extend(items)
        return self._proceed()

    def over(self, error: BaseException | None = None) -> list[Command]:
        """Nothing more comes: the iterator is exhausted, or raised ERROR, or the far side is lost."""
        if self._over:
            return []
        self._over = True
        self._inFlight = 0
        if self._ended:
            # That what was stopped has been lost as well is no news.
            return [] if error is None or isinstance(error, WorkerLost) else [Unheard(error)]
        if error is None and self._asked and self._lookahead and self._promised:
            # Whoever was told of another item goes round for it, and has to be told something that is no end.
            error = ImplementationError("it was said that more was left, and then there was no item (see moreLeft)")
        self._error = error
        return self._proceed()

    def stop(self) -> list[Command]:
        """No further item is wanted."""
        if self._ended:
            return []
        commands: list[Command] = [] if self._known else [Known()]
        if not self._over:
            commands.append(Close())
        if self._asked:
            self._asked = False
            commands.append(Finish(None))
        return commands + self._end(False)

    def validate(self) -> None:
        """Assert that credit is kept to, and that what can be delivered is delivered."""
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
            assert self._inFlight, "what is waited for has been granted"

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
            commands.append(Known())
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
        room = self._reach - self._inFlight - len(self._ahead)
        if self._over or 2 * room < self._reach:
            return []
        self._inFlight += room
        return [Grant(room)]

    def _end(self, complete: bool) -> list[Command]:
        self._ended = True
        self._ahead.clear()
        self._error = None
        return [Ended(complete)]


class Outflow:
    """The far side of an iteration: how many items may be sent, and whether it has ended."""

    __slots__ = ("credit", "ended")

    def __init__(self) -> None:
        self.credit: int = 0
        self.ended: bool = False

    @property
    def ready(self) -> bool:
        """True while an item may be sent."""
        return self.credit > 0 and not self.ended

    def granted(self, items: int) -> None:
        """Let ITEMS more be sent, unless the iteration has ended."""
        if not self.ended:
            self.credit += items

    def sent(self, items: int) -> None:
        """ITEMS were sent."""
        if items > self.credit:
            raise ValueError(f"{items} items were sent where {self.credit} were granted")
        self.credit -= items

    def end(self) -> None:
        """The iterator is exhausted, has failed, or is not wanted any more."""
        self.ended = True
        self.credit = 0
