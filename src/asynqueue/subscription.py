"""A number that changes, for a consumer that wants to know it."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from asynqueue.interfaces import Consumer


@implementer(IPushProducer)
class Subscription:
    """Writes to CONSUMER what NUMBER gives, at first and whenever `changed` finds that it differs.

    What changes and changes back while the consumer has paused, or while it is being written to, is not seen.
    """

    def __init__(self, consumer: Consumer, number: Callable[[], int]) -> None:
        self._consumer: Consumer | None = consumer
        self._number = number
        self._last: int | None = None
        self._paused = False
        self._writing = False
        consumer.registerProducer(self, True)
        self.changed()

    def changed(self) -> None:
        """The number may have changed."""
        if self._writing:
            return
        self._writing = True
        try:
            while self._consumer is not None and not self._paused and self._last != self._number():
                self._last = self._number()
                self._consumer.write(self._last)
        finally:
            self._writing = False

    def end(self) -> None:
        """Nothing more is written."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.unregisterProducer()

    def pauseProducing(self) -> None:
        """Write nothing until told to resume."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Write the number, if it is not the one written last, and go on."""
        self._paused = False
        self.changed()

    def stopProducing(self) -> None:
        """Write nothing more."""
        self.end()
