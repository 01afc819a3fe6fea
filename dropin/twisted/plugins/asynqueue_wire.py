"""Has `twist` offer ``asynqueue-wire``. Twisted reads this; `asynqueue.wire.twist` does the work."""

from twisted.application.service import ServiceMaker

wire = ServiceMaker(
    "AsynQueue wire server",
    "asynqueue.wire.twist",
    "Serve a universe's methods to AsynQueue's wire workers",
    "asynqueue-wire",
)
