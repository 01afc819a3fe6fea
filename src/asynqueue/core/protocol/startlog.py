"""Decide which calls may have been running when a connection was lost.

A call that was running when its worker was lost is *charged* with an attempt, and attempts are limited. A call that
never started is not charged and keeps its place. For a child process, permits in shared memory show which is which. A
wire has only the connection, so the protocol has this rule:

    The server sends `Started` for a call, and hands it to the network, before the call starts.

A connection can end in two ways:

- *All received*: the server's system ended it (it closed or reset the connection, for instance because the process
  was killed). Everything sent before has arrived: a stream keeps its order, its end included, and a reset is accepted
  only after all earlier bytes (RFC 5961). So a call without `Started` had not started. Exactly the calls that started
  and have no answer are charged.
- *Cut*: the network failed, or this side timed out. The last messages may be lost, `Started` included. So every call
  that was sent completely and has no answer is charged. This may charge a call that did not start, but it never misses
  one that did. Few are affected: a worker with slow calls gets no more calls than it runs at once.

A recalled call either comes back or has started. Until this is known for each recalled call, no new call is sent:
it would start on the server ahead of those that come back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable


class StartLog:
    """Records what is known about the calls on one wire."""

    __slots__ = ("_recalled", "_started")

    def __init__(self) -> None:
        self._started: set[int] = set()
        self._recalled: set[int] = set()

    def started(self, number: int) -> None:
        """Record that call NUMBER has started."""
        self._started.add(number)
        self._recalled.discard(number)

    def answered(self, number: int) -> None:
        """Record that call NUMBER has an outcome."""
        self._started.discard(number)
        self._recalled.discard(number)

    def recalled(self, pending: Iterable[int]) -> None:
        """Record that the calls PENDING are recalled, except those that have started."""
        self._recalled.update(number for number in pending if number not in self._started)

    @property
    def recalling(self) -> bool:
        """True while a recalled call has neither come back nor started."""
        return bool(self._recalled)

    def unstarted(self, pending: Iterable[int], unsent: Collection[int], receivedAll: bool) -> list[int]:
        """Return the calls of PENDING that did not start and never will, after the connection has ended.

        UNSENT are the calls that were not sent completely. RECEIVEDALL is as described in the module's head.
        """
        if receivedAll:
            return [number for number in pending if number not in self._started]
        return [number for number in pending if number in unsent]
