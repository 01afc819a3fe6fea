"""When a worker that says nothing is stuck, and has to be replaced to be of use again.

Theory of operation. A worker does one thing at a time, and says what has come of it. While it runs a call, or makes an
item that is wanted, there is no telling whether it is stuck or merely long about it: that is for whoever asked for the
call or the item to decide. In two cases it should have been done long ago, and then it is stuck.

- A call that nobody wants any more was sent and has not *started*, though nothing else had to be done first. It takes
  a worker no time to start a call.
- Every iterator it has was told to close, no call has started, and nothing was heard for a whole grace: one of them
  does not come back, from the item it was at or from its ``finally``.

Nothing is lost then but what was not wanted: what has not started keeps its place, and nothing is charged.
"""

from __future__ import annotations

from collections.abc import Hashable

START_GRACE = 0.1
"""Seconds that a worker with nothing else to do has to start a call."""


def isStuckUnstarted(seconds: float, started: int, iterations: int) -> bool:
    """Whether a call that was sent SECONDS ago will not start, on a worker with so many STARTED and ITERATIONS."""
    return seconds >= START_GRACE and not started and not iterations


class CloseTracker:
    """Of one worker, the iterators that were told to close and have not said that they are over."""

    __slots__ = ("_heard", "_told")

    def __init__(self) -> None:
        self._told: set[Hashable] = set()
        self._heard = 0

    @property
    def waiting(self) -> bool:
        """True while there is one."""
        return bool(self._told)

    def told(self, iterator: Hashable, heard: int) -> None:
        """ITERATOR was told to close. HEARD is how often anything was heard of the worker so far."""
        self._told.add(iterator)
        self._heard = heard

    def ended(self, iterator: Hashable) -> None:
        """ITERATOR is over."""
        self._told.discard(iterator)

    def looked(self, heard: int, iterations: int) -> bool:
        """A grace has passed. True if, but for a call that has started, the worker is stuck.

        HEARD is as for `told`; ITERATIONS are all that the worker has.
        """
        silent = heard == self._heard
        self._heard = heard
        return silent and self.waiting and iterations == len(self._told)


# Whether to connect once more to a server that has not proved itself.
#
# Theory of operation. A network that refuses or loses a connection may have it later: so there is always another
# attempt. A server that takes the connection and ends it without a word may be one that does not trust this client, or
# that speaks something else, and has no way to say so; or a tunnel, at the far end of which there is no server as yet.
# Nobody can tell. When that has happened `ATTEMPTS` times in a row, the attempts end, but not if the server has ever
# proved itself here: then trust is not what is missing.

ATTEMPTS = 10
"""How many connections in a row a server that was never trusted may end without a word."""


class ConnectPolicy:
    """What is thought of one server."""

    __slots__ = ("_ended", "_trusted")

    def __init__(self) -> None:
        self._ended = 0
        self._trusted = False

    def proved(self) -> None:
        """The server has proved itself."""
        self._trusted = True

    def failed(self, ended: bool) -> bool:
        """An attempt has failed, ENDED without a word by whoever took the connection. True if another makes sense."""
        self._ended = self._ended + 1 if ended else 0
        return self._trusted or self._ended < ATTEMPTS


# Whether a peer that says nothing is there: a heartbeat.
#
# Theory of operation. Time is cut into ticks, four to the silence that is allowed. At each tick a peer is asked whether
# it is there; it says so, however idle it is. Anything that it says counts. When nothing was heard from one tick to the
# next three times in a row, it is not there: that is after three quarters of the silence at least, and after all of it
# at most. Ticks are counted and not seconds, so that a pause of this very program is not taken for one of the peer's.

TICKS = 4
"""Ticks in the silence that is allowed."""


class HeartbeatCounter:
    """Of one peer, which is there to begin with."""

    __slots__ = ("_silent",)

    def __init__(self) -> None:
        self._silent = 0  # ticks since it was heard

    def heard(self) -> None:
        """The peer has said something."""
        self._silent = 0

    def tick(self) -> bool:
        """One tick has passed. True if the peer is to be asked, False if it is not there."""
        self._silent += 1
        return self._silent < TICKS
