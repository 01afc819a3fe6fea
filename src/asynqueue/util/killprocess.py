"""End a process and wait until it is gone."""

from __future__ import annotations

import os
import signal
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from asynqueue.capabilities import openPidfd, proc, requirePosix
from asynqueue.interfaces import Clock
from asynqueue.iteration.delay import Delay
from asynqueue.reactor.lookup import installedReactor

__all__ = ["killProcess"]


def killProcess(pid: int, grace: float = 5.0, *, reactor: Clock | None = None) -> Deferred[bool]:
    """End a process and wait until it is gone.

    The process gets SIGTERM, and SIGKILL if it still runs after `grace` seconds. Any process that this user may signal
    is accepted. A child process is reaped, so `subprocess` and `multiprocessing` do not get its exit status. On Linux,
    with a reactor that watches file descriptors, nothing is polled.

    Args:
        pid: The process ID of another process, 1 or more.
        grace: The time between SIGTERM and SIGKILL in seconds, 0 or more.
        reactor: The reactor. None is the installed one.

    Returns:
        A Deferred of True if the process was alive, and of False if it was gone or a zombie. Cancelling it ends the
        wait, but the signals that were sent stay sent. It fails with `PermissionError` if this user may not signal the
        process.

    Raises:
        ValueError: `pid` is this process, or not a process ID, or `grace` is negative.
        ProcessError: This is no POSIX system.

    Example: ``wasAlive = await killProcess(child.pid, grace=1.0)``
    """
    if type(pid) is not int or not 1 <= pid < 1 << 31 or pid == os.getpid():
        raise ValueError(f"pid must be the ID of one other process, got {pid!r}")
    if not grace >= 0:
        raise ValueError(f"grace must be 0 seconds or more, got {grace!r}")
    requirePosix("killProcess")
    return Deferred.fromCoroutine(_kill(pid, grace, installedReactor(reactor)))


async def _kill(pid: int, grace: float, clock: Any) -> bool:
    # Any, because the reactor is used by several zope interfaces, which only mypy's plugin knows.
    pidfd = openPidfd(pid) if IReactorFDSet.providedBy(clock) else None
    try:
        if _gone(pid):
            return False
        for number, patience in (signal.SIGTERM, grace), (signal.SIGKILL, None):
            try:
                # The descriptor is safe: the kernel may have given the number to another process by now.
                os.kill(pid, number) if pidfd is None else signal.pidfd_send_signal(pidfd, number)
            except ProcessLookupError:
                pass  # it has ended by itself, which the next line notices
            if await _untilGone(pid, pidfd, patience, clock):
                break
        _reap(pid)
        return True
    finally:
        if pidfd is not None:
            os.close(pidfd)


async def _untilGone(pid: int, pidfd: int | None, patience: float | None, clock: Any) -> bool:
    """Return whether the process ended within PATIENCE seconds (None is no limit)."""
    if pidfd is None:
        return bool(await Delay(0.01, timeout=patience, reactor=clock).untilEvent(_gone, pid))
    ended: Deferred[None] = Deferred()
    reader = _WhenReadable(pidfd, ended)
    clock.addReader(reader)
    try:
        await (ended if patience is None else ended.addTimeout(patience, clock))
    except DeferredTimeoutError:
        return False
    finally:
        clock.removeReader(reader)
    return True


@implementer(IReadDescriptor)
class _WhenReadable:
    """Fires a Deferred once a file descriptor is readable."""

    def __init__(self, fd: int, d: Deferred[None]) -> None:
        self._fd = fd
        self._d = d

    def fileno(self) -> int:
        return self._fd

    def doRead(self) -> None:
        if not self._d.called:
            self._d.callback(None)

    def connectionLost(self, reason: Failure) -> None:
        """Do nothing: the reactor removes every reader when it ends."""

    def logPrefix(self) -> str:
        return "killProcess"


def _gone(pid: int) -> bool:
    """Return whether the process has ended. A child is also reaped."""
    if _reap(pid):
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    try:
        with open(proc(f"{pid}/stat"), "rb") as stat:
            # The state follows the command, which is in parentheses and may contain parentheses.
            return stat.read().rpartition(b") ")[2][:1] in (b"Z", b"X")
    except OSError:
        return False


def _reap(pid: int) -> bool:
    """Reap the process. Return whether it was an ended child of ours."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return False
