"""`mcm Nx CR CI CRPM [CIPM]`: the command that draws a picture into a file."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from time import perf_counter
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Protocol

import click

from mcmandelbrot.cli.output import namedFile, standardOutput
from mcmandelbrot.cli.signals import ending
from mcmandelbrot.errors import DrawingError, Interrupted
from mcmandelbrot.fractal.picture import DEFAULT_LIMIT, DEFAULT_STEEPNESS, Band, Picture, View

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from mcmandelbrot.fractal.worker import Ready, Rows

MAX_WORKERS = 1000

AHEAD = 6
"""How many bands for each worker may be under way: enough that one slow band holds up no other worker."""


# A number may be negative, so what looks like an option and is none is an argument.
@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["-h", "--help"]})
@click.option(
    "-d",
    "machines",
    multiple=True,
    metavar="DESCRIPTION",
    help="Draw at the `mcm worker` there, not here; several share the picture.",
)
@click.option("-k", "key", metavar="FILE", help="The key that those have, too. Else ASYNQUEUE_WIRE_KEY_FILE names it.")
@click.option(
    "-N",
    "limit",
    type=int,
    default=DEFAULT_LIMIT,
    show_default=True,
    metavar="VALUES",
    help="Follow each point for so many iterations; a deep view wants more.",
)
@click.option(
    "-o", "output", default="-", metavar="FILE", help="Write to FILE, and say how far it is and what it took."
)
@click.option(
    "-s",
    "steepness",
    type=float,
    default=DEFAULT_STEEPNESS,
    show_default=True,
    metavar="STEEPNESS",
    help="Contrast in the middle of the colours, from 1.",
)
@click.option(
    "-w",
    "workers",
    type=click.IntRange(1, MAX_WORKERS),
    metavar="WORKERS",
    help="Use so many processes, rather than one for each core.",
)
@click.argument("nx", metavar="Nx", type=int)
@click.argument("cr", type=float)
@click.argument("ci", type=float)
@click.argument("crpm", type=float)
@click.argument("cipm", type=float, required=False)
def draw(
    machines: tuple[str, ...],
    key: str | None,
    limit: int,
    output: str,
    steepness: float,
    workers: int | None,
    nx: int,
    cr: float,
    ci: float,
    crpm: float,
    cipm: float | None,
) -> None:
    """Draw the Mandelbrot set around the point CR + CI·i, as a PNG on standard output or in a file.

    The picture is Nx pixels wide. It reaches CRPM to the left and to the right of the point, and CIPM up and
    down; without CIPM it is square.

    With -d, a machine that cannot be reached, or is lost, is named, and the others go on. One that says nothing for
    half a minute is lost. When none is left, that ends it.

    \b
    The whole set:  mcm -o mandelbrot.png 2000 -0.630 0 1.4 1.2
    A deeper look:  mcm -N 100000 -o valley.png 2000 -0.7436 0.1318 0.006
    """
    if machines and workers:
        raise click.UsageError("-d draws with the workers there: say with -w there how many")
    picture = Picture(View.around(nx, cr, ci, crpm, cipm), limit, steepness)
    elsewhere = Elsewhere(machines, key) if machines else None
    if output == "-":
        with standardOutput() as file:
            _run(picture, file, workers, elsewhere, quiet=True)
    else:
        with ending(), namedFile(output) as file:
            lines = _run(picture, file, workers, elsewhere, quiet=False)
        for line in lines:
            click.echo(line, err=True)


class Elsewhere(NamedTuple):
    """The MACHINES that draw, and the file of the KEY that they have."""

    machines: tuple[str, ...]
    key: str | None


class Hands(Protocol):
    """Who draws: a queue, and how its workers get ready."""

    def call(self, f: Callable[[Band], Rows], band: Band, /) -> Deferred[Rows]: ...

    def prepare(self) -> Awaitable[Sequence[Ready]]: ...

    def shutdown(self) -> Deferred[None]: ...


def _run(picture: Picture, file: BinaryIO, workers: int | None, elsewhere: Elsewhere | None, quiet: bool) -> list[str]:
    """Draw PICTURE into FILE, which is closed then; the lines that say what it took."""
    from twisted.internet import reactor
    from twisted.internet.base import ReactorBase

    from asynqueue.errors import AsynQueueError
    from mcmandelbrot.cli.progress import ProgressBar, Tally, summary
    from mcmandelbrot.cli.session import Session
    from mcmandelbrot.fractal.machines import Machines, Processes
    from mcmandelbrot.fractal.rendering import Drawing

    assert isinstance(reactor, ReactorBase)  # it is no module, whatever it says

    def hands() -> Hands:
        return Processes(workers) if elsewhere is None else Machines(elsewhere.machines, elsewhere.key, progress.note)

    async def work(queue: Hands) -> list[str]:
        opened = perf_counter()
        progress.say("starting")
        ready = await queue.prepare()
        tally = Tally(len(ready))

        def drawn(band: Band, rows: Rows) -> None:
            tally.count(rows)
            progress.advance(band.rows)

        started = perf_counter()
        progress.say("drawing")
        bands = picture.bands(tally.workers)
        await Drawing(bands, queue, file, ahead=AHEAD * tally.workers, drawn=drawn, reactor=reactor).start()
        return summary(picture.view, tally, ready, started - opened, perf_counter() - started)

    with closing(ProgressBar(picture.view.height, quiet)) as progress:
        try:
            return Session(hands, work, reactor).run()
        except BrokenPipeError as error:
            raise Interrupted(signal.SIGPIPE) from error
        except OSError as error:
            raise DrawingError(f"cannot write the picture: {error.strerror or error}") from error
        except (AsynQueueError, ValueError) as error:
            raise DrawingError(f"cannot draw the picture: {error}") from error
