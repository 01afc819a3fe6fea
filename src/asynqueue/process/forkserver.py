"""What the fork server imports once, so that none of its processes has to.

The server of `multiprocessing` belongs to the whole program. To what it is to import for others one name is added, that
of the far side, which is light and does nothing by being imported; a server that runs already stays as it is. It has no
more than its environment to find that module by, while a program may have found AsynQueue in a place of its own. Then
nothing is added: a process that takes a moment longer is better than one with another version of us.
"""

from __future__ import annotations

import os
import site
from collections.abc import Iterator
from functools import cache
from glob import escape, glob
from multiprocessing import forkserver

CHILD_MODULE = "asynqueue.process.child.main"


def preloadChild() -> None:
    """Have the fork server, when it starts, import the far side too."""
    server: object = getattr(forkserver, "_forkserver", None)
    names: object = getattr(server, "_preload_modules", None)
    if isinstance(names, list) and CHILD_MODULE not in names and _findsUs():
        forkserver.set_forkserver_preload([*names, CHILD_MODULE])


@cache
def _findsUs() -> bool:
    """True if a fresh interpreter would import this very package."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    for place in _places():
        found = os.path.join(place, "asynqueue")
        if place and os.path.isdir(found):
            return os.path.samefile(found, package)
    return False


def _places() -> Iterator[str]:
    """Where a fresh interpreter would look."""
    yield os.getcwd()
    yield from os.environ.get("PYTHONPATH", "").split(os.pathsep)
    folders = site.getsitepackages()
    if site.ENABLE_USER_SITE:
        folders = [site.getusersitepackages(), *folders]
    for folder in folders:
        yield folder
        for listing in sorted(glob(os.path.join(escape(folder), "*.pth"))):  # editable installs, for example
            with open(listing, errors="replace") as lines:
                yield from (os.path.join(folder, line.strip()) for line in lines if line.strip())
