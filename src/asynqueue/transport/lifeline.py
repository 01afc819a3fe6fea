"""A process that ends when another one does."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys


def dieWithPipe(lifeline: int) -> None:
    """Have the kernel end this process when LIFELINE is hung up, however busy it is.

    LIFELINE is the reading end of a pipe in which nothing is ever written. When whoever holds the writing end dies the
    pipe is hung up, and the owner of the reading end gets SIGIO, which ends a process that does not handle it.
    """
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([lifeline], [], [], 0)[0]:
        sys.exit("the parent is gone")
