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


class Server:
    """A server of `Deeds`, in a process of its own."""

    def __init__(self, directory: str) -> None:
        self.description = f"unix:{directory}/socket"
        self.start()

    def start(self) -> None:
        """Have a process, which will listen soon."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "asynqueue.wire", self.description, "tests.wirekit.Deeds"],
            env={**os.environ, "ASYNQUEUE_WIRE_KEY": KEY.decode()},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
        )

    def kill(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.wait()


servers: list[Server] = []
"""The one that is there."""


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    with tempfile.TemporaryDirectory() as directory:
        servers.append(Server(directory))
        yield
        servers.pop().kill()


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
        servers[0].kill()
        servers[0].start()


class OnAWireForThree(OnAWire):
    running = 3


TestOnAWire = OnAWire.TestCase
TestOnAWire.settings = settings(max_examples=max(4, EXAMPLES // 20), stateful_step_count=15)
TestOnAWireForThree = OnAWireForThree.TestCase
TestOnAWireForThree.settings = settings(max_examples=max(4, EXAMPLES // 20), stateful_step_count=15)
