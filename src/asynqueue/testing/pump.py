"""Run the reactor from plain functions.

A rule of a Hypothesis state machine cannot wait for a Deferred, so the kit runs the reactor itself, turn by turn.

- A `ClockTurner` advances a `twisted.internet.task.Clock`. If no delayed call is left, an awaited event never comes,
  and that is known at once.
- A `ReactorTurner` turns the installed reactor. Under pytest-twisted, where the reactor runs in a greenlet, it waits
  there. Elsewhere (pytest alone, unittest, trial) it calls `iterate`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.task import Clock, deferLater

from asynqueue.reactor.lookup import installedReactor

TURN = 0.001
"""The maximum time that one turn of a real reactor waits, in seconds."""

MOST_TURNS = 100_000
"""The number of a clock's turns after which an event counts as never coming."""


class Turner(Protocol):
    """Runs a reactor or a clock, turn by turn."""

    def begin(self) -> None:
        """Prepare."""

    def turn(self) -> None:
        """Run what is due, and return soon."""

    def until(self, condition: Callable[[], bool]) -> bool:
        """Run until CONDITION holds. Return False if it never will."""
        raise NotImplementedError

    def close(self) -> None:
        """Stop running, for now."""


class ClockTurner:
    """Turns CLOCK."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def begin(self) -> None:
        """Do nothing."""

    def turn(self) -> None:
        """Run what is due now."""
        self._clock.advance(0)

    def until(self, condition: Callable[[], bool]) -> bool:
        """Advance from one delayed call to the next until CONDITION holds. Return False if none is left."""
        for _ in range(MOST_TURNS):
            if condition():
                return True
            calls: Any = self._clock.getDelayedCalls()  # Any, because zope's interfaces have the types
            if not calls:
                return False
            self._clock.advance(max(0.0, min(call.getTime() for call in calls) - self._clock.seconds()))
        return False

    def close(self) -> None:
        """Do nothing."""


class ReactorTurner:
    """Turns the installed reactor, for at most PATIENCE seconds until a condition holds."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._reactor: Any = installedReactor(None)  # Any, because no interface has `iterate`
        self._blockon: Callable[[Any], object] | None = None

    def begin(self) -> None:
        """Prepare. Raise RuntimeError if the reactor runs already and cannot be waited for."""
        if not self._reactor.running:
            self._reactor.startRunning(installSignalHandlers=False)
            return
        plugin: Any = sys.modules.get("pytest_twisted")
        if plugin is None:
            raise RuntimeError(
                "the reactor is running already, so the kit cannot turn it: run the test with pytest-twisted, or with "
                "no reactor running, or override makeTurner"
            )
        self._blockon = plugin.blockon
        try:
            self.turn()
        except AssertionError as error:
            raise RuntimeError(
                "pytest-twisted runs test functions in the reactor, which then cannot be turned: run the kit by its "
                "TestCase, as in TestMyWorker = MyWorkerConformance.TestCase"
            ) from error

    def turn(self) -> None:
        """Run what happens in the next millisecond."""
        if self._blockon is None:
            self._reactor.iterate(TURN)
        else:
            self._blockon(deferLater(self._reactor, TURN))

    def until(self, condition: Callable[[], bool]) -> bool:
        """Turn until CONDITION holds. Return False after the time limit."""
        deadline = time.monotonic() + self._patience
        while not condition():
            if time.monotonic() > deadline:
                return False
            self.turn()
        return True

    def close(self) -> None:
        """Leave the reactor as it was: not running, and without threads of its own."""
        if self._blockon is None and self._reactor.running:
            self._reactor.iterate(0)
            if self._reactor.threadpool is not None:
                self._reactor._stopThreadPool()  # as trial does, because the pool would outlive the interpreter
            self._reactor.crash()
