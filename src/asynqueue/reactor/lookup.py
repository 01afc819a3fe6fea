"""The installed reactor."""

from __future__ import annotations

from typing import Any

from asynqueue.interfaces import Clock


def installedReactor(reactor: Clock | None) -> Clock:
    """Return REACTOR, or with None the installed one. If there is none, Twisted installs its default."""
    if reactor is not None:
        return reactor
    from twisted.internet import reactor as installed

    found: Any = installed  # its declared type has no methods for time
    clock: Clock = found
    return clock
