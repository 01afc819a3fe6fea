"""Work on a Dask cluster: a queue's calls, run by the workers of a `distributed.Client`.

The queue, its priorities and its Deferreds stay; where a call runs is the cluster's business. A `DaskWorker` gives
the cluster as many calls at a time as it has threads, so that the order is the queue's. This module is the near side
in the reactor's thread; `asynqueue.dask.session` is the near side in the client's loop, and
`asynqueue.dask.schedulerplugin` and `asynqueue.dask.workerplugin` are what is on the cluster. This module imports
nothing of Dask's before a worker is made.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from asynqueue.core.records import Interrupted, Iterating, Lost, Raised, Recalled, Returned, RunOutcome, Task
from asynqueue.core.scheduling.window import Window
from asynqueue.dask.source import _DaskSource, _explained
from asynqueue.errors import SerializationError, WorkerError, WorkerLost
from asynqueue.interfaces import Resignator, Resizer
from asynqueue.queue.options import seriesOf
from asynqueue.reactor.failures import failureOf
from asynqueue.reactor.lookup import installedReactor
from asynqueue.reactor.waiters import Waiters
from asynqueue.transport.residents import Residents
from asynqueue.transport.serialization import loadError, loads

if TYPE_CHECKING:
    from distributed import Client

    from asynqueue.dask.session import Session

__all__ = ["DaskWorker"]

STOP_GRACE = 10.0
"""Seconds after which a client whose loop has ended, with what it was to tell us, is waited for no more."""

STOPPED = "this DaskWorker was stopped: attach a new one"


@attrs.define(eq=False)
class _Call:
    """A task without an outcome, and the key of its call once that was submitted."""

    task: Task
    deferred: Deferred[RunOutcome]
    key: str | None = None
    owner: object = None  # what becomes resident when this update has run


class DaskWorker:
    """Runs calls on the Dask cluster of CLIENT, a `distributed.Client` that is connected.

    The client may have a loop in a thread of its own, as it has by default; or, with ``asynchronous=True``, the
    reactor's, where Twisted runs asyncio's (`twisted.internet.asyncioreactor`). It stays yours to close. AsynQueue has
    to be installed on the cluster as well.

    It is qualified for the series ``dask`` and ``remote``, and those in SERIES. WINDOW is how many calls the cluster is
    given at a time; if it is not given, as many as there are threads in the cluster, now and as that grows and shrinks.
    With RAW, an iterator is a result like any other (and cannot be pickled).

    A call that is cancelled or runs out of time leaves its place on the cluster to another at once, but nothing can end
    its thread there: it goes on by itself, and is not heard any more. An update runs on every worker of the cluster,
    and on each that comes later; it gives what the first of them gave.

    Raises ImportError where Dask is not installed; TypeError for what is no client; ValueError for a client that is
    not connected, and for a WINDOW below 1.

    >>> queue.attachWorker(DaskWorker(Client("tcp://scheduler:8786")))        # doctest: +SKIP
    """

    cQualified: tuple[str, ...] = ("dask", "remote")
    _log = Logger(namespace="asynqueue")

    def __init__(
        self,
        client: Client,
        series: Iterable[Hashable] = (),
        window: int | None = None,
        raw: bool = False,
        *,
        reactor: Any = None,
    ) -> None:
        if window is not None and (type(window) is not int or window < 1):
            raise ValueError(f"window must be an integer from 1, or None to follow the cluster; got {window!r}")
        self.qualifications: frozenset[Hashable] = seriesOf(self.cQualified, series)
        self.window: Window = Window(window or 1, window or 1)
        self._follows = window is None
        self._raw = raw
        self._reactor: Any = installedReactor(reactor)  # no one interface has all that is asked of it
        self._session = self._sessionWith(client)
        self._begun = False
        self._opening: str | None = None  # None while the cluster is not there
        self._wasHere = False
        self._over: BaseException | None = None
        self._lastNumber = 0
        self._residents = Residents()
        self._calls: dict[_Call, None] = {}  # those without an outcome, in order
        self._byKey: dict[str, _Call] = {}
        self._sources: dict[_DaskSource, None] = {}
        self._readying = Waiters[None]()
        self._stopping = Waiters[None]()
        self._mayClose = False
        self._stopped = False
        self._closing = False
        self._grace: IDelayedCall | None = None
        self._resign: Resignator | None = None
        self._resize: Resizer | None = None

    def setResizer(self, resize: Resizer) -> None:
        """RESIZE is called when the cluster has grown or shrunk, is lost, or is back."""
        self._resize = resize

    def setResignator(self, resign: Resignator) -> None:
        """RESIGN is called when the cluster is back after it was lost, or is lost for ever.

        Raises `asynqueue.errors.WorkerError` if it was stopped: its place on the cluster is no more.
        """
        if self._stopped:
            raise WorkerError(STOPPED)
        self._resign = resign
        if not self._begun:
            self._begun = True
            self._session.begin()

    def whenReady(self) -> Deferred[None]:
        """Fires when the cluster has answered for the first time, after a queue has taken the worker.

        Fails with `asynqueue.errors.WorkerError` if it cannot be used, as when AsynQueue is not installed there, or if
        the worker was stopped before.
        """
        ready = self._readying.add()
        if self._over is not None:
            self._tellReady(self._over)
        elif self._wasHere:
            self._tellReady()
        elif self._closing:
            self._tellReady(WorkerError(STOPPED))
        return ready

    def run(self, task: Task) -> Deferred[RunOutcome]:
        """Have the cluster make the call of TASK."""
        call = _Call(task, Deferred(lambda _: self._interrupt(call)))
        self._calls[call] = None
        if self._opening is not None:
            self._submit(call, self._opening)
        return call.deferred

    def recall(self) -> None:
        """Give back what has not started: at once what was not submitted, and the rest when the cluster has said so."""
        submitted: list[str] = []
        for call in list(self._calls):
            if call.key is None:
                self._end(call, Recalled())
            elif self._over is not None:
                self._end(call, Lost(str(self._over)))
            elif not call.task.update:
                submitted.append(call.key)
        if submitted:
            self._session.recall(submitted)

    def stop(self) -> Deferred[None]:
        """Leave nothing of ours on the cluster when all that was given has ended, the iterations too; fires when the
        scheduler has heard that. The client stays.
        """
        if self._stopped or not self._begun:
            return succeed(None)
        self._mayClose = True
        stopped = self._stopping.add()
        self._closeIfDone()
        return stopped

    def crash(self) -> Sequence[Task]:
        """Leave the cluster at once; the tasks without an outcome."""
        unfinished = [call.task for call in self._calls]
        self._calls.clear()
        self._byKey.clear()
        self._loseSources("it was made to crash")
        if self._begun:
            self._close()
        return unfinished

    def _closeIfDone(self) -> None:
        if self._mayClose and not self._calls and not self._sources:
            self._close()

    def _close(self) -> None:
        self._opening = None
        if not self._closing:
            self._closing = True
            self._grace = self._reactor.callLater(STOP_GRACE, self._hasStopped)
            self._session.close(self._hasStopped)
            self._tellReady(self._over or WorkerError(STOPPED))

    def _hasStopped(self) -> None:
        if self._grace is not None and self._grace.active():
            self._grace.cancel()
        self._stopped = True
        self._stopping.fire(None)

    # What the session tells.

    def _sessionWith(self, client: Client) -> Session:
        try:
            from asynqueue.dask.session import Owner, Session
        except ImportError as error:
            if (error.name or "").partition(".")[0] not in ("dask", "distributed"):
                raise
            raise ImportError("DaskWorker needs Dask's distributed: pip install 'asynqueue[dask]'") from error
        owner = Owner(self._present, self._away, self._gone, self._resized, self._ended, self._workerGone)
        return Session(client, owner, self._reactor.callFromThread)

    def _present(self, opening: str) -> None:
        """The cluster is there, or is back, as OPENING."""
        if self._closing:
            return
        self._opening = opening
        self._residents = Residents()
        returning, self._wasHere = self._wasHere, True
        if returning:
            if self._resign is not None:
                self._resign(returning=True)
            self._tellWindow()
        for call in list(self._calls):
            if call.key is None and self._opening is not None:
                self._submit(call, self._opening)
        self._tellReady()

    def _away(self, reason: str) -> None:
        """The cluster is lost, perhaps not for ever."""
        if self._closing or self._opening is None:
            return
        self._log.warn("a Dask worker is away: {reason}", reason=reason)
        self._opening = None
        if self._resize is not None:
            self._resize(None)
        for call in [call for call in self._calls if call.key is not None]:
            self._end(call, Lost(reason))
        self._loseSources(reason)

    def _gone(self, error: BaseException) -> None:
        """The cluster is lost for ever, or of no use."""
        self._over = WorkerError(f"this Dask cluster cannot be used: {_explained(error)}")
        self._opening = None
        self._loseSources(str(self._over))
        if not self._closing:
            self._log.error("a Dask worker gives up: {why}", why=self._over)
            if self._resign is not None:
                self._resign()
        self._calls.clear()  # nothing is reported of one that has resigned
        self._byKey.clear()
        self._tellReady(self._over)
        self._closeIfDone()

    def _resized(self, threads: int) -> None:
        """The cluster has so many THREADS."""
        if self._follows and not self._closing:
            limits = Window(max(1, threads), max(1, threads))
            if limits != self.window:
                self.window = limits
                self._tellWindow()

    def _ended(self, key: str, outcome: tuple[Any, ...]) -> None:
        """What came of a call."""
        call = self._byKey.get(key)
        what, seconds, it, errors = outcome
        if call is None:
            if what == "Iterating" and self._opening is not None:
                self._session.end(self._opening, key, it, lambda _: None)
            return
        for error in errors:
            failure = failureOf(loadError(error))
            self._log.failure("an update failed on a worker of a Dask cluster that came later", failure)
        self._end(call, self._outcome(key, what, seconds, it))

    def _workerGone(self, address: str) -> None:
        """A worker of the cluster has died or left."""
        self._loseSources(f"its Dask worker, {address}, is gone", address)

    # How calls come and go.

    def _submit(self, call: _Call, opening: str) -> None:
        self._lastNumber += 1
        task = call.task
        number = task.id if task.update else self._lastNumber
        try:
            payload, call.owner = self._residents.payload(task, number)
        except SerializationError as error:
            self._end(call, Raised(error))
            return
        call.key = f"{_nameOf(task.call.f)}-{opening}-{self._lastNumber}"
        self._byKey[call.key] = call
        if task.update:
            self._session.update(opening, call.key, number, payload, task.ephemeral, call.owner is not None)
        else:
            raw = self._raw if task.raw is None else task.raw
            self._session.submit(opening, call.key, raw, payload)

    def _interrupt(self, call: _Call) -> None:
        if call.key is not None and call in self._calls:
            self._session.withdraw(call.key)
        self._end(call, Interrupted())

    def _end(self, call: _Call, outcome: RunOutcome) -> None:
        self._calls.pop(call, None)
        if call.key is not None:
            self._byKey.pop(call.key, None)
        if call.owner is not None:
            self._residents.ended(call.owner, call.task.id, outcome)
        if not call.deferred.called:
            call.deferred.callback(outcome)
        self._closeIfDone()

    def _outcome(self, key: str, what: str, seconds: float, it: Any) -> RunOutcome:
        """How a call ended, from what the session tells; IT depends on WHAT."""
        if what == "Returned":
            try:
                return Returned(loads(it, "the result"), seconds)
            except SerializationError as error:
                return Raised(error, seconds)
        if what == "Raised":
            return Raised(loadError(it), seconds)
        if what == "Iterating":
            source = _DaskSource(self._session, self._opening or "", key, it, self._sources, self._closeIfDone)
            return Iterating(source, seconds)
        if what == "Recalled":
            return Recalled()
        if what == "Lost":
            return Lost(it)
        if what == "Failed":
            refused = WorkerError(f"the Dask cluster did not run the call: {_explained(it)}")
            refused.__cause__ = it
            return Raised(refused)
        return Lost(f"the Dask worker let go of it: {what}")

    def _tellReady(self, error: BaseException | None = None) -> None:
        self._readying.fire(None if error is None else failureOf(error))

    def _tellWindow(self) -> None:
        if self._resize is not None:
            self._resize(self.window)

    def _loseSources(self, reason: str, address: str | None = None) -> None:
        for source in list(self._sources):
            if address is None or source.address == address:
                source.over(WorkerLost(f"the iteration ended early: {reason}"))


def _nameOf(f: Any) -> str:
    """What the cluster's dashboard calls calls of F, which may be any callable."""
    name = getattr(f, "__name__", None)
    return (name if isinstance(name, str) else type(f).__name__)[:60]
