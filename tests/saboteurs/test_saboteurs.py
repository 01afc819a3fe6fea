"""The kit finds every saboteur, and names the guarantee that it breaks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from unittest import TestCase

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from asynqueue import AsyncWorker, deferToDelay
from asynqueue.core.scheduling.window import Window
from asynqueue.interfaces import Worker
from asynqueue.testing import GuaranteeBroken, MemoryWorker, WorkerConformance
from tests.saboteurs.workers import SABOTEURS, Saboteur

ENOUGH = settings(
    max_examples=400,
    stateful_step_count=25,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],  # that it is found is enough: nobody reads the story
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


def conformanceOf(kind: type[MemoryWorker]) -> type[WorkerConformance]:
    """The kit for workers of KIND."""

    class Conformance(WorkerConformance):
        blocking = False
        grace = 0.0

        def makeClock(self) -> Clock:
            return Clock()

        def makeWorker(self, series: Sequence[str]) -> Worker:
            assert self.clock is not None
            return kind(self.clock, series, Window(1, 4))

        def hurtWorker(self, worker: MemoryWorker) -> None:
            worker.die()

    return Conformance


@pytest.fixture(autouse=True)
def repentance() -> Iterator[None]:
    """What a saboteur kept is let go of."""
    yield
    for saboteur in SABOTEURS:
        getattr(saboteur, "repent", lambda: None)()


def test_there_are_enough_of_them() -> None:
    assert len(SABOTEURS) >= 15


@pytest.mark.parametrize("saboteur", SABOTEURS)
def test_the_kit_catches_it_and_names_the_guarantee(saboteur: type[Saboteur]) -> None:
    with pytest.raises(GuaranteeBroken) as caught:
        run_state_machine_as_test(conformanceOf(saboteur), settings=ENOUGH)
    assert caught.value.guarantee is saboteur.breaks, str(caught.value)
    assert str(caught.value).startswith(saboteur.breaks.value)


def test_the_kit_passes_an_honest_one() -> None:
    run_state_machine_as_test(conformanceOf(MemoryWorker), settings=settings(ENOUGH, max_examples=30))


class TestAfterwards(TestCase):  # for under pytest-twisted the reactor cannot be turned in a function
    def test_the_kit_waits_until_one_that_it_caught_has_stopped(self) -> None:
        stopped: list[Worker] = []

        class Unqualified(AsyncWorker):
            """It takes a moment to stop."""

            def stop(self) -> Deferred[None]:
                return deferToDelay(0.01).addCallback(lambda _: stopped.append(self))

        class Conformance(WorkerConformance):
            blocking = False

            def makeWorker(self, series: Sequence[str]) -> Worker:
                return Unqualified()

        story = Conformance()
        story.attach()
        with pytest.raises(GuaranteeBroken, match="is not qualified for it"):
            story.wait()
        story.teardown()
        assert len(stopped) == 1
