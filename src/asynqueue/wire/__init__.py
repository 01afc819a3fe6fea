"""Work on other machines: a `WireWorker` calls the methods of a `WireWorkerUniverse`, which a `WireServer` serves.

A wire is a connection of any kind that Twisted's endpoints describe. Client and server authenticate first: by a key
that both have, or by certificates. `docs/security.md` describes what that protects from.

    class Sums(WireWorkerUniverse):             # sums.py, on both machines
        def total(self, numbers):
            return sum(numbers)

    python -m asynqueue.wire certificates 10.0.0.5                                # once; it prints the two descriptions

    python -m asynqueue.wire tls:7654:certificate=server.pem:privateKey=server.key:trustRoots=ca.pem sums.Sums

    queue = WireQueue("tls:10.0.0.5:7654:certificate=client.pem:privateKey=client.key:trustRoots=ca.pem", Sums)
    d = queue.call(Sums.total, [1, 2, 3])

Each name is imported from its module at its first use, so a server does not import what only clients need.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from asynqueue.placeholders import gone

if TYPE_CHECKING:
    from asynqueue.core.protocol.serverlimits import Limits as Limits
    from asynqueue.core.records import Method as Method
    from asynqueue.util.pickling import o2p as o2p
    from asynqueue.util.pickling import p2o as p2o
    from asynqueue.wire.command import DEFAULT_SOCKET as DEFAULT_SOCKET
    from asynqueue.wire.command import runServer as runServer
    from asynqueue.wire.manager import ServerManager as ServerManager
    from asynqueue.wire.server import WireServer as WireServer
    from asynqueue.wire.universe import WireWorkerUniverse as WireWorkerUniverse
    from asynqueue.wire.worker import WireQueue as WireQueue
    from asynqueue.wire.worker import WireWorker as WireWorker

__all__ = ["Limits", "Method", "ServerManager", "WireQueue", "WireServer", "WireWorker", "WireWorkerUniverse"]

_HOME = {
    "DEFAULT_SOCKET": "asynqueue.wire.command",
    "Limits": "asynqueue.core.protocol.admission",
    "Method": "asynqueue.core.records",
    "ServerManager": "asynqueue.wire.manager",
    "WireQueue": "asynqueue.wire.worker",
    "o2p": "asynqueue.util.pickling",
    "p2o": "asynqueue.util.pickling",
    "runServer": "asynqueue.wire.command",
    "WireServer": "asynqueue.wire.server",
    "WireWorker": "asynqueue.wire.worker",
    "WireWorkerUniverse": "asynqueue.wire.universe",
}


if not TYPE_CHECKING:  # else a type checker would accept any name

    def __getattr__(name: str) -> Any:
        """Import NAME from its module, and keep it."""
        home = _HOME.get(name)
        if home is None:
            return gone(__name__, name)
        value = getattr(import_module(home), name)
        globals()[name] = value
        return value
