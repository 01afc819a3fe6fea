"""The program `python -m benchmarks`: what it refuses, what it says, and what it leaves. Nothing is measured here.

What it runs instead is code of the test's, which it takes for a Python that has AsynQueue 0.9.9.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = ("-m", "benchmarks")
PATIENCE = 60

LITTERING = """
import tempfile
tempfile.mkdtemp(prefix="dask-scratch-space")
print('{"no-op calls/s": 7}')
"""
"""A measurement that leaves something behind."""

LONG = """
import os, signal, subprocess, tempfile, time
tempfile.mkdtemp(prefix="pymp-")
with open(os.environ["HEARD"], "w") as heard:
    subprocess.Popen(["sleep", "100"], stdout=heard, stderr=heard)
    print(*map(int, signal.pthread_sigmask(signal.SIG_BLOCK, [])), "are blocked", file=heard, flush=True)
    time.sleep(100)
"""
"""A measurement that has made a folder and a process, and takes long. It says which signals are blocked there."""

SLOW_TO_START = """
import runpy, subprocess, sys
class Popen(subprocess.Popen):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        sys.stdin.readline()
subprocess.Popen = Popen
runpy.run_module("benchmarks", run_name="__main__", alter_sys=True)
"""
"""The program, which waits for a line when it has started a process and does not know that yet."""

IMPATIENT = """
from benchmarks import __main__ as program
program.PATIENCE = 0.5
program.main()
"""
"""The program, which does not wait long for a measurement."""

WITHOUT_MATPLOTLIB = """
import runpy, sys
sys.modules["matplotlib"] = None
runpy.run_module("benchmarks", run_name="__main__", alter_sys=True)
"""
"""The program, where there is no matplotlib."""

UNDER_NOHUP = """
import runpy, signal
signal.signal(signal.SIGHUP, signal.SIG_IGN)
runpy.run_module("benchmarks", run_name="__main__", alter_sys=True)
"""
"""The program, which is to go on when its terminal is closed."""

BACKENDS = """
class FigureCanvasBase:
    def get_supported_filetypes(): return {"png": "", "svg": ""}
"""


class Bench:
    """The program in FOLDER, where its temporary files go too, with a matplotlib that draws nothing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "matplotlib").mkdir()
        (folder / "matplotlib" / "__init__.py").touch()
        (folder / "matplotlib" / "pyplot.py").write_text("def switch_backend(name): pass\n")
        (folder / "matplotlib" / "backend_bases.py").write_text(BACKENDS)
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        os.mkfifo(folder / "heard")
        self._heard = os.open(folder / "heard", os.O_RDONLY | os.O_NONBLOCK)

    def close(self) -> None:
        """End the program, if the test has not."""
        self._process.kill()
        self._process.communicate()
        os.close(self._heard)

    def run(self, measurement: str, *options: str, program: tuple[str, ...] = BENCHMARKS) -> subprocess.Popen[str]:
        """The PROGRAM, started with OPTIONS, of which each MEASUREMENT is this code."""
        python = self._folder / "python"
        python.write_text(f"#!{sys.executable}\n{measurement}")
        python.chmod(0o700)
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, (self._folder, ROOT, ROOT / "src", ROOT / "examples"))),
            "TMPDIR": str(self.temporary),
            "HEARD": str(self._folder / "heard"),
        }
        given = ["--systems", "AsynQueue 0.9.9", "--cases", "noop", "--rounds", "1", "--old", str(python), *options]
        self._process = subprocess.Popen(
            [sys.executable, *program, *given], cwd=self._folder, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        return self._process

    def hear(self) -> str:
        """What a measurement says next; nothing once each of its processes has gone."""
        assert select.select([self._heard], [], [], PATIENCE)[0], "nothing came, and nobody went"
        return os.read(self._heard, 65536).decode()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """The program, in a folder of the test's."""
    bench = Bench(tmp_path)
    yield bench
    bench.close()


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ("--rounds x", "argument --rounds: must be a whole number, 1 or more, got 'x'"),
            ("--rounds 0", "argument --rounds: must be a whole number, 1 or more, got '0'"),
            ("--old /nonexistent/python", "argument --old: there is no program /nonexistent/python"),
            ("--old matplotlib", "argument --old: there is no program matplotlib"),
            ("--plot /nonexistent/b.png", "argument --plot: there is no directory /nonexistent"),
            ("--plot matplotlib", "argument --plot: matplotlib is a directory, and should be a file"),
            ("--table matplotlib", "argument --table: matplotlib is a directory, and should be a file"),
            ("--plot x.nonsense", "argument --plot: x.nonsense must end in one of .png, .svg"),
            ("--plot x", "argument --plot: x must end in one of .png, .svg"),
        ],
    )
    def test_a_bad_argument_is_told_before_anything_is_measured(self, options: str, reason: str, bench: Bench) -> None:
        process = bench.run(LITTERING, *options.split())
        said, complained = process.communicate(timeout=PATIENCE)
        assert (process.returncode, said) == (2, "")
        assert complained.endswith(f": error: {reason}\n")

    def test_without_matplotlib_it_says_how_the_documentation_installs_it(self, bench: Bench) -> None:
        process = bench.run(LITTERING, program=("-c", WITHOUT_MATPLOTLIB))
        said, complained = process.communicate(timeout=PATIENCE)
        assert (process.returncode, said) == (2, "")
        how = complained.partition("the plot needs matplotlib: ")[2].strip()
        documented = (ROOT / "docs" / "performance.md").read_text().partition("```sh\n")[2].partition("```")[0]
        installing = [line.partition("#")[0].strip() for line in documented.splitlines() if line.startswith("pip")]
        assert how.split(" && ") == installing

    def test_a_python_is_found_from_where_one_is(self, bench: Bench) -> None:
        process = bench.run(LITTERING, "--old", "./python", "--plot", "x.SVG")
        said, complained = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, complained
        assert "| AsynQueue 0.9.9 | 7.00 |" in said


class TestAMeasurementWithoutFigures:
    def test_one_that_fails_is_told_of_with_what_it_complained_of(self, bench: Bench) -> None:
        process = bench.run("raise SystemExit('out of order')")
        _, complained = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
        assert complained == "AsynQueue 0.9.9, noop: failed\nout of order\n\nnoop: round 1 of 1\n"

    def test_one_that_takes_too_long_is_told_of_with_how_long_it_took(self, bench: Bench) -> None:
        process = bench.run(LONG, program=("-c", IMPATIENT))
        _, complained = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
        assert complained == "AsynQueue 0.9.9, noop: given up after 0.5 seconds\n\nnoop: round 1 of 1\n"


class TestWhatIsLeft:
    def test_nothing_temporary_is_left_by_what_a_measurement_leaves(self, bench: Bench) -> None:
        process = bench.run(LITTERING)
        said, complained = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, complained
        assert "| AsynQueue 0.9.9 | 7.00 |" in said
        assert list(bench.temporary.iterdir()) == []

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    @pytest.mark.parametrize("program", [BENCHMARKS, ("-c", SLOW_TO_START)], ids=["under way", "just begun"])
    def test_a_signal_leaves_no_process_and_nothing_temporary(
        self, number: int, program: tuple[str, ...], bench: Bench
    ) -> None:
        process = bench.run(LONG, program=program)
        assert bench.hear() == "are blocked\n"
        assert list(bench.temporary.iterdir())
        process.send_signal(number)
        said, complained = process.communicate("\n", timeout=PATIENCE)
        assert (process.returncode, said, complained) == (128 + number, "", "")
        assert bench.hear() == ""
        assert list(bench.temporary.iterdir()) == []

    def test_a_signal_that_was_ignored_from_the_start_stays_so(self, bench: Bench) -> None:
        process = bench.run(LONG, program=("-c", UNDER_NOHUP))
        assert bench.hear() == "are blocked\n"
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
        assert process.returncode == 128 + signal.SIGTERM
