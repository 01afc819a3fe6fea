"""Prepare the fork server: it imports the module that worker processes run, so that each starts faster.

The fork server of `multiprocessing` belongs to the whole program. Two names are added to the modules that it preloads:
the module of worker processes, which is light and has no effects, and one that removes what the fork server leaves. A
server that runs already does not change.

The server finds modules by its environment only, while a program may have imported AsynQueue from another place. In
that case nothing is added: a slower start is better than a process with another version of AsynQueue.
"""

from __future__ import annotations

import os
import site
from collections.abc import Iterator
from functools import cache
from glob import escape, glob

from asynqueue.process import internals

CHILD_MODULE = "asynqueue.process.child.main"
LEFTOVERS_MODULE = "asynqueue.process.child.leftovers"


def prepareServer() -> None:
    """Decide what the fork server imports when it starts, and where its socket is.

    Raise `OSError` if there is no temporary directory.
    """
    internals.placeSocket()
    if _findsThisPackage():
        internals.preload(CHILD_MODULE, LEFTOVERS_MODULE)


@cache
def _findsThisPackage() -> bool:
    """Return whether a new interpreter would import this same package. An archive of modules is not opened."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    try:
        for place in _places():
            found = os.path.join(place, "asynqueue")
            if place and os.path.isdir(found):
                return os.path.samefile(found, package)
            if os.path.isfile(place):
                break
    except OSError:
        pass  # There is no working directory, a file cannot be read, or this package is in an archive.
    return False


def _places() -> Iterator[str]:
    """Yield the folders in which a new interpreter looks for packages."""
    yield os.getcwd()
    yield from os.environ.get("PYTHONPATH", "").split(os.pathsep)
    folders = site.getsitepackages()
    if site.ENABLE_USER_SITE:
        folders = [site.getusersitepackages(), *folders]
    for folder in folders:
        yield folder
        for listing in sorted(glob(os.path.join(escape(folder), "*.pth"))):  # for example of editable installs
            with open(listing, errors="replace") as lines:
                yield from (os.path.join(folder, line.strip()) for line in lines if line.strip())
