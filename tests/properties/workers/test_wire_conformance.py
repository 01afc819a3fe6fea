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
from tests.support.stories import stories
from tests.support.wires import KEY, Deeds

ROOT = Path(__file__).parents[3]


class Keeper:
    """Whoever keeps a server at work: `tests.support.wirekeeper`."""

    def __init__(self, directory: str) -> None:
        self.description = f"unix:{directory}/socket"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.wirekeeper", directory],
            env={**os.environ, "ASYNQUEUE_WIRE_KEY": KEY.decode()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
        self.replace()

    def replace(self) -> None:
        """Have the server killed, and another in its place."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline()

    def end(self) -> None:
        """Have all of it end."""
        self._process.communicate()


keepers: list[Keeper] = []
"""The one that is there."""


@pytest.fixture(scope="module", autouse=True)
def keeper() -> Iterator[None]:
    with tempfile.TemporaryDirectory() as directory:
        keepers.append(Keeper(directory))
        yield
        keepers.pop().end()


class OnAWire(WorkerConformance):
    residents = False
    running = 1

    def makeWorker(self, series: Sequence[str]) -> Worker:
        return WireWorker(
            Deeds,
            keepers[0].description,
            series,
            thread=True,
            N_concurrent=self.running,
            key=KEY,
            reconnect=lambda failures: 0.05,
        )

    def hurtWorker(self, worker: WireWorker) -> None:
        keepers[0].replace()


class OnAWireForThree(OnAWire):
    running = 3


TestOnAWire = OnAWire.TestCase
TestOnAWire.settings = settings(max_examples=stories(25, least=3), stateful_step_count=12)
TestOnAWireForThree = OnAWireForThree.TestCase
TestOnAWireForThree.settings = settings(max_examples=stories(25, least=3), stateful_step_count=12)
