"""Whether to connect once more to a server that has not proved itself.

Theory of operation. A network that refuses or loses a connection may have it later: so there is always another
attempt. A server that takes the connection and ends it without a word may be one that does not trust this client, or
that speaks something else, and has no way to say so; or a tunnel, at the far end of which there is no server as yet.
Nobody can tell. When that has happened `ATTEMPTS` times in a row, the attempts end, but not if the server has ever
proved itself here: then trust is not what is missing.
"""

from __future__ import annotations

ATTEMPTS = 10
"""How many connections in a row a server that was never trusted may end without a word."""


class Doubt:
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
