"""The parts of `multiprocessing` that AsynQueue uses and that Python does not document: all of them, and only here.

A Python may change these without notice. Each function says what it does where a part is missing. None fails then: the
start of processes is slower, or `multiprocessing` behaves as it does by itself.
"""

from __future__ import annotations

import multiprocessing.process
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import current_process, forkserver, get_start_method, resource_tracker, spawn, util
from threading import get_ident
from typing import Any

from asynqueue.transport.socketfolder import makeSocketFolder

# The fork server and the resource tracker, of which a program has one each.


def preload(*modules: str) -> None:
    """Add MODULES to those that the fork server imports when it starts. (Else each process imports them itself.)"""
    names: object = getattr(getattr(forkserver, "_forkserver", None), "_preload_modules", None)
    if isinstance(names, list):
        forkserver.set_forkserver_preload([*names, *(module for module in modules if module not in names)])


def serverDescriptor() -> int | None:
    """Return the descriptor by which the fork server notices the end of its programs, or None."""
    return _descriptor(getattr(forkserver, "_forkserver", None), "_forkserver_alive_fd")


def trackerDescriptor() -> int | None:
    """Return the descriptor by which the resource tracker notices the end of its programs, or None."""
    return _descriptor(getattr(resource_tracker, "_resource_tracker", None), "_fd")


def ensureTracker() -> None:
    """Start the resource tracker, unless it runs. (Else ``spawn`` does that, and unblocks signals by it.)"""
    ensure: Any = getattr(resource_tracker, "ensure_running", None)
    if ensure is not None:
        ensure()


def socketFolder() -> str | None:
    """Return the folder of the fork server's socket, or None if there is none."""
    folder: object = _config(current_process()).get("tempdir")
    return folder if isinstance(folder, str) else None


def placeSocket() -> None:
    """Make a folder for the fork server's socket, unless there is one. (Else its path may be too long.)

    Raise `OSError` if there is no place for it.
    """
    config = _config(current_process())
    folder = socketFolder()
    if config and (folder is None or not os.path.isdir(folder)):  # The fork server of a daemon's parent removes it.
        config["tempdir"] = folder = makeSocketFolder("pymp-")
        util.Finalize(None, shutil.rmtree, args=(folder, True), exitpriority=-100)


# A process, and its start.


@contextmanager
def startOfWorker() -> Iterator[None]:
    """Let `multiprocessing` make and start a process that does not need what it assumes of others.

    - The process does not import the ``__main__`` of the program. (Else a script needs its ``if __name__`` guard.)
    - The program may be in a directory that was removed. (Else that fails the start.)
    - The program may be a daemonic process, whose children would outlive it if they were not made to die with it. (Else
      that fails the start.)

    What other threads start meanwhile is not affected.
    """
    original, thread = spawn.get_preparation_data, get_ident()

    def preparation(name: str) -> dict[str, Any]:
        if get_ident() != thread:
            return original(name)
        try:
            prepared: dict[str, Any] = original(name)
        except OSError:  # there is no working directory
            prepared = {
                "name": name,
                "authkey": current_process().authkey,
                "sys_path": list(sys.path),
                "sys_argv": sys.argv,
                "start_method": get_start_method(),
            }
        for key in ("init_main_from_name", "init_main_from_path", "main_path"):
            prepared.pop(key, None)
        return prepared

    config = _config(current_process())
    daemonic = config.pop("daemon", None)
    spawn.get_preparation_data = preparation
    try:
        yield
    finally:
        spawn.get_preparation_data = original
        if daemonic is not None:
            config["daemon"] = daemonic


def endWithProgram(process: Any) -> None:
    """Have `multiprocessing` end PROCESS, which has started, at the exit of the program. (Else it waits for it.)"""
    _config(process)["daemon"] = True


def disownProcess(process: Any) -> None:
    """Have `multiprocessing` forget PROCESS, in a fork of its program. (Else the fork ends or joins it at its exit.)"""
    children: object = getattr(multiprocessing.process, "_children", None)
    if isinstance(children, set):
        children.discard(process)
    _config(process).pop("daemon", None)


def pipesOf(process: Any) -> list[int]:
    """Return the descriptors that `multiprocessing` keeps for PROCESS: it dies when the writing end is closed.

    (Else a fork of the program keeps the process alive.)
    """
    kept: object = getattr(getattr(getattr(process, "_popen", None), "finalizer", None), "_args", None)
    return [pipe for pipe in kept if isinstance(pipe, int)] if isinstance(kept, (list, tuple)) else []


def _config(process: Any) -> dict[str, Any]:
    """Return the settings that PROCESS and its children share, or a dict without effect."""
    config: object = getattr(process, "_config", None)
    return config if isinstance(config, dict) else {}


def _descriptor(helper: object, name: str) -> int | None:
    descriptor: object = getattr(helper, name, None)
    return descriptor if isinstance(descriptor, int) else None
