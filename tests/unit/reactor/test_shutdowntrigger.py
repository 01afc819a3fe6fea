"""A shutdown trigger fires once, and leaves nothing in the reactor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.task import Clock

from asynqueue.reactor.shutdowntrigger import ShutdownTrigger


class Reactor:
    """A reactor that has nothing but system events."""

    def __init__(self) -> None:
        self.triggers: dict[int, tuple[str, str, Callable[[], object]]] = {}
        self._count = 0

    def addSystemEventTrigger(self, phase: str, event: str, f: Callable[[], object]) -> Any:
        self._count += 1
        self.triggers[self._count] = phase, event, f
        return self._count

    def removeSystemEventTrigger(self, number: Any) -> None:
        del self.triggers[number]

    def shutDown(self) -> None:
        triggers, self.triggers = self.triggers, {}
        for _, _, f in triggers.values():
            f()


@pytest.mark.parametrize("phase", ["before", "during"])
def test_it_is_called_once_in_its_phase(phase: str) -> None:
    reactor, calls = Reactor(), list[int]()
    trigger = ShutdownTrigger(lambda: calls.append(1), phase)
    trigger.add(reactor)
    trigger.add(reactor)
    assert [each[:2] for each in reactor.triggers.values()] == [(phase, "shutdown")]
    reactor.shutDown()
    assert calls == [1]
    trigger.remove()
    trigger.add(reactor)
    assert len(reactor.triggers) == 1


def test_one_that_is_removed_is_not_called() -> None:
    reactor, calls = Reactor(), list[int]()
    trigger = ShutdownTrigger(lambda: calls.append(1))
    trigger.remove()
    trigger.add(reactor)
    trigger.remove()
    trigger.remove()
    reactor.shutDown()
    assert (calls, reactor.triggers) == ([], {})


def test_a_reactor_without_system_events_is_accepted() -> None:
    trigger = ShutdownTrigger(lambda: None)
    trigger.add(Clock())
    trigger.remove()
