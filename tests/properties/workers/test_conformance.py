"""Our own workers, and the kit's, put through the kit: with real threads, real processes, and a real ``kill -9``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import settings
from twisted.internet.task import Clock

from asynqueue import AsyncWorker, ProcessWorker, ThreadWorker
from asynqueue.core.scheduling.window import Window
from asynqueue.interfaces import Worker
from asynqueue.testing import MemoryWorker, WorkerConformance
from tests.support.calls import killProcessOf
from tests.support.stories import stories


class InMemory(WorkerConformance):
    """The kit's own worker, which dies and comes back."""

    blocking = False

    def makeClock(self) -> Clock:
        return Clock()

    def makeWorker(self, series: Sequence[str]) -> Worker:
        assert self.clock is not None
        return MemoryWorker(self.clock, series)

    def hurtWorker(self, worker: MemoryWorker) -> None:
        worker.die()


class InMemoryForGood(InMemory):
    """One that runs two calls at once, slowly, and does not come back."""

    def makeWorker(self, series: Sequence[str]) -> Worker:
        assert self.clock is not None
        return MemoryWorker(self.clock, series, Window(2, 5), seconds=0.0004)

    def hurtWorker(self, worker: MemoryWorker) -> None:
        worker.die(returning=False)


class InTheMainLoop(WorkerConformance):
    blocking = False

    def makeClock(self) -> Clock:
        return Clock()

    def makeWorker(self, series: Sequence[str]) -> Worker:
        clock: Any = self.clock
        return AsyncWorker(series, reactor=clock)


class InAThread(WorkerConformance):
    def makeWorker(self, series: Sequence[str]) -> Worker:
        return ThreadWorker(series)


class InAProcess(WorkerConformance):
    def makeWorker(self, series: Sequence[str]) -> Worker:
        return ProcessWorker(series)

    def hurtWorker(self, worker: ProcessWorker) -> None:
        killProcessOf(worker)


TestInMemory = InMemory.TestCase
TestInMemoryForGood = InMemoryForGood.TestCase
TestInTheMainLoop = InTheMainLoop.TestCase
TestInAThread = InAThread.TestCase
TestInAThread.settings = settings(max_examples=stories(3), stateful_step_count=25)
TestInAProcess = InAProcess.TestCase
TestInAProcess.settings = settings(max_examples=stories(6), stateful_step_count=20)
