"""The `twist` command ``asynqueue-wire``. Twisted reads this file; the command is in `asynqueue.wire.command`."""

from twisted.application.service import ServiceMaker

wire = ServiceMaker(
    "AsynQueue wire server",
    "asynqueue.wire.command",
    "Serve a universe's methods to AsynQueue's wire workers",
    "asynqueue-wire",
)
