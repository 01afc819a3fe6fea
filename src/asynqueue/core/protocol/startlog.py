"""What a connection that was lost may have cost: the calls on a wire that may have been running.

Theory of operation. A call that was running when its worker was lost is *charged*: it may be started so many times
and no more. One that never started is not, and keeps its place. A process and its parent share permits, and the
kernel says which is which. Two machines share nothing but the connection, so the rule is made of what was said on it:

    The far side says `Started` of a call, and sees that leave for the network, before the call starts.

There are two ways for a connection to end.

*Heard out*: the far side's system ended it (it closed or reset it, its process having been killed, say). What it had
sent before has come first: a stream keeps its order, the mark of its end included, and a reset is heeded only when
all that was sent before it is here (RFC 5961). So a call of which no `Started` has come had not started: exactly
those that started and have no answer are charged.

*Cut*: nothing more came, and this side gave up, or the network did. What was said last may be lost, `Started`
included. So every call that was sent in full and has no answer may have started, and all of them are charged; what
was not sent in full was never started. That is more than may be right, never less, so no call is started more often
than it may be. It is little more, too: a worker whose calls are slow is not sent more than it runs at once.

What was recalled either comes back or has started. Until that is known of each, a far side is given nothing more: what
came after the recall would start there, and go before what comes back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable


class StartLog:
    """What is known of the calls on one wire."""

    __slots__ = ("_recalled", "_started")

    def __init__(self) -> None:
        self._started: set[int] = set()
        self._recalled: set[int] = set()

    def started(self, number: int) -> None:
        """Call NUMBER has started."""
        self._started.add(number)
        self._recalled.discard(number)

    def answered(self, number: int) -> None:
        """Call NUMBER has its outcome."""
        self._started.discard(number)
        self._recalled.discard(number)

    def recalled(self, pending: Iterable[int]) -> None:
        """The far side was asked to give back the calls PENDING, as far as they have not started."""
        self._recalled.update(number for number in pending if number not in self._started)

    @property
    def recalling(self) -> bool:
        """True while it is not known of a recalled call whether it started or comes back."""
        return bool(self._recalled)

    def unstarted(self, pending: Iterable[int], unsent: Collection[int], heardOut: bool) -> list[int]:
        """Which of the calls PENDING, of which those UNSENT were not sent in full, did not start and never will.

        The connection has ended: HEARDOUT, or cut.
        """
        if heardOut:
            return [number for number in pending if number not in self._started]
        return [number for number in pending if number in unsent]
