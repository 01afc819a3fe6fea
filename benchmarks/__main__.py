"""Measure AsynQueue beside its alternatives, in one run: ``python -m benchmarks``.

Each round measures every system in every case, each in a process of its own, one system after another. So a machine
that is busy for a while is busy for all of them. Only the ratios within a round count: absolute figures depend on
the machine and the day. AsynQueue 0.9.9 is installed into a temporary environment, unless --old names a Python that
has it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path

from benchmarks.cases import CASES
from benchmarks.report import formats, plot, table
from benchmarks.session import heed, outcome, scratch
from benchmarks.systems import SYSTEMS

ROOT = Path(__file__).parent.parent
OURS, OLD = "AsynQueue ProcessQueue", "AsynQueue 0.9.9"
PATIENCE = 120
"""Seconds after which a measurement is ended. It counts if it has printed figures by then."""

INSTALLING = "pip install --upgrade pip && pip install -e '.[mcm]' --group bench"
"""What docs/performance.md says: --group needs pip 25.1."""


def main() -> None:
    """Measure, print a table and draw a plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=_positive, default=5, help="how often (default %(default)s)")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="what to measure")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS), help="whom, each in quotes")
    parser.add_argument("--old", type=_python, help="a Python that has AsynQueue 0.9.9 and NumPy")
    parser.add_argument("--table", type=_target, help="a file for the table, too")
    parser.add_argument("--plot", type=_target, default=Path("benchmarks.png"), help="the plot (default %(default)s)")
    given = parser.parse_args()
    if importlib.util.find_spec("matplotlib") is None:
        parser.error(f"the plot needs matplotlib: {INSTALLING}")
    if given.plot.suffix[1:].lower() not in formats():
        parser.error(f"argument --plot: {given.plot} must end in one of .{', .'.join(sorted(formats()))}")
    heed()
    with scratch() as folder:
        old = given.old or (_oldPython(folder) if OLD in given.systems else None)
        measured = _measure(given.rounds, given.cases, given.systems, old, folder)
    title = f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, median of {given.rounds} rounds"
    text = table(measured, OURS, title)
    print(text)
    if given.table is not None:
        given.table.write_text(text + "\n")
    if plot(measured, OURS, str(given.plot)):
        print(f"\nThe plot is {given.plot}.")


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, 1 or more, got {text!r}")
    return number


def _python(text: str) -> Path:
    """Return the path of a Python, wherever the benchmark is started from."""
    found = shutil.which(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"there is no program {text}")
    return Path(found).absolute()  # and not resolved: an environment's Python is a link


def _target(text: str) -> Path:
    """Check before the measurement that the file can be written."""
    path = Path(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no directory {path.parent}")
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a directory, and should be a file")
    return path


def _measure(
    rounds: int, cases: list[str], systems: list[str], old: Path | None, folder: str
) -> dict[str, dict[str, list[float]]]:
    measured: dict[str, dict[str, list[float]]] = {}
    for case in cases:
        for number in range(rounds):
            for system in systems:
                if case in SYSTEMS[system].cases:
                    python = Path(sys.executable) if system != OLD or old is None else old
                    for figure, value in _run(python, system, case, folder).items():
                        measured.setdefault(figure, {}).setdefault(system, []).append(value)
            print(f"{case}: round {number + 1} of {rounds}", file=sys.stderr)
    return measured


def _run(python: Path, system: str, case: str, folder: str) -> dict[str, float]:
    """Make one measurement. If it fails, return nothing and print why to standard error."""
    environment = _elsewhere() if system == OLD else os.environ
    command = [str(python), "-m", "benchmarks.measure", system, case]
    status, said, complained = outcome(command, folder, patience=PATIENCE, cwd=ROOT, environment=environment)
    lines = [line for line in said.splitlines() if line.startswith(b"{")]
    if not lines:
        how = f"given up after {PATIENCE} seconds" if status is None else "failed"
        print(f"{system}, {case}: {how}\n{complained[-2000:]}", file=sys.stderr)
        return {}
    figures: dict[str, float] = json.loads(lines[-1])
    return figures


def _oldPython(folder: str) -> Path:
    """Return a Python of an environment in FOLDER that has AsynQueue 0.9.9, and NumPy for the arrays."""
    place = Path(folder, "old")
    python = place / "bin" / "python"
    making: list[str | Path] = [sys.executable, "-m", "venv", place]
    filling: list[str | Path] = [python, "-m", "pip", "install", "--quiet", "AsynQueue==0.9.9", "numpy"]
    for command in making, filling:
        status, said, complained = outcome(command, folder, cwd=ROOT, environment=_elsewhere())
        if status != 0:
            sys.exit(f"AsynQueue 0.9.9 could not be installed:\n{said.decode()}{complained}")
    return python


def _elsewhere() -> dict[str, str]:
    """Return the environment without what belongs to this Python."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


if __name__ == "__main__":
    main()
