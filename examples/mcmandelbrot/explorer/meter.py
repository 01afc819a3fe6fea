"""What there is to see of a queue at work, for whoever watches.

The queue says how many of its calls are unfinished whenever that changes, which is when there is something new to
say. Then, and at most every `INTERVAL` seconds, one reading is taken for all watchers. Rates and busy shares are
those of about the last `MEMORY` seconds; the share of a machine is the mean of its processes. A watcher that cannot
keep up misses readings, and holds up nobody.
"""

from __future__ import annotations

import json
from collections import deque
from typing import Any

from attrs import frozen
from twisted.internet.interfaces import IConsumer, IDelayedCall
from zope.interface import implementer

from asynqueue.interfaces import Producer
from mcmandelbrot.explorer.crew import TileQueue
from mcmandelbrot.explorer.outlet import Outlet
from mcmandelbrot.explorer.visitor import Visitor, Visitors

INTERVAL = 0.25
MEMORY = 1.0
HEARTBEAT = 15.0
"""Seconds after which something is written although nothing is new: so a connection that is lost is noticed."""


@frozen
class _Sample:
    """How many calls had been DONE at a TIME, and how many seconds each worker had been busy with calls."""

    time: float
    done: int
    busy: dict[int, float]

    def since(self, earlier: _Sample, worker: int) -> float:
        """The seconds for which WORKER has been busy since the EARLIER sample."""
        return self.busy.get(worker, 0.0) - earlier.busy.get(worker, 0.0)


@implementer(IConsumer)
class Meter:
    """Reads QUEUE for those who watch, of all VISITORS."""

    def __init__(self, queue: TileQueue, visitors: Visitors, reactor: Any) -> None:
        self._queue = queue
        self._visitors = visitors
        self._reactor = reactor
        self.watchers: dict[Outlet, Visitor] = {}
        self._samples: deque[_Sample] = deque()
        self.unfinished = 0
        self._tick: IDelayedCall | None = None
        self._written: dict[Outlet, tuple[float, str]] = {}
        self._producer: Producer | None = None
        self.drawn = 0
        self.cancelled = 0
        queue.subscribe(self)

    def watch(self, outlet: Outlet, visitor: Visitor) -> None:
        """Write readings to OUTLET, as server-sent events, with what concerns VISITOR."""
        self.watchers[outlet] = visitor
        self._write(outlet, self.reading())
        self._wake()

    def unwatch(self, outlet: Outlet) -> None:
        """Write no more to OUTLET."""
        del self.watchers[outlet]
        self._written.pop(outlet, None)

    def tileEnded(self, visitor: Visitor, drawn: bool) -> None:
        """A tile for VISITOR has been DRAWN, or was cancelled."""
        if drawn:
            self.drawn += 1
            visitor.drawn += 1
        else:
            self.cancelled += 1
            visitor.cancelled += 1
        self._wake()

    def stop(self) -> None:
        """Watch the queue no more."""
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None
        if self._producer is not None:
            self._producer.stopProducing()

    # What the queue's subscription tells.

    def registerProducer(self, producer: Any, streaming: bool) -> None:  # IConsumer knows no IPushProducer
        """PRODUCER is about to tell."""
        self._producer = producer

    def unregisterProducer(self) -> None:
        """Nothing more is told."""
        self._producer = None

    def write(self, data: Any) -> None:  # IConsumer speaks of bytes; a subscription gives integers
        """So many calls are unfinished."""
        self.unfinished = int(data)
        self._wake()

    # Readings.

    def _wake(self) -> None:
        if self.watchers and self._tick is None:
            self._tick = self._reactor.callLater(INTERVAL, self._read)

    def _read(self) -> None:
        self._tick = None
        reading = self.reading()
        for outlet in list(self.watchers):
            self._write(outlet, reading)
        if self.watchers:
            self._tick = self._reactor.callLater(INTERVAL, self._read)

    def _write(self, outlet: Outlet, general: dict[str, Any]) -> None:
        visitor = self.watchers[outlet]
        visitor.seen = now = self._reactor.seconds()
        if outlet.paused:
            return
        reading = json.dumps({**general, "yours": {"drawn": visitor.drawn, "cancelled": visitor.cancelled}})
        then, before = self._written.get(outlet, (0.0, ""))
        if reading != before or now - then > HEARTBEAT:
            self._written[outlet] = now, reading
            outlet.write(f"data: {reading}\n\n".encode())

    def reading(self) -> dict[str, Any]:  # it becomes JSON
        """The queue as it is now."""
        now = self._reactor.seconds()
        latest = self._samples[-1] if self._samples else None
        if latest is None or now - latest.time >= INTERVAL / 2:
            stats = self._queue.stats()
            busy = {worker: counts.run.total for worker, counts in stats.byWorker.items()}
            latest = _Sample(now, stats.done + stats.failed + stats.lost, busy)
            self._samples.append(latest)
            while len(self._samples) > 2 and now - self._samples[1].time >= MEMORY:
                self._samples.popleft()
        first = self._samples[0]
        seconds = max(INTERVAL, latest.time - first.time)
        workers = [
            {
                "name": worker.name,
                "share": round(min(1.0, latest.since(first, worker.number) / seconds / worker.processes), 2),
                "there": worker.there,
            }
            for worker in self._queue.presences()
        ]
        return {
            "workers": workers,
            "unfinished": self.unfinished,
            "rate": round((latest.done - first.done) / seconds),
            "calls": latest.done,
            "drawn": self.drawn,
            "cancelled": self.cancelled,
            "visitors": len(self._visitors),
        }
