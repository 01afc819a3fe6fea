"""What a server allows its clients, and which connection it closes when there are too many strangers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import TypeVar

import attrs

from asynqueue.errors import WorkerError

S = TypeVar("S")


class LimitExceeded(WorkerError):
    """A client asked for more than the server's limits allow."""


@attrs.frozen
class Limits:
    """The limits of a server for its clients. Each is above 0.

    Args:
        connections: The number of authenticated clients.
        strangers: The number of connections that are not authenticated yet. If there are more, one from the address
            with the most of them is closed soon. Clients that have shown that they have the key are counted apart.
        patience: The time for authentication, in seconds.
        calls: The number of unfinished calls of one connection.
        running: The number of calls of one connection that run at once.
        iterations: The number of open iterators of one connection.
        messages: The bytes held for incomplete calls of one connection, and again for its complete but unfinished
            calls.
        backlog: The bytes that may wait to be sent, without large answers. Above it, no further call is started.

    Raises:
        ValueError: A limit is not above 0.
    """

    connections: int = 100
    strangers: int = 128
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


def evictionCandidate(strangers: Mapping[S, str], pick: Callable[[int], int]) -> S:
    """Return which connection of STRANGERS to close: any from the address that has the most, by PICK.

    STRANGERS maps each connection to its address. So connections from one address cannot exclude others. PICK returns
    an unpredictable number below its argument: of a flood's many connections, each is as likely as an honest one.
    """
    most = Counter(strangers.values()).most_common(1)[0][0]
    those = [stranger for stranger, address in strangers.items() if address == most]
    return those[pick(len(those))]
