"""Preload the fork server with the module that worker processes run, so that each starts faster.

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
from multiprocessing import current_process, forkserver

CHILD_MODULE = "asynqueue.process.child.main"
LEFTOVERS_MODULE = "asynqueue.process.child.leftovers"


def preloadChild() -> None:
    """Add these modules to those that the fork server imports when it starts."""
    server: object = getattr(forkserver, "_forkserver", None)
    names: object = getattr(server, "_preload_modules", None)
    if isinstance(names, list) and CHILD_MODULE not in names and _findsThisPackage():
        forkserver.set_forkserver_preload([*names, CHILD_MODULE, LEFTOVERS_MODULE])
    config: object = getattr(current_process(), "_config", None)
    if isinstance(config, dict) and not os.path.isdir(config.get("tempdir") or os.curdir):
        config["tempdir"] = None  # a fork server of this daemon's parent has removed it: a new one is made


@cache
def _findsThisPackage() -> bool:
    """Return whether a new interpreter would import this same package."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    for place in _places():
        found = os.path.join(place, "asynqueue")
        if place and os.path.isdir(found):
            return os.path.samefile(found, package)
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
