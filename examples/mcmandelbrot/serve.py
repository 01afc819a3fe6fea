"""`mcm serve`: the command that serves the explorer."""

from __future__ import annotations

import click

from mcmandelbrot.draw import MAX_WORKERS
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
    "-w",
    "--workers",
    type=click.IntRange(1, MAX_WORKERS),
    metavar="WORKERS",
    help="Use so many processes, rather than one for each core.",
)
def serve(port: int, interface: str, workers: int | None) -> None:
    """Explore the Mandelbrot set in a browser, and watch the queue at work.

    The address to open is said when the workers are ready. Ctrl-C ends it.
    """
    from twisted.internet import reactor
    from twisted.internet.base import ReactorBase
    from twisted.internet.defer import Deferred
    from twisted.internet.error import CannotListenError

    from asynqueue.errors import AsynQueueError
    from asynqueue.process import cores
    from mcmandelbrot.explorer.crew import TileQueue
    from mcmandelbrot.explorer.server import Server
    from mcmandelbrot.session import Session
    from mcmandelbrot.worker import prepare

    assert isinstance(reactor, ReactorBase)  # it is no module, whatever it says
    number = workers or cores()

    async def work(queue: TileQueue) -> None:
        await queue.update(prepare)  # saved: a worker that replaces one that died draws its first tile as fast
        server = await Server.listen(queue, port, interface, reactor)
        click.echo(f"{server.url} with {number} worker{'s' if number > 1 else ''}; Ctrl-C ends it")
        try:
            await Deferred()
        finally:
            await server.close()

    try:
        Session(lambda: TileQueue(number), work, reactor).run()
    except CannotListenError as error:
        reason = getattr(error.socketError, "strerror", None) or error.socketError
        raise ServingError(f"cannot listen at port {port} of {interface}: {reason}") from error
    except AsynQueueError as error:
        raise ServingError(f"cannot draw: {error}") from error
