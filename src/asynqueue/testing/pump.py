"""How the kit, whose rules are plain functions, lets a reactor turn.

A rule of a Hypothesis state machine cannot wait for a Deferred, so the kit turns the reactor itself. A
`ClockTurner` advances a `twisted.internet.task.Clock`; where nothing is due any more and something is still waited
for, it will never come, and that is known at once. A `ReactorTurner` turns the installed reactor: under
pytest-twisted, which has it running already in a greenlet, by waiting there; elsewhere (pytest alone, unittest,
trial) by `iterate`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.task import Clock, deferLater

from asynqueue.reactor.lookup import installedReactor

TURN = 0.001
"""The most seconds that one turn of a real reactor waits for something to happen."""

MOST_TURNS = 100_000
"""Turns of a clock after which what has not happened is held never to happen."""


class Turner(Protocol):
    """Lets things happen."""

    def begin(self) -> None:
        """Get ready to turn."""

    def turn(self) -> None:
        """Let happen what is due, and come back soon."""

    def until(self, condition: Callable[[], bool]) -> bool:
        """Let things happen until CONDITION holds. False when it will not."""
        raise NotImplementedError

    def close(self) -> None:
        """Turn no more, for now."""


class ClockTurner:
    """Turns CLOCK."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def begin(self) -> None:
        """There is nothing to get ready."""

    def turn(self) -> None:
        """Let happen what is due now."""
        self._clock.advance(0)

    def until(self, condition: Callable[[], bool]) -> bool:
        """Advance from one delayed call to the next until CONDITION holds. False when there is none left."""
        for _ in range(MOST_TURNS):
            if condition():
                return True
            calls: Any = self._clock.getDelayedCalls()  # zope's interfaces say what they are
            if not calls:
                return False
            self._clock.advance(max(0.0, min(call.getTime() for call in calls) - self._clock.seconds()))
        return False

    def close(self) -> None:
        """There is nothing to close."""


class ReactorTurner:
    """Turns the installed reactor, for PATIENCE seconds at most until something comes true."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._reactor: Any = installedReactor(None)  # no interface says that a reactor can be turned from outside
        self._blockon: Callable[[Any], object] | None = None

    def begin(self) -> None:
        """Get ready to turn. Raises RuntimeError where the reactor runs and nobody can wait for it."""
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
                "pytest-twisted runs test functions in the reactor, where nobody can wait for it: run the kit by its "
                "TestCase, as in TestMyWorker = MyWorkerConformance.TestCase"
            ) from error

    def turn(self) -> None:
        """Let happen what happens in the next thousandth of a second."""
        if self._blockon is None:
            self._reactor.iterate(TURN)
        else:
            self._blockon(deferLater(self._reactor, TURN))

    def until(self, condition: Callable[[], bool]) -> bool:
        """Turn until CONDITION holds. False when patience is at an end."""
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
                self._reactor._stopThreadPool()  # as trial does; it would outlive the interpreter
            self._reactor.crash()
