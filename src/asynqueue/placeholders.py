"""The names of AsynQueue 0.9 that have no counterpart. They can be imported; their use says what to write instead.

`GONE` has them by module. A module of 0.9 finds them by `gone` in its ``__getattr__``. So a program that imports such a
name runs, unless it uses the name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from asynqueue.errors import ImplementationError

_SCHEDULER = "the scheduler of a TaskQueue does that, and has no public parts"
_TESTS = "it was for the tests of 0.9; copy what you need into your own"
_WIRE = "the wire has a protocol of its own; use WireWorker and WireServer"

GONE: Mapping[str, Mapping[str, str]] = {
    "asynqueue.base": {
        "LoadInfoProducer": "use TaskQueue.subscribe(consumer)",
        "Priority": _SCHEDULER,
        "Queue": "use TaskQueue",
    },
    "asynqueue.misc": {"TestMethods": _TESTS, "TestUniverse": _TESTS},
    "asynqueue.tasks": {
        "Assignment": _SCHEDULER,
        "AssignmentFactory": _SCHEDULER,
        "TaskFactory": "use CallSpec and TaskQueue.submit",
        "TaskHandler": _SCHEDULER,
    },
    "asynqueue.util": {
        "ProcessProtocol": "use twisted.internet.protocol.ProcessProtocol, or wire.ServerManager",
        "TestStuff": _TESTS,
        "testFunction": _TESTS,
    },
    "asynqueue.va": {"VA": "use the methods of dict; Python 2 is not supported"},
    "asynqueue.wire": {"ChunkyString": _WIRE, "GetNext": _WIRE, "RunTask": _WIRE, "WireRunner": _WIRE},
}


class Placeholder:
    """Stands for NAME, a name of 0.9. Every use raises `ImplementationError`, which says what to use INSTEAD."""

    def __init__(self, name: str, instead: str) -> None:
        self._text = f"{name} was a name of AsynQueue 0.9 and is gone: {instead}"

    def __repr__(self) -> str:
        return f"<placeholder: {self._text}>"

    def __call__(self, *args: Any, **kw: Any) -> NoReturn:
        """Refuse a call."""
        raise ImplementationError(self._text)

    def __mro_entries__(self, bases: tuple[Any, ...]) -> NoReturn:
        """Refuse to be the base of a class."""
        raise ImplementationError(self._text)

    def __instancecheck__(self, instance: object) -> bool:
        """Return False: nothing is an instance of a class that is gone."""
        return False

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)  # Python itself looks for these
        raise ImplementationError(self._text)


def gone(module: str, name: str) -> Placeholder:
    """Return the placeholder for NAME in MODULE. Raise `AttributeError` if 0.9 had no such name."""
    instead = GONE.get(module, {}).get(name)
    if instead is None:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    return Placeholder(f"{module}.{name}", instead)
