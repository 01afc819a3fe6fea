"""The explorer as a server."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IListeningPort

from mcmandelbrot.explorer.pages import Explorer
from mcmandelbrot.explorer.responsestream import STALL
from mcmandelbrot.explorer.site import MOST, PATIENCE, PER_ADDRESS, ExplorerSite
from mcmandelbrot.explorer.tilequeue import TileQueue
from mcmandelbrot.fractal.worker import palettes


class Server:
    """Serves the explorer at PORT of INTERFACE, with QUEUE, whose workers are prepared."""

    def __init__(
        self, queue: TileQueue, explorer: Explorer, site: ExplorerSite, port: IListeningPort, interface: str
    ) -> None:
        self.explorer = explorer
        self._queue = queue
        self._site = site
        self._port = port
        self._interface = interface

    @classmethod
    async def listen(
        cls,
        queue: TileQueue,
        port: int,
        interface: str,
        reactor: Any,
        *,
        patience: float = PATIENCE,
        stall: float = STALL,
        connections: int = MOST,
        perAddress: int = PER_ADDRESS,
        names: Iterable[str] = (),
    ) -> Server:
        """Start to listen. PORT 0 chooses a free port.

        NAMES are more host names to accept, besides the interface and those of `ExplorerSite`. Raise
        `twisted.internet.error.CannotListenError`.
        """
        explorer = Explorer(queue, await queue.call(palettes), reactor, stall=stall)
        site = ExplorerSite(
            explorer,
            reactor,
            patience=patience,
            most=connections,
            perAddress=perAddress,
            names=[*names, interface],
        )
        try:
            listening = reactor.listenTCP(port, site, interface=interface)
        except BaseException:
            explorer.status.stop()
            raise
        return cls(queue, explorer, site, listening, interface)

    @property
    def url(self) -> str:
        """The address of the explorer."""
        host = f"[{self._interface}]" if ":" in self._interface else self._interface
        return f"http://{host}:{getattr(self._port.getHost(), 'port', 0)}/"

    async def close(self) -> None:
        """Stop listening, close every connection, and cancel all waiting calls."""
        await maybeDeferred(self._port.stopListening)
        await self._site.closeConnections()
        self.explorer.status.stop()
        self._queue.cancelAll()
