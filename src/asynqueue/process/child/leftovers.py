"""Remove the socket of a fork server, and its folder, when the fork server exits after its program.

`multiprocessing` removes that folder (``pymp-...``, in the temporary directory) at the exit of the program's
interpreter. A program that is killed has no such exit, and neither has a daemon that ends by a signal. But the fork
server notices the end of the program, and then exits as any interpreter does.

The fork server preloads this module, which registers itself. In any other process it has no effect.
"""

from __future__ import annotations

import atexit
import os
import socket
import time

from asynqueue.capabilities import proc

GRACE = 0.5
"""Seconds that the kernel has to end the program after it has closed the program's files."""


def _listeningAt() -> str | None:
    """Return the path of the socket at which this process listens, if it is a fork server."""
    try:
        names = os.listdir(proc("self/fd"))
    except OSError:
        return None  # There is no such directory, so the folder remains.
    for name in names:
        try:
            found = socket.socket(fileno=int(name))
        except OSError:
            continue  # It is no socket, or the directory itself.
        try:
            address: object = found.getsockname()
        finally:
            found.detach()
        if isinstance(address, str) and os.path.basename(os.path.dirname(address)).startswith("pymp-"):
            return address
    return None


def _remove(address: str, program: int) -> None:
    """Remove the socket ADDRESS and its folder, unless PROGRAM runs, which may start a fork server there again."""
    deadline = time.monotonic() + GRACE
    while os.getppid() == program:
        if time.monotonic() > deadline:
            return
        time.sleep(0.005)
    try:
        os.unlink(address)
        os.rmdir(os.path.dirname(address))
    except OSError:
        pass  # The program has removed it, or other sockets are there.


_address = _listeningAt()
if _address is not None:
    atexit.register(_remove, _address, os.getppid())
