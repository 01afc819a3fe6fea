"""What a program that does not exit in peace leaves in the temporary directory: nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.calls import inLoop, until

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


@pytest.mark.parametrize(
    ("kind", "number"),
    [("plain", signal.SIGKILL), ("plain", signal.SIGTERM), ("default", signal.SIGTERM), ("daemon", signal.SIGKILL)],
)
@inLoop
async def test_a_program_that_a_signal_ends_leaves_no_folder(kind: str, number: signal.Signals, tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    program = subprocess.Popen([sys.executable, "-c", PROGRAM, kind], stdout=subprocess.PIPE, env=environment)
    assert program.stdout is not None
    with program, program.stdout:
        pid = int(program.stdout.readline())
        assert list(tmp_path.glob("pymp-*/listener-*"))
        os.kill(pid, number)
    await until(lambda: not list(tmp_path.iterdir()))  # the fork server removes it when it exits
