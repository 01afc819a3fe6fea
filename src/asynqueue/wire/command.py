"""Serve a universe from a command line: ``python -m asynqueue.wire``, and ``twist asynqueue-wire``.

The first is a program of its own. The second runs a server as a service under Twisted's own runner, which imports
`Options` and `makeService` from here.
"""

from __future__ import annotations

import os
import sys
import tempfile
from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from typing import Any, NoReturn

import attrs
from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import quoteStringArgument
from twisted.internet.error import CannotListenError
from twisted.logger import Logger, globalLogBeginner, textFileLogObserver
from twisted.python import usage
from twisted.python.failure import Failure

from asynqueue.capabilities import has
from asynqueue.core.protocol.serverlimits import Limits
from asynqueue.errors import AsynQueueError
from asynqueue.reactor.lookup import installedReactor
from asynqueue.transport.lifeline import dieWithPipe
from asynqueue.wire.keys import KEY, KEY_FILE
from asynqueue.wire.protocol import SILENCE
from asynqueue.wire.server import WireServer

__all__ = ["Options", "main", "makeService"]


def _temporary() -> str:
    try:
        return tempfile.gettempdir()
    except OSError:  # There is none that can be written to.
        return "/tmp"


DEFAULT_SOCKET = f"unix:{quoteStringArgument(_temporary())}/asynqueue-{os.getuid() if has('posix') else 0}.sock"
"""The description of one UNIX socket of this user. (A name of 0.9; `ServerManager.newSocket` has new ones.)"""

_LIMITS = tuple(field.name for field in attrs.fields(Limits))

_PLAIN = "accept connections from other machines without TLS, on a network that is secured otherwise"

_DESCRIPTION = "Serve the public methods of UNIVERSE at DESCRIPTION, until interrupted."

_EPILOG = f"""\
DESCRIPTION is a server endpoint as Twisted describes them:
  unix:/run/sums.sock                   a socket that only this user can connect to
  tls:7654:certificate=server.pem:privateKey=server.key:trustRoots=ca.pem
                                        for any network; clients authenticate by certificates
  tcp:7654:interface=127.0.0.1          for this machine, and for the end of a tunnel
UNIVERSE is the full name of a subclass of WireWorkerUniverse, as package.module.Class.

The key by which client and server authenticate comes from --key-file, or from the environment: {KEY} has it,
or {KEY_FILE} the name of its file. It never comes from the command line, which other users can see.
Make one with:  (umask 077 && head -c 32 /dev/urandom | base64 > wire.key)

The certificates for tls: are made by:  python -m asynqueue.wire certificates HOST ...
It prints the two descriptions to use. Its --help says more.
"""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Serve until interrupted, by ARGUMENTS; None are those of this process. Or make certificates, if that is asked."""
    parser = _parser()
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words[:1] == ["certificates"]:
        _certificates(parser, words[1:])
    options, unknown = parser.parse_known_args(words)
    if unknown:  # Their text is not repeated, as one may be a key: only the names of options.
        names = [word.partition("=")[0] for word in unknown if word.startswith("--")]
        parser.error(f"unrecognized arguments: {' '.join(names) or f'{len(unknown)} of them'}")
    if (options.niceness or options.with_parent) and not has("posix"):
        parser.error("--niceness and --with-parent need a POSIX system, and this is none")
    if options.niceness:
        os.nice(options.niceness)
    if options.with_parent:
        dieWithPipe(sys.stdin.fileno())
    from twisted.internet.task import react  # here, since it installs a reactor

    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
    try:
        react(_serve, (options,))
    except (AsynQueueError, ValueError, OSError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    raise AssertionError("it has exited")


def runServer(description: str, wwuFQN: str) -> NoReturn:
    """Serve a universe until interrupted, with the key from the environment. (A function of 0.9.)

    Args:
        description: The Twisted server endpoint to listen at.
        wwuFQN: The full name of the universe, ``package.module.Class``.
    """
    main([description, wwuFQN])


def limit(text: str) -> tuple[str, float]:
    """Return the name and the value of the limit TEXT, which is NAME=NUMBER. Raise `ArgumentTypeError` if it is bad."""
    name, _, number = text.partition("=")
    if name not in _LIMITS:
        raise ArgumentTypeError(f"there is no limit {name!r}, but {', '.join(_LIMITS)}")
    try:
        return name, float(number) if name == "patience" else int(number)
    except ValueError:
        raise ArgumentTypeError(f"the limit {name} is a number, and {number!r} is none") from None


def _certificates(parser: ArgumentParser, words: list[str]) -> NoReturn:
    try:
        from asynqueue.wire.trust.certificates import run
    except ImportError:
        parser.exit(1, f"{parser.prog}: certificates need the extra for TLS: pip install 'AsynQueue[tls]'\n")
    run(f"{parser.prog} certificates", words)
    parser.exit()


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
    parser.add_argument("--key-file", metavar="FILE", help="the key, in a file that no other user can read")
    parser.add_argument(
        "--silence",
        type=float,
        default=SILENCE,
        metavar="SECONDS",
        help="disconnect a client that sends nothing for so long (default: %(default)g)",
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
    parser.add_argument("--plain", action="store_true", help=_PLAIN)
    parser.add_argument("--with-parent", action="store_true", help="exit when standard input, a pipe, is hung up")
    parser.add_argument("--ready", type=int, help=SUPPRESS)  # the descriptor to write to when the server listens
    return parser


async def _listen(reactor: Any, options: Namespace) -> WireServer:
    server = WireServer(
        options.description,
        options.universe,
        key=options.key_file,
        limits=attrs.evolve(Limits(), **dict(options.limit)),
        silence=options.silence,
        plain=options.plain,
        reactor=reactor,
    )
    return await server.start()


def _serve(reactor: Any, options: Namespace) -> Deferred[None]:
    """Start the server. Return a Deferred that fails if it cannot listen, and otherwise never fires."""
    forever: Deferred[None] = Deferred()

    def listens(server: WireServer) -> None:
        reactor.addSystemEventTrigger("before", "shutdown", server.stop)
        place = _described(server.address, options.description)
        print(f"serving {options.universe} at {place}", flush=True)
        if options.ready is not None:
            os.write(options.ready, b"\n")
            os.close(options.ready)

    def failed(reason: Failure) -> None:
        reason.trap(AsynQueueError, ValueError, OSError, CannotListenError)
        print(f"python -m asynqueue.wire: {reason.getErrorMessage()}", file=sys.stderr)
        forever.errback(SystemExit(1))

    Deferred.fromCoroutine(_listen(reactor, options)).addCallbacks(listens, failed).addErrback(forever.errback)
    return forever


def _described(address: Any, description: str) -> str:
    """Return the beginning of a client description for the server at ADDRESS, which listens by DESCRIPTION.

    (Addresses have several types and no common interface: hence Any.)
    """
    if hasattr(address, "port"):
        kind = "tls" if description.startswith(("tls:", "ssl:")) else "tcp"
        return f"{kind}:{address.host}:{address.port}"
    name = address.name
    return f"unix:{name if isinstance(name, str) else name.decode(errors='replace')}"


class Options(usage.Options):
    """The options and arguments of ``twist asynqueue-wire``."""

    synopsis = "[--key-file=FILE] [--silence=SECONDS] [--limit=NAME=NUMBER ...] [--plain] DESCRIPTION UNIVERSE"
    longdesc = (
        "Serves the public methods of UNIVERSE, the full name of a WireWorkerUniverse subclass, at DESCRIPTION, "
        "a server endpoint. `python -m asynqueue.wire --help` describes both."
    )
    optFlags: list[list[Any]] = [["plain", None, _PLAIN]]  # noqa: RUF012  # as below
    optParameters: list[list[Any]] = [  # noqa: RUF012  # Twisted's form: names, a default, a text, a type
        ["key-file", "k", None, "the key, in a file that no other user can read"],
        ["silence", None, SILENCE, "disconnect a client that sends nothing for so many seconds", float],
    ]

    def opt_limit(self, text: str) -> None:
        """A limit on what clients may do, as NAME=NUMBER, as often as need be."""
        try:
            name, number = limit(text)
        except ArgumentTypeError as error:
            raise usage.UsageError(str(error)) from error
        self.setdefault("limits", {})[name] = number

    def parseArgs(  # type: ignore[override]  # each command has its own arguments
        self, description: str, universe: str
    ) -> None:
        """Take the two arguments."""
        self["description"] = description
        self["universe"] = universe

    def postOptions(self) -> None:
        """Make the server. Raise `UsageError` if an option is wrong."""
        try:
            limits = attrs.evolve(Limits(), **self.get("limits", {}))
            self["server"] = WireServer(
                self["description"],
                self["universe"],
                key=self["key-file"],
                limits=limits,
                silence=self["silence"],
                plain=bool(self["plain"]),
            )
        except (AsynQueueError, ValueError) as error:
            raise usage.UsageError(str(error)) from error


def makeService(options: usage.Options) -> IService:
    """Return the service that OPTIONS describe. If it cannot listen, the program ends."""
    service: IService = _Served(options["server"])
    return service


class _Served(Service):
    """Runs SERVER. The program exists for it alone, so it ends if the server cannot listen."""

    _log = Logger(namespace="asynqueue")

    def __init__(self, server: WireServer) -> None:
        self._server = server
        self._started = False

    def startService(self) -> None:
        """Listen. Raise SystemExit if that fails at once."""
        super().startService()  # type: ignore[no-untyped-call]  # Twisted does not type its services
        failures: list[Failure] = []
        try:
            listening = self._server.start()
        except (AsynQueueError, ValueError) as error:
            raise SystemExit(f"twist asynqueue-wire: {error}") from error
        listening.addErrback(lambda reason: self._failed(reason) if self._started else failures.append(reason))
        if failures:
            raise SystemExit(f"twist asynqueue-wire: {failures[0].getErrorMessage()}")
        self._started = True

    def stopService(self) -> Deferred[None]:
        """Stop the server."""
        super().stopService()  # type: ignore[no-untyped-call]  # as above
        return self._server.stop()

    def _failed(self, reason: Failure) -> None:
        reactor: Any = installedReactor(None)  # the type of a clock cannot stop
        self._log.failure("a wire server cannot listen", reason)
        reactor.stop()
