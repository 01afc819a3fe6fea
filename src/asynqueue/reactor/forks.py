"""What becomes of queues, threads and connections in a fork of the program.

A fork has a copy of everything, but only one thread. Sockets, processes and the poller of the reactor are shared with
the program. So what was in use when the program forked must not be used in the fork: calls there raise an error, a
shutdown ends nothing of the program's, and a reactor that ran is refused to new queues. Deferreds that the program
waits for do not fire in the fork.

A program that forks before its reactor runs, for example to become a daemon, has used nothing yet: its fork goes on.

Nothing of this costs a call anything: the system calls `_forked` in each fork.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from typing import Any
from weakref import ref

from asynqueue.capabilities import has
from asynqueue.errors import QueueRunError

FORKED = "this process is a fork of a program that uses AsynQueue"
"""The beginning of the message of each error that refuses something in a fork."""


_watched: dict[int, tuple[ref[Any], Callable[[Any], None]]] = {}  # by the id() of the objects: some have no hash
_kept: list[object] = []
_inherited: object = None  # the reactor that ran when the program forked


def watch(disown: Callable[[], None]) -> None:
    """Call DISOWN, a method, in each fork of the program, as long as its object lives.

    It has to give up what belongs to the program.
    """
    method: Any = disown
    number, forget = id(method.__self__), _watched.pop  # A callback may come when this module is no more.
    _watched[number] = ref(method.__self__, lambda _: forget(number, None)), method.__func__


def keep(*things: object) -> None:
    """Keep THINGS in this fork, because they would end what belongs to the program when they are collected."""
    _kept.extend(things)


def isRunning(reactor: Any) -> bool:
    """Return whether REACTOR runs; with None, the installed one. One that cannot tell, such as a clock, always does."""
    found: Any = installed() if reactor is None else reactor
    return found is not None and bool(getattr(found, "running", True))


def installed() -> Any:
    """Return the installed reactor, or None."""
    return sys.modules.get("twisted.internet.reactor")


def refuseInherited(reactor: Any) -> None:
    """Raise `QueueRunError` if REACTOR, or with None the installed one, is the program's, which cannot run here."""
    if _inherited is not None and (installed() if reactor is None else reactor) is _inherited:
        raise QueueRunError(
            f"{FORKED}, whose reactor cannot run here: start this process by another method than fork, or give it a "
            "reactor of its own (del sys.modules['twisted.internet.reactor'], then install one)"
        )


def _forked() -> None:
    global _inherited
    running, before = installed(), _inherited
    _inherited = None  # What is disowned in a fork of a fork is the program's, too, and refers to its reactor.
    for reference, disown in list(_watched.values()):
        owner = reference()
        if owner is not None:
            try:
                disown(owner)
            except BaseException:  # It must not keep the others from giving up what is the program's.
                traceback.print_exc()
    _inherited = running if isRunning(running) else before


if has("posix"):  # Others have no forks.
    os.register_at_fork(after_in_child=_forked)
