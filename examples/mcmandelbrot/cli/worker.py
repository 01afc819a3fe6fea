"""`mcm worker`: draw on this machine for pictures of other machines."""

from __future__ import annotations

import click

from mcmandelbrot.cli.draw import MAX_WORKERS
from mcmandelbrot.errors import ServingError


@click.command(name="worker", context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-k",
    "--key-file",
    metavar="FILE",
    help="The key of both sides, a private file. Default: the file that ASYNQUEUE_WIRE_KEY_FILE names.",
)
@click.option(
    "-w",
    "--workers",
    type=click.IntRange(1, MAX_WORKERS),
    metavar="WORKERS",
    help="The number of processes. Default: one per core.",
)
@click.option(
    "--plain",
    is_flag=True,
    help="Accept other machines without TLS, on a network that is secured otherwise.",
)
@click.argument("description")
def worker(key_file: str | None, workers: int | None, plain: bool, description: str) -> None:
    """Draw for `mcm -d` and `mcm serve -d` of this and other machines.

    DESCRIPTION is the address to listen at, in the form of Twisted's server endpoints. Ctrl-C ends it.

    \b
    This machine alone:  mcm worker -k wire.key unix:/tmp/mcm.sock
    Other machines:      mcm worker tls:7654:certificate=server.pem:privateKey=server.key:trustRoots=ca.pem

    `python -m asynqueue.wire certificates HOST` makes the certificates.
    """
    from twisted.internet import reactor
    from twisted.internet.base import ReactorBase
    from twisted.internet.defer import Deferred
    from twisted.internet.error import CannotListenError

    from asynqueue.errors import AsynQueueError
    from asynqueue.process import cores
    from asynqueue.wire import WireServer
    from mcmandelbrot.cli.session import Session
    from mcmandelbrot.explorer.tilequeue import TileQueue
    from mcmandelbrot.fractal.machines import DrawingUniverse
    from mcmandelbrot.fractal.worker import prepare

    assert isinstance(reactor, ReactorBase)  # the type checker takes it for a module
    number = workers or cores()

    async def work(queue: TileQueue) -> None:
        server = WireServer(description, DrawingUniverse(queue), key=key_file, plain=plain)
        if server.key is None and not description.startswith("tls:"):
            raise ServingError("there is no key: use -k FILE, or set ASYNQUEUE_WIRE_KEY_FILE")
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
