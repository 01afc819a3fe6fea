"""The consumers of the kit's iterations: they take as many items as they are asked to, and then pause.

A `Taker` requests items from a `Deferator`, one after another. A `Feeder` is an `IConsumer`, which pauses its producer.
"""

from __future__ import annotations

from typing import Any

import attrs
from twisted.python.failure import Failure

from asynqueue.testing.model import UNQUALIFIED, Call


def takerOf(call: Call) -> Taker | None:
    """Return what takes the items of CALL, or None if it gives no items."""
    request = call.request
    if request.do != "iterate" or request.raw:
        return None
    return Feeder(call) if request.fed else Taker(call)


@attrs.define(eq=False)
class Taker:
    """Takes the items of CALL's iterator, as many as were asked for."""

    call: Call
    wanted: int = 0
    _items: Any = None  # Any: a Deferator, once the call has returned one
    _waiting: bool = False

    @property
    def content(self) -> bool:
        """True when this waits for nothing."""
        call = self.call
        if call.request.series == UNQUALIFIED or call.over or (call.ends and self._items is None):
            return True
        return bool(call.ends) and not call.stopped and not self._waiting

    def take(self, items: int) -> None:
        """Take ITEMS more."""
        self.wanted += items
        self._proceed()

    def stop(self) -> None:
        """Stop the iteration."""
        self.call.stopped = True
        if self._items is not None:
            self._items.stop()
            self._over(None)

    def begin(self, items: Any) -> None:
        """Start with ITEMS, the call's Deferator."""
        self._items = items
        if self.call.stopped:
            self.stop()
        self._proceed()

    def _proceed(self) -> None:
        while self._items is not None and self.wanted > 0 and not self._waiting and not self.call.over:
            self._waiting = True
            self._items.__anext__().addCallbacks(self._came, self._failed)

    def _came(self, item: Any) -> None:
        self._waiting = False
        self.wanted -= 1
        if not self.call.over:
            self.call.got.append(item)
        self._proceed()

    def _failed(self, reason: Failure) -> None:
        self._waiting = False
        self._over(None if reason.check(StopAsyncIteration) else reason.value)

    def _over(self, error: BaseException | None) -> None:
        if not self.call.over:
            self.call.over = True
            self.call.error = error


@attrs.define(eq=False)
class Feeder(Taker):
    """Gets the items of CALL's iterator, and pauses their producer when it has as many as were asked for."""

    _producer: Any = None  # Any: an IPushProducer
    _paused: bool = False

    @property
    def content(self) -> bool:
        """True when this waits for nothing."""
        return bool(self.call.ends) or self._paused

    def take(self, items: int) -> None:
        """Take ITEMS more."""
        self.wanted += items
        if self._paused:
            self._paused = False
            self._producer.resumeProducing()

    def stop(self) -> None:
        """Stop the iteration."""
        self.call.stopped = True
        self._paused = False
        if self._producer is not None and not self.call.ends:
            self._producer.stopProducing()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Register PRODUCER, which has the items."""
        self._producer = producer
        if self.call.stopped:
            producer.stopProducing()
        elif self.wanted <= 0:
            self._pause()

    def unregisterProducer(self) -> None:
        """End: there are no more items."""
        self._paused = False

    def write(self, item: Any) -> None:
        """Take ITEM."""
        if self.call.stopped:
            return
        self.call.got.append(item)
        self.wanted: int = self.wanted - 1
        if self.wanted <= 0:
            self._pause()

    def _pause(self) -> None:
        self._paused = True
        self._producer.pauseProducing()
