"""The state of the queue, sent to each watching browser.

The queue reports the number of unfinished calls whenever it changes. Then, but at most every `INTERVAL` seconds, one
reading is made for all watchers. Rates and busy shares cover about the last `MEMORY` seconds. The share of a machine is
the mean of its processes. A watcher that is too slow misses readings, and delays no other watcher.
"""

from __future__ import annotations

import json
from collections import deque
from typing import Any

from attrs import frozen
from twisted.internet.interfaces import IConsumer, IDelayedCall
from zope.interface import implementer

from asynqueue.interfaces import Producer
from mcmandelbrot.explorer.responsestream import ResponseStream
from mcmandelbrot.explorer.tilequeue import TileQueue
from mcmandelbrot.explorer.visitor import Visitor, Visitors

INTERVAL = 0.25
MEMORY = 1.0
HEARTBEAT = 15.0
"""The time after which a reading is sent without news, in seconds. So a lost connection is noticed."""


@frozen
class _Sample:
    """How many calls were DONE at TIME, and how long each worker had been busy, in seconds."""

    time: float
    done: int
    busy: dict[int, float]

    def since(self, earlier: _Sample, worker: int) -> float:
        """Return how long WORKER has been busy since the EARLIER sample, in seconds."""
        return self.busy.get(worker, 0.0) - earlier.busy.get(worker, 0.0)


@implementer(IConsumer)
class StatusStream:
    """Sends readings of QUEUE to those of VISITORS that watch."""

    def __init__(self, queue: TileQueue, visitors: Visitors, reactor: Any) -> None:
        self._queue = queue
        self._visitors = visitors
        self._reactor = reactor
        self.watchers: dict[ResponseStream, Visitor] = {}
        self._samples: deque[_Sample] = deque()
        self.unfinished = 0
        self._tick: IDelayedCall | None = None
        self._written: dict[ResponseStream, tuple[float, str]] = {}
        self._producer: Producer | None = None
        self.drawn = 0
        self.cancelled = 0
        queue.subscribe(self)

    def watch(self, response: ResponseStream, visitor: Visitor) -> None:
        """Send readings to RESPONSE as server-sent events, with the counts of VISITOR."""
        self.watchers[response] = visitor
        self._write(response, self.reading())
        self._wake()

    def unwatch(self, response: ResponseStream) -> None:
        """Send no more readings to RESPONSE."""
        del self.watchers[response]
        self._written.pop(response, None)

    def tileEnded(self, visitor: Visitor, drawn: bool) -> None:
        """Count a tile for VISITOR, which was DRAWN or cancelled."""
        if drawn:
            self.drawn += 1
            visitor.drawn += 1
        else:
            self.cancelled += 1
            visitor.cancelled += 1
        self._wake()

    def stop(self) -> None:
        """End the subscription to the queue."""
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None
        if self._producer is not None:
            self._producer.stopProducing()

    # Called by the queue's subscription.

    def registerProducer(self, producer: Any, streaming: bool) -> None:  # Any, as in IConsumer
        """Keep PRODUCER, which is the subscription."""
        self._producer = producer

    def unregisterProducer(self) -> None:
        """Forget the producer."""
        self._producer = None

    def write(self, data: Any) -> None:  # IConsumer has bytes, a subscription integers
        """Record the number of unfinished calls."""
        self.unfinished = int(data)
        self._wake()

    # Readings.

    def _wake(self) -> None:
        if self.watchers and self._tick is None:
            self._tick = self._reactor.callLater(INTERVAL, self._read)

    def _read(self) -> None:
        self._tick = None
        reading = self.reading()
        for response in list(self.watchers):
            self._write(response, reading)
        if self.watchers:
            self._tick = self._reactor.callLater(INTERVAL, self._read)

    def _write(self, response: ResponseStream, general: dict[str, Any]) -> None:
        visitor = self.watchers[response]
        visitor.seen = now = self._reactor.seconds()
        if response.paused:
            return
        reading = json.dumps({**general, "yours": {"drawn": visitor.drawn, "cancelled": visitor.cancelled}})
        then, before = self._written.get(response, (0.0, ""))
        if reading != before or now - then > HEARTBEAT:
            self._written[response] = now, reading
            response.write(f"data: {reading}\n\n".encode())

    def reading(self) -> dict[str, Any]:  # Any, because it becomes JSON
        """Return the state of the queue."""
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
                "connected": worker.connected,
            }
            for worker in self._queue.workerStatuses()
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
