"""``twist asynqueue-wire``: serves a universe under Twisted's own runner."""

from __future__ import annotations

from twisted.application.service import IService
from twisted.python import usage

from asynqueue.errors import AsynQueueError
from asynqueue.wire.server import WireServer

__all__ = ["Options", "makeService"]


class Options(usage.Options):
    """What is served, and where."""

    synopsis = "[--key-file=FILE] DESCRIPTION UNIVERSE"
    longdesc = (
        "Serves the public methods of UNIVERSE, the full name of a WireWorkerUniverse subclass, at DESCRIPTION, "
        "a server endpoint. `python -m asynqueue.wire --help` says more of both."
    )
    optParameters: list[list[str | None]] = [  # noqa: RUF012  # it is as Twisted has it
        ["key-file", "k", None, "the key, in a file that nobody else can read"],
    ]

    def parseArgs(  # type: ignore[override]  # each command has its own arguments
        self, description: str, universe: str
    ) -> None:
        """Take the two arguments."""
        self["description"] = description
        self["universe"] = universe


def makeService(options: usage.Options) -> IService:
    """The service that OPTIONS ask for."""
    try:
        return WireServer(options["description"], options["universe"], key=options["key-file"]).service
    except (AsynQueueError, ValueError) as error:
        raise usage.UsageError(str(error)) from error
