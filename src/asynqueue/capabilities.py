"""The features of the operating system and the interpreter that AsynQueue uses and that some of them lack.

No feature is concluded from the name of the system, or from another feature. A *probe* tries the feature, once in a
process, when it is first needed. A sandbox may refuse what the kernel has, so a probe makes the call if it can. Where
the probe fails, AsynQueue does something else, and `FEATURES` says what. A feature that is *needed* has no substitute:
what needs it raises an error at once.

The environment variable `ASYNQUEUE_WITHOUT` takes features away, for tests: their names, separated by commas, or
``all``, which leaves those that are needed. Worker processes inherit it. ``python -m asynqueue`` prints the table.

Worker processes import this module: it imports almost nothing.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from functools import cache
from typing import NamedTuple

from asynqueue.errors import ProcessError

WITHOUT = "ASYNQUEUE_WITHOUT"

PLATFORMS = ("Linux", "macOS", "Windows", "FreeBSD", "gVisor", "PyPy")
"""The platforms of `Feature.lackedBy`. gVisor and PyPy are meant on Linux."""


class Feature(NamedTuple):
    """What some systems lack: there, PROBE raises an exception. LACKEDBY names them.

    USE says what AsynQueue does with the feature, and WITHOUT what it does without.
    """

    probe: Callable[[], object]
    lackedBy: tuple[str, ...]
    use: str
    without: str
    needed: bool = False


@cache
def has(name: str) -> bool:
    """Return whether feature NAME can be used in this process."""
    feature = FEATURES[name]
    taken = os.environ.get(WITHOUT, "").split(",")
    if name in taken or ("all" in taken and not feature.needed):
        return False
    try:
        feature.probe()
    except (AttributeError, ImportError, OSError, ValueError):
        return False
    return True


def openPidfd(pid: int) -> int | None:
    """Return a descriptor that becomes readable when process PID ends; None if there is no such descriptor."""
    try:
        return os.pidfd_open(pid) if has("pidfd_open") else None
    except OSError:
        return None


def proc(path: str) -> str:
    """Return the path of file PATH in /proc. Raise `OSError` if there is no /proc as Linux has it."""
    if not has("/proc"):
        raise FileNotFoundError(f"/proc/{path}")
    return f"/proc/{path}"


def descriptorLimit() -> int:
    """Return how many descriptors this process may have open."""
    return _limits() if has("getrlimit") else 256  # the default of macOS, the lowest of any system


def requirePosix(what: str) -> None:
    """Raise `ProcessError` if WHAT cannot be had, since it needs processes as POSIX has them."""
    if not has("posix"):
        raise ProcessError(
            f"{what} needs a POSIX system, and this is none: use threads, a wire or Dask (docs/platforms.md)"
        )


def _limits() -> int:
    import resource

    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if most == resource.RLIM_INFINITY else most


def _posix() -> None:
    import _posixsubprocess  # noqa: F401  # Python has it where processes inherit descriptors

    _ = signal.SIGKILL, os.WNOHANG, socket.MSG_DONTWAIT


def _passDescriptor() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        socket.send_fds(ours, [b"1"], [ours.fileno()])
        _, descriptors, _, _ = socket.recv_fds(theirs, 1, 1)
        for descriptor in descriptors or [-1]:
            os.close(descriptor)


def _remove() -> None:
    import mmap

    with mmap.mmap(-1, mmap.PAGESIZE) as memory:
        memory.madvise(mmap.MADV_REMOVE)


def _pidfd() -> None:
    descriptor = os.pidfd_open(os.getpid())
    try:
        signal.pidfd_send_signal(descriptor, 0)
    finally:
        os.close(descriptor)


def _signalOfPipe() -> None:
    import fcntl

    ends = os.pipe()
    try:
        fcntl.fcntl(ends[0], fcntl.F_SETSIG, int(signal.SIGURG))  # ignored, should it come
        fcntl.fcntl(ends[0], fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(ends[0], fcntl.F_SETFL, fcntl.fcntl(ends[0], fcntl.F_GETFL) | os.O_ASYNC)
    finally:
        for end in ends:
            os.close(end)


FEATURES: Mapping[str, Feature] = {
    "posix": Feature(
        _posix,
        ("Windows",),
        "Process workers, `killProcess`, `ServerManager`, and the check that other users cannot read a key's file",
        "Each is a `ProcessError` at once; a key's file is not checked",
        needed=True,
    ),
    "AF_UNIX": Feature(
        lambda: socket.AF_UNIX,
        ("Windows",),
        "Wires at `unix:` descriptions",
        "Each is a `ValueError` at once; `tcp:` and `tls:` work",
        needed=True,
    ),
    "memfd_create": Feature(
        lambda: os.close(os.memfd_create("asynqueue", os.MFD_CLOEXEC)),
        ("macOS", "Windows"),
        "Large values go to processes through shared memory",
        "Large values go through the link, slower",
    ),
    "SCM_RIGHTS": Feature(
        _passDescriptor,
        ("macOS", "Windows"),
        "The descriptor of shared memory goes over a socket that keeps messages apart",
        "Large values go through the link, slower",
    ),
    "MADV_REMOVE": Feature(
        _remove,
        ("macOS", "Windows", "FreeBSD", "gVisor"),
        "Shared memory that is not used again is freed at once",
        "Shared memory is freed when both processes have closed it",
    ),
    "eventfd": Feature(
        lambda: os.close(os.eventfd(0, os.EFD_CLOEXEC)),
        ("macOS", "Windows", "PyPy"),
        "A descriptor is held in reserve for shared memory",
        "A descriptor of `/dev/null` is held in reserve",
    ),
    "pidfd_open": Feature(
        _pidfd,
        ("macOS", "Windows", "FreeBSD", "gVisor", "PyPy"),
        "The exit of a process is noticed at once, and `killProcess` cannot hit another process",
        "A pipe reports the exit, perhaps later: what the process has started may hold it open. `killProcess` polls",
    ),
    "F_SETSIG": Feature(
        _signalOfPipe,
        ("macOS", "Windows", "FreeBSD"),
        "The kernel kills a worker process whose program has died",
        "A thread of the worker process ends it, unless it is stopped or its call holds the interpreter's lock",
    ),
    "register_at_fork": Feature(
        lambda: os.register_at_fork,
        ("Windows",),
        "A fork of the program, or of a worker process, leaves what belongs to the other alone",
        "Forks have to end the queue themselves (Windows has no forks)",
        needed=True,
    ),
    "pthread_sigmask": Feature(
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        ("Windows",),
        "Ctrl-C does not reach a worker process while it starts",
        "Ctrl-C may end a worker process that starts; another one takes its place",
    ),
    "SCHED_BATCH": Feature(
        lambda: (os.SCHED_BATCH, os.sched_setscheduler, os.sched_param),
        ("macOS", "Windows", "FreeBSD", "gVisor"),
        "A worker process that wakes up does not interrupt the program",
        "A worker process that wakes up may interrupt the program for some microseconds",
    ),
    "sched_yield": Feature(
        lambda: os.sched_yield(),
        ("Windows",),
        "A process that polls for an answer lets others run",
        "A process that polls for an answer keeps its core",
    ),
    "sched_getaffinity": Feature(
        lambda: os.sched_getaffinity(0),
        ("macOS", "Windows"),
        "`cores` counts the cores that this program may use",
        "`cores` counts the cores of the machine",
    ),
    "getrlimit": Feature(
        _limits,
        ("Windows",),
        "Shared memory takes a quarter of the descriptors at most",
        "Shared memory takes 64 descriptors at most",
    ),
    "setresuid": Feature(
        lambda: (os.getresuid(), os.getresgid(), os.setresuid, os.setresgid),
        ("macOS", "Windows"),
        "A worker process takes over the saved IDs of user and group",
        "A worker process takes over the real and the effective IDs only",
    ),
    "/proc": Feature(
        lambda: os.stat("/proc/self/statm"),
        ("macOS", "Windows", "FreeBSD"),
        "`maxMemory`, `memUsage`, the quota of a container in `cores`, zombies in `killProcess`, and the fork server's "
        "folder, which it removes after a program that was killed",
        "`maxMemory` is a `ProcessError` at once; `memUsage`, the quota and zombies are not known; the folder remains",
    ),
}
"""By name. (Whether SCHED_BATCH is permitted is only known when it is set.)"""
