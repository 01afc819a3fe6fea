"""The secret key that client and server of a wire share.

It comes from a file that only its owner can read, or from the environment. It never comes from a command line, which
all users can see. `docs/security.md` describes how to make one.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from asynqueue.capabilities import has
from asynqueue.errors import AuthenticationError

KEY = "ASYNQUEUE_WIRE_KEY"
"""The environment variable with the key."""

KEY_FILE = "ASYNQUEUE_WIRE_KEY_FILE"
"""The environment variable with the name of the key's file."""

LEAST = 16
"""The fewest bytes in a key: 128 bits. A fake server can try keys against a client's proof, without limit."""


def key(given: bytes | str | os.PathLike[str] | None) -> bytes | None:
    """Return the key.

    Args:
        given: The key as bytes, or the name of its file. None takes it from the environment: `KEY`, else the file that
            `KEY_FILE` names.

    Returns:
        The key, `LEAST` bytes or more. None if the environment has none.

    Raises:
        AuthenticationError: The file cannot be read, or other users have access to it.
        ValueError: The key is too short.
    """
    if isinstance(given, bytes):
        return _checked(given, "the key")
    if given is not None:
        return _read(Path(given), "the key file")
    if os.environ.get(KEY):
        return _checked(os.fsencode(os.environ[KEY]), f"the key in {KEY}")
    if os.environ.get(KEY_FILE):
        return _read(Path(os.environ[KEY_FILE]), f"the key file of {KEY_FILE}")
    return None


def _read(path: Path, what: str) -> bytes:
    """Return the key in the file PATH, which is WHAT."""
    if not os.path.lexists(path):  # No error has its name, neither as text nor as context: it may be the key itself.
        raise AuthenticationError(
            f"{what} cannot be read: there is no such file. Its name is not shown, as it may be the key itself: a key "
            "is given as bytes, or as the name of its file"
        )
    try:
        with open(path, "rb", opener=_openedAtOnce) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise AuthenticationError(f"the key file {path} is no regular file")
            if has("posix") and status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise AuthenticationError(f"others have access to the key file {path}: chmod 600 {path}")
            if has("posix") and status.st_uid not in (os.geteuid(), 0):
                raise AuthenticationError(f"the key file {path} belongs to another user: chown {os.geteuid()} {path}")
            return _checked(file.read(), f"the key in {path}")
    except OSError as error:
        raise AuthenticationError(f"the key file {path} cannot be read: {error.strerror}") from error


def _openedAtOnce(path: str, flags: int) -> int:
    """Open the file PATH without blocking: opening a FIFO would block until another process opens it to write."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _checked(text: bytes, what: str) -> bytes:
    found = text.strip(b"\r\n")
    if len(found) < LEAST:
        raise ValueError(f"{what} must have at least {LEAST} bytes, got {len(found)}; 32 random ones are good")
    return found
