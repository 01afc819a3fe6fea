"""`mcm serve`: the command that serves the explorer."""

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
    help="Listen at PORT; 0 is any that is free.",
)
@click.option(
    "--interface",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Listen at this address of the machine; 0.0.0.0 lets everybody in who can reach it.",
)
@click.option(
    "--host",
    "names",
    multiple=True,
    metavar="NAME",
    help="Answer to this name, too; several may be given. An address and this machine's own name always will do.",
)
@click.option(
    "-d",
    "machines",
    multiple=True,
    metavar="DESCRIPTION",
    help="Draw at the `mcm worker` there, not here; several share the tiles.",
)
@click.option(
    "-k",
    "--key-file",
    metavar="FILE",
    help="The key that those have, too. Else ASYNQUEUE_WIRE_KEY_FILE names it.",
)
@click.option(
    "-w",
    "--workers",
    type=click.IntRange(1, MAX_WORKERS),
    metavar="WORKERS",
    help="Use so many processes, rather than one for each core.",
)
def serve(
    port: int,
    interface: str,
    names: tuple[str, ...],
    machines: tuple[str, ...],
    key_file: str | None,
    workers: int | None,
) -> None:
    """Explore the Mandelbrot set in a browser, and watch the queue at work.

    The address to open is said when the workers are ready. Ctrl-C ends it.

    With -d, nothing is drawn here. Each machine has to be there at the start. One that goes away later is
    connected to again, and meanwhile the others draw; if there is no other, what is asked for waits.

    \b
    This machine:   mcm serve
    Two others:     mcm serve -k wire.key -d tcp:10.0.0.5:7654 -d tcp:10.0.0.6:7654
    """
    if machines and workers:
        raise click.UsageError("-d draws with the workers there: say with -w there how many")
    from twisted.internet import reactor
    from twisted.internet.base import ReactorBase
    from twisted.internet.defer import Deferred
    from twisted.internet.error import CannotListenError

    from asynqueue.errors import AsynQueueError
    from asynqueue.process import cores
    from mcmandelbrot.cli.session import Session
    from mcmandelbrot.explorer.crew import TileQueue
    from mcmandelbrot.explorer.server import Server
    from mcmandelbrot.fractal.machines import found
    from mcmandelbrot.fractal.worker import prepare

    assert isinstance(reactor, ReactorBase)  # it is no module, whatever it says

    async def work(queue: TileQueue) -> None:
        await queue.update(prepare)  # saved: a worker that replaces one that died draws its first tile as fast
        for description, processes in zip(machines, await found(machines, key_file), strict=True):
            queue.enlist(description, processes, key_file)
        server = await Server.listen(queue, port, interface, reactor, names=names)
        number = sum(presence.processes for presence in queue.presences())
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
