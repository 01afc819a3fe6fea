"""Make folders for UNIX sockets, whose paths the kernel limits to about a hundred bytes."""

from __future__ import annotations

import errno
import os
import tempfile

_LONGEST = 103 - len("/pymp-12345678/listener-12345678")
"""The longest path of a temporary directory, in bytes: 103 is the longest path of a socket on the BSDs and macOS."""

_SHORT = ("/tmp", "/var/tmp")
"""Where folders are made if the temporary directory has a longer path, as Python 3.14 does it too."""


def makeSocketFolder(prefix: str) -> str:
    """Make a folder that only this user can use, and return its path. Raise `OSError` if there is no place for it."""
    usual = tempfile.gettempdir()
    if len(os.fsencode(usual)) <= _LONGEST:
        return tempfile.mkdtemp(prefix=prefix, dir=usual)
    for place in _SHORT:
        try:
            return tempfile.mkdtemp(prefix=prefix, dir=place)
        except OSError:
            pass
    raise OSError(
        errno.ENAMETOOLONG,
        f"there is no place for a socket: the path of the temporary directory is longer than {_LONGEST} bytes, and "
        f"{' and '.join(_SHORT)} cannot be written to",
        usual,
    )
