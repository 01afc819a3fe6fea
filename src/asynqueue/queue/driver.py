"""What happens to a queue -> the scheduler's commands, carried out in order and one at a time.

A command that makes something else happen adds to the list, it does not nest. When the list is empty, those who wait
for room are told, one by one, as long as there is some; then those who want to know how many calls are unfinished.
How a command is carried out is not known here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from asynqueue.core.records import Recalled
from asynqueue.core.scheduling.commands import Assign, Command
from asynqueue.core.scheduling.scheduler import Scheduler
from asynqueue.core.scheduling.window import BUDGET, LOOK
from asynqueue.errors import QueueRunError
from asynqueue.interfaces import Clock, Consumer, DelayedCall
from asynqueue.queue.subscription import Subscription
from asynqueue.reactor.lookup import installedReactor

STAMP = 1e-4
"""Seconds by which it may be earlier that a call is said to have been queued."""

_log = Logger(namespace="asynqueue")


class Driver:
    """Drives SCHEDULER: has DO carry out each of its commands.

    MAXQUEUED calls or more in the queue are too many for those who wait for room.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        do: Callable[[Command], None],
        maxQueued: int | None,
        reactor: Clock | None,
    ) -> None:
        self.scheduler = scheduler
        self._do = do
        self._maxQueued = maxQueued
        self.reactor = reactor
        self._todo: deque[Command] = deque()
        self._doing = False
        self._readying: deque[Deferred[None]] = deque()
        self._subscriptions: list[Subscription] = []
        self._over = False
        self._ticker: DelayedCall | None = None
        self._looker: DelayedCall | None = None
        self._stamped = 0.0
        self.moment: float = 0.0  # when what is being carried out has happened, as the reactor tells the time

    def happened(self, commands: list[Command]) -> None:
        """Carry out COMMANDS after those before them; then tell who waits for room, if there is some."""
        self._todo.extend(commands)
        if self._doing:
            return
        if self._todo or self._readying:
            self._doAll()
        if self._looker is None and self.scheduler.watching:
            self._looker = self.clock().callLater(LOOK, self._looked)
        for subscription in self._subscriptions:
            subscription.changed()

    def _doAll(self) -> None:
        self._doing = True
        self.moment = self.now()
        do = self._do
        try:
            while True:
                if self._todo:
                    command = self._todo.popleft()
                    try:
                        do(command)
                    except BaseException:  # what comes after it must not wait for whatever happens next
                        _log.failure("what a queue was to do went wrong: {command}", command=command)
                elif self._readying and (self._maxQueued is None or self.scheduler.queued < self._maxQueued):
                    self._readying.popleft().callback(None)
                else:
                    break
        finally:
            self._doing = False

    def following(self, first: Assign) -> list[Assign]:
        """What the worker of FIRST, which is being carried out, is to be given next: it is carried out with it."""
        more: list[Assign] = []
        todo = self._todo
        while todo and isinstance(command := todo[0], Assign) and command.worker == first.worker:
            more.append(command)
            todo.popleft()
        return more

    def later(self, commands: list[Command]) -> None:
        """Carry out COMMANDS before those of what happens next."""
        self._todo.extend(commands)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Carry out nothing meanwhile: all that happens is one thing, carried out in the end."""
        doing, self._doing = self._doing, True
        try:
            yield
        finally:
            self._doing = doing
        self.happened([])

    def takeBack(self, workerID: int) -> list[Command]:
        """What a worker was about to be given, it is not given, and is not charged with."""
        unsent = [x.ticket for x in self._todo if isinstance(x, Assign) and x.worker == workerID]
        self._todo = deque(x for x in self._todo if not (isinstance(x, Assign) and x.worker == workerID))
        return [command for ticket in unsent for command in self.scheduler.finished(ticket, Recalled())]

    def ready(self) -> Deferred[None]:
        """Fires when there is room."""
        ready: Deferred[None] = Deferred(lambda d: self._readying.remove(d))
        self._readying.append(ready)
        self.happened([])
        return ready

    def subscribe(self, consumer: Consumer) -> None:
        """Write the number of unfinished calls to CONSUMER, now and whenever it changes."""
        if self._over:
            raise QueueRunError("the queue is not running: its number of calls will not change")
        self._subscriptions.append(Subscription(consumer, lambda: self.scheduler.unfinished))

    def startTicker(self, budgets: int) -> None:
        """The scheduler wants to know when so many BUDGETS have passed, to see which worker is slow."""
        if self._ticker is not None:
            self._ticker.cancel()
        self._ticker = self.clock().callLater(budgets * BUDGET, self._ticked)

    def end(self) -> None:
        """Nothing will happen any more."""
        self._over = True
        for timer in (self._ticker, self._looker):
            if timer is not None and timer.active():
                timer.cancel()
        subscriptions, self._subscriptions = self._subscriptions, []
        for subscription in subscriptions:
            subscription.end()

    def now(self) -> float:
        """The time in seconds, as the reactor tells it."""
        seconds: float = self.clock().seconds()
        return seconds

    def stamp(self) -> float:
        """The time to `STAMP` seconds. Calls that are queued at once have one number for it, and not one each."""
        now = self.now()
        if not 0.0 <= now - self._stamped < STAMP:
            self._stamped = now
        return self._stamped

    def clock(self) -> Any:
        """The reactor. (Some of what one can do has no interface that a `Clock` provides: hence Any.)"""
        if self.reactor is None:
            self.reactor = installedReactor(None)
        return self.reactor

    def _ticked(self, heard: bool = False) -> None:
        """The time has come: when what came while this reactor was busy is HEARD."""
        if not heard:
            self._ticker = self.clock().callLater(0, self._ticked, True)
            return
        self._ticker = None
        self.happened(self.scheduler.tick())

    def _looked(self) -> None:
        self._looker = None
        self.happened(self.scheduler.look())
