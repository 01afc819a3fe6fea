"""Start the process of a worker, and say what an error at its start means.

- The fork server may not be able to start at all: it makes a socket in the temporary directory, and there may be none.
  The process is started by ``spawn`` then, which is slower and needs nothing of the kind.
- Another attempt may succeed soon: the program has no descriptor left at the moment, or the fork server was killed.
- Anything else stays as it is.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
from functools import cache
from multiprocessing.context import BaseContext
from typing import Any

from twisted.logger import Logger

from asynqueue.errors import ProcessError
from asynqueue.process.childprocess import Owner, WorkerProcess

_DESCRIPTORS = 16
"""How many descriptors are free before a start. It needs no more, and one that has begun is not left half-way."""

_PASSING = frozenset({errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM, errno.ENOBUFS})
"""The errors of the system that may be over soon: too many descriptors, too many processes, no memory."""

_log = Logger(namespace="asynqueue")


class NotStartedError(ProcessError):
    """No process could be started. If the cause is `passing`, another attempt may succeed soon."""

    def __init__(self, error: BaseException, passing: bool) -> None:
        super().__init__(f"no process could be started: {error!r}")
        self.passing = passing


def startProcess(
    context: BaseContext, reactor: Any, owner: Owner, useReactor: bool, finishCancelled: bool
) -> WorkerProcess:
    """Return a new `WorkerProcess` of CONTEXT; the parameters are those of that class. Raise `NotStartedError`."""
    try:
        _requireDescriptors()
        try:
            return WorkerProcess(context, reactor, owner, useReactor, finishCancelled)
        except OSError as error:
            if context.get_start_method() != "forkserver" or _isPassing(error):
                raise
            _logFallback(repr(error))
        return WorkerProcess(contextFor("spawn"), reactor, owner, useReactor, finishCancelled)
    except Exception as error:  # `multiprocessing` may raise any: a part of Python may be unreadable, for example
        raise NotStartedError(error, _isPassing(error)) from error


def contextFor(context: str | BaseContext | None) -> BaseContext:
    """Return the `multiprocessing` context CONTEXT, or that of the name. None means the fork server or ``spawn``."""
    if isinstance(context, BaseContext):
        return context
    methods = multiprocessing.get_all_start_methods()
    if context is None:
        context = "forkserver" if "forkserver" in methods else "spawn"
    if context not in methods:
        raise ValueError(f"context must be one of {', '.join(methods)}, or a multiprocessing context; got {context!r}")
    return multiprocessing.get_context(context)


def _isPassing(error: BaseException) -> bool:
    """Return whether ERROR may be over soon. (`multiprocessing` replaces a fork server once it has exited.)"""
    return isinstance(error, (EOFError, ConnectionError)) or getattr(error, "errno", None) in _PASSING


def _requireDescriptors() -> None:
    """Raise `OSError` unless so many descriptors are free. (`multiprocessing` leaks some if it fails half-way.)"""
    opened: list[int] = []
    try:
        for _ in range(_DESCRIPTORS):
            opened.append(os.open(os.devnull, os.O_RDONLY))
    finally:
        for descriptor in opened:
            os.close(descriptor)


@cache
def _logFallback(error: str) -> None:
    """Log once for each ERROR that the fork server cannot be used."""
    _log.warn(
        "the fork server cannot start worker processes: {error}; they are started by spawn, which is slower",
        error=error,
    )
