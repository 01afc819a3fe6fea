"""End a process when another one dies."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys


def dieWithPipe(lifeline: int) -> None:
    """Let the kernel end this process when the other end of LIFELINE is closed, even if this process is busy.

    LIFELINE is the reading end of a pipe to which no process writes. When the process with the writing end dies, the
    kernel sends SIGIO to the owner of the reading end. SIGIO ends a process that does not handle it.
    """
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([lifeline], [], [], 0)[0]:
        sys.exit("the parent process has died")
