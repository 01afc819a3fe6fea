"""Where a PNG goes: to standard output, or to a file that has its name only once it is whole.

A file is written under a temporary name beside its own, and renamed at the end. So whoever looks finds the old
picture or the new one, never half of one, and after an error or Ctrl-C there is nothing to clear up. What is
not a regular file, a device or a named pipe, is written as it is.
"""

from __future__ import annotations

import os
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from mcmandelbrot.errors import TargetError


@contextmanager
def standardOutput() -> Iterator[BinaryIO]:
    """Standard output, as a file that may be closed. Raises `TargetError` if it is a terminal or not open at all."""
    try:
        if sys.stdout.isatty():
            raise TargetError("will not write a PNG to a terminal; name a file with -o FILE, or redirect the output")
        # Not `sys.stdout.buffer`: a thread blocked in it would have its lock when Python wants to flush it.
        file = open(os.dup(sys.stdout.fileno()), "wb")  # noqa: SIM115  # its user closes it
    except (AttributeError, OSError) as error:
        raise TargetError("standard output is closed; name a file with -o FILE") from error
    yield file


@contextmanager
def namedFile(name: str) -> Iterator[BinaryIO]:
    """A new file that becomes NAME when the context ends well, and is gone when it does not.

    It is for the context to close the file. Raises `TargetError` at once for a name that cannot be written.
    """
    if not os.path.basename(name):
        raise TargetError(f"cannot write {name!r}: that is the name of no file")
    temporary = None
    try:
        try:
            final = os.path.realpath(name)
            temporary = _beside(final) if _isReplaceable(final) else None
            file = open(temporary or final, "xb" if temporary else "wb")  # noqa: SIM115  # its user closes it
        except (OSError, ValueError) as error:
            raise TargetError(f"cannot write {name!r}: {getattr(error, 'strerror', None) or error}") from error
        yield file
        if temporary:
            os.replace(temporary, final)
    except BaseException:  # a signal may come as soon as there is a file
        if temporary:
            with suppress(OSError):
                os.unlink(temporary)
        raise


def _isReplaceable(path: str) -> bool:
    return not os.path.exists(path) or stat.S_ISREG(os.stat(path).st_mode)


def _beside(path: str) -> str:
    directory, base = os.path.split(path)
    return os.path.join(directory, f".{base[:200]}.{secrets.token_hex(4)}.part")
