"""Print what became of the mutants of the core, module by module. `tox -e mutation` runs this at its end.

    python -m benchmarks.mutants          # where mutmut has run, in its environment

A mutant counts as killed when a test failed, or ran out of time, with it. Mutants in the `validate` methods are counted
apart: these methods are assertions that only tests run, and a damaged one breaks nothing that a test could notice.
"""

from __future__ import annotations

import re
import subprocess
from collections import Counter, defaultdict

RESULT = re.compile(r"asynqueue\.core\.(?:\w+\.)*?(\w+)\.(x\S+): (.+)")
KILLED = ("killed", "timeout")


def main() -> None:
    """Print the table, and the names of the survivors."""
    ends: defaultdict[str, Counter[str]] = defaultdict(Counter)
    asserted: Counter[str] = Counter()
    survivors: list[str] = []
    told = subprocess.run(["mutmut", "results", "--all", "true"], check=True, capture_output=True, text=True).stdout
    for module, name, end in RESULT.findall(told):
        if "validate" in name:
            asserted[end] += 1
        else:
            ends[module][end] += 1
            if end not in KILLED:
                survivors.append(f"{module}.{name}: {end}")
    print("| module of the core | mutants | killed | |\n| --- | ---: | ---: | ---: |")
    for module, counts in [*sorted(ends.items()), ("all", sum(ends.values(), Counter[str]()))]:
        killed = sum(counts[end] for end in KILLED)
        print(f"| `{module}` | {counts.total()} | {killed} | {100 * killed / counts.total():.1f} % |")
    print(f"| `validate` methods | {asserted.total()} | {sum(asserted[end] for end in KILLED)} | |")
    print("\n".join(survivors))


if __name__ == "__main__":
    main()
