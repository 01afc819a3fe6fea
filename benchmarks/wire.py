"""Measure wires beside `ampoule` and our own processes, in one run; and large transfers, with their memory.

    python -m benchmarks.wire [--calls 40000] [--round-trips 2000] [--rounds 3]
    python -m benchmarks.wire --large [--mebibytes 100] [--items 1000000]

The first needs ``pip install ampoule``. Each round queues all calls at once and then makes calls one after another:
over UNIX sockets, over TCP on the loopback, in processes, and with ampoule, which gets a tenth of the calls. Only
the ratios count. The second has one server return a large result, and then many items to a consumer that pauses,
over TCP and TLS.
"""

from __future__ import annotations

import argparse
import gc
import os
import pickle
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import import_module
from operator import add
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import attrs
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import react

from asynqueue import ProcessQueue, TaskQueue, WireQueue, deferToDelay
from asynqueue.wire import ServerManager, WireWorkerUniverse

WORKERS = 2
MEBIBYTE = 1 << 20


class Bench(WireWorkerUniverse):
    """What the servers offer."""

    def add(self, a: int, b: int) -> int:
        """Return the sum: almost no work."""
        return a + b

    def big(self, mebibytes: int) -> bytes:
        """Return a large result."""
        return b"x" * (mebibytes * MEBIBYTE)

    def count(self, number: int) -> Iterator[int]:
        """Yield many items."""
        yield from range(number)

    def peak(self) -> int:
        """Return the most bytes that the server had in memory since the last such call."""
        return peak()


def peak() -> int:
    """Return the most bytes that this process had in memory since the last such call."""
    most = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    return int(most) * 1024


@attrs.frozen
class Figures:
    """One system in one round: calls a second when all are queued at once, and round trips in microseconds."""

    rate: float
    p50: float
    p99: float


async def figures(call: Callable[[int, int], Deferred[Any]], calls: int, roundTrips: int) -> Figures:
    """Return the figures of CALL, which makes a call."""
    await gatherResults([call(n, 1) for n in range(200)])
    gc.collect()
    begun = perf_counter()
    await gatherResults([call(n, 1) for n in range(calls)])
    seconds = perf_counter() - begun
    trips = []
    for n in range(roundTrips):
        begun = perf_counter()
        await call(n, 1)
        trips.append(perf_counter() - begun)
    trips.sort()
    return Figures(calls / seconds, 1e6 * trips[roundTrips // 2], 1e6 * trips[roundTrips * 99 // 100])


def freePort() -> int:
    """Return a port of the loopback that is not in use."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


UNIVERSE = "benchmarks.wire.Bench"


async def wires(kind: str, calls: int, roundTrips: int) -> Figures:
    """Wires to servers of their own."""
    manager = ServerManager(UNIVERSE)
    clients = []
    for _ in range(WORKERS):
        if kind == "unix":
            place = manager.newSocket()
            await manager.spawn(place)
        else:
            port = freePort()
            place = f"tcp:127.0.0.1:{port}"
            await manager.spawn(f"tcp:{port}:interface=127.0.0.1")
        clients.append(place)
    async with WireQueue(clients, Bench, key=manager.key) as queue:
        measured = await figures(lambda a, b: queue.call(Bench.add, a, b), calls, roundTrips)
    await manager.shutdown()
    return measured


async def processes(calls: int, roundTrips: int) -> Figures:
    """Our own processes."""
    async with ProcessQueue(WORKERS) as queue:
        return await figures(lambda a, b: queue.call(add, a, b), calls, roundTrips)


async def theirs(calls: int, roundTrips: int) -> Figures:
    """Ampoule's processes."""
    from benchmarks import ampoulechild

    pool, starting = map(import_module, ("ampoule.pool", "ampoule.main"))
    paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}  # the processes import `ampoulechild`
    starter = starting.ProcessStarter(packages=("twisted", "ampoule"), env=paths)
    children = pool.ProcessPool(ampoulechild.Child, min=WORKERS, max=WORKERS, starter=starter)
    await children.start()

    def call(a: int, b: int) -> Deferred[Any]:
        done: Deferred[Any] = children.doWork(ampoulechild.Call, call=pickle.dumps((add, (a, b))))
        return done

    try:
        return await figures(call, calls // 10, roundTrips)
    finally:
        await children.stop()


async def small(calls: int, roundTrips: int, rounds: int) -> None:
    """Measure small calls, and print a Markdown table."""
    systems: dict[str, Callable[[], Any]] = {
        "wires, UNIX sockets": lambda: wires("unix", calls, roundTrips),
        "wires, TCP": lambda: wires("tcp", calls, roundTrips),
        "processes": lambda: processes(calls, roundTrips),
        "ampoule": lambda: theirs(calls, roundTrips),
    }
    measured: dict[str, list[Figures]] = {name: [] for name in systems}
    for _ in range(rounds):
        for name, measure in systems.items():
            measured[name].append(await measure())
    print(f"{calls:,} no-op calls at once, {roundTrips:,} round trips, {WORKERS} workers, median of {rounds}\n")
    print("| | calls/s | to ampoule | round trip p50, µs | p99, µs |\n|---|---|---|---|---|")
    for name, rows in measured.items():
        rate, p50, p99 = (median(getattr(row, field) for row in rows) for field in ("rate", "p50", "p99"))
        ratio = median(mine.rate / other.rate for mine, other in zip(rows, measured["ampoule"], strict=True))
        print(f"| {name} | {rate:,.0f} | × {ratio:.1f} | {p50:,.0f} | {p99:,.0f} |")


class Pausing:
    """A consumer that pauses now and then."""

    def __init__(self) -> None:
        self.number = 0
        self._producer: Any = None  # an IPushProducer

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Register PRODUCER."""
        self._producer = producer

    def unregisterProducer(self) -> None:
        """Note the end."""

    def write(self, data: int) -> None:
        """Count the item, and pause at each 50,000th."""
        assert data == self.number
        self.number += 1
        if self.number % 50_000 == 0:
            self._producer.pauseProducing()
            deferToDelay(0.05).addCallback(lambda _: self._producer.resumeProducing())


async def large(kind: str, mebibytes: int, items: int) -> None:
    """Measure large transfers over a connection of KIND."""
    import trustme

    with tempfile.TemporaryDirectory() as place:
        port, directory = freePort(), Path(place)
        key = f"tcp:{port}:interface=127.0.0.1", f"tcp:127.0.0.1:{port}"
        if kind == "TLS":
            authority, roots = trustme.CA(), directory / "roots"
            roots.mkdir()
            authority.cert_pem.write_to_path(roots / "ca.pem")
            issued = authority.issue_cert("127.0.0.1")
            issued.private_key_pem.write_to_path(directory / "server.key")
            issued.cert_chain_pems[0].write_to_path(directory / "server.pem")
            own = f"certificate={directory}/server.pem:privateKey={directory}/server.key"
            key = f"tls:{port}:interface=127.0.0.1:{own}", f"tls:127.0.0.1:{port}:trustRoots={roots}"
        manager = ServerManager(UNIVERSE)
        await manager.spawn(key[0])
        queue: TaskQueue = WireQueue(key[1], Bench, key=manager.key)
        for _ in range(2):  # what there is before
            here, there = peak(), await queue.call(Bench.peak)

        async def grown(value: int = 0) -> str:
            nowHere, nowThere = peak(), await queue.call(Bench.peak)
            return " | ".join(f"{after / MEBIBYTE - value:,.1f}" for after in (nowHere - here, nowThere - there))

        consumer = Pausing()
        begun = perf_counter()
        await queue.call(Bench.count, items, consumer=consumer)
        seconds = perf_counter() - begun
        assert consumer.number == items
        print(f"| {items:,} items over {kind} | {items / seconds:,.0f} items/s | {await grown()} |")
        begun = perf_counter()
        result = await queue.call(Bench.big, mebibytes)
        seconds = perf_counter() - begun
        assert len(result) == mebibytes * MEBIBYTE
        print(f"| {mebibytes:,} MiB over {kind} | {mebibytes / seconds:,.0f} MiB/s | {await grown(mebibytes)} |")
        del result
        await queue.shutdown()
        await manager.shutdown()


async def main(arguments: argparse.Namespace) -> None:
    """Measure what ARGUMENTS ask for."""
    if not arguments.large:
        await small(arguments.calls, arguments.round_trips, arguments.rounds)
        return
    print("| | speed | most memory here beside the value, MiB | there |\n|---|---|---|---|")
    for kind in ("TCP", "TLS"):
        await large(kind, arguments.mebibytes, arguments.items)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=40_000, help="calls queued at once (default %(default)s)")
    parser.add_argument("--round-trips", type=int, default=2_000, help="calls one after another (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="how often to measure all (default %(default)s)")
    parser.add_argument("--large", action="store_true", help="measure large transfers instead")
    parser.add_argument("--mebibytes", type=int, default=100, help="of the large result (default %(default)s)")
    parser.add_argument("--items", type=int, default=1_000_000, help="of the iteration (default %(default)s)")
    arguments = parser.parse_args()
    react(lambda _: Deferred.fromCoroutine(main(arguments)))
