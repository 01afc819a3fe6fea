"""Keys: weak ones are refused, and none is ever shown."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.logger import formatEvent
from twisted.python.failure import Failure

from asynqueue import WireQueue, WireWorker
from asynqueue.core.protocol.handshake import NONCE, ClientHandshake, ServerHandshake
from asynqueue.errors import AuthenticationError
from asynqueue.wire import ServerManager, WireServer, keys
from asynqueue.wire.command import Options
from tests.support.calls import inLoop
from tests.support.deferreds import logged
from tests.support.wires import Things, served

SECRET = "correct horse battery staple/of 42=="
THINGS = "tests.support.wires.Things"
ROOT = Path(__file__).parents[3]

USES: dict[str, Callable[[Any], object]] = {
    "worker": lambda key: WireWorker(Things, "unix:/tmp/x", key=key),
    "queue": lambda key: WireQueue("unix:/tmp/x", Things, key=key),
    "server": lambda key: WireServer("unix:/tmp/x", Things, key=key),
    "manager": lambda key: ServerManager(THINGS, key=key),
    "keys": keys.key,
}

uses = pytest.mark.parametrize("use", USES.values(), ids=USES)


class TestWeakKeys:
    @uses
    @pytest.mark.parametrize("key", [b"", b"short", b"fifteen bytes!!", b"fifteen bytes!!\n"])
    def test_less_than_128_bits_is_refused(self, key: bytes, use: Callable[[Any], object]) -> None:
        with pytest.raises(ValueError, match=r"the key must have at least 16 bytes, got \d+; 32 random ones are good"):
            use(key)

    @uses
    def test_that_of_a_file_is_refused_too(self, use: Callable[[Any], object], tmp_path: Path) -> None:
        path = tmp_path / "key"
        path.write_bytes(b"fifteen bytes!!")
        path.chmod(0o600)
        with pytest.raises(ValueError, match="must have at least 16 bytes, got 15"):
            use(path)

    def test_that_of_the_environment_is_refused_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(keys.KEY, "fifteen bytes!!")
        with pytest.raises(ValueError, match="the key in ASYNQUEUE_WIRE_KEY must have at least 16 bytes, got 15"):
            keys.key(None)

    def test_sixteen_bytes_are_enough(self) -> None:
        assert keys.key(b"exactly sixteen!") == b"exactly sixteen!"


def shown(error: BaseException) -> str:
    """All that a program may show of ERROR."""
    failure = Failure(error)
    texts = [repr(error), str(error), failure.getTraceback(), failure.getBriefTraceback(), repr(error.__context__)]
    return "".join([*texts, *traceback.format_exception(error)])


class TestAKeyThatIsPassedAsText:
    """A text names the file of a key. A program that passes the key itself has an error, and that does not show it."""

    @uses
    @pytest.mark.parametrize("secret", [SECRET, SECRET * 200, f"{SECRET}\0", "short"])
    def test_is_in_no_error(self, secret: str, use: Callable[[Any], object]) -> None:
        with pytest.raises(AuthenticationError, match="Its name is not shown, as it may be the key itself") as raised:
            use(secret)
        assert secret not in shown(raised.value)

    def test_in_the_environment_is_in_no_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(keys.KEY_FILE, SECRET)
        with pytest.raises(AuthenticationError, match="the key file of ASYNQUEUE_WIRE_KEY_FILE") as raised:
            keys.key(None)
        assert SECRET not in shown(raised.value)

    @pytest.mark.parametrize(
        "arguments",
        [
            ("--key-file", SECRET, "unix:x", THINGS),
            (f"--key-file={SECRET}", "unix:x", THINGS),
            ("--key", SECRET, "unix:x", THINGS),
            (f"--key={SECRET}", "unix:x", THINGS),
            ("unix:x", THINGS, SECRET),
        ],
    )
    @pytest.mark.parametrize("runner", ["module", "twist"])
    def test_on_a_command_line_is_not_printed(self, runner: str, arguments: tuple[str, ...], tmp_path: Path) -> None:
        words = ["asynqueue.wire"] if runner == "module" else ["twisted", "asynqueue-wire"]
        said = subprocess.run(
            [sys.executable, "-m", *words, *arguments], capture_output=True, text=True, timeout=60, cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "dropin"), str(ROOT), *sys.path])},
        )  # fmt: skip
        assert said.returncode
        assert SECRET not in said.stdout + said.stderr

    def test_is_printed_by_no_mcm(self, tmp_path: Path) -> None:
        for command in (["worker", "-k", SECRET, "unix:x"], ["serve", "-k", SECRET, "-d", "unix:x", "--port", "0"]):
            words = [sys.executable, "-m", "mcmandelbrot", *command]
            said = subprocess.run(words, capture_output=True, text=True, timeout=60, cwd=tmp_path)
            assert said.returncode == 1
            assert SECRET not in said.stdout + said.stderr


class TestAKeyInUse:
    @inLoop
    async def test_is_in_no_log_and_no_repr(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        key = SECRET.encode()
        with logged() as events, caplog.at_level(logging.DEBUG):
            async with served("unix", tmp_path) as (server, description, _):
                server.key = key
                stranger = WireQueue(description, Things, key=b"another key than that", reconnect=False)
                await stranger.call(Things.add, 1).addErrback(lambda reason: None)
                await stranger.shutdown()
                manager = ServerManager(THINGS, key=key)
                async with WireQueue(description, Things, key=key) as queue:
                    assert await queue.call(Things.add, 1) == 2
                    (worker,) = queue.workers()
                    (client,) = server._clients
                    things = [queue, worker, server, client, manager, server.service, vars(worker)["_link"]]
                    texts = [f"{each!r} {each}" for each in things] + [str(queue.stats())]
        assert events
        texts += [f"{formatEvent(event)} {event}" for event in events] + [caplog.text]
        shakes = [ClientHandshake(bytes(NONCE), key, False), ServerHandshake(bytes(NONCE), key, False)]
        texts += [repr(shake) for shake in shakes]
        assert not [text for text in texts if SECRET in text]

    def test_options_of_twist_do_not_show_it(self, tmp_path: Path) -> None:
        options: Any = Options  # Twisted does not type its options
        options = options()
        with pytest.raises(Exception, match="Its name is not shown") as raised:
            options.parseOptions(["--key-file", SECRET, "unix:x", THINGS])
        assert SECRET not in shown(raised.value)
