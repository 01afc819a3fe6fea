"""The target of a PNG: standard output, or a file that gets its name only when it is complete.

A file is written under a temporary name in the same directory, and renamed at the end. So the name has the old picture
or the complete new one, and an error or Ctrl-C leaves nothing behind. A target that is not a regular file, such as a
device or a named pipe, is written directly.
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
    """Yield standard output as a file that may be closed. Raise `TargetError` for a terminal or a closed output."""
    try:
        if sys.stdout.isatty():
            raise TargetError("will not write a PNG to a terminal; use -o FILE, or redirect the output")
        # Not `sys.stdout.buffer`: a blocked thread would hold its lock when Python flushes it at exit.
        file = open(os.dup(sys.stdout.fileno()), "wb")  # noqa: SIM115  # the caller closes it
    except (AttributeError, OSError) as error:
        raise TargetError("standard output is closed; use -o FILE") from error
    yield file


@contextmanager
def namedFile(name: str) -> Iterator[BinaryIO]:
    """Yield a new file that becomes NAME if the context succeeds, and is deleted if it fails.

    The caller closes the file. Raise `TargetError` at once for a name that cannot be written.
    """
    if not os.path.basename(name):
        raise TargetError(f"cannot write {name!r}: it is not the name of a file")
    temporary = None
    try:
        try:
            final = os.path.realpath(name)
            temporary = _beside(final) if _isReplaceable(final) else None
            file = open(temporary or final, "xb" if temporary else "wb")  # noqa: SIM115  # the caller closes it
        except (OSError, ValueError) as error:
            raise TargetError(f"cannot write {name!r}: {getattr(error, 'strerror', None) or error}") from error
        yield file
        if temporary:
            os.replace(temporary, final)
    except BaseException:  # from here on, a signal must delete the file
        if temporary:
            with suppress(OSError):
                os.unlink(temporary)
        raise


def _isReplaceable(path: str) -> bool:
    return not os.path.exists(path) or stat.S_ISREG(os.stat(path).st_mode)


def _beside(path: str) -> str:
    directory, base = os.path.split(path)
    return os.path.join(directory, f".{base[:200]}.{secrets.token_hex(4)}.part")
