"""The cases that are measured: each is a coroutine that returns figures by name.

A figure's name has its unit in it. Of those in `LESS_IS_MORE`, less is better. Of the others, more is better.
"""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable
from operator import add
from time import perf_counter
from typing import Any

from benchmarks.deeds import count, echo, now, spin
from benchmarks.picture import mcm
from benchmarks.script import script
from benchmarks.startup import startup
from benchmarks.systems import WORKERS, Processes, System

Figures = dict[str, float]

TRIPS = 1_000
ITEMS = 20_000


def _quantiles(name: str, seconds: list[float]) -> Figures:
    ordered = sorted(seconds)
    return {
        f"{name} p50, µs": 1e6 * ordered[len(ordered) // 2],
        f"{name} p99, µs": 1e6 * ordered[len(ordered) * 99 // 100],
    }


async def _warm(system: System) -> None:
    """Have every worker run something."""
    for call in [system.call(add, n, 1) for n in range(200)]:
        await call
    gc.collect()


async def noop(system: System) -> Figures:
    """Make no-op calls, all at once."""
    await _warm(system)
    number = system.flood
    begun = perf_counter()
    for call in [system.call(add, n, 1) for n in range(number)]:
        await call
    return {"no-op calls/s": number / (perf_counter() - begun)}


async def trip(system: System) -> Figures:
    """Make calls one after another."""
    await _warm(system)
    seconds = []
    for n in range(TRIPS):
        begun = perf_counter()
        await system.call(add, n, 1)
        seconds.append(perf_counter() - begun)
    return _quantiles("round trip", seconds)


async def _echoed(system: System, name: str, value: Any, size: int) -> Figures:
    """Measure how fast VALUE, of SIZE bytes, goes there and back."""
    if size > system.largest:
        return {}
    number = max(3, min(1_000, (128 << 20) // size // 2))
    for _ in range(3):
        await system.call(echo, value)
    begun = perf_counter()
    for _ in range(number):
        await system.call(echo, value)
    return {name: 2 * number * size / (perf_counter() - begun) / (1 << 20)}


async def bytes_(system: System) -> Figures:
    """Send bytes there and back."""
    figures: Figures = {}
    for exponent, name in ((10, "1 KiB"), (16, "64 KiB"), (20, "1 MiB"), (23, "8 MiB"), (26, "64 MiB")):
        figures.update(await _echoed(system, f"{name} bytes, MiB/s", bytes(1 << exponent), 1 << exponent))
    return figures


async def arrays(system: System) -> Figures:
    """Send NumPy arrays there and back."""
    import numpy

    figures: Figures = {}
    for exponent, name in ((16, "64 KiB"), (23, "8 MiB")):
        value = numpy.zeros(1 << (exponent - 3))
        figures.update(await _echoed(system, f"{name} array, MiB/s", value, 1 << exponent))
    return figures


async def iteration(system: System) -> Figures:
    """Take the items of a remote generator, one by one."""
    assert isinstance(system, Processes)
    items = system.items(await system.call(count, ITEMS))
    begun = perf_counter()
    async for _ in items:
        pass
    return {"items/s": ITEMS / (perf_counter() - begun)}


async def queued(system: System) -> Figures:
    """Queue many calls before any runs: the time and the memory of one, without its arguments."""
    assert isinstance(system, Processes)
    await _warm(system)
    figures: Figures = {}
    for number, name in ((10_000, "10,000"), (100_000, "100,000"), (1_000_000, "1,000,000")):
        gc.collect()
        before = _resident()
        arguments = [(n, 1) for n in range(number)]
        between = _resident()
        begun = perf_counter()
        calls = [system.call(add, *each) for each in arguments]
        after = _resident()
        for call in calls:
            await call
        figures[f"µs a call of {name} queued"] = 1e6 * (perf_counter() - begun) / number
        if number >= 100_000:
            figures[f"bytes a call of {name} queued"] = (after - between) / number
        del calls, arguments, before
    return figures


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


async def busy(system: System) -> Figures:
    """Make calls that keep a core busy for a while: how much of the ideal two workers reach, in percent."""
    await _warm(system)
    figures: Figures = {}
    for seconds, name, number in ((1e-4, "100 µs", 6_000), (1e-3, "1 ms", 1_000), (1e-2, "10 ms", 100)):
        for call in [system.call(spin, seconds) for _ in range(20)]:
            await call
        begun = perf_counter()
        for call in [system.call(spin, seconds) for _ in range(number)]:
            await call
        figures[f"calls of {name}, % of ideal"] = 100 * number * seconds / WORKERS / (perf_counter() - begun)
    return figures


async def doNext(system: System) -> Figures:
    """Make a doNext call now and then in a flood of tiny calls: how late it starts."""
    assert isinstance(system, Processes)
    await _warm(system)
    late: list[float] = []
    for _ in range(300):
        flood = [system.call(add, n, 1) for n in range(200)]
        await flood[100]
        begun = now()
        late.append(await system.queue.call(now, doNext=True) - begun)
        for call in flood:
            await call
    return _quantiles("doNext starts after", late)


CASES: dict[str, Callable[[System], Awaitable[Figures]]] = {
    "noop": noop,
    "trip": trip,
    "bytes": bytes_,
    "arrays": arrays,
    "iteration": iteration,
    "queued": queued,
    "busy": busy,
    "doNext": doNext,
    "script": script,
    "startup": startup,
    "mcm": mcm,
}
"""The cases by name."""


def lessIsMore(figure: str) -> bool:
    """Return whether less of FIGURE is better."""
    return not any(unit in figure for unit in ("/s", "% of", "times"))
