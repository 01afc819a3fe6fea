"""Carry out the scheduler's commands, in order and one at a time.

What happens to a queue goes to its scheduler as an event. The commands that follow are appended to one list, and each
is carried out by the handler of its type. A command that makes something else happen appends to the list; it does not
nest. When the list is empty, the callers that wait for room are notified, one by one, as long as there is room. Then
the subscribers are sent the number of unfinished calls.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, get_args

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from asynqueue.core.records import Recalled
from asynqueue.core.scheduling.commands import Assign, Command, Tick
from asynqueue.core.scheduling.matching import UNSERVED
from asynqueue.core.scheduling.scheduler import Scheduler
from asynqueue.core.scheduling.window import BUDGET, LOOK
from asynqueue.core.text import valueText
from asynqueue.errors import QueueRunError
from asynqueue.interfaces import Clock, Consumer, DelayedCall
from asynqueue.queue.subscription import IdleObserver, Subscription
from asynqueue.reactor.failures import printable
from asynqueue.reactor.forks import refuseInherited
from asynqueue.reactor.lookup import installedReactor

STAMP = 1e-4
"""Resolution of submission times, in seconds: calls submitted within it share one float."""

Handler = Callable[[Any], object]  # of one type of command: Any, since a table has handlers of every type

_log = Logger(namespace="asynqueue")


class Driver:
    """Drives one scheduler. `obey` sets who carries out which command.

    MAXQUEUED calls or more in the queue are too many for callers that wait for room.
    """

    def __init__(self, scheduler: Scheduler, maxQueued: int | None, reactor: Clock | None) -> None:
        refuseInherited(reactor)
        self.scheduler = scheduler
        self.reactor = reactor
        self.refusal = "the queue is not running"
        """Why the queue takes no calls, when it takes none."""
        self._maxQueued = maxQueued
        self._handlers: dict[type, Handler] = {}
        self._todo: deque[Command] = deque()
        self._busy = False
        self._moment: float | None = None
        self._waiting: deque[Deferred[None]] = deque()  # for room
        self._subscriptions: list[Subscription | IdleObserver] = []
        self._over = False
        self._ticker: DelayedCall | None = None
        self._looker: DelayedCall | None = None
        self._reviewer: DelayedCall | None = None  # of calls for which no worker is qualified
        self._stamped = 0.0

    def obey(self, handlers: Mapping[type, Handler]) -> None:
        """Set the handler of each type of command; the driver itself handles `Tick`."""
        self._handlers = {Tick: self._startTicker, **handlers}
        assert self._handlers.keys() == set(get_args(Command)), "each type of command has a handler"

    def happened(self, commands: list[Command]) -> None:
        """Carry out commands after those before them. Then notify the callers that wait for room, if there is some."""
        self._todo.extend(commands)
        if self._busy:
            return
        if self._todo or self._waiting:
            self._carryOut()
        if self._looker is None and self.scheduler.watching:
            self._looker = self.clock().callLater(LOOK, self._looked)
        unreviewed = self.scheduler.unreviewed
        if unreviewed is not (self._reviewer is not None):
            self._scheduleReview(unreviewed)
        for subscription in self._subscriptions:
            subscription.changed()

    def _carryOut(self) -> None:
        self._busy = True
        self._moment = None
        handlers = self._handlers
        try:
            while True:
                if self._todo:
                    command = self._todo.popleft()
                    try:
                        handlers[type(command)](command)
                    except BaseException as error:  # one command that fails must not hold up those after it
                        text = "a queue could not carry out {command}"
                        _log.failure(text, printable(error), command=valueText(command))
                elif self._waiting and (self._maxQueued is None or self.scheduler.queued < self._maxQueued):
                    self._waiting.popleft().callback(None)
                else:
                    break
        finally:
            self._busy = False

    def following(self, first: Assign) -> list[Assign]:
        """Take from the list the commands right after FIRST that assign to the same worker, and return all of them."""
        batch = [first]
        todo = self._todo
        while todo and isinstance(command := todo[0], Assign) and command.worker == first.worker:
            batch.append(command)
            todo.popleft()
        return batch

    def later(self, commands: list[Command]) -> None:
        """Carry out commands together with those of the next event."""
        self._todo.extend(commands)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make one event of all that happens meanwhile: its commands are carried out in the end."""
        busy, self._busy = self._busy, True
        try:
            yield
        finally:
            self._busy = busy
        self.happened([])

    def withdraw(self, workerID: int) -> list[Command]:
        """Take from the list what a worker was about to be assigned. Return the commands that follow from that."""
        unsent = [x.ticket for x in self._todo if isinstance(x, Assign) and x.worker == workerID]
        self._todo = deque(x for x in self._todo if not (isinstance(x, Assign) and x.worker == workerID))
        return [command for ticket in unsent for command in self.scheduler.finished(ticket, Recalled())]

    def ready(self) -> Deferred[None]:
        """Return a Deferred that fires when there is room."""
        ready: Deferred[None] = Deferred(lambda d: self._waiting.remove(d))
        self._waiting.append(ready)
        self.happened([])
        return ready

    def subscribe(self, consumer: Consumer) -> None:
        """Write the number of unfinished calls to a consumer, now and whenever it changes."""
        if self._over:
            raise QueueRunError(f"{self.refusal}: its number of calls will not change")
        self._subscriptions.append(Subscription(consumer, lambda: self.scheduler.unfinished))

    def observeIdle(self, onIdle: Callable[[], None]) -> None:
        """Call ONIDLE after each event that leaves no call and no iteration."""
        self._subscriptions.append(IdleObserver(self.scheduler, onIdle))

    def rest(self) -> None:
        """Stop the timers, which nothing needs while there is no call and no iteration."""
        for timer in (self._ticker, self._looker):
            if timer is not None and timer.active():
                timer.cancel()
        self._ticker = self._looker = None

    def disown(self) -> None:
        """Carry nothing out any more: this is a fork of the program whose workers these are."""
        for kind in self._handlers:
            self._handlers[kind] = lambda command: None
        self._waiting.clear()
        self._subscriptions.clear()

    def end(self) -> None:
        """Stop all timers and end the subscriptions: nothing happens any more."""
        self._over = True
        self._scheduleReview(False)
        self.rest()
        subscriptions, self._subscriptions = self._subscriptions, []
        for subscription in subscriptions:
            subscription.end()

    @property
    def moment(self) -> float:
        """The reactor's time of the event whose commands are carried out."""
        if self._moment is None:
            self._moment = self.now()
        return self._moment

    def now(self) -> float:
        """Return the reactor's time, in seconds."""
        seconds: float = self.clock().seconds()
        return seconds

    def stamp(self) -> float:
        """Return the reactor's time to `STAMP` seconds."""
        now: float = (self.reactor or self.clock()).seconds()
        if not 0.0 <= now - self._stamped < STAMP:
            self._stamped = now
        return self._stamped

    def clock(self) -> Any:
        """Return the reactor. (Any: some of what a reactor can do is in no interface that a `Clock` provides.)"""
        if self.reactor is None:
            self.reactor = installedReactor(None)
        return self.reactor

    def _startTicker(self, command: Tick) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
        self._ticker = self.clock().callLater(command.budgets * BUDGET, self._ticked)

    def _ticked(self, drained: bool = False) -> None:
        """A tick is due. It comes one turn later, when the answers that came while the reactor was busy are read."""
        if not drained:
            self._ticker = self.clock().callLater(0, self._ticked, True)
            return
        self._ticker = None
        self.happened(self.scheduler.tick())

    def _scheduleReview(self, wanted: bool) -> None:
        """Review the calls that no worker is qualified for in `UNSERVED` seconds, or if that is not WANTED, do not."""
        if wanted and not self._over:
            self._reviewer = self.clock().callLater(UNSERVED, self._reviewed)
        elif self._reviewer is not None:
            self._reviewer.cancel()
            self._reviewer = None

    def _reviewed(self) -> None:
        self._reviewer = None
        self.happened(self.scheduler.reviewUnserved())

    def _looked(self) -> None:
        self._looker = None
        self.happened(self.scheduler.look())
