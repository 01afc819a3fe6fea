"""End a process when another one dies."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys


def dieWithPipe(lifeline: int) -> None:
    """Let the kernel end this process when the other end of LIFELINE is closed, whatever this process does.

    LIFELINE is the reading end of a pipe to which no process writes. When the last process with the writing end dies,
    the kernel signals the owner of the reading end. Linux can send SIGKILL then, which also ends a process that is
    stopped, and which cannot be blocked or ignored. Other systems send SIGIO, which ends a process that does not
    handle it.
    """
    if not _killsByPipe(lifeline):
        signal.signal(signal.SIGIO, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGIO})
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    poll = select.poll()  # not `select`, which knows the first 1,024 descriptors only
    poll.register(lifeline, select.POLLIN)
    if poll.poll(0):
        sys.exit("the parent process has died")


def _killsByPipe(lifeline: int) -> bool:
    """Have the kernel send SIGKILL for LIFELINE. Return False if it cannot."""
    setSignal: int | None = getattr(fcntl, "F_SETSIG", None)
    if setSignal is None:
        return False
    try:
        fcntl.fcntl(lifeline, setSignal, int(signal.SIGKILL))
    except OSError:
        return False  # a sandbox may not know it
    return True


def disown(*descriptors: int) -> None:
    """Put /dev/null in the place of DESCRIPTORS, which belong to another process than this one.

    So what is open at their other ends does not wait for this process. Their numbers stay taken, so that objects that
    still use them do no harm to a file that is opened later.
    """
    null = os.open(os.devnull, os.O_RDWR)
    try:
        for descriptor in descriptors:
            os.dup2(null, descriptor, inheritable=False)
    finally:
        os.close(null)
