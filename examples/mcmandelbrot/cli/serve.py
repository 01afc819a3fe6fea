"""`mcm serve`: serve the explorer."""

from __future__ import annotations

import click

from mcmandelbrot.cli.draw import MAX_WORKERS
from mcmandelbrot.errors import ServingError


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-p",
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    metavar="PORT",
    help="Listen at PORT. 0 chooses a free port.",
)
@click.option(
    "--interface",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Listen at this address of the machine. 0.0.0.0 accepts connections from all networks.",
)
@click.option(
    "--host",
    "names",
    multiple=True,
    metavar="NAME",
    help="Also accept this host name. Addresses and this machine's own name are always accepted.",
)
@click.option(
    "-d",
    "machines",
    multiple=True,
    metavar="DESCRIPTION",
    help="Draw with the `mcm worker` at this address, not here. May be given several times.",
)
@click.option(
    "-k",
    "--key-file",
    metavar="FILE",
    help="The key file for -d. Default: ASYNQUEUE_WIRE_KEY_FILE.",
)
@click.option(
    "--plain",
    is_flag=True,
    help="Reach the machines of -d without TLS, through a network that is secured otherwise.",
)
@click.option(
    "-w",
    "--workers",
    type=click.IntRange(1, MAX_WORKERS),
    metavar="WORKERS",
    help="The number of processes. Default: one per core.",
)
def serve(
    port: int,
    interface: str,
    names: tuple[str, ...],
    machines: tuple[str, ...],
    key_file: str | None,
    plain: bool,
    workers: int | None,
) -> None:
    """Explore the Mandelbrot set in a browser, and watch the queue at work.

    The address to open is printed when the workers are ready. Ctrl-C ends it.

    With -d, nothing is drawn here. Each machine must be reachable at the start. A machine that is lost later is
    reconnected, and meanwhile the others draw. Without another machine, requests wait.

    \b
    This machine:   mcm serve
    Two others:     mcm serve -d tls:10.0.0.5:7654:$TLS -d tls:10.0.0.6:7654:$TLS
                    with TLS=certificate=client.pem:privateKey=client.key:trustRoots=ca.pem

    `python -m asynqueue.wire certificates HOST` makes the certificates.
    """
    if machines and workers:
        raise click.UsageError("-w and -d exclude each other: use -w with `mcm worker` there")
    from twisted.internet import reactor
    from twisted.internet.base import ReactorBase
    from twisted.internet.defer import Deferred
    from twisted.internet.error import CannotListenError

    from asynqueue.errors import AsynQueueError
    from asynqueue.process import cores
    from mcmandelbrot.cli.session import Session
    from mcmandelbrot.explorer.server import Server
    from mcmandelbrot.explorer.tilequeue import TileQueue
    from mcmandelbrot.fractal.machines import processesAt
    from mcmandelbrot.fractal.worker import prepare

    assert isinstance(reactor, ReactorBase)  # the type checker takes it for a module

    async def work(queue: TileQueue) -> None:
        await queue.update(prepare)  # a saved update, so a replacement worker draws its first tile as fast
        for description, processes in zip(machines, await processesAt(machines, key_file, plain), strict=True):
            queue.addMachine(description, processes, key_file, plain)
        server = await Server.listen(queue, port, interface, reactor, names=names)
        number = sum(status.processes for status in queue.workerStatuses())
        where = f" on {len(machines)} machine{'s' if len(machines) > 1 else ''}" if machines else ""
        click.echo(f"{server.url} with {number} worker{'s' if number > 1 else ''}{where}; Ctrl-C ends it")
        try:
            await Deferred()
        finally:
            await server.close()

    try:
        Session(lambda: TileQueue(0 if machines else workers or cores()), work, reactor).run()
    except CannotListenError as error:
        reason = getattr(error.socketError, "strerror", None) or error.socketError
        raise ServingError(f"cannot listen at port {port} of {interface}: {reason}") from error
    except (AsynQueueError, ValueError) as error:
        raise ServingError(f"cannot draw: {error}") from error
