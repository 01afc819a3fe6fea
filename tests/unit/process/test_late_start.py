"""Processes start when the reactor runs, not where the queue is made: they are what their program is then."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from twisted.internet.task import deferLater

from tests.support.calls import inLoop
from tests.support.features import needs

CHILDREN = """
def children():
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                stat = open(f"/proc/{name}/stat").read().rpartition(")")[2].split()
            except OSError:
                continue
            if int(stat[1]) == os.getpid():
                found.append(name)
    return len(found)
"""


def run(program: str, directory: Path, *arguments: str) -> str:
    """What PROGRAM prints, as a script of its own in DIRECTORY."""
    script = directory / "program.py"
    script.write_text("import os, sys\n" + CHILDREN + program)
    command = [sys.executable, str(script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=directory, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_making_a_queue_installs_no_reactor_and_starts_no_process(tmp_path: Path) -> None:
    program = """
from asynqueue import ProcessQueue, ThreadQueue, WireQueue
queues = ProcessQueue(2), ThreadQueue(workers=2)
print([len(queue) for queue in queues], children(), "twisted.internet.reactor" in sys.modules)
from twisted.internet import asyncioreactor
asyncioreactor.install()
from twisted.internet import reactor
from twisted.internet.defer import gatherResults
async def main():
    print(await gatherResults([queue.call(pow, 2, 5) for queue in queues]))
    await gatherResults([queue.shutdown() for queue in queues])
    reactor.stop()
from twisted.internet.defer import ensureDeferred
reactor.callWhenRunning(lambda: ensureDeferred(main()))
reactor.run()
"""
    assert run(program, tmp_path) == "[2, 2] 0 False\n[32, 32]"


def test_a_process_has_the_directory_and_the_umask_of_the_running_program(tmp_path: Path) -> None:
    program = """
from twisted.internet import reactor  # as under twistd, which loads a .tac then
from twisted.internet.task import react
from asynqueue import ProcessQueue
queue = ProcessQueue(1)
queue.call(int, "7").addCallback(print)  # an early call waits
os.chdir(sys.argv[1])
os.umask(0o027)
def state():
    mask = os.umask(0)
    os.umask(mask)
    return os.getcwd(), oct(mask)
async def main(reactor):
    print(await queue.call(state) == state())
    await queue.call(os._exit, 1, retries=0).addErrback(lambda _: None)
    print(await queue.call(state) == state())
    await queue.shutdown()
if __name__ == "__main__":
    react(main)
"""
    (tmp_path / "elsewhere").mkdir()
    assert run(program, tmp_path, str(tmp_path / "elsewhere")) == "7\nTrue\nTrue"


@pytest.mark.parametrize("method", ["forkserver", "spawn", "fork"])
def test_a_later_process_has_the_environment_of_its_moment(tmp_path: Path, method: str) -> None:
    program = """
from twisted.internet.task import react
from asynqueue import ProcessQueue
def seen():
    mask = os.umask(0)
    os.umask(mask)
    return os.environ.get("SET_LATER"), os.environ.get("A_SECRET"), oct(mask), os.path.basename(os.getcwd())
async def main(reactor):
    os.environ["A_SECRET"] = "removed later"
    async with ProcessQueue(1, context=sys.argv[1]) as queue:
        print(await queue.call(seen) == seen())
    os.environ["SET_LATER"] = "yes"
    del os.environ["A_SECRET"]
    os.umask(0o027)
    os.mkdir("elsewhere")
    os.chdir("elsewhere")
    async with ProcessQueue(1, context=sys.argv[1]) as queue:
        print(*await queue.call(seen))
if __name__ == "__main__":
    react(main)
"""
    assert run(program, tmp_path, method) == "True\nyes None 0o27 elsewhere"


@needs("setresuid")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_later_process_is_of_the_user_that_its_program_has_become(tmp_path: Path) -> None:
    program = """
from twisted.internet.task import react
from asynqueue import ProcessQueue
def seen():
    return os.getresuid(), os.getresgid(), os.getgroups()
async def main(reactor):
    async with ProcessQueue(1) as queue:  # the fork server is root's
        await queue.call(int, "1")
        os.setgroups([65534])
        os.setegid(65534)
        os.seteuid(os.getuid())
        await queue.call(os._exit, 1, retries=0).addErrback(lambda _: None)
        print(await queue.call(seen) == seen())
if __name__ == "__main__":
    react(main)
"""
    assert run(program, tmp_path) == "True"


def test_a_queue_of_an_imported_module_starts_nothing_in_its_own_processes(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text(
        "import sys\nfrom asynqueue import ProcessQueue\nqueue = ProcessQueue(2)\n"
        "def work(x):\n    return x * 2, 'twisted.internet.reactor' in sys.modules\n"
    )
    program = """
import tasks
from twisted.internet.task import react
async def main(reactor):
    print(await tasks.queue.call(tasks.work, 4))
    print(await tasks.queue.call(tasks.work, 5))
    print(children() <= 4)  # two workers, the fork server, the resource tracker
    await tasks.queue.shutdown()
if __name__ == "__main__":
    react(main)
"""
    assert run(program, tmp_path) == "(8, False)\n(10, False)\nTrue"


TAC = """
import os
from twisted.application import service
from asynqueue import ProcessQueue

application = service.Application("app")
queue = ProcessQueue(1)

def note(text):
    with open("log", "a") as log:
        log.write(f"{text}|")

class Daemon(service.Service):
    def startService(self):
        super().startService()
        d = queue.call(pow, 2, 3).addBoth(note)
        d.addCallback(lambda _: queue.call(os._exit, 1, retries=0))
        d.addErrback(lambda reason: note(reason.type.__name__))
        d.addCallback(lambda _: queue.call(pow, 2, 4)).addBoth(note)

    def stopService(self):
        return queue.shutdown().addBoth(lambda _: note("shut down"))

Daemon().setServiceParent(application)
"""


async def until(happened: Callable[[], bool], reactor: object) -> None:
    for _ in range(600):
        if happened():
            return
        await deferLater(reactor, 0.05)  # type: ignore[arg-type]  # a reactor
    pytest.fail("it did not happen within 30 seconds")


@inLoop
async def test_a_daemon_whose_queue_was_made_before_it_forked_works_and_ends(tmp_path: Path) -> None:
    from twisted.internet import reactor

    (tmp_path / "app.tac").write_text(TAC)
    log, pidfile = tmp_path / "log", tmp_path / "pid"
    twistd = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()", "-y", "app.tac"]
    words = [*twistd, "--pidfile", "pid", "--logfile", "twistd.log"]
    null = subprocess.DEVNULL
    # A daemon that ends by a signal leaves the folder of the fork server's socket.
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    subprocess.run(words, cwd=tmp_path, env=environment, stdin=null, stdout=null, stderr=null, timeout=60, check=True)
    await until(lambda: pidfile.exists() and pidfile.read_text().strip().isdigit(), reactor)
    pid = int(pidfile.read_text())
    try:
        await until(lambda: log.exists() and log.read_text().count("|") == 3, reactor)
    finally:
        os.kill(pid, signal.SIGTERM)
    await until(lambda: not Path(f"/proc/{pid}").exists() or " Z " in Path(f"/proc/{pid}/stat").read_text(), reactor)
    assert log.read_text() == "8|WorkerLost|16|shut down|"
