"""`mcm Nx CR CI CRPM [CIPM]`: draw a picture into a file."""

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
"""The number of bands per worker that may be under way. One slow band then delays no other worker."""


# A number may be negative, so an unknown option counts as an argument.
@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["-h", "--help"]})
@click.option(
    "-d",
    "machines",
    multiple=True,
    metavar="DESCRIPTION",
    help="Draw with the `mcm worker` at this address, not here. May be given several times.",
)
@click.option("-k", "key", metavar="FILE", help="The key file for -d. Default: ASYNQUEUE_WIRE_KEY_FILE.")
@click.option(
    "--plain",
    is_flag=True,
    help="Reach the machines of -d without TLS, through a network that is secured otherwise.",
)
@click.option(
    "-N",
    "limit",
    type=int,
    default=DEFAULT_LIMIT,
    show_default=True,
    metavar="VALUES",
    help="The number of iterations per point. A deep view needs more.",
)
@click.option("-o", "output", default="-", metavar="FILE", help="Write to FILE, with progress and run statistics.")
@click.option(
    "-s",
    "steepness",
    type=float,
    default=DEFAULT_STEEPNESS,
    show_default=True,
    metavar="STEEPNESS",
    help="The contrast of the middle colours, from 1.",
)
@click.option(
    "-w",
    "workers",
    type=click.IntRange(1, MAX_WORKERS),
    metavar="WORKERS",
    help="The number of processes. Default: one per core.",
)
@click.argument("nx", metavar="Nx", type=int)
@click.argument("cr", type=float)
@click.argument("ci", type=float)
@click.argument("crpm", type=float)
@click.argument("cipm", type=float, required=False)
def draw(
    machines: tuple[str, ...],
    key: str | None,
    plain: bool,
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

    The picture is Nx pixels wide. It extends CRPM to the left and right of the point, and CIPM up and down.
    Without CIPM it is square.

    With -d, a machine that cannot be reached or is lost is reported, and the others continue. A machine without a
    message for 30 seconds is lost. Without any machine the command fails.

    \b
    The whole set:  mcm -o mandelbrot.png 2000 -0.630 0 1.4 1.2
    A deeper look:  mcm -N 100000 -o valley.png 2000 -0.7436 0.1318 0.006
    """
    if machines and workers:
        raise click.UsageError("-w and -d exclude each other: use -w with `mcm worker` there")
    picture = Picture(View.around(nx, cr, ci, crpm, cipm), limit, steepness)
    remote = RemoteMachines(machines, key, plain) if machines else None
    if output == "-":
        with standardOutput() as file:
            _run(picture, file, workers, remote, quiet=True)
    else:
        with ending(), namedFile(output) as file:
            lines = _run(picture, file, workers, remote, quiet=False)
        for line in lines:
            click.echo(line, err=True)


class RemoteMachines(NamedTuple):
    """The addresses of the MACHINES that draw, the file of their KEY, and whether connections may be PLAIN."""

    machines: tuple[str, ...]
    key: str | None
    plain: bool


class DrawingQueue(Protocol):
    """The queue that draws, and the preparation of its workers."""

    def call(self, f: Callable[[Band], Rows], band: Band, /) -> Deferred[Rows]: ...

    def prepare(self) -> Awaitable[Sequence[Ready]]: ...

    def shutdown(self) -> Deferred[None]: ...


def _run(
    picture: Picture, file: BinaryIO, workers: int | None, remote: RemoteMachines | None, quiet: bool
) -> list[str]:
    """Draw PICTURE into FILE and close it. Return the lines of run statistics."""
    from twisted.internet import reactor
    from twisted.internet.base import ReactorBase

    from asynqueue.errors import AsynQueueError
    from mcmandelbrot.cli.progress import ProgressBar, Tally, summary
    from mcmandelbrot.cli.session import Session
    from mcmandelbrot.fractal.machines import Machines, Processes
    from mcmandelbrot.fractal.rendering import Drawing

    assert isinstance(reactor, ReactorBase)  # the type checker takes it for a module

    def openQueue() -> DrawingQueue:
        return (
            Processes(workers) if remote is None else Machines(remote.machines, remote.key, progress.note, remote.plain)
        )

    async def work(queue: DrawingQueue) -> list[str]:
        opened = perf_counter()
        progress.describe("starting")
        ready = await queue.prepare()
        tally = Tally(len(ready))

        def drawn(band: Band, rows: Rows) -> None:
            tally.count(rows)
            progress.advance(band.rows)

        started = perf_counter()
        progress.describe("drawing")
        bands = picture.bands(tally.workers)
        await Drawing(bands, queue, file, ahead=AHEAD * tally.workers, drawn=drawn, reactor=reactor).start()
        return summary(picture.view, tally, ready, started - opened, perf_counter() - started)

    with closing(ProgressBar(picture.view.height, quiet)) as progress:
        try:
            return Session(openQueue, work, reactor).run()
        except BrokenPipeError as error:
            raise Interrupted(signal.SIGPIPE) from error
        except OSError as error:
            raise DrawingError(f"cannot write the picture: {error.strerror or error}") from error
        except (AsynQueueError, ValueError) as error:
            raise DrawingError(f"cannot draw the picture: {error}") from error
