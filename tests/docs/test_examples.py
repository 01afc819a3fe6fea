"""Every example in the documentation runs, prints what it says it prints, and satisfies a type checker."""

from __future__ import annotations

import doctest
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.docs.examples import ROOT, Example, examples

RESERVE = "ignore:unclosed file <_io.TextIOWrapper name='/dev/null':ResourceWarning"
"""What Twisted keeps open once a program has listened anywhere."""

PATIENCE = 120.0
"""Seconds that a program of the documentation may take."""


@pytest.mark.parametrize("example", examples("python"), ids=str)
def test_a_program_runs_and_prints_what_it_says(example: Example, tmp_path: Path) -> None:
    program = tmp_path / "example.py"
    program.write_text(example.text)
    (tmp_path / "README.md").write_text((ROOT / "README.md").read_text())  # for those that want a file to read
    command = [sys.executable, "-W", "error", "-W", RESERVE, program.name]
    environment = {**os.environ, "DASK_TEMPORARY_DIRECTORY": str(tmp_path)}  # Dask leaves a directory behind
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr
    if example.output is not None:
        assert done.stdout == example.output


@pytest.mark.parametrize("example", [each for each in examples("python") if each.text.startswith("# app.tac")], ids=str)
def test_an_application_serves_under_twistd_and_ends_by_sigterm(example: Example, tmp_path: Path) -> None:
    place = tmp_path / "socket"
    (tmp_path / "app.tac").write_text(example.text.replace("tcp:8080:interface=127.0.0.1", f"unix:{place}"))
    run = "from twisted.scripts.twistd import run; run()"
    command = [sys.executable, "-c", run, "-n", "--pidfile=", "-y", "app.tac"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as program:
        try:
            assert program.stdout is not None
            assert any("Starting factory" in line for line in program.stdout)
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(PATIENCE)
                while client.connect_ex(str(place)):  # it is about to listen
                    time.sleep(0.01)
                client.sendall(b"GET / HTTP/1.0\r\n\r\n")
                answer = b"".join(iter(lambda: client.recv(4096), b""))
            assert answer.endswith(b"%d\n" % pow(3, 1000, 1009))
            program.send_signal(signal.SIGTERM)
            assert program.stdout.read().endswith("Server Shut Down.\n")
            assert program.wait(PATIENCE) == -signal.SIGTERM  # twistd ends by the signal that it was sent
        finally:
            program.kill()


@pytest.mark.parametrize("example", examples("pycon"), ids=str)
def test_a_session_goes_as_it_says(example: Example) -> None:
    session = doctest.DocTestParser().get_doctest(example.text, {}, str(example), str(example.page), example.line)
    report: list[str] = []
    doctest.DocTestRunner(verbose=False).run(session, out=report.append)
    assert not report, "".join(report)


def test_every_program_satisfies_mypy(tmp_path: Path) -> None:
    for number, example in enumerate(examples("python")):
        name = f"example{number}_{example.page.stem.replace('-', '_').replace('.', '_')}_{example.line}.py"
        (tmp_path / name).write_text(example.text)
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), str(tmp_path)]
    environment = {**os.environ, "MYPYPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "stubs")])}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stdout + done.stderr
