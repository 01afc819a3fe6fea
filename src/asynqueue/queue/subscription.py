"""A number that changes, for a consumer that wants to know it."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from zope.interface import implementer

from asynqueue.interfaces import Consumer

_log = Logger(namespace="asynqueue")


@implementer(IPushProducer)
class Subscription:
    """Writes to CONSUMER what NUMBER gives, at first and whenever `changed` finds that it differs.

    What changes and changes back while the consumer has paused, or while it is being written to, is not seen. A
    consumer that raises is written to no more, which is logged: the number is not its concern alone.
    """

    def __init__(self, consumer: Consumer, number: Callable[[], int]) -> None:
        self._consumer: Consumer | None = consumer
        self._number = number
        self._last: int | None = None
        self._paused = False
        self._writing = False
        self._over = False
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
        except BaseException:  # SystemExit too: whose number this is goes on
            _log.failure("a consumer of the number of unfinished calls failed, and is told of it no more")
            self._leave()
        finally:
            self._writing = False
        if self._over:
            self._leave()

    def end(self) -> None:
        """The number is what it will be: it is written, and nothing after it."""
        self._over = True
        self.changed()

    def pauseProducing(self) -> None:
        """Write nothing until told to resume."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Write the number, if it is not the one written last, and go on."""
        self._paused = False
        self.changed()

    def stopProducing(self) -> None:
        """Write nothing more."""
        self._leave()

    def _leave(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is None:
            return
        try:
            consumer.unregisterProducer()
        except BaseException:  # as above
            _log.failure("a consumer of the number of unfinished calls failed as it was left alone")
