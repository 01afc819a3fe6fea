"""Send a number that changes to a consumer, and notice that there is nothing to do."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from zope.interface import implementer

from asynqueue.core.scheduling.scheduler import Scheduler
from asynqueue.interfaces import Consumer
from asynqueue.reactor.failures import printable

_log = Logger(namespace="asynqueue")


class IdleObserver:
    """Calls ONIDLE after each event that leaves no call and no iteration in SCHEDULER."""

    def __init__(self, scheduler: Scheduler, onIdle: Callable[[], None]) -> None:
        self._scheduler = scheduler
        self._onIdle = onIdle

    def changed(self) -> None:
        """Note that an event has happened."""
        if not self._scheduler.unfinished and not self._scheduler.iterations:
            self._onIdle()

    def end(self) -> None:
        """Do nothing: no event will happen any more."""


@implementer(IPushProducer)
class Subscription:
    """Writes the value of NUMBER to CONSUMER, at first and whenever `changed` finds another value.

    A change that is undone while the consumer is paused, or is being written to, is not sent. A consumer that raises
    gets nothing more, which is logged: its error must not harm the queue.
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

    def registerConsumer(self, consumer: Consumer) -> None:
        """Do nothing. Consumers for 0.9 call this from their `registerProducer`."""

    def changed(self) -> None:
        """Write the number if it has changed."""
        if self._writing:
            return
        self._writing = True
        try:
            while self._consumer is not None and not self._paused and self._last != self._number():
                self._last = self._number()
                self._consumer.write(self._last)
        except BaseException as error:  # SystemExit too: the queue goes on
            text = "a consumer of the number of unfinished calls failed, and gets no more numbers"
            _log.failure(text, printable(error))
            self._leave()
        finally:
            self._writing = False
        if self._over:
            self._leave()

    def end(self) -> None:
        """Write the last value, and unregister from the consumer."""
        self._over = True
        self.changed()

    def pauseProducing(self) -> None:
        """Write nothing until `resumeProducing`."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Write the number if it has changed meanwhile, and go on."""
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
        except BaseException as error:  # as above
            _log.failure("a consumer of the number of unfinished calls failed as it was left alone", printable(error))
