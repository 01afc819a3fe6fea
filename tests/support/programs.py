"""Programs that tests start."""

from __future__ import annotations

import subprocess
from types import TracebackType
from typing import Any


class Program(subprocess.Popen[Any]):  # of bytes or text, as its keywords say
    """A process that is killed when the body of its ``with`` statement fails, so that nobody waits for it then."""

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait for the end of the process, which is near if the body has ended it."""
        if kind is not None:
            self.kill()
        super().__exit__(kind, value, traceback)
