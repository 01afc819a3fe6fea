"""No-op calls on a Dask cluster: ours through `DaskWorker` and a bare ``client.submit``, in turns, in one run.

    python benchmarks/cluster.py [--calls 1000] [--round-trips 100] [--rounds 3]

The cluster is a `LocalCluster` of two processes with a thread each. Each round makes all the calls at once, first here,
then there, and then makes calls one after another. Here there are two ways: with the window that follows the cluster,
where the order is the queue's to the last call, and with one of a hundred, where Dask holds as many. The table shows
medians over the rounds; what counts is the ratio, since absolute figures are those of the machine and the day.
"""

from __future__ import annotations

import argparse
from operator import add
from statistics import median
from time import perf_counter

import attrs
from distributed import Client, LocalCluster
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorCore
from twisted.internet.task import react

from asynqueue import DaskWorker, TaskQueue


@attrs.frozen
class Figures:
    """One system in one round: calls a second when all are made at once, and the median round trip in milliseconds."""

    rate: float
    p50: float


async def ours(client: Client, window: int | None, calls: int, roundTrips: int) -> Figures:
    """AsynQueue's figures."""
    worker = DaskWorker(client, window=window)
    async with TaskQueue(worker) as queue:
        await worker.whenReady()
        await gatherResults([queue.call(add, n, 1) for n in range(20)])
        begun = perf_counter()
        results = await gatherResults([queue.call(add, n, 1) for n in range(calls)])
        seconds = perf_counter() - begun
        assert results == list(range(1, calls + 1))
        trips = []
        for n in range(roundTrips):
            begun = perf_counter()
            assert await queue.call(add, n, 1) == n + 1
            trips.append(perf_counter() - begun)
    return Figures(calls / seconds, 1e3 * median(trips))


def theirs(client: Client, calls: int, roundTrips: int) -> Figures:
    """The bare client's figures."""
    client.gather([client.submit(add, n, 1, pure=False) for n in range(20)])
    begun = perf_counter()
    results = client.gather([client.submit(add, n, 1, pure=False) for n in range(calls)])
    seconds = perf_counter() - begun
    assert results == list(range(1, calls + 1))
    trips = []
    for n in range(roundTrips):
        begun = perf_counter()
        assert client.submit(add, n, 1, pure=False).result() == n + 1
        trips.append(perf_counter() - begun)
    return Figures(calls / seconds, 1e3 * median(trips))


async def main(reactor: IReactorCore, client: Client, calls: int, roundTrips: int, rounds: int) -> None:
    """Measure, and print a Markdown table."""
    names = ("DaskWorker, following the cluster", "DaskWorker, window=100", "client.submit")
    measured: list[tuple[Figures, Figures, Figures]] = []
    for _ in range(rounds):
        narrow = await ours(client, None, calls, roundTrips)
        wide = await ours(client, 100, calls, roundTrips)
        measured.append((narrow, wide, theirs(client, calls, roundTrips)))
    print(f"{calls:,} no-op calls at once, {roundTrips:,} round trips, 2 Dask workers, median of {rounds}\n")
    print("| | calls/s | to client.submit | round trip p50, ms | to client.submit |\n|---|---|---|---|---|")
    for which, name in enumerate(names):
        rate = median(figures[which].rate for figures in measured)
        rates = median(figures[which].rate / figures[2].rate for figures in measured)
        p50 = median(figures[which].p50 for figures in measured)
        p50s = median(figures[which].p50 / figures[2].p50 for figures in measured)
        print(f"| {name} | {rate:,.0f} | {rates:.2f} | {p50:,.1f} | {p50s:.2f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=1_000, help="calls made at once (default %(default)s)")
    parser.add_argument("--round-trips", type=int, default=100, help="calls one after another (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="how often to measure all (default %(default)s)")
    arguments = parser.parse_args()
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as connected,
    ):

        def run(reactor: IReactorCore) -> Deferred[None]:
            work = main(reactor, connected, arguments.calls, arguments.round_trips, arguments.rounds)
            return Deferred.fromCoroutine(work)

        try:
            react(run)
        except SystemExit as done:  # not before the cluster is closed
            if done.code:
                raise
