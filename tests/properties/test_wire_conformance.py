"""The wire worker, put through the conformance kit with a server that is really killed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import settings

from asynqueue import WireWorker
from asynqueue.interfaces import Worker
from asynqueue.testing import WorkerConformance
from tests.wirekit import KEY, Deeds

EXAMPLES = settings.get_profile(settings.get_current_profile_name()).max_examples
ROOT = Path(__file__).parents[2]
DEEDS = "tests.wirekit.Deeds"


class Servers:
    """Servers of `Deeds`, each a process of its own: one at work, at a socket whose name stays, and one that waits."""

    def __init__(self, directory: str) -> None:
        self._directory = Path(directory)
        self._started = 0
        self._socket = self._directory / "socket"
        self.description = f"unix:{self._socket}"
        self._atWork = self._start()
        self._spare = self._start()
        self.replace()

    def replace(self) -> None:
        """Kill the one at work; the other takes its place."""
        self._kill(self._atWork)
        self._atWork = self._spare
        self._socket.unlink(missing_ok=True)
        self._socket.symlink_to(self._directory / str(self._started))  # which the one that waits was the last to take
        self._spare = self._start()

    def end(self) -> None:
        """Kill both."""
        for process in self._atWork, self._spare:
            self._kill(process)

    def _start(self) -> subprocess.Popen[bytes]:
        self._started += 1
        return subprocess.Popen(
            [sys.executable, "-m", "asynqueue.wire", f"unix:{self._directory / str(self._started)}", DEEDS],
            env={**os.environ, "ASYNQUEUE_WIRE_KEY": KEY.decode()},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
        )

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()


servers: list[Servers] = []
"""Those that are there."""


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    with tempfile.TemporaryDirectory() as directory:
        servers.append(Servers(directory))
        yield
        servers.pop().end()


class OnAWire(WorkerConformance):
    residents = False
    running = 1

    def makeWorker(self, series: Sequence[str]) -> Worker:
        return WireWorker(
            Deeds,
            servers[0].description,
            series,
            thread=True,
            N_concurrent=self.running,
            key=KEY,
            reconnect=lambda failures: 0.05,
        )

    def hurtWorker(self, worker: WireWorker) -> None:
        servers[0].replace()


class OnAWireForThree(OnAWire):
    running = 3


TestOnAWire = OnAWire.TestCase
TestOnAWire.settings = settings(max_examples=max(3, EXAMPLES // 25), stateful_step_count=12)
TestOnAWireForThree = OnAWireForThree.TestCase
TestOnAWireForThree.settings = settings(max_examples=max(3, EXAMPLES // 25), stateful_step_count=12)
