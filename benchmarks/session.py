"""Commands in sessions of their own, of which no process and no file is left, whatever ends this program.

What asks it to end raises `SystemExit`, so that all is cleared up as after an error. A session hears nothing of that:
it is killed. What is killed cannot tidy up: so the temporary files of each command are in a folder that goes with us.
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
    """From now on, the first of those that comes raises `SystemExit`. One that was ignored, as by `nohup`, stays so."""
    for number in notIgnored():
        signal.signal(number, _end)


@contextmanager
def scratch() -> Iterator[str]:
    """A folder for all that is temporary, which is gone afterwards."""
    with _signalBlocked():
        temporary = tempfile.TemporaryDirectory()  # from now on it goes when the interpreter does
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
        said, complained = process.communicate()  # until the last of them is gone
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        return None, said, complained.decode()
    return process.returncode, said, complained.decode()


def _end(number: int, frame: FrameType | None) -> None:
    for each in ENDING:
        signal.signal(each, signal.SIG_IGN)  # clearing up is not to be interrupted
    raise SystemExit(128 + number)


@contextmanager
def _signalBlocked() -> Iterator[set[int]]:
    """What asks to end meanwhile does so afterwards. Gives the mask of signals from before."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield before
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
