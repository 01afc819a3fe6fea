"""`mcm worker`: the command that lends this machine to pictures that are drawn elsewhere."""

from __future__ import annotations

import click

from mcmandelbrot.cli.draw import MAX_WORKERS
from mcmandelbrot.errors import ServingError


@click.command(name="worker", context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-k",
    "--key-file",
    metavar="FILE",
    help="What both sides have to have: a file that nobody else can read. Else ASYNQUEUE_WIRE_KEY_FILE names it.",
)
@click.option(
    "-w",
    "--workers",
    type=click.IntRange(1, MAX_WORKERS),
    metavar="WORKERS",
    help="Use so many processes, rather than one for each core.",
)
@click.argument("description")
def lend(key_file: str | None, workers: int | None, description: str) -> None:
    """Draw for `mcm -d` and `mcm serve -d` of this and other machines.

    DESCRIPTION says where to listen, as Twisted's server endpoints do. Ctrl-C ends it.

    \b
    This machine alone:  mcm worker -k wire.key unix:/tmp/mcm.sock
    A safe network:      mcm worker -k wire.key tcp:7654
    """
    from twisted.internet import reactor
    from twisted.internet.base import ReactorBase
    from twisted.internet.defer import Deferred
    from twisted.internet.error import CannotListenError

    from asynqueue.errors import AsynQueueError
    from asynqueue.process import cores
    from asynqueue.wire import WireServer
    from mcmandelbrot.cli.session import Session
    from mcmandelbrot.explorer.crew import TileQueue
    from mcmandelbrot.fractal.machines import Painter
    from mcmandelbrot.fractal.worker import prepare

    assert isinstance(reactor, ReactorBase)  # it is no module, whatever it says
    number = workers or cores()

    async def work(queue: TileQueue) -> None:
        server = WireServer(description, Painter(queue), key=key_file)
        if server.key is None and not description.startswith("tls:"):
            raise ServingError("there is no key: say -k FILE, or set ASYNQUEUE_WIRE_KEY_FILE")
        await queue.update(prepare)
        await server.start()
        click.echo(f"{number} worker{'s' if number > 1 else ''} at {description}; Ctrl-C ends it")
        try:
            await Deferred()
        finally:
            await server.stop()

    try:
        Session(lambda: TileQueue(number), work, reactor).run()
    except CannotListenError as error:
        reason = getattr(error.socketError, "strerror", None) or error.socketError
        raise ServingError(f"cannot listen at {description}: {reason}") from error
    except (AsynQueueError, ValueError) as error:
        raise ServingError(str(error)) from error
