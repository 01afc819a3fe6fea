"""The calls that an `asynqueue.info.Info` knows: the current one, and others by their IDs."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import attrs

from asynqueue.core.records import CallSpec
from asynqueue.info.text import callText

REMEMBERED = 1000
"""How many calls an `Info` remembers, besides those with an open context."""


@attrs.frozen(eq=False)
class KnownCall:
    """One call, its TEXT when it was set, and the NOTES saved with it."""

    ID: int
    spec: CallSpec[Any]  # Any, for calls of any result
    text: str
    instance: object = None
    thread: str | None = None
    notes: Mapping[str, Any] = attrs.field(factory=dict)  # Any, for whatever a user saves

    def callDict(self) -> dict[str, Any]:
        """Return what was set, in the form of AsynQueue 0.9."""
        f = self.spec.f
        given = {
            "f": f,
            "fs": callText(CallSpec(f), self.instance)[: -len("()")],
            "args": self.spec.args,
            "kw": dict(self.spec.kw),
            "instance": self.instance,
        }
        return given if self.thread is None else {**given, "thread": self.thread}


class KnownCalls:
    """The current call, the last calls that are remembered, and those that are held, which no later call pushes out."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._current: KnownCall | None = None
        self._past: dict[int, KnownCall] = {}
        self._held: dict[int, KnownCall] = {}

    @property
    def ID(self) -> int | None:
        """The ID of the current call, if there is one."""
        return None if self._current is None else self._current.ID

    def find(self, ID: int | None) -> KnownCall | None:
        """Return the call of ID, which is the current one for None, if it is known."""
        current = self._current
        if ID is None or (current is not None and current.ID == ID):
            return current
        return self._held.get(ID) or self._past.get(ID)

    def set(self, call: KnownCall, remember: bool) -> None:
        """Make CALL the current one."""
        self._current = call
        if remember:
            with self._lock:
                self._past[call.ID] = call
                while len(self._past) > REMEMBERED:
                    del self._past[next(iter(self._past))]

    def hold(self, call: KnownCall) -> None:
        """Make CALL the current one, and hold it until it is forgotten."""
        self._current = self._held[call.ID] = call

    def forget(self, ID: int | None) -> None:
        """Forget the call of ID, if it is known."""
        with self._lock:
            for calls in self._past, self._held:
                if ID is not None:
                    calls.pop(ID, None)
            if self.ID == ID:
                self._current = None

    def note(self, ID: int | None, name: str, x: Any) -> None:
        """Add X to the notes of a call, under NAME, if the call is known."""
        with self._lock:
            call = self.find(ID)
            if call is not None:
                noted = attrs.evolve(call, notes={**call.notes, name: x})
                for calls in self._past, self._held:
                    if call.ID in calls:
                        calls[call.ID] = noted
                if self.ID == call.ID:
                    self._current = noted
