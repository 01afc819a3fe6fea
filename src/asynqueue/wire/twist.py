"""``twist asynqueue-wire``: serves a universe under Twisted's own runner."""

from __future__ import annotations

from argparse import ArgumentTypeError
from typing import Any

import attrs
from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python import usage
from twisted.python.failure import Failure

from asynqueue.core.protocol.admission import Limits
from asynqueue.errors import AsynQueueError
from asynqueue.reactor.lookup import installedReactor
from asynqueue.wire.command import limit
from asynqueue.wire.protocol import SILENCE
from asynqueue.wire.server import WireServer

__all__ = ["Options", "makeService"]


class Options(usage.Options):
    """What is served, and where."""

    synopsis = "[--key-file=FILE] [--silence=SECONDS] [--limit=NAME=NUMBER ...] DESCRIPTION UNIVERSE"
    longdesc = (
        "Serves the public methods of UNIVERSE, the full name of a WireWorkerUniverse subclass, at DESCRIPTION, "
        "a server endpoint. `python -m asynqueue.wire --help` says more of both."
    )
    optParameters: list[list[Any]] = [  # noqa: RUF012  # it is as Twisted has it: names, a default, what it is, a type
        ["key-file", "k", None, "the key, in a file that nobody else can read"],
        ["silence", None, SILENCE, "give up a client that says nothing for so many seconds", float],
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
        """Have the server that was asked for, or say what is wrong with it."""
        try:
            limits = attrs.evolve(Limits(), **self.get("limits", {}))
            self["server"] = WireServer(
                self["description"], self["universe"], key=self["key-file"], limits=limits, silence=self["silence"]
            )
        except (AsynQueueError, ValueError) as error:
            raise usage.UsageError(str(error)) from error


def makeService(options: usage.Options) -> IService:
    """The service that OPTIONS ask for. If it cannot listen, the program ends."""
    service: IService = _Served(options["server"])
    return service


class _Served(Service):
    """Runs SERVER, for which alone there is a program."""

    _log = Logger(namespace="asynqueue")

    def __init__(self, server: WireServer) -> None:
        self._server = server
        self._started = False

    def startService(self) -> None:
        """Listen. Raises SystemExit if that is known to fail."""
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
        """Stop."""
        super().stopService()  # type: ignore[no-untyped-call]  # as above
        return self._server.stop()

    def _failed(self, reason: Failure) -> None:
        reactor: Any = installedReactor(None)  # it can stop, which no interface of a clock says
        self._log.failure("a wire server cannot listen", reason)
        reactor.stop()
