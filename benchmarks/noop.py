"""No-op calls on two processes: ours and `concurrent.futures.ProcessPoolExecutor`, in turns, in one run.

    python benchmarks/noop.py [--calls 200000] [--round-trips 2000] [--rounds 3]

Each round queues all the calls at once, first here, then there, and then makes calls one after another. The table
shows medians over the rounds; what counts is the ratio, since absolute figures are those of the machine and the day.
"""

from __future__ import annotations

import argparse
import gc
from concurrent.futures import ProcessPoolExecutor
from operator import add
from statistics import median
from time import perf_counter

import attrs
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorCore
from twisted.internet.task import react

from asynqueue import ProcessQueue

WORKERS = 2


@attrs.frozen
class Figures:
    """One system in one round: calls a second when all are queued at once, and round trips in microseconds."""

    rate: float
    p50: float
    p99: float

    @staticmethod
    def of(calls: int, seconds: float, trips: list[float]) -> Figures:
        """From the SECONDS that so many CALLS took, and the seconds of each of the TRIPS."""
        trips = sorted(trips)
        return Figures(calls / seconds, 1e6 * trips[len(trips) // 2], 1e6 * trips[len(trips) * 99 // 100])


async def ours(calls: int, roundTrips: int) -> Figures:
    """AsynQueue's figures."""
    async with ProcessQueue(WORKERS) as queue:
        await gatherResults([queue.call(add, n, 1) for n in range(100)])
        gc.collect()
        begun = perf_counter()
        results = await gatherResults([queue.call(add, n, 1) for n in range(calls)])
        seconds = perf_counter() - begun
        assert results == list(range(1, calls + 1))
        del results
        trips = []
        for n in range(roundTrips):
            begun = perf_counter()
            assert await queue.call(add, n, 1) == n + 1
            trips.append(perf_counter() - begun)
    return Figures.of(calls, seconds, trips)


def theirs(calls: int, roundTrips: int) -> Figures:
    """The executor's figures."""
    with ProcessPoolExecutor(WORKERS) as executor:
        for future in [executor.submit(add, n, 1) for n in range(100)]:
            future.result()
        gc.collect()
        begun = perf_counter()
        results = [future.result() for future in [executor.submit(add, n, 1) for n in range(calls)]]
        seconds = perf_counter() - begun
        assert results == list(range(1, calls + 1))
        del results
        trips = []
        for n in range(roundTrips):
            begun = perf_counter()
            assert executor.submit(add, n, 1).result() == n + 1
            trips.append(perf_counter() - begun)
    return Figures.of(calls, seconds, trips)


async def main(reactor: IReactorCore, calls: int, roundTrips: int, rounds: int) -> None:
    """Measure, and print a Markdown table."""
    measured: list[tuple[Figures, Figures]] = []
    for _ in range(rounds):
        measured.append((await ours(calls, roundTrips), theirs(calls, roundTrips)))
    print(f"{calls:,} no-op calls at once, {roundTrips:,} round trips, {WORKERS} workers, median of {rounds}\n")
    print("| | calls/s | round trip p50, µs | p99, µs |\n|---|---|---|---|")
    for name, which in (("AsynQueue ProcessQueue", 0), ("ProcessPoolExecutor", 1)):
        figures = [pair[which] for pair in measured]
        rate, p50, p99 = (median(getattr(f, field) for f in figures) for field in ("rate", "p50", "p99"))
        print(f"| {name} | {rate:,.0f} | {p50:,.0f} | {p99:,.0f} |")
    ratios = [mine.rate / other.rate for mine, other in measured]
    print(f"\ncalls/s, ours to theirs: {median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=200_000, help="calls queued at once (default %(default)s)")
    parser.add_argument("--round-trips", type=int, default=2_000, help="calls one after another (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="how often to measure both (default %(default)s)")
    arguments = parser.parse_args()

    def run(reactor: IReactorCore) -> Deferred[None]:
        work = main(reactor, arguments.calls, arguments.round_trips, arguments.rounds)
        return Deferred.fromCoroutine(work)

    react(run)
