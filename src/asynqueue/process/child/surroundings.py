"""The state that a worker process takes over from its program: directory, environment, umask, user and groups.

A process is started by a fork server that may have been there long before. Since then the program may have become a
daemon of another user, or may have removed a secret from its environment. So the program sends what it is now, and the
process becomes that before it runs anything.

Worker processes import this module: it imports neither Twisted nor attrs.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from asynqueue.capabilities import has, proc


class Surroundings(NamedTuple):
    """The state of a program that its processes take over. `directory` is None if it was removed."""

    directory: str | None
    environment: dict[str, str]
    umask: int
    groups: list[int]
    groupIDs: tuple[int, ...]
    userIDs: tuple[int, ...]


def present() -> Surroundings:
    """Return the state of this process."""
    try:
        directory: str | None = os.getcwd()
    except OSError:
        directory = None
    return Surroundings(directory, dict(os.environ), _umask(), os.getgroups(), _groupIDs(), _userIDs())


def adopt(wanted: Surroundings) -> None:
    """Become what the program is. Raise `OSError` if the system does not allow that."""
    for name in os.environ.keys() - wanted.environment.keys():
        del os.environ[name]
    for name, value in wanted.environment.items():
        if os.environ.get(name) != value:
            os.environ[name] = value
    os.umask(wanted.umask)
    if wanted.userIDs != _userIDs() or wanted.groupIDs != _groupIDs():
        if os.geteuid() == 0:
            os.setgroups(wanted.groups)
        if has("setresuid"):
            os.setresgid(*wanted.groupIDs)
            os.setresuid(*wanted.userIDs)
        else:
            os.setregid(*wanted.groupIDs)
            os.setreuid(*wanted.userIDs)
    if wanted.directory is not None:
        os.chdir(wanted.directory)


def _umask() -> int:
    """Return the umask. It can be read without setting it only on Linux."""
    try:
        with open(proc("self/status"), "rb") as status:
            for line in status:
                if line.startswith(b"Umask:"):
                    return int(line.split()[1], 8)
    except (OSError, ValueError):
        pass
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _groupIDs() -> tuple[int, ...]:
    return os.getresgid() if has("setresuid") else (os.getgid(), os.getegid())


def _userIDs() -> tuple[int, ...]:
    return os.getresuid() if has("setresuid") else (os.getuid(), os.geteuid())
