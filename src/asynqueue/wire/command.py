"""``python -m asynqueue.wire``: serves a universe from a command line."""

from __future__ import annotations

import os
import sys
from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from typing import Any, NoReturn

import attrs

from asynqueue.core.protocol.admission import Limits
from asynqueue.errors import AsynQueueError
from asynqueue.wire.keys import KEY, KEY_FILE
from asynqueue.wire.protocol import SILENCE

_LIMITS = tuple(field.name for field in attrs.fields(Limits))

_DESCRIPTION = "Serve the public methods of UNIVERSE at DESCRIPTION, until interrupted."

_EPILOG = f"""\
DESCRIPTION is a server endpoint as Twisted describes them:
  unix:/run/sums.sock                   a socket that is this user's alone
  tcp:7654:interface=127.0.0.1          for this machine, and for wires that are safe otherwise
  tls:7654:certificate=server.pem:privateKey=server.key:trustRoots=ca.pem
                                        for the world; clients prove themselves by certificates
UNIVERSE is the full name of a subclass of WireWorkerUniverse, as package.module.Class.

A key that client and server have to prove comes from --key-file, or from the environment: {KEY} has it,
or {KEY_FILE} the name of its file. It never comes from the command line, which others can see.
Make one with:  (umask 077 && head -c 32 /dev/urandom | base64 > wire.key)
"""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Serve as ARGUMENTS say, those of this process if there are none."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.niceness:
        os.nice(options.niceness)
    if options.with_parent:
        from asynqueue.transport.lifeline import dieWithPipe

        dieWithPipe(sys.stdin.fileno())
    from twisted.internet.task import react
    from twisted.logger import globalLogBeginner, textFileLogObserver

    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
    try:
        react(_serve, (options,))
    except (AsynQueueError, ValueError, OSError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    raise AssertionError("it has exited")


def limit(text: str) -> tuple[str, float]:
    """The limit that TEXT, NAME=NUMBER, names, and what it is to be. Raises `ArgumentTypeError`."""
    name, _, number = text.partition("=")
    if name not in _LIMITS:
        raise ArgumentTypeError(f"there is no limit {name!r}, but {', '.join(_LIMITS)}")
    try:
        return name, float(number) if name == "patience" else int(number)
    except ValueError:
        raise ArgumentTypeError(f"the limit {name} is a number, and {number!r} is none") from None


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python -m asynqueue.wire",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("description", metavar="DESCRIPTION", help="where to listen")
    parser.add_argument("universe", metavar="UNIVERSE", help="what to serve")
    parser.add_argument("--key-file", metavar="FILE", help="the key, in a file that nobody else can read")
    parser.add_argument(
        "--silence",
        type=float,
        default=SILENCE,
        metavar="SECONDS",
        help="give up a client that says nothing for so long (default: %(default)g)",
    )
    parser.add_argument(
        "--limit",
        action="append",
        default=[],
        type=limit,
        metavar="NAME=NUMBER",
        help=f"a limit on what clients may do, as often as need be: {', '.join(_LIMITS)}",
    )
    parser.add_argument(
        "--niceness", type=int, default=0, metavar="N", help="run with a niceness that is N higher (default: 0)"
    )
    parser.add_argument("--with-parent", action="store_true", help="exit when standard input, a pipe, is hung up")
    parser.add_argument("--ready", type=int, help=SUPPRESS)  # a descriptor in which to write when it listens
    return parser


async def _listen(reactor: Any, options: Namespace) -> Any:
    from asynqueue.wire.server import WireServer

    server = WireServer(
        options.description,
        options.universe,
        key=options.key_file,
        limits=attrs.evolve(Limits(), **dict(options.limit)),
        silence=options.silence,
        reactor=reactor,
    )
    await server.start()
    return server


def _serve(reactor: Any, options: Namespace) -> Any:
    """A Deferred that fails if it cannot listen, and else never fires."""
    from twisted.internet.defer import Deferred

    forever: Deferred[None] = Deferred()

    def listens(server: Any) -> None:
        reactor.addSystemEventTrigger("before", "shutdown", server.stop)
        place = _described(server.address, options.description)
        print(f"serving {options.universe} at {place}", flush=True)
        if options.ready is not None:
            os.write(options.ready, b"\n")
            os.close(options.ready)

    def failed(reason: Any) -> None:
        reason.trap(AsynQueueError, ValueError, OSError, _cannotListen())
        print(f"python -m asynqueue.wire: {reason.getErrorMessage()}", file=sys.stderr)
        forever.errback(SystemExit(1))

    Deferred.fromCoroutine(_listen(reactor, options)).addCallbacks(listens, failed).addErrback(forever.errback)
    return forever


def _described(address: Any, description: str) -> str:
    """ADDRESS, of whatever type it is, as a client on this machine would begin to describe it.

    The server listens there by its DESCRIPTION.
    """
    if hasattr(address, "port"):
        kind = "tls" if description.startswith(("tls:", "ssl:")) else "tcp"
        return f"{kind}:{address.host}:{address.port}"
    name = address.name
    return f"unix:{name if isinstance(name, str) else name.decode(errors='replace')}"


def _cannotListen() -> type[Exception]:
    from twisted.internet.error import CannotListenError

    return CannotListenError
