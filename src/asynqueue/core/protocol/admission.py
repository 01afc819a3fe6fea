"""Which calls a server runs, and how fast iterators may give their items: the far side of one wire.

Theory of operation. A call *waits*, in the order in which calls came; then it is *announced*: `Started` is said of
it; then it *runs*, as soon as what was said has left (why, `asynqueue.core.protocol.startlog` tells); then it has
ended. Those announced and running are at most as many as the near side wants at once. What waits can be given back.

A near side that has sent more than it may is in breach of the rules: `LimitExceeded`, and the connection has to end.

An iterator gives items against credit, and credit counts items, which may be large. A `ItemThrottle` lets it have so
much of the credit at a time that about a quarter of the backlog that is allowed comes of it, and nothing while there
is such a backlog: so a near side that reads slowly costs no memory here.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Mapping
from typing import TypeVar

import attrs

from asynqueue.core.protocol.framing import PART_COST
from asynqueue.errors import WorkerError

S = TypeVar("S")


class LimitExceeded(WorkerError):
    """A peer asked for more than the limits allow."""


@attrs.frozen
class Limits:
    """What one server lets its clients do.

    CONNECTIONS are clients that have proved themselves, STRANGERS those that have not; a stranger has PATIENCE
    seconds to do so, and when there are too many the first gives way that came from where most are. CALLS are
    unfinished ones of a connection, RUNNING those at once, ITERATIONS its iterators that have not ended. MESSAGES is
    the most bytes that are held for a connection, of calls that are not complete, and again of those that are and
    have not ended. BACKLOG is the number of bytes that wait to be sent, large answers apart, from which on no further
    call is started.
    """

    connections: int = 100
    strangers: int = 64
    patience: float = 10.0
    calls: int = 1024
    running: int = 128
    iterations: int = 256
    messages: int = 1 << 30
    backlog: int = 1 << 20

    def __attrs_post_init__(self) -> None:
        for name, value in attrs.asdict(self).items():
            if not value > 0:
                raise ValueError(f"the limit {name} must be above 0, got {value!r}")


def evictionCandidate(strangers: Mapping[S, str]) -> S:
    """Who of the STRANGERS has to go, given the address that each is from: the first from where most are.

    So those from one address keep nobody out who comes from another.
    """
    most = Counter(strangers.values()).most_common(1)[0][0]
    return next(stranger for stranger, address in strangers.items() if address == most)


class CallAdmission:
    """The calls of one client, that wants RUNNING at once."""

    __slots__ = ("_announced", "_held", "_limits", "_most", "_running", "_sizes", "_waiting")

    def __init__(self, running: int, limits: Limits) -> None:
        if not 1 <= running <= limits.running:
            raise LimitExceeded(f"from 1 to {limits.running} calls may run at once, not {running}")
        self._most = running
        self._limits = limits
        self._waiting: deque[int] = deque()
        self._announced: deque[int] = deque()
        self._running: set[int] = set()
        self._sizes: dict[int, int] = {}  # of all of them
        self._held = 0  # the sum of those

    @property
    def idle(self) -> bool:
        """True when there is no call."""
        return not (self._waiting or self._announced or self._running)

    def called(self, number: int, size: int) -> None:
        """Call NUMBER, of SIZE bytes, has come. Raises `LimitExceeded`."""
        if number in self._sizes:
            raise LimitExceeded(f"there is a call {number} already")
        if len(self._sizes) >= self._limits.calls:
            raise LimitExceeded(f"no more than {self._limits.calls} calls may be unfinished")
        if self._held + size > self._limits.messages:
            raise LimitExceeded(f"unfinished calls may have no more than {self._limits.messages} bytes")
        self._sizes[number] = size
        self._held += size
        self._waiting.append(number)

    def next(self, backlog: int = 0, large: int = 0) -> int | None:
        """The call to be announced now, if any.

        BACKLOG bytes wait to be sent beside LARGE answers, each of which counts as a call that runs until it is sent:
        so a near side that reads slowly has no more of them waiting here than it wants calls to run.
        """
        if not self._waiting or backlog >= self._limits.backlog:
            return None
        if len(self._announced) + len(self._running) + large >= self._most:
            return None
        self._announced.append(self._waiting.popleft())
        return self._announced[-1]

    def left(self) -> int | None:
        """All that was said has left: the call that starts now, if any. Ask again until there is none."""
        if not self._announced:
            return None
        number = self._announced.popleft()
        self._running.add(number)
        return number

    def ended(self, number: int) -> None:
        """Call NUMBER, which ran, has ended."""
        self._running.discard(number)
        self._held -= self._sizes.pop(number, 0)

    def recalled(self) -> list[int]:
        """The calls that are given back."""
        back = list(self._waiting)
        self._waiting.clear()
        for number in back:
            self._held -= self._sizes.pop(number)
        return back

    def cancelled(self, number: int) -> bool:
        """Call NUMBER is not wanted. True if it runs, and has to be let go of."""
        if number not in self._sizes:
            return False
        self._held -= self._sizes.pop(number)
        if number in self._running:
            self._running.remove(number)
            return True
        (self._waiting if number in self._waiting else self._announced).remove(number)
        return False

    def validate(self) -> None:
        """Assert that no more run than are wanted, and no more are held than may be."""
        assert len(self._announced) + len(self._running) <= self._most
        assert len(self._sizes) <= self._limits.calls
        assert self._held == sum(self._sizes.values())
        assert self._held <= self._limits.messages
        calls = [*self._waiting, *self._announced, *self._running]
        assert sorted(calls) == sorted(self._sizes), "a call is in one place"


class ItemThrottle:
    """How much of its credit one iterator may use, where BACKLOG bytes may wait to be sent."""

    __slots__ = ("_asked", "_backlog", "_credit", "_size")

    def __init__(self, backlog: int) -> None:
        self._backlog = backlog
        self._credit = 0  # granted, and not used
        self._asked = 0  # asked of the iterator, and not here
        self._size = float(backlog)  # of an item, as far as is known

    def granted(self, items: int) -> None:
        """ITEMS more may be sent."""
        self._credit += items

    def arrived(self, items: int, size: int) -> None:
        """The iterator has given ITEMS, of SIZE bytes in all."""
        self._asked -= items
        if items:
            self._size = max(1.0, size / items)

    def draw(self, backlog: int) -> int:
        """How many items to ask the iterator for now, where BACKLOG bytes wait to be sent."""
        if self._asked or backlog >= self._backlog:
            return 0
        items = min(self._credit, max(1, int(self._backlog / 4 / self._size)))
        self._credit -= items
        self._asked = items
        return items

    def validate(self) -> None:
        """Assert that no more is asked for than was granted."""
        assert self._credit >= 0
        assert self._asked >= 0


# Which calls the near side of a wire may send, so that it never asks a server for more than that allows.
#
# Theory of operation. A server ends the connection of whoever exceeds its limits, which it tells when a connection
# begins. So the near side counts as the server does, and never less: a call counts from when it is sent to when its
# end is known here. One that is let go of has no answer; it counts until what was said of it has left, after which
# nothing can overtake that. What does not fit *waits*, in the order in which calls were made, and is sent when others
# have ended. A call that would never fit has to fail.


class ClientQuota:
    """Of a server that takes CALLS unfinished ones, of MESSAGES bytes in all."""

    __slots__ = ("_calls", "_held", "_leaving", "_messages", "_sizes", "_waiting")

    def __init__(self, calls: int, messages: int) -> None:
        self._calls = calls
        self._messages = messages
        self._waiting: dict[int, int] = {}  # these two: the size of each, in order
        self._sizes: dict[int, int] = {}
        self._held = 0  # the sum of the second
        self._leaving: set[int] = set()  # those that were let go of, and count

    def fits(self, size: int) -> bool:
        """Whether a call of SIZE bytes can ever be sent."""
        return size + PART_COST <= self._messages

    def called(self, number: int, size: int) -> list[int]:
        """Call NUMBER, of SIZE bytes that fit, is wanted. Which calls go up now, in order."""
        self._waiting[number] = size + PART_COST
        return self._admitted()

    def ended(self, number: int, leaving: bool = False) -> list[int]:
        """Call NUMBER has ended; LEAVING if something said of it has not left. Which calls go up now, in order."""
        if leaving and number in self._sizes:
            self._leaving.add(number)
            return []
        self._waiting.pop(number, None)
        self._held -= self._sizes.pop(number, 0)
        return self._admitted()

    def left(self, unsent: Collection[int]) -> list[int]:
        """Of no calls but those UNSENT there is anything that has not left. Which calls go up now, in order."""
        for number in self._leaving.difference(unsent):
            self._leaving.remove(number)
            self._held -= self._sizes.pop(number)
        return self._admitted()

    def validate(self) -> None:
        """Assert that no more counts than is allowed, and that nothing waits for nothing."""
        assert len(self._sizes) <= self._calls
        assert self._held == sum(self._sizes.values()) <= self._messages
        assert self._leaving <= self._sizes.keys()
        assert self._sizes or not self._waiting

    def _admitted(self) -> list[int]:
        going: list[int] = []
        while self._waiting and len(self._sizes) < self._calls:
            number, size = next(iter(self._waiting.items()))
            if self._held + size > self._messages:
                break
            del self._waiting[number]
            self._sizes[number] = size
            self._held += size
            going.append(number)
        return going
