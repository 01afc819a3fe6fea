"""The explorer, listening."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IListeningPort

from mcmandelbrot.explorer.crew import TileQueue
from mcmandelbrot.explorer.door import MOST, PATIENCE, PER_ADDRESS, Door
from mcmandelbrot.explorer.outlet import STALL
from mcmandelbrot.explorer.pages import Explorer
from mcmandelbrot.fractal.worker import palettes


class Server:
    """Serves the explorer at PORT of INTERFACE, over QUEUE, whose workers are prepared."""

    def __init__(self, queue: TileQueue, explorer: Explorer, door: Door, port: IListeningPort, interface: str) -> None:
        self.explorer = explorer
        self._queue = queue
        self._door = door
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
        """Begin; PORT 0 is any that is free. It goes by NAMES and the interface's, besides what a `Door` goes by.

        Raises `twisted.internet.error.CannotListenError`.
        """
        explorer = Explorer(queue, await queue.call(palettes), reactor, stall=stall)
        door = Door(
            explorer,
            reactor,
            patience=patience,
            most=connections,
            perAddress=perAddress,
            names=[*names, interface],
        )
        try:
            listening = reactor.listenTCP(port, door, interface=interface)
        except BaseException:
            explorer.meter.stop()
            raise
        return cls(queue, explorer, door, listening, interface)

    @property
    def url(self) -> str:
        """Where it is."""
        host = f"[{self._interface}]" if ":" in self._interface else self._interface
        return f"http://{host}:{getattr(self._port.getHost(), 'port', 0)}/"

    async def close(self) -> None:
        """End: nobody is let in, every connection is ended, what waits in the queue never runs."""
        await maybeDeferred(self._port.stopListening)
        await self._door.hangUp()
        self.explorer.meter.stop()
        self._queue.cancelAll()
