"""Make a long run with every kind of fault: a million calls, a thousand ``kill -9``, cancels, timeouts, iterations.

    python -m benchmarks.endurance [--calls 1000000] [--kills 1000] [--workers 2] [--seed 1]

Each call counts its start in a byte of its own, in a file that all processes have mapped. So the count survives the
process. At the end, every call must have settled once and as it should, and none may have started more than twice.
Each lost call must have cost two processes. The program's memory and descriptors are watched throughout. The exit
status is 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import resource
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path
from time import perf_counter
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorCore
from twisted.internet.task import react
from twisted.python.failure import Failure

from asynqueue import ProcessQueue, ProcessWorker, WorkerLost, deferToDelay
from asynqueue.errors import TimeoutError
from benchmarks.errands import ITEMS, dwell, fail, give, hang, iterate

IN_FLIGHT = 1000
"""The number of calls at once."""


@attrs.define
class Sample:
    """What the program held when so many calls had settled."""

    settled: int
    kills: int
    megabytes: float
    descriptors: int

    @staticmethod
    def now(settled: int, kills: int) -> Sample:
        """Return what it holds now."""
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        megabytes = pages * resource.getpagesize() / 2**20
        return Sample(settled, kills, megabytes, len(os.listdir("/proc/self/fd")))


class Run:
    """One long run of CALLS calls and KILLS kills, drawn from SEED, which counts its starts in the file PATH."""

    def __init__(self, calls: int, kills: int, workers: int, seed: int, path: str) -> None:
        self.calls = calls
        self.kills = kills
        self.random = random.Random(seed)
        self.path = path
        self.queue = ProcessQueue(workers, maxQueued=IN_FLIGHT)
        self.ends: Counter[str] = Counter()
        self.settled = bytearray(calls)  # how often each was started
        self.done = 0
        self.killed = 0
        self.wrong: list[str] = []
        self.lost: list[int] = []
        self.samples: list[Sample] = []
        self._nextSample = calls // 10

    async def act(self) -> None:
        """Make all calls, and wait for all."""
        for number in range(self.calls):
            await self.queue.ready()
            self._make(number)
            if self.killed < self.kills * (number + 1) // self.calls:
                await self._kill()
            if self.done >= self._nextSample:
                self._sample()
        while self.done < self.calls:
            await deferToDelay(0.01)
        self._sample()
        await self.queue.shutdown()

    def check(self, starts: bytes) -> list[str]:
        """Return what is wrong."""
        wrong = list(self.wrong)
        wrong += [f"{n} calls did not settle exactly once" for n in (self.calls - self.settled.count(1),) if n]
        often = [n for n in starts if n > 2]
        wrong += [f"{len(often)} calls were started more than twice"] if often else []
        twice = starts.count(2)
        if twice > self.killed + self.ends["TimeoutError"]:
            wrong.append(f"{twice} calls were started twice, and {self.killed} processes died")
        if 2 * len(self.lost) > self.killed:
            wrong.append(f"{len(self.lost)} calls were lost, each to two processes, and {self.killed} died")
        first, last = self.samples[len(self.samples) // 2], self.samples[-1]
        if last.megabytes > 1.1 * first.megabytes + 8:
            wrong.append(f"memory grew from {first.megabytes:.0f} to {last.megabytes:.0f} MB in the second half")
        if last.descriptors > first.descriptors + 16:
            wrong.append(f"descriptors grew from {first.descriptors} to {last.descriptors}")
        return wrong

    def _make(self, number: int) -> None:
        chance = self.random.random()
        queue, path = self.queue, self.path
        niceness = self.random.choice((-10, 0, 0, 10))
        d: Deferred[Any]
        if chance < 0.01:
            self._await(number, "fail", queue.call(fail, path, number, niceness=niceness))
        elif chance < 0.02:
            d = Deferred.fromCoroutine(self._drain(number, stop=self.random.random() < 0.3))
            self._await(number, "iterate", d)
        elif chance < 0.0202:
            self._await(number, "hang", queue.call(hang, path, number, timeout=0.05))
        elif chance < 0.03:
            d = queue.call(give, path, number, niceness=niceness)
            self._await(number, "cancel", d)
            d.cancel()
        elif chance < 0.06:
            self._await(number, "dwell", queue.call(dwell, path, number, niceness=niceness))
        else:
            self._await(number, "give", queue.call(give, path, number, niceness=niceness))

    async def _drain(self, number: int, stop: bool) -> bool:
        got: list[int] = []
        iteration = await self.queue.call(iterate, self.path, number)
        try:
            async for item in iteration:
                got.append(item)
                if stop and len(got) == ITEMS // 2:
                    iteration.stop()
        finally:
            if got != list(range(len(got))):
                self.wrong.append(f"iteration {number} gave {got}")
        if not stop and len(got) != ITEMS:
            self.wrong.append(f"iteration {number} gave {len(got)} items and no error")
        return True

    def _await(self, number: int, kind: str, d: Deferred[Any]) -> None:
        d.addBoth(self._ended, number, kind)

    def _ended(self, result: Any, number: int, kind: str) -> None:
        self.done += 1
        self.settled[number] += 1
        if isinstance(result, Failure):
            error = result.value
            self.ends[type(error).__name__] += 1
            allowed = {"fail": LookupError, "hang": TimeoutError, "cancel": CancelledError}.get(kind, WorkerLost)
            if isinstance(error, WorkerLost):
                if kind != "iterate":  # it may be lost while its items are taken, after one start
                    self.lost.append(number)
            elif not isinstance(error, allowed) or (kind == "fail" and error.args != (number,)):
                self.wrong.append(f"call {number}, to {kind}, ended in {error!r}")
        else:
            self.ends[kind] += 1
            if result != (True if kind == "iterate" else number):
                self.wrong.append(f"call {number}, to {kind}, ended in {result!r}")

    async def _kill(self) -> None:
        worker = self.random.choice(self.queue.workers())
        if isinstance(worker, ProcessWorker):
            with contextlib.suppress(ProcessLookupError):  # it was killed before, and that is not noticed yet
                os.kill(worker.process.pid, signal.SIGKILL)
                self.killed += 1
        await deferToDelay(0)

    def _sample(self) -> None:
        self._nextSample += self.calls // 10
        self.samples.append(Sample.now(self.done, self.killed))


async def main(_: IReactorCore) -> None:
    """Make the run that the command line describes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=1_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "starts"
        path.write_bytes(bytes(asked.calls))
        run = Run(asked.calls, asked.kills, asked.workers, asked.seed, str(path))
        begun = perf_counter()
        await run.act()
        seconds = perf_counter() - begun
        starts = path.read_bytes()
    print(f"{asked.calls:,} calls and {run.killed:,} kills in {seconds:.0f} s")
    print("how they ended:", ", ".join(f"{what} {n:,}" for what, n in run.ends.most_common()))
    print("how often they were started:", ", ".join(f"{n}: {c:,}" for n, c in sorted(Counter(starts).items())))
    print("\n| settled | kills | memory, MB | descriptors |\n| ---: | ---: | ---: | ---: |")
    for each in run.samples:
        print(f"| {each.settled:,} | {each.kills:,} | {each.megabytes:.1f} | {each.descriptors} |")
    wrong = run.check(starts)
    print("\n" + ("\n".join(wrong[:20]) if wrong else "Nothing lost, nothing doubled, nothing kept."))
    if wrong:
        sys.exit(1)


if __name__ == "__main__":
    react(main)
