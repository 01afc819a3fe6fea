"""Decide which calls a client may send, so that it never exceeds the server's limits.

A server tells its limits when a connection begins, and ends the connection of a client that exceeds them. So the client
counts as the server does, and never less:

- A call counts from when it is sent until the client knows that it has ended.
- A cancelled call has no answer. It counts until the messages about it have left: later messages cannot overtake them.
- A call that does not fit *waits*. Waiting calls are sent in their order when others have ended.
- A call that can never fit has to fail (`fits`).
"""

from __future__ import annotations

from collections.abc import Collection

from asynqueue.core.protocol.framing import PART_COST


class ClientQuota:
    """Counts calls against a server's limits: CALLS unfinished ones, of MESSAGES bytes in all."""

    __slots__ = ("_calls", "_held", "_leaving", "_messages", "_sizes", "_waiting")

    def __init__(self, calls: int, messages: int) -> None:
        self._calls = calls
        self._messages = messages
        self._waiting: dict[int, int] = {}  # the bytes of each waiting call, in order
        self._sizes: dict[int, int] = {}  # the bytes of each call that counts
        self._held = 0  # their sum
        self._leaving: set[int] = set()  # the cancelled calls that still count

    def fits(self, size: int) -> bool:
        """Return whether a call of SIZE bytes can ever be sent."""
        return size + PART_COST <= self._messages

    def called(self, number: int, size: int) -> bool:
        """Add call NUMBER of SIZE bytes, which fits. Return True if it is to be sent now, False if it waits."""
        size += PART_COST
        if self._waiting or len(self._sizes) >= self._calls or self._held + size > self._messages:
            self._waiting[number] = size
            return False
        self._sizes[number] = size
        self._held += size
        return True

    def ended(self, number: int, leaving: bool = False) -> list[int]:
        """Note that call NUMBER has ended or was cancelled. Return the calls to send now, in order.

        LEAVING is True for a cancelled call of which a message waits to be sent. That message takes memory, so the call
        counts until `flushed` removes it.
        """
        if leaving and number in self._sizes:
            self._leaving.add(number)
            return []
        self._held -= self._sizes.pop(number, 0)
        if not self._waiting:
            return []
        self._waiting.pop(number, None)
        return self._admitted()

    def flushed(self, unsent: Collection[int]) -> list[int]:
        """Remove the cancelled calls that are not in UNSENT. Return the calls to send now, in order."""
        for number in self._leaving.difference(unsent):
            self._leaving.remove(number)
            self._held -= self._sizes.pop(number)
        return self._admitted()

    def validate(self) -> None:
        """Assert that the limits hold and that no call waits without a reason."""
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
