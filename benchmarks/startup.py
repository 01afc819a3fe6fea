"""Measure the time to the first answer, beside what Python itself takes for the same."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from collections.abc import Callable
from time import perf_counter
from types import ModuleType
from typing import Any

from benchmarks.deeds import echo, say
from benchmarks.systems import System

METHODS = ("forkserver", "spawn")

IMPORT = """
from time import perf_counter
import twisted.internet.defer
begun = perf_counter()
import asynqueue
print(perf_counter() - begun)
"""


async def startup(_: System) -> dict[str, float]:
    """Measure what an import adds, and when the first and the tenth worker have answered."""
    imported = subprocess.run([sys.executable, "-c", IMPORT], stdout=subprocess.PIPE, check=True).stdout
    figures = {"import, ms": 1e3 * float(imported)}
    for method in METHODS:
        await _ready(method, 1)  # it starts the fork server, with its preloaded modules
        for number, name in ((1, "one worker"), (10, "ten workers")):
            figures[f"bare {method}, {name}, ms"] = 1e3 * _timed(lambda: _bare(method, number))  # noqa: B023  # at once
            figures[f"{method}, {name} ready, ms"] = 1e3 * await _ready(method, number)
    return figures


def _timed(f: Callable[[], object]) -> float:
    begun = perf_counter()
    f()
    return perf_counter() - begun


def _bare(method: str, number: int = 1) -> None:
    """Start so many processes that send one object, and receive it."""
    context: Any = multiprocessing.get_context(method)  # one class a method
    begun = []
    main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")  # it would import all of it
    for _ in range(number):
        near, far = context.Pipe()
        process = context.Process(target=say, args=(far,))
        process.start()
        far.close()
        begun.append((process, near))
    sys.modules["__main__"] = main
    for _, near in begun:
        near.recv()
    for process, _ in begun:
        process.join()


async def _ready(method: str, number: int) -> float:
    from asynqueue import ProcessQueue

    begun = perf_counter()
    queue = ProcessQueue(number, context=method)
    await queue.update(echo, 1)
    seconds = perf_counter() - begun
    await queue.shutdown()
    return seconds
