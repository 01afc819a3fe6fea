"""Run commands in sessions of their own. No process and no file of theirs is left, however this program ends.

A signal that asks this program to end raises `SystemExit`, so that everything is cleaned up as after an error. The
session of a command does not receive that signal: it is killed. A killed command cannot clean up, so its temporary
files are in a folder that is removed with this program.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from mcmandelbrot.cli.signals import ENDING, notIgnored


def heed() -> None:
    """Have the first of these signals raise `SystemExit`. An ignored signal, as by `nohup`, stays ignored."""
    for number in notIgnored():
        signal.signal(number, _end)


@contextmanager
def scratch() -> Iterator[str]:
    """Return a folder for temporary files. It is removed at the end."""
    with _signalBlocked():
        temporary = tempfile.TemporaryDirectory()  # from now on it is removed when the interpreter ends
    try:
        yield temporary.name
    finally:
        with _signalBlocked():
            temporary.cleanup()


def outcome(
    command: Sequence[str | Path],
    folder: str,
    *,
    patience: float | None = None,
    cwd: Path,
    environment: Mapping[str, str],
) -> tuple[int | None, bytes, str]:
    """The exit status of COMMAND, and what it said on standard output and standard error.

    It has a session and, in FOLDER, a TMPDIR of its own. It is killed, with all that it has started, when this program
    is to end, or after PATIENCE seconds: then there is no status.
    """
    process = None
    try:
        with _signalBlocked() as before:
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env={**environment, "TMPDIR": tempfile.mkdtemp(dir=folder)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, before),
            )
        said, complained = process.communicate(timeout=patience)
    except BaseException as error:
        if process is None:
            raise
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        said, complained = process.communicate()  # until the last process is gone
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        return None, said, complained.decode()
    return process.returncode, said, complained.decode()


def _end(number: int, frame: FrameType | None) -> None:
    for each in ENDING:
        signal.signal(each, signal.SIG_IGN)  # the cleaning must not be interrupted
    raise SystemExit(128 + number)


@contextmanager
def _signalBlocked() -> Iterator[set[int]]:
    """Hold back the signals that end this program. Yield the mask of before."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield before
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
