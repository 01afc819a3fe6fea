"""``python -m asynqueue.wire certificates``: what it makes is all that a client and a server need."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from asynqueue import WireQueue
from asynqueue.wire import WireServer
from asynqueue.wire.endpoints import clientEndpoint, serverEndpoint
from asynqueue.wire.trust.certificates import FILES, descriptions, make
from tests.support.calls import failureOf, inLoop
from tests.support.deferreds import logged
from tests.support.wires import Things, portOf

HOSTS = ["127.0.0.1", "localhost"]


def certificates(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """What the command does with ARGUMENTS."""
    words = [sys.executable, "-m", "asynqueue.wire", "certificates", *arguments]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60, cwd=cwd)


class TestCommand:
    @inLoop
    async def test_what_it_prints_connects_a_client_with_a_server(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        said = certificates(*HOSTS, cwd=tmp_path)
        assert (said.returncode, said.stderr) == (0, "")
        (server,) = re.findall(r"python -m asynqueue.wire (tls:\S+) UNIVERSE", said.stdout)
        clients = re.findall(r'WireQueue\("(tls:[^"]+)", Universe\)', said.stdout)
        assert len(clients) == len(HOSTS)
        monkeypatch.chdir(tmp_path)
        serving = await WireServer(server.replace("7654", "0"), Things).start()
        for client in clients:
            async with WireQueue(client.replace("7654", str(portOf(serving))), Things) as queue:
                assert await queue.call(Things.add, 1) == 2
        await serving.stop()

    def test_private_keys_are_their_owners_alone(self, tmp_path: Path) -> None:
        umask = os.umask(0)
        try:
            assert certificates("server.example", "--directory", "made/here", cwd=tmp_path).returncode == 0
        finally:
            os.umask(umask)
        made = tmp_path / "made" / "here"
        assert sorted(each.name for each in made.iterdir()) == sorted(FILES)
        assert {each.stat().st_mode & 0o777 for each in made.glob("*.key")} == {0o600}

    @pytest.mark.parametrize("name", FILES)
    def test_it_overwrites_nothing(self, name: str, tmp_path: Path) -> None:
        (tmp_path / name).write_text("mine")
        said = certificates("localhost", cwd=tmp_path)
        assert said.returncode == 1
        assert f"{name} is there already" in said.stderr
        assert [each.name for each in tmp_path.iterdir()] == [name]
        assert (tmp_path / name).read_text() == "mine"

    @pytest.mark.parametrize(
        ("arguments", "why"),
        [
            ((), "the following arguments are required: HOST"),
            (("a b",), "'a b' is neither a host's name nor its address"),
            (("localhost", "--days", "0"), "days must be an integer from 1 to 36500, got '0'"),
        ],
    )
    def test_it_says_what_is_wrong(self, arguments: tuple[str, ...], why: str, tmp_path: Path) -> None:
        said = certificates(*arguments, cwd=tmp_path)
        assert said.returncode == 2
        assert why in said.stderr
        assert not list(tmp_path.iterdir())


class TestCertificates:
    @inLoop
    async def test_that_of_a_client_is_none_of_a_server(self, tmp_path: Path) -> None:
        make(tmp_path, HOSTS)
        server, (client, _) = descriptions(tmp_path, HOSTS, 0)
        with logged() as events:
            pretender = server.replace("server.", "client.")
            serving = await WireServer(pretender, Things).start()
            there = client.replace(":0:", f":{portOf(serving)}:")
            error = await failureOf(WireQueue(there, Things).call(Things.add, 1))
            await serving.stop()
        assert "none is trusted" in str(error)
        assert any("is for another purpose than this side of a wire" in str(event.get("why")) for event in events)

    def test_descriptions_of_any_folder_and_host_can_be_read(self, tmp_path: Path) -> None:
        from twisted.internet import reactor

        folder = tmp_path / "a:b=c\\d"
        make(folder, ["::1"])
        server, (client,) = descriptions(folder, ["::1"], 7654)
        assert serverEndpoint(reactor, server).certified
        assert clientEndpoint(reactor, client).certified
