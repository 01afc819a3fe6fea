"""Measure one system in one case, in a process of its own: ``python -m benchmarks.measure SYSTEM CASE``.

It prints the figures as JSON. It runs in the environment of AsynQueue 0.9.9 as well.
"""

from __future__ import annotations

import json
import sys

from benchmarks.cases import CASES, Figures
from benchmarks.systems import SYSTEMS, System


async def measure(system: System, case: str) -> None:
    """Print the figures of SYSTEM in CASE before SYSTEM is closed: not every system survives that."""
    try:
        figures: Figures = await CASES[case](system)
        print(json.dumps(figures), flush=True)
    finally:
        await system.close()


def main(name: str, case: str) -> None:
    """Open the system, and measure it."""
    system = SYSTEMS[name]()
    system.open()
    system.run(measure(system, case))


if __name__ == "__main__":
    main(*sys.argv[1:])
