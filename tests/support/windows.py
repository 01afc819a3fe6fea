"""An interpreter like that of Windows, as far as this goes: what Python lacks there is gone, for later imports.

It is imported first. Twisted and Dask have other modules for Windows, and are imported here, before anything is gone.
"""

from __future__ import annotations

import mmap
import os
import platform
import select
import signal
import socket
import sys
import sysconfig
from functools import partial
from importlib import import_module

from twisted.internet import selectreactor

CHOOSING = (
    "asyncio", "distributed", "multiprocessing.forkserver", "subprocess", "tempfile", "twisted.application.internet",
    "twisted.internet.endpoints", "twisted.internet.ssl", "twisted.internet.threads",
)  # fmt: skip
"""Modules that choose at their import by what the system has."""

MODULES = (
    "_posixshmem", "_posixsubprocess", "fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty",
)  # fmt: skip
MISSING = {
    mmap: ("MAP_", "PROT_", "MADV_"),
    os: (
        "O_ASYNC", "O_CLOEXEC", "SCHED_", "WNOHANG", "chown", "chroot", "environb", "eventfd", "fchmod", "fchown",
        "fork", "getegid", "geteuid", "getgid", "getgroups", "getpgid", "getpriority", "getres", "getsid", "getuid",
        "killpg", "memfd_", "mkfifo", "nice", "pidfd_", "posix_", "register_at_fork", "sched_", "sete", "setg", "setpg",
        "setre", "setsid", "setuid", "uname", "wait",
    ),
    select: ("PIPE_BUF", "epoll", "poll", "POLL"),
    signal: (
        "SIGALRM", "SIGHUP", "SIGIO", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGSTOP", "SIGURG", "SIGUSR", "SIG_BLOCK",
        "SIG_SETMASK", "SIG_UNBLOCK", "alarm", "pidfd_", "pthread_", "setitimer", "sigwait",
    ),
    socket: ("AF_UNIX", "CMSG_", "MSG_DONTWAIT", "SCM_", "SOCK_SEQPACKET", "recv_fds", "send_fds"),
}  # fmt: skip
"""What is gone: names that begin like this. (Not what this system's Twisted and Dask need themselves.)"""

for name in CHOOSING:
    import_module(name)
selectreactor.install()
sysconfig.get_config_vars()  # which are found by the name of the platform
socket.socketpair = partial(socket.socketpair, socket.AF_UNIX)  # of another family there
platform.uname()  # which is remembered; Python 3.13 would run a program of Windows for it
if hasattr(os, "process_cpu_count"):
    os.process_cpu_count = os.cpu_count  # Python 3.13 chooses it at its start, as that does for Windows
for name in MODULES:
    sys.modules[name] = None  # type: ignore[assignment]  # so `import` fails
for module, beginnings in MISSING.items():
    for name in [name for name in dir(module) if name.startswith(beginnings)]:
        delattr(module, name)
sys.platform = "win32"
