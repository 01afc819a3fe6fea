"""The Dask worker, put through the conformance kit on a real cluster whose worker is really killed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from distributed import Client
from hypothesis import settings
from twisted.internet.defer import Deferred

from asynqueue import DaskWorker
from asynqueue.interfaces import Worker
from asynqueue.testing import WorkerConformance
from tests.support.daskcluster import DaskCluster
from tests.support.stories import stories

clusters: list[DaskCluster] = []
"""The one that is there."""


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with DaskCluster(workers=1) as cluster:
        clusters.append(cluster)
        yield
        clusters.clear()


class WithClient(DaskWorker):
    """A worker whose client is its own, and ends with it."""

    def __init__(self, series: Sequence[str]) -> None:
        self._own = Client(clusters[0].scheduler.address)
        super().__init__(self._own, series, window=1)

    def stop(self) -> Deferred[None]:
        return super().stop().addCallback(lambda _: self._own.close())


class OnDask(WorkerConformance):
    timeout = 0.5  # it takes a while until a call has started

    def makeWorker(self, series: Sequence[str]) -> Worker:
        return WithClient(series)

    def hurtWorker(self, worker: WithClient) -> None:
        clusters[0].killWorker()
        clusters[0].addWorker()


TestOnDask = OnDask.TestCase
TestOnDask.settings = settings(max_examples=stories(20, least=4), stateful_step_count=12)
