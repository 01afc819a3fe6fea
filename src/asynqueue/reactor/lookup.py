"""The installed reactor."""

from __future__ import annotations

from typing import Any

from asynqueue.interfaces import Clock


def installedReactor(reactor: Clock | None) -> Clock:
    """REACTOR, or with None the one that is installed, which is the default one if none was."""
    if reactor is not None:
        return reactor
    from twisted.internet import reactor as installed

    found: Any = installed  # its type says nothing of time
    clock: Clock = found
    return clock
