"""The end of a process, asked for and seen to."""

from __future__ import annotations

import os
import signal
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from asynqueue.interfaces import Clock
from asynqueue.iteration.delay import Delay
from asynqueue.reactor.lookup import installedReactor

__all__ = ["killProcess"]


def killProcess(pid: int, grace: float = 5.0, *, reactor: Clock | None = None) -> Deferred[bool]:
    """End the process PID, any process that we may signal, and wait until it is gone.

    It gets SIGTERM, and SIGKILL if it is still there in GRACE seconds (0 or more). The Deferred fires with
    whether it was alive; a zombie was not. A child of ours is reaped, so whoever else waits for it
    (`subprocess`, `multiprocessing`) does not learn its exit status. Where the system and the reactor can
    watch a process (Linux) nothing is polled. Cancel the Deferred to stop waiting; the signals sent are
    sent.

    Our own pid, or one below 1, which would mean many processes, is a `ValueError`. A process of somebody
    else's fails the Deferred with `PermissionError`.

    Example: ``wasAlive = await killProcess(child.pid, grace=1.0)``
    """
    if type(pid) is not int or not 1 <= pid < 1 << 31 or pid == os.getpid():
        raise ValueError(f"pid must be that of one other process, got {pid!r}")
    if not grace >= 0:
        raise ValueError(f"grace must be 0 seconds or more, got {grace!r}")
    return Deferred.fromCoroutine(_kill(pid, grace, installedReactor(reactor)))


async def _kill(pid: int, grace: float, clock: Any) -> bool:
    # Any: what Twisted asks of a clock, and says of readers, its zope interfaces tell to mypy alone.
    pidfd = _pidfd(pid) if IReactorFDSet.providedBy(clock) else None
    try:
        if _gone(pid):
            return False
        for number, patience in (signal.SIGTERM, grace), (signal.SIGKILL, None):
            try:
                # By its descriptor, since a number may have passed on to another process by now.
                os.kill(pid, number) if pidfd is None else signal.pidfd_send_signal(pidfd, number)
            except ProcessLookupError:
                pass  # it went by itself, as will be seen at once
            if await _untilGone(pid, pidfd, patience, clock):
                break
        _reap(pid)
        return True
    finally:
        if pidfd is not None:
            os.close(pidfd)


async def _untilGone(pid: int, pidfd: int | None, patience: float | None, clock: Any) -> bool:
    """Whether the process went in PATIENCE seconds (None: however long it takes)."""
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
        """The reactor lets go of every reader when it ends."""

    def logPrefix(self) -> str:
        return "killProcess"


def _pidfd(pid: int) -> int | None:
    """A descriptor that is readable once the process has ended; None where there is none to be had."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def _gone(pid: int) -> bool:
    """Whether the process has ended, reaped or not, reaping it if it is our child."""
    if _reap(pid):
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            # The state follows the command, which is in parentheses and may hold some itself.
            return stat.read().rpartition(b") ")[2][:1] in (b"Z", b"X")
    except OSError:
        return False


def _reap(pid: int) -> bool:
    """Whether the process was a child of ours, had ended, and has now been waited for."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return False
