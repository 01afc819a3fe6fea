"""What a program that does not exit in peace leaves in the temporary directory: nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.support.calls import inLoop, until
from tests.support.features import needs
from tests.support.programs import Program

PROGRAM = """
import os, sys
from twisted.internet import reactor
from asynqueue import ProcessQueue

def daemonise():
    if "daemon" in sys.argv and os.fork():
        os._exit(0)

def started():
    queue = ProcessQueue(1)
    queue.call(os.getpid).addCallback(lambda pid: print(os.getpid(), flush=True))

daemonise()
reactor.callWhenRunning(started)
if "default" in sys.argv:
    import signal
    reactor.callWhenRunning(signal.signal, signal.SIGTERM, signal.SIG_DFL)
reactor.run()
"""


@needs("/proc")
@pytest.mark.parametrize(
    ("kind", "number"),
    [("plain", signal.SIGKILL), ("plain", signal.SIGTERM), ("default", signal.SIGTERM), ("daemon", signal.SIGKILL)],
)
@inLoop
async def test_a_program_that_a_signal_ends_leaves_no_folder(kind: str, number: signal.Signals) -> None:
    with TemporaryDirectory(dir="/tmp") as folder:  # Python makes no sockets in a directory with a long name
        environment = {**os.environ, "TMPDIR": folder}
        program = Program([sys.executable, "-c", PROGRAM, kind], stdout=subprocess.PIPE, env=environment)
        assert program.stdout is not None
        with program, program.stdout:
            pid = int(program.stdout.readline())
            there = list(Path(folder).glob("pymp-*/*"))
            os.kill(pid, number)
        assert there
        await until(lambda: not os.listdir(folder))  # the fork server removes it when it exits
