"""The command `mcm`, and which of its commands is meant.

A first argument that is a command's name calls for that command. All others belong to `draw`, so that a picture
needs no word but its numbers.

It ends with status 0, or 2 after one line on a bad argument (a few, where there is none at all), 1 on what went wrong
later, 128 and a signal's number when that signal ended it (130 for Ctrl-C, 141 when the reader of its standard output
has gone).

What is slow to import (Twisted, and in the workers numba) is imported once the arguments are known to be good.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from itertools import takewhile

import click

from mcmandelbrot.cli.draw import draw
from mcmandelbrot.cli.lend import lend
from mcmandelbrot.cli.serve import serve
from mcmandelbrot.errors import McmError

COMMANDS: dict[str, click.Command] = {"serve": serve, "worker": lend}
"""The commands that are called by name, in the order in which the help lists them."""

HINT = """\
Usage: mcm [OPTIONS] Nx CR CI CRPM [CIPM]

  The whole set:         mcm -o mandelbrot.png 2000 -0.630 0 1.4 1.2
  In a browser:          mcm serve
  All that there is:     mcm --help"""
"""What is said to who says nothing."""

draw.epilog = "\b\nCommands, each with a --help of its own:\n" + "\n".join(
    f"  mcm {name}  {command.get_short_help_str(100)}" for name, command in COMMANDS.items()
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `mcm` with ARGUMENTS, else those of the command line; the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given:
        click.echo(HINT, err=True)
        return 2
    command, name = draw, "mcm"
    if given and given[0] in COMMANDS:
        command, name = COMMANDS[given[0]], f"mcm {given.pop(0)}"
    elif wrong := _misspelt(given):
        return _end(2, f"{wrong}; mcm --help has them all")
    try:
        command.main(args=given, prog_name=name, standalone_mode=False)
    except click.UsageError as error:
        return _end(2, error.format_message())
    except McmError as error:
        return _end(error.status, str(error))
    except (KeyboardInterrupt, click.Abort):
        return _end(128 + signal.SIGINT)
    return 0


def _misspelt(given: list[str]) -> str | None:
    """What is wrong with the arguments GIVEN to `draw`, if one looks like a word of ours and is none.

    (Since a number may be negative, click takes an option that there is not for an argument.)
    """
    if given[0].isalpha():
        return f"there is no command {given[0]}"
    options = {option for parameter in draw.params for option in parameter.opts} | {"--help"}
    for argument in takewhile("--".__ne__, given):
        option = argument.partition("=")[0]
        if option.startswith("--") and option not in options:
            return f"there is no option {option}"
    return None


def _end(status: int, message: str = "") -> int:
    if message:
        click.echo(f"mcm: {' '.join(message.split())}", err=True)
    return status
