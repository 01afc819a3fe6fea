"""Measure calls of functions of ``__main__`` beside the same functions of a module, in the same run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from inspect import getsource
from time import perf_counter, process_time
from types import ModuleType
from typing import Any

from benchmarks import lookup
from benchmarks.systems import System

CALLS = 2_000
ROUNDS = 15


async def script(system: System) -> dict[str, float]:
    """Call functions that use a global of 2,000,000 integers, with numbers and with objects of a class."""
    main = sys.modules["__main__"]
    exec(compile(getsource(lookup), str(lookup.__file__), "exec"), vars(main))
    figures: dict[str, float] = {}
    begun = perf_counter()
    await system.call(vars(main)["look"], 1)
    figures["first call of a script's function with a large global, ms"] = 1e3 * (perf_counter() - begun)
    for name, look, make in (("numbers", "look", int), ("objects", "lookAt", None)):
        times: dict[ModuleType, list[tuple[float, float]]] = {lookup: [], main: []}
        for _ in range(ROUNDS):
            for module, seconds in times.items():
                seconds.append(await _timed(system, getattr(module, look), make or vars(module)["Place"]))
        for what, index in (("time", 0), ("CPU time here", 1)):
            theirs, ours = (min(seconds[index] for seconds in each) for each in times.values())
            figures[f"script's calls with {name}: {what} beside a module's, % over"] = 100 * (ours / theirs - 1)
    return figures


async def _timed(system: System, f: Callable[..., Any], make: Callable[[int], Any]) -> tuple[float, float]:
    """Return the time that calls of F take with what MAKE makes of numbers, and the processor time here."""
    begun, used = perf_counter(), process_time()
    for call in [system.call(f, make(n)) for n in range(CALLS)]:
        await call
    return perf_counter() - begun, process_time() - used
