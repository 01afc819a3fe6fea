"""Servers in interpreters of their own: how they are started, what they say, and how they end."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from twisted.internet.defer import gatherResults

from asynqueue import WireQueue
from asynqueue.errors import ProcessError
from asynqueue.wire import ServerManager, WireServer, keys
from tests.support.calls import failureOf, inLoop, isAbsent, isAlive, until
from tests.support.deferreds import logged
from tests.support.programs import Program
from tests.support.wires import Certificates, Things, portOf

THINGS = "tests.support.wires.Things"
ROOT = Path(__file__).parents[3]
PATH = os.pathsep.join(filter(None, [str(ROOT / "dropin"), str(ROOT), *sys.path]))
"""Where interpreters find `twist`'s plugin, too."""


class TestManager:
    @inLoop
    async def test_servers_are_spawned_used_and_gone(self) -> None:
        manager = ServerManager(THINGS)
        sockets = [manager.newSocket(), manager.newSocket()]
        pids = await gatherResults([manager.spawn(each, niceness=2) for each in sockets])
        async with WireQueue(sockets, Things, key=manager.key) as queue:
            assert {await queue.call(Things.pid) for _ in range(20)} <= set(pids)
            assert os.getpriority(os.PRIO_PROCESS, pids[0]) == os.getpriority(os.PRIO_PROCESS, 0) + 2
        await manager.done(pids[0])
        assert not isAlive(pids[0])
        assert isAlive(pids[1])
        await manager.done(12345678)
        directory = Path(sockets[0].removeprefix("unix:")).parent
        assert directory.stat().st_mode & 0o077 == 0
        await manager.shutdown()
        assert not isAlive(pids[1])
        assert not directory.exists()

    @inLoop
    async def test_one_that_cannot_be_started_says_why(self, tmp_path: Path) -> None:
        manager = ServerManager("tests.support.wires.Nothing")
        error = await failureOf(manager.spawn(f"unix:{tmp_path / 'socket'}"))
        assert isinstance(error, ProcessError)
        assert "there is no universe 'tests.support.wires.Nothing'" in str(error)
        await manager.shutdown()

    @inLoop
    async def test_what_one_prints_is_logged(self) -> None:
        manager = ServerManager(THINGS)
        place = manager.newSocket()
        await manager.spawn(place)
        with logged() as events:
            worker = WireQueue(place, Things, key=b"this is not the right key", reconnect=False)
            await failureOf(worker.call(Things.pid))
            await until(lambda: any("refused" in str(event.get("line")) for event in events))
        await worker.shutdown()
        await manager.shutdown()

    def test_it_has_to_know_what_to_serve(self) -> None:
        with pytest.raises(ValueError, match="no universe to serve"):
            ServerManager().spawn("tcp:0")

    @pytest.mark.parametrize("server", ["idle", "frozen", "killed"])
    @inLoop
    async def test_with_a_parent_that_is_killed_servers_die_and_their_files_go(self, server: str) -> None:
        program = f"""
import sys
from twisted.internet import reactor
from asynqueue.wire import ServerManager, WireServer, keys
manager = ServerManager({THINGS!r})
manager.spawn(manager.newSocket()).addCallback(print).addCallback(lambda _: sys.stdout.flush())
reactor.run()
"""
        with (
            TemporaryDirectory(dir="/tmp") as scratch,  # one with a long name is of no use for a socket
            Program(
                [sys.executable, "-c", program],
                stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, "TMPDIR": scratch},
            ) as parent,
        ):  # fmt: skip
            assert parent.stdout is not None
            pid = int(parent.stdout.readline())
            assert isAlive(pid)
            places = list(Path(scratch).glob("asynqueue-*/key"))
            if server == "frozen":
                os.kill(pid, signal.SIGSTOP)
            elif server == "killed":
                os.kill(pid, signal.SIGKILL)
            parent.send_signal(signal.SIGKILL)
            parent.wait()
            assert len(places) == 1
            await until(lambda: not places[0].parent.exists())
            if server == "frozen":
                os.kill(pid, signal.SIGCONT)  # and it dies, as it has to, when it wakes
            await until(isAbsent, pid)


class TestPlantedModules:
    """A server imports what its parent can, and nothing that lies in the current directory only."""

    PROGRAM = """
import sys
from twisted.internet.task import react
from asynqueue.wire import ServerManager, WireQueue
async def main(reactor):
    manager = ServerManager("sums.Sums")
    place = manager.newSocket()
    try:
        await manager.spawn(place)
        import sums
        async with WireQueue(place, sums.Sums, key=manager.key) as queue:
            print(await queue.call(sums.Sums.where))
    finally:
        await manager.shutdown()
react(main)
"""
    SUMS = """
from asynqueue.wire import WireWorkerUniverse
class Sums(WireWorkerUniverse):
    def where(self):
        return __file__
"""

    def run(self, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run a program of WORDS in the directory CWD, where modules are planted that a server imports."""
        for name in (
            "attr",
            "attrs",
            "runpy",
            "site",
            "sitecustomize",
            "twisted",
            "asynqueue",
            "zope",
            "sums",
            "typing",
        ):
            if not (cwd / f"{name}.py").exists():
                (cwd / f"{name}.py").write_text("open('ran', 'a').write(__name__); raise ImportError")
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return subprocess.run(
            [sys.executable, *words], cwd=cwd, capture_output=True, text=True, timeout=60, env=environment
        )

    def test_do_not_run(self, tmp_path: Path) -> None:
        program, planted = tmp_path / "program", tmp_path / "planted"
        for each in (program, planted):
            each.mkdir()
        (program / "sums.py").write_text(self.SUMS)
        (program / "main.py").write_text(self.PROGRAM)
        said = self.run(str(program / "main.py"), cwd=planted)
        assert said.returncode == 0, said.stderr
        assert said.stdout == f"{program / 'sums.py'}\n"
        assert not (planted / "ran").exists()

    def test_a_parent_that_imports_from_the_current_directory_has_servers_that_do(self, tmp_path: Path) -> None:
        (tmp_path / "sums.py").write_text(self.SUMS)
        said = subprocess.run(
            [sys.executable, "-c", self.PROGRAM], cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert said.stdout == f"{tmp_path / 'sums.py'}\n", said.stderr


def command(*arguments: str, **kw: Any) -> subprocess.CompletedProcess[str]:
    """What the command line program does with ARGUMENTS, if it does not serve."""
    words = [sys.executable, "-m", "asynqueue.wire", *arguments]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60, cwd=ROOT, **kw)


class TestCommandLine:
    def test_it_has_help(self) -> None:
        said = command("--help")
        assert said.returncode == 0
        for word in ("DESCRIPTION", "UNIVERSE", "--key-file", "tls:", "ASYNQUEUE_WIRE_KEY"):
            assert word in said.stdout

    @pytest.mark.parametrize(
        ("arguments", "why"),
        [
            ((), "the following arguments are required: DESCRIPTION, UNIVERSE"),
            (("tcp:0", "nowhere.At"), "there is no universe 'nowhere.At'"),
            (("nonsense:0", THINGS), "nonsense"),
            (("tcp:99999", THINGS), "a port is an integer from 0 to 65535, and '99999' is none"),
            (("tcp:0", THINGS, "--key-file", "/nowhere"), "the key file cannot be read: there is no such file"),
            (("tcp:0:interface=127.0.0.1", THINGS), "neither a key nor trustRoots"),
            (("tcp:0", THINGS), "goes beyond this machine without encryption"),
            (("tcp:0", THINGS, "--key", "secret"), "unrecognized arguments: --key\n"),
            (("unix:/nowhere/at/all", THINGS), "/nowhere/at/all"),
            (("tcp:0", THINGS, "--limit", "wishes=3"), "there is no limit 'wishes', but connections, strangers"),
            (("tcp:0", THINGS, "--limit", "calls=many"), "the limit calls is a number, and 'many' is none"),
        ],
        ids=[
            "nothing",
            "universe",
            "description",
            "port",
            "key file",
            "no key",
            "plain",
            "key",
            "no place",
            "limit",
            "number",
        ],
    )
    def test_it_says_what_is_wrong(self, arguments: tuple[str, ...], why: str) -> None:
        said = command(*arguments)
        assert said.returncode in (1, 2)
        assert why in said.stderr
        assert "Traceback" not in said.stderr

    @pytest.mark.parametrize(
        ("arguments", "why"),
        [
            (("--key-file", "/nowhere", "tcp:0", THINGS), "Error: the key file cannot be read: there is no such file"),
            (("--limit", "wishes=3", "tcp:0", THINGS), "Error: there is no limit 'wishes'"),
            (("tcp:99999", THINGS), "'99999' is none"),
            (("tcp:0:interface=127.0.0.1", THINGS), "neither a key nor trustRoots"),
            (("tcp:0", THINGS), "goes beyond this machine without encryption"),
            (("unix:/nowhere/at/all", THINGS), "/nowhere/at/all"),
        ],
        ids=["key file", "limit", "description", "no key", "plain", "no place"],
    )
    def test_twist_says_what_is_wrong_and_ends(self, arguments: tuple[str, ...], why: str, tmp_path: Path) -> None:
        said = subprocess.run(
            [sys.executable, "-m", "twisted", "asynqueue-wire", *arguments],
            capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": PATH},
        )  # fmt: skip
        assert said.returncode != 0
        assert why in said.stderr
        assert "Traceback" not in said.stderr + said.stdout

    @inLoop
    async def test_it_says_that_tls_is_spoken(self, tmp_path: Path) -> None:
        certificates = Certificates(tmp_path)
        server = Program(
            [sys.executable, "-m", "asynqueue.wire", certificates.listen(), THINGS],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT,
        )  # fmt: skip
        assert server.stdout is not None
        with server, server.stdout:
            place = server.stdout.readline().split()[-1]
            server.send_signal(signal.SIGTERM)
            server.wait()
        assert place.startswith("tls:127.0.0.1:")

    @pytest.mark.parametrize("runner", ["module", "twist"])
    @inLoop
    async def test_it_serves_until_it_is_told_to_end(self, runner: str, tmp_path: Path) -> None:
        key = tmp_path / "wire.key"
        made = f"(umask 077 && head -c 32 /dev/urandom | base64 > {key})"  # as the help says
        subprocess.run(made, shell=True, check=True)
        place = f"unix:{tmp_path / 'socket'}"
        words = ["asynqueue.wire"] if runner == "module" else ["twisted", "asynqueue-wire"]
        server = Program(
            [sys.executable, "-m", *words, "--key-file", str(key), "--silence=9", "--limit", "calls=99", place, THINGS],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": PATH}, cwd=tmp_path,
        )  # fmt: skip
        with server:
            await until((tmp_path / "socket").exists)
            async with WireQueue(place, Things, key=key) as queue:
                assert await queue.call(Things.pid) == server.pid
            server.send_signal(signal.SIGTERM)
            server.wait()
        assert not (tmp_path / "socket").exists()

    @inLoop
    async def test_it_says_where_it_listens(self, tmp_path: Path) -> None:
        server = Program(
            [sys.executable, "-m", "asynqueue.wire", "tcp:0:interface=127.0.0.1", THINGS],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT,
            env={**os.environ, "ASYNQUEUE_WIRE_KEY": "a key of the environment's"},
        )  # fmt: skip
        assert server.stdout is not None
        with server, server.stdout:
            said = server.stdout.readline()
            assert said.startswith(f"serving {THINGS} at tcp:127.0.0.1:")
            place = said.split()[-1]
            async with WireQueue(place, Things, key=b"a key of the environment's") as queue:
                assert await queue.call(Things.add, 1) == 2
            server.send_signal(signal.SIGINT)
            server.wait()
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", int(place.rpartition(":")[2]))) != 0


class TestSecurityPage:
    """What `docs/security.md` says to type works as it stands there."""

    def test_each_row_of_its_table_of_attackers_names_tests_that_there_are(self) -> None:
        page = (ROOT / "docs" / "security.md").read_text()
        rows = [line for line in page[page.index("| attacker |") :].splitlines() if line.startswith("| ")][1:]
        assert len(rows) >= 14
        for row in rows:
            names = re.findall(r"`([\w.:]+)`", row.split("|")[-2])
            assert names, row
            file = names[0].split("::")[0]
            text = Path(__file__).with_name(file).read_text()
            for name in (part for each in names for part in each.removeprefix(file).split("::") if part):
                assert f"class {name}" in text or f"def {name}(" in text, name

    @inLoop
    async def test_its_commands_make_keys_and_certificates_that_are_good(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        page = (ROOT / "docs" / "security.md").read_text()
        makers = [
            block
            for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
            if "umask" in block or "asynqueue.wire certificates" in block
        ]
        assert len(makers) == 2
        for maker in makers:
            command = maker.replace("python", sys.executable)
            subprocess.run(["sh", "-ec", command], cwd=tmp_path, check=True, capture_output=True)
        assert len(keys.key(tmp_path / "wire.key") or b"") >= 32
        (server,) = re.findall(r"python -m asynqueue.wire (tls:\S+) sums.Sums", page)
        (client,) = re.findall(r'WireQueue\("(tls:[^"]+)", Sums\)', page)
        monkeypatch.chdir(tmp_path)
        serving = await WireServer(server.replace("7654", "0"), Things).start()
        queue = WireQueue(client.replace("7654", str(portOf(serving))), Things)
        assert await queue.call(Things.add, 1) == 2
        await queue.shutdown()
        await serving.stop()
