"""A Dask cluster for tests: each part of it a process that can be killed, and none of them a child of the tests.

Run as a program, it starts what it is told to on its standard input, each in a fork of its own, and ends all of it
when there is no more input. A fork has Dask imported already: a worker is there in a tenth of a second.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

import attrs
from typing_extensions import Self


@attrs.frozen
class Part:
    """A scheduler or a worker that runs."""

    address: str
    pid: int

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send it a signal, if it is there."""
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            pass  # a test has killed it before

    def waitUntilGone(self) -> None:
        """Return when it is dead, and its connections closed with it."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        select.select([descriptor], [], [])
        os.close(descriptor)


class DaskCluster:
    """A scheduler with WORKERS workers of one thread each."""

    def __init__(self, workers: int) -> None:
        self._program = subprocess.Popen(
            [sys.executable, "-m", "tests.support.daskcluster"],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "DASK_LOGGING__DISTRIBUTED": "error"},
            text=True,
        )
        self.scheduler = self.start("scheduler", 0)
        self.workers = [self.start("worker", self.scheduler.address) for _ in range(workers)]

    def start(self, what: str, where: int | str) -> Part:
        """A scheduler at the port WHERE, or a worker for the scheduler at the address WHERE."""
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        self._program.stdin.write(json.dumps([what, where]) + "\n")
        self._program.stdin.flush()
        return Part(*json.loads(self._program.stdout.readline()))

    def addWorker(self) -> Part:
        """One more worker."""
        self.workers.append(self.start("worker", self.scheduler.address))
        return self.workers[-1]

    def killWorker(self) -> None:
        """One worker less."""
        self.workers.pop().kill()

    def restartScheduler(self) -> None:
        """Kill the scheduler, and start another in its place, with as many workers."""
        self.scheduler.kill()
        for worker in self.workers:
            worker.kill()
        self.scheduler = self.start("scheduler", int(self.scheduler.address.rpartition(":")[2]))
        self.workers = [self.start("worker", self.scheduler.address) for _ in self.workers]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._program.communicate()


def main() -> None:
    """Start what is asked for."""
    from distributed import Scheduler, Worker

    async def serve(what: str, where: Any) -> None:
        if what == "scheduler":
            part: Any = Scheduler(host="127.0.0.1", port=where, dashboard=False)
        else:
            part = Worker(where, host="127.0.0.1", nthreads=1, dashboard=False)
        async with part:
            print(json.dumps([part.address, os.getpid()]), flush=True)
            await part.finished()

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody buries them
    started: list[int] = []
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.close(0)
            try:
                asyncio.run(serve(*json.loads(line)))
            finally:
                os._exit(0)
        started.append(pid)
    for pid in started:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


if __name__ == "__main__":
    main()
