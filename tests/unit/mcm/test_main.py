"""The command line of `mcm`: what it refuses, and what it costs to ask for help. Nothing is drawn here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from mcmandelbrot.cli.main import COMMANDS, main


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("100 0 0", "Missing argument 'CRPM'."),
        ("100 0 0 1 1 1", "unexpected extra argument (1)"),
        ("1e3 0 0 1", "'1e3' is not a valid integer"),
        ("0 0 0 1", "Nx must be from 1 to 65500 pixels, got 0"),
        ("-5 0 0 1", "Nx must be from 1 to 65500 pixels, got -5"),
        ("123456789 0 0 1", "Nx must be from 1 to 65500 pixels, got 123456789"),
        ("100 x 0 1", "Invalid value for 'CR': 'x' is not a valid float."),
        ("100 nan 0 1", "CR must be a number"),
        ("100 0 -inf 1", "CI must be a number"),
        ("100 -1e300 0 1", "CR must be a number within"),
        ("100 0 0 0", "CRPM must be more than 0"),
        ("100 0 0 -1.5", "CRPM must be more than 0, got -1.5"),
        ("100 0 0 1 0", "CIPM must be more than 0"),
        ("100 -0.75 0.1 1e-17", "double precision cannot tell these pixels apart"),
        ("100 0 0 1 1e5", "pixels high"),
        ("-N 1 100 0 0 1", "-N must be from 10 to 10,000,000 iterations, got 1"),
        ("-N many 100 0 0 1", "Invalid value for '-N': 'many' is not a valid integer."),
        ("-s 0 100 0 0 1", "-s must be from 1 to 25, got 0"),
        ("-s nan 100 0 0 1", "-s must be from 1 to 25, got nan"),
        ("-w 0 100 0 0 1", "Invalid value for '-w': 0 is not in the range"),
        ("-w 100000 100 0 0 1", "Invalid value for '-w': 100000 is not in the range"),
        ("-o", "Option '-o' requires an argument."),
        ("-o /nonexistent/m.png 100 0 0 1", "cannot write '/nonexistent/m.png': No such file or directory"),
        ("--frobnicate 100 0 0 1", "there is no option --frobnicate; see mcm --help"),
        ("100 0 0 1 --no=1", "there is no option --no; see mcm --help"),
        ("srve", "there is no command srve; see mcm --help"),
        ("serve --port 70000", "Invalid value for '-p' / '--port': 70000 is not in the range"),
        ("serve --port http", "Invalid value for '-p' / '--port': 'http' is not a valid integer range."),
        ("serve -w 0", "Invalid value for '-w' / '--workers': 0 is not in the range"),
        ("serve -w 2 -d unix:/tmp/mcm.sock", "-w and -d exclude each other: use -w with `mcm worker` there"),
        ("serve 100", "unexpected extra argument (100)"),
        ("serve --frobnicate", "No such option"),
    ],
)
def test_a_bad_argument_is_one_clear_line_and_status_2(
    arguments: str, reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments.split()) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("mcm: ")
    assert reason in err
    assert err.count("\n") == 1


def test_without_arguments_it_says_how_to_go_on(capfd: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("Usage: mcm [OPTIONS] Nx CR CI CRPM [CIPM]\n")
    assert all(way in err for way in ("mcm -o mandelbrot.png 2000", "mcm serve", "mcm --help"))


def test_what_follows_two_dashes_is_no_option(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["-o", "/nonexistent/m.png", "--", "100", "-0.5", "0", "1"]) == 2
    assert "cannot write '/nonexistent/m.png'" in capfd.readouterr().err


def test_a_first_argument_that_names_a_command_calls_for_it(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    said = click.Command("say", params=[click.Argument(["what"])], callback=lambda what: click.echo(what))
    monkeypatch.setitem(COMMANDS, "say", said)
    assert main(["say", "something"]) == 0
    assert main(["say"]) == 2
    assert main(["100", "say", "0", "1"]) == 2
    out, err = capfd.readouterr()
    assert out == "something\n"
    assert err == "mcm: Missing argument 'WHAT'.\nmcm: Invalid value for 'CR': 'say' is not a valid float.\n"


def test_a_terminal_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["10", "0", "0", "1"]) == 2
    assert capsys.readouterr().err.startswith("mcm: will not write a PNG to a terminal; use -o FILE")


def test_help_tells_of_every_option_and_how_to_draw_the_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("Usage: mcm [OPTIONS] Nx CR CI CRPM [CIPM]")
    assert "mcm -o mandelbrot.png 2000 -0.630 0 1.4 1.2" in text
    assert all(option in text for option in ("-N VALUES", "-o FILE", "-s STEEPNESS", "-w WORKERS"))


def test_help_tells_of_the_commands_and_each_has_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "mcm serve  Explore the Mandelbrot set in a browser" in capsys.readouterr().out
    assert main(["serve", "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("Usage: mcm serve [OPTIONS]")
    assert all(option in text for option in ("--port PORT", "--interface ADDRESS", "--workers WORKERS"))


def test_nothing_slow_is_imported_for_it() -> None:
    script = "import sys, mcmandelbrot.cli.main; print(*sys.modules)"
    imported = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True)
    slow = {"asynqueue", "twisted", "numba", "numpy", "png", "tqdm"}
    assert not slow & set(imported.stdout.split())


def test_whoever_waits_for_workers_does_not_import_what_they_do() -> None:
    modules = "mcmandelbrot.fractal.rendering, mcmandelbrot.cli.progress, mcmandelbrot.explorer.server"
    script = f"import sys, {modules}; print(*sys.modules)"
    imported = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True)
    assert not {"numba", "numpy"} & set(imported.stdout.split())


def test_a_refusal_leaves_an_old_picture_alone(tmp_path: Path) -> None:
    picture = tmp_path / "m.png"
    picture.write_bytes(b"old")
    assert main(["-o", str(picture), "0", "0", "0", "1"]) == 2
    assert picture.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [picture]
