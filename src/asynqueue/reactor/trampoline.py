"""Perform commands one after another."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

Command = TypeVar("Command")


class Trampoline(Generic[Command]):
    """Performs commands in order. A command that comes while another is performed waits until that has ended."""

    def __init__(self, perform: Callable[[Command], None]) -> None:
        self._perform = perform
        self._commands: deque[Command] = deque()
        self._performing = False

    def __call__(self, commands: Iterable[Command]) -> None:
        """Perform COMMANDS, now or after the one that is being performed."""
        self._commands.extend(commands)
        if self._performing:
            return
        self._performing = True
        try:
            while self._commands:
                self._perform(self._commands.popleft())
        finally:
            self._performing = False
