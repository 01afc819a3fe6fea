"""Log to Twisted, and to the standard library's logger ``asynqueue`` as well.

Programs written for 0.9 read what `warn`, `verbose` and `spew` say from `logging.getLogger("asynqueue")`.
"""

from __future__ import annotations

import logging
from typing import Any

from twisted.logger import ILogObserver, LogEvent, Logger, LogPublisher, STDLibLogObserver, globalLogPublisher
from zope.interface import implementer

NAME = "asynqueue"


@implementer(ILogObserver)
class _StandardLibrary:
    """Passes events to the standard library's logger if any handler would take them.

    Without a handler the standard library prints warnings to standard error, where Twisted's log often goes too.
    """

    def __init__(self) -> None:
        self._observer = STDLibLogObserver(NAME)

    def __call__(self, event: LogEvent) -> None:
        if logging.getLogger(NAME).hasHandlers():
            self._observer(event)


# Any: pyright does not know what provides a zope interface.
_standardLibrary: Any = _StandardLibrary()
_twisted: Any = globalLogPublisher


def logger(source: object) -> Logger:
    """Return a logger of namespace ``asynqueue`` for SOURCE, whose events go to both."""
    both: Any = LogPublisher(_twisted, _standardLibrary)
    return Logger(NAME, source=source, observer=both)
