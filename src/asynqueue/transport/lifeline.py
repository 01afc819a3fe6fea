"""End a process when another one dies."""

from __future__ import annotations

import os
import select
import signal
import sys
from threading import Thread

from asynqueue.capabilities import has


def dieWithPipe(lifeline: int) -> None:
    """End this process when the other end of LIFELINE is closed, whatever this process does.

    LIFELINE is the reading end of a pipe to which no process writes. When the last process with the writing end dies,
    the kernel signals the owner of the reading end. Linux sends SIGKILL then, which also ends a process that is
    stopped, and which cannot be blocked or ignored. Other systems can send SIGIO only, which they ignore by default.
    There, a thread waits for the end of the pipe.
    """
    ended = select.poll()  # not `select`, which knows the first 1,024 descriptors only
    ended.register(lifeline, select.POLLIN)
    if has("F_SETSIG"):
        import fcntl

        fcntl.fcntl(lifeline, fcntl.F_SETSIG, int(signal.SIGKILL))
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
        if ended.poll(0):
            sys.exit("the parent process has died")
    else:
        Thread(target=_killAfter, args=(ended,), name="asynqueue-lifeline", daemon=True).start()


def _killAfter(end: select.poll) -> None:
    end.poll()
    os.kill(os.getpid(), signal.SIGKILL)


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
