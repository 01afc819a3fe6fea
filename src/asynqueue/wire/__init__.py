"""Work on other machines: the methods of a `WireWorkerUniverse`, served by a `WireServer`, called by a `WireWorker`.

A wire is a connection of any kind that Twisted's endpoints describe. Both ends prove who they are before either
believes the other: by a key that both have, or by certificates. `docs/security.md` says what that is worth.

    class Sums(WireWorkerUniverse):             # sums.py, on both machines
        def total(self, numbers):
            return sum(numbers)

    python -m asynqueue.wire tcp:7654 sums.Sums --key-file wire.key               # there

    queue = WireQueue("tcp:there:7654", Sums, key="wire.key")                     # here
    d = queue.call(Sums.total, [1, 2, 3])

Each name is imported from its module when it is first asked for: a server needs nothing of a client.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asynqueue.core.protocol.admission import Limits as Limits
    from asynqueue.wire.manager import ServerManager as ServerManager
    from asynqueue.wire.server import WireServer as WireServer
    from asynqueue.wire.universe import Method as Method
    from asynqueue.wire.universe import WireWorkerUniverse as WireWorkerUniverse
    from asynqueue.wire.worker import WireQueue as WireQueue
    from asynqueue.wire.worker import WireWorker as WireWorker

__all__ = ["Limits", "Method", "ServerManager", "WireQueue", "WireServer", "WireWorker", "WireWorkerUniverse"]

_HOME = {
    "Limits": "asynqueue.core.protocol.admission",
    "Method": "asynqueue.wire.universe",
    "ServerManager": "asynqueue.wire.manager",
    "WireQueue": "asynqueue.wire.worker",
    "WireServer": "asynqueue.wire.server",
    "WireWorker": "asynqueue.wire.worker",
    "WireWorkerUniverse": "asynqueue.wire.universe",
}


if not TYPE_CHECKING:  # or a type checker would take every name for a public one

    def __getattr__(name: str) -> Any:
        """Import NAME from the module where it lives, and keep it."""
        home = _HOME.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(home), name)
        globals()[name] = value
        return value
