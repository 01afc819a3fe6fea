"""The installed reactor, and what waits for it.

A queue may be made before a reactor is chosen: at the top of a module, or in a ``.tac`` file of a program that becomes
a daemon later. Making a queue therefore installs no reactor. What needs one waits, in order, until the program has it.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from typing import Any

from asynqueue.interfaces import Clock
from asynqueue.reactor.forks import refuseInherited

_waiting: deque[Callable[[Any], object]] = deque()


def installedReactor(reactor: Clock | None) -> Clock:
    """Return REACTOR, or with None the installed one. If there is none, Twisted installs its default.

    Raise `QueueRunError` in a fork of the program whose reactor it is.
    """
    refuseInherited(reactor)
    if reactor is not None:
        return reactor
    from twisted.internet import reactor as installed

    found: Any = installed  # its declared type has no methods for time
    clock: Clock = found
    while _waiting:
        _waiting.popleft()(clock)
    return clock


def whenInstalled(reactor: Clock | None, f: Callable[[Any], object]) -> None:
    """Call F with the reactor: now if there is one, else as soon as `installedReactor` returns one."""
    if reactor is None and "twisted.internet.reactor" not in sys.modules:
        _waiting.append(f)
    else:
        f(installedReactor(reactor))


def whenRunning(reactor: Clock | None, f: Callable[[], object]) -> None:
    """Call F when the reactor runs: now if it does, or if it is a clock, which never runs."""

    def wait(found: Any) -> None:
        if getattr(found, "running", True):
            f()
        else:
            found.callWhenRunning(f)

    whenInstalled(reactor, wait)
