"""What the fork server imports once, so that none of its processes has to.

The server of `multiprocessing` belongs to the whole program. To what it is to import for others one name is added, that
of the far side, which is light and does nothing by being imported; a server that runs already stays as it is. It has no
more than its environment to find that module by, while a program may have found AsynQueue in a place of its own. Then
nothing is added: a process that takes a moment longer is better than one with another version of us.
"""

from __future__ import annotations

import os
import site
from functools import cache
from multiprocessing import forkserver

FAR_SIDE = "asynqueue.universe"


def preloadFarSide() -> None:
    """Have the fork server, when it starts, import the far side too."""
    server: object = getattr(forkserver, "_forkserver", None)
    names: object = getattr(server, "_preload_modules", None)
    if isinstance(names, list) and FAR_SIDE not in names and _findsUs():
        forkserver.set_forkserver_preload([*names, FAR_SIDE])


@cache
def _findsUs() -> bool:
    """True if a fresh interpreter would import this very package."""
    places = [os.getcwd(), *os.environ.get("PYTHONPATH", "").split(os.pathsep), *site.getsitepackages()]
    if site.ENABLE_USER_SITE:
        places.append(site.getusersitepackages())
    package = os.path.dirname(os.path.abspath(__file__))
    for place in places:
        found = os.path.join(place, "asynqueue")
        if place and os.path.isdir(found):
            return os.path.samefile(found, package)
    return False
