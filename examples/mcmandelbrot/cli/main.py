"""The command `mcm`, and the choice of its sub-command.

If the first argument is the name of a sub-command, that command runs. Otherwise `draw` gets all arguments, so that
drawing needs no name.

====== =======================================================================
Status Meaning
====== =======================================================================
0      Success.
1      An error while drawing, writing or serving.
2      A bad argument, or none. One line says what is wrong.
128+n  Signal n ended it: 130 for Ctrl-C, 141 if the reader of its output left.
====== =======================================================================

Slow imports (Twisted, and numba in the workers) happen only after the arguments were checked.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from itertools import takewhile

import click

from mcmandelbrot.cli.draw import draw
from mcmandelbrot.cli.serve import serve
from mcmandelbrot.cli.worker import worker
from mcmandelbrot.errors import McmError

COMMANDS: dict[str, click.Command] = {"serve": serve, "worker": worker}
"""The sub-commands by name, in the order of the help."""

HINT = """\
Usage: mcm [OPTIONS] Nx CR CI CRPM [CIPM]

  The whole set:         mcm -o mandelbrot.png 2000 -0.630 0 1.4 1.2
  In a browser:          mcm serve
  All that there is:     mcm --help"""
"""The text for a call without arguments."""

draw.epilog = "\b\nCommands, each with a --help of its own:\n" + "\n".join(
    f"  mcm {name}  {command.get_short_help_str(100)}" for name, command in COMMANDS.items()
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `mcm` with ARGUMENTS, or with those of the command line. Return the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given:
        click.echo(HINT, err=True)
        return 2
    command, name = draw, "mcm"
    if given and given[0] in COMMANDS:
        command, name = COMMANDS[given[0]], f"mcm {given.pop(0)}"
    elif wrong := _misspelt(given):
        return _end(2, f"{wrong}; see mcm --help")
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
    """Return what is wrong with the arguments GIVEN to `draw`, if one is an unknown command or option.

    (Since a number may be negative, click takes an unknown option for an argument.)
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
