"""Which calls the near side of a wire may send, so that it never asks a server for more than that allows.

Theory of operation. A server ends the connection of whoever exceeds its limits, which it tells when a connection
begins. So the near side counts as the server does, and never less: a call counts from when it is sent to when its end
is known here. One that is let go of has no answer; it counts until what was said of it has left, after which nothing
can overtake that. What does not fit *waits*, in the order in which calls were made, and is sent when others have ended.
A call that would never fit has to fail.
"""

from __future__ import annotations

from collections.abc import Collection

from asynqueue.core.framing import PART_COST


class Allowance:
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
