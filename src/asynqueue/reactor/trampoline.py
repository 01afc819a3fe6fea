"""Doing one thing after another."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

Command = TypeVar("Command")


class Trampoline(Generic[Command]):
    """Performs commands one after another: what comes while one is performed waits until that is done."""

    def __init__(self, perform: Callable[[Command], None]) -> None:
        self._perform = perform
        self._commands: deque[Command] = deque()
        self._performing = False

    def __call__(self, commands: Iterable[Command]) -> None:
        self._commands.extend(commands)
        if self._performing:
            return
        self._performing = True
        try:
            while self._commands:
                self._perform(self._commands.popleft())
        finally:
            self._performing = False
