"""Measure one system in one case, in a process of its own: ``python -m benchmarks.measure SYSTEM CASE``.

The figures are printed as JSON. This runs in the environment of AsynQueue 0.9.9 as well.
"""

from __future__ import annotations

import json
import sys

from benchmarks.cases import CASES, Figures
from benchmarks.systems import SYSTEMS, System


async def measured(system: System, case: str) -> Figures:
    """What CASE has to say of SYSTEM."""
    try:
        return {**await CASES[case](system)}
    finally:
        await system.close()


def main(name: str, case: str) -> None:
    """Measure, and print."""
    system = SYSTEMS[name]()
    system.open()
    print(json.dumps(system.run(measured(system, case))))


if __name__ == "__main__":
    main(*sys.argv[1:])
