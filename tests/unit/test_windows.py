"""Windows, emulated: each public name can be imported there, and all works but processes and UNIX sockets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

NAMES = """
import tests.support.windows
import asynqueue, importlib, pkgutil
for name in asynqueue.__all__:
    getattr(asynqueue, name)
for module in pkgutil.walk_packages(asynqueue.__path__, "asynqueue."):
    if module.name != "asynqueue.process.child.leftovers":  # for fork servers alone
        for name in getattr(importlib.import_module(module.name), "__all__", ()):
            getattr(importlib.import_module(module.name), name)
print("done")
"""

SELF_TEST = "import tests.support.windows; from asynqueue.__main__ import main; main([])"

TLS = """
import tests.support.windows
import sys
from pathlib import Path
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from asynqueue.__main__ import _calls, _Universe
from asynqueue.wire import WireQueue, WireServer
from asynqueue.wire.trust.certificates import make

async def run(reactor):
    make(Path("certificates"), ["127.0.0.1"])
    trust = "certificate=certificates/{0}.pem:privateKey=certificates/{0}.key:trustRoots=certificates/ca.pem"
    server = await WireServer(f"tls:0:{trust.format('server')}:interface=127.0.0.1", _Universe).start()
    queue = WireQueue(f"tls:127.0.0.1:{server.address.port}:{trust.format('client')}", _Universe)
    await _calls(queue, _Universe.div, _Universe.join, _Universe.items)
    await server.stop()
    print("done")

react(lambda reactor: Deferred.fromCoroutine(run(reactor)))
"""

DASK = """
import distributed
client = distributed.Client(processes=False, dashboard_address=None)  # the Dask of this system needs this system
import tests.support.windows
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from asynqueue import DaskWorker, TaskQueue
from asynqueue.__main__ import _calls

async def run(reactor):
    await _calls(TaskQueue(DaskWorker(client)))
    print("done")

try:
    react(lambda reactor: Deferred.fromCoroutine(run(reactor)))
finally:
    client.close()
"""

BRIDGES = """
import tests.support.windows
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from asynqueue import Consumerator, DeferredTracker, iteratorToProducer

async def run(reactor):
    tracker, items = DeferredTracker(), Consumerator()
    found = items.runInThread(sum)
    tracker.put(iteratorToProducer(iter(range(5)), items))
    await tracker.deferToAll()
    assert await found == 10
    print("done")

react(lambda reactor: Deferred.fromCoroutine(run(reactor)))
"""

REFUSED = """
import tests.support.windows
import asynqueue
from asynqueue import ProcessError, ProcessQueue, ProcessWorker, WireWorker, deferToProcess, killProcess
from asynqueue.wire import ServerManager
for refused in (
    lambda: ProcessQueue(1), ProcessWorker, lambda: deferToProcess(len, "a"), lambda: killProcess(1), ServerManager,
):
    try:
        refused()
    except ProcessError as error:
        print(error)
print("done")
"""


def run(program: str, folder: Path) -> str:
    """The output of PROGRAM."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys; sys.path.insert(0, {str(ROOT)!r}); {program}",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("program", [NAMES, TLS, DASK, BRIDGES], ids=["names", "tls", "dask", "bridges"])
def test_it_works_there(program: str, tmp_path: Path) -> None:
    assert run(program, tmp_path) == "done\n"


def test_the_self_test_finds_all_in_order_but_processes(tmp_path: Path) -> None:
    text = run(SELF_TEST, tmp_path)
    assert text.count(" OK\n") == 3
    assert "process           not on this system" in text


def test_what_needs_posix_says_so_at_once(tmp_path: Path) -> None:
    text = run(REFUSED, tmp_path)
    assert text.count("needs a POSIX system, and this is none: use threads, a wire or Dask") == 5, text
