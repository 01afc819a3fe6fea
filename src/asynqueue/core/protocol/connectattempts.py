"""Decide whether and when to connect again to a server.

A network that refuses or loses a connection may work later, so the client always tries again. A server may also accept
the connection and close it without a message. There are several possible causes, which the client cannot distinguish:

- The server does not trust this client, and cannot say so.
- The server speaks another protocol.
- The connection goes through a tunnel, and the server behind it has not started yet.

After `ATTEMPTS` such failures in a row the client stops trying. If the server has authenticated itself before, the
client continues, because then the cause is not missing trust.

Between two attempts is a pause. The first is `FIRST_PAUSE`, each further one is `GROWTH` times as long as the one
before, and none is longer than `LONGEST_PAUSE`.
"""

from __future__ import annotations

ATTEMPTS = 10
"""How many connections in a row a server may close without a message, if it was never authenticated."""

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 30.0
"""Seconds."""

GROWTH = 1.6


class ConnectPolicy:
    """Decides about further attempts to connect to one server."""

    __slots__ = ("_authenticated", "_ended")

    def __init__(self) -> None:
        self._ended = 0
        self._authenticated = False

    def authenticated(self) -> None:
        """Record that the server has authenticated itself."""
        self._authenticated = True

    def failed(self, ended: bool) -> bool:
        """Record a failed attempt.

        ENDED is True if the server closed it without a message. Return whether to try again.
        """
        self._ended = self._ended + 1 if ended else 0
        return self._authenticated or self._ended < ATTEMPTS
