"""Calls in processes without a queue to make.

There is one pool for the program. It starts with the first call, grows by a process whenever a call finds none free
until there are as many as `cores`, and ends with the reactor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar, overload

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from asynqueue.base import TaskQueue
from asynqueue.core.records import CallSpec
from asynqueue.errors import ProcessError
from asynqueue.iteration import Deferator
from asynqueue.processworker import ProcessWorker
from asynqueue.quota import cores

__all__ = ["deferToProcess"]

P = ParamSpec("P")
T = TypeVar("T")

_log = Logger(namespace="asynqueue")


class _Pool(TaskQueue):
    """A queue that brings a process when a call finds none free, up to MOST."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def grow(self) -> None:
        """Be ready for one more call. Raises `ProcessError` if there is no process at all for it."""
        if len(self) >= min(self._most, self._scheduler.unfinished + 1):
            return
        try:
            self.hire(ProcessWorker())
        except ProcessError as error:
            if not len(self):
                raise
            _log.error("the pool of processes does not grow: {error}", error=error)

    def workerLeft(self) -> None:
        """With its last worker gone by itself, nothing that waits would ever run. (The next call has a new pool.)"""
        if not self._scheduler.workers:
            self.strand("no worker process could be kept running")


_shared: _Pool | None = None


@overload
def deferToProcess() -> Deferred[None]: ...
@overload
def deferToProcess(f: Callable[P, Iterator[T]], /, *args: P.args, **kw: P.kwargs) -> Deferred[Deferator[T]]: ...
@overload
def deferToProcess(f: Callable[P, T], /, *args: P.args, **kw: P.kwargs) -> Deferred[T]: ...
def deferToProcess(f: Callable[..., Any] | None = None, /, *args: Any, **kw: Any) -> Deferred[Any]:
    """A Deferred of what ``f(*args, **kw)`` gives, called in a process of a pool that all such calls share.

    It fires, fails and is cancelled as that of a call in a queue: an iterator comes as a `Deferator`, an error as the
    original one with the traceback from over there, and a process that dies is replaced and the call started once
    more, before it fails with `asynqueue.errors.WorkerLost`. Every argument is F's own. What pickle and cloudpickle
    refuse fails the call with `asynqueue.errors.SerializationError`.

    The pool starts with the first call, a process at a time as they are needed, and has as many as
    `asynqueue.process.cores` at most. It ends with the reactor, or when this is called with no arguments: then the
    Deferred fires when every process is gone, and the next call starts another. For the reactor's thread. Raises
    `asynqueue.errors.ProcessError` if no process can be started.

    >>> d = deferToProcess(pow, 3, 100_000, 7)                              # doctest: +SKIP
    """
    global _shared
    if f is None:
        pool, _shared = _shared, None
        return succeed(None) if pool is None else pool.shutdown()
    spec = CallSpec(f, args, kw)
    if _shared is None or not _shared:
        _shared = _Pool(cores())
    _shared.grow()
    return _shared.submit(spec)
