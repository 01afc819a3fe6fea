"""Run a queue's calls on a Dask cluster, through a `distributed.Client`.

The queue keeps its priorities and Deferreds, and the cluster decides where a call runs. A `DaskWorker` gives the
cluster only as many calls at a time as it has threads, so that the queue's order applies.

- This module is the part in the reactor's thread. It imports Dask only when a worker is made.
- `asynqueue.dask.session` is the part in the client's loop.
- `asynqueue.dask.schedulerplugin` and `asynqueue.dask.workerplugin` are the parts on the cluster.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from zope.interface import implementer

from asynqueue.core.records import Interrupted, Iterating, Lost, Raised, Recalled, Returned, RunOutcome, Task
from asynqueue.core.results import isA
from asynqueue.core.scheduling.window import Window
from asynqueue.core.text import callableName
from asynqueue.dask.source import _DaskSource, _explained
from asynqueue.errors import SerializationError, WorkerError, WorkerLost
from asynqueue.interfaces import IWorker, Resignator, Resizer, Restarted
from asynqueue.queue.options import Qualified, seriesOf
from asynqueue.reactor.failures import failureOf, printable
from asynqueue.reactor.lookup import installedReactor
from asynqueue.reactor.waiters import Waiters
from asynqueue.transport.callcodec import NUMBER, CallEncoder
from asynqueue.transport.errorcodec import loadError
from asynqueue.transport.residents import Residents, notSent
from asynqueue.transport.script.exports import Definitions
from asynqueue.transport.serialization import Undelivered, loads

if TYPE_CHECKING:
    from distributed import Client

    from asynqueue.dask.session import Session

__all__ = ["DaskWorker"]

STOP_GRACE = 10.0
"""The time for which `stop` waits for the session to close, in seconds.

A client whose loop has ended never confirms it.
"""

STOPPED = "this DaskWorker was stopped: attach a new one"


class _Encoder(CallEncoder):
    """Encodes calls for the cluster. Definitions go to its scheduler, of which each worker requests what it lacks."""

    def __init__(self, session: Session, opening: str = "") -> None:
        super().__init__()
        self._session = session
        self._opening = opening
        self._number = 0
        self.header = NUMBER.pack(self._number)

    def carry(self, definitions: Definitions) -> bytes:
        """Send DEFINITIONS. Return the number of the last ones that the call needs."""
        self._number += 1
        self._session.define(self._opening, self._number, definitions)
        self.header = NUMBER.pack(self._number)
        return self.header


@attrs.define(eq=False)
class _Call:
    """A task without an outcome, and its key once it was submitted."""

    task: Task
    deferred: Deferred[RunOutcome]
    key: str | None = None
    owner: object = None  # the object that becomes resident when this update has run


@implementer(IWorker)
class DaskWorker(Qualified):
    """Runs calls on a Dask cluster. AsynQueue has to be installed on the cluster too.

    It is qualified for the series ``dask`` and ``remote``. A cancelled call, or one whose time limit has passed, frees
    its slot on the cluster at once. But its thread cannot be ended: it continues, and its result is dropped. An update
    runs on every worker of the cluster, and on each that joins later. Its result is that of the first worker.

    Args:
        client: A connected `distributed.Client`. Its loop runs in a thread of its own (the default). With
            ``asynchronous=True`` it is the reactor's loop, with `twisted.internet.asyncioreactor`. Closing the client
            is up to the program.
        series: More series for which the worker is qualified.
        window: The number of calls that the cluster gets at a time, 1 or more. None follows the number of its threads.
        raw: Treat an iterator like any other value. (It cannot be pickled.)
        reactor: The reactor. None is the installed one.

    Raises:
        ImportError: Dask's `distributed` is not installed.
        TypeError: `client` is not a Client.
        ValueError: The client is not connected, or `window` is below 1.

    Example:
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
            raise ValueError(f"window must be an integer from 1, or None to follow the cluster, got {window!r}")
        self.qualifications: frozenset[Hashable] = seriesOf(self.cQualified, series)
        self.window: Window = Window(window or 1, window or 1)
        self._followsCluster = window is None
        self._raw = raw
        self._reactor: Any = installedReactor(reactor)  # Any, because no single interface has all methods used
        self._session = self._sessionWith(client)
        self._begun = False
        self._opening: str | None = None  # None while the cluster is disconnected
        self._wasConnected = False
        self._over: BaseException | None = None
        self._lastNumber = 0
        self._encoder = _Encoder(self._session)
        self._residents = Residents(self._encoder)
        self._calls: dict[_Call, None] = {}  # the calls without an outcome, in order
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
        """Set the function that is called when the cluster grows, shrinks, is lost, or is back.

        Args:
            resize: Gets the new window, or None while the cluster is lost.
        """
        self._resize = resize

    def setResignator(self, callableObject: Resignator) -> None:
        """Set the function that is called when a lost cluster is back, or is lost for ever. Start the session.

        Args:
            resign: The function.

        Raises:
            WorkerError: The worker was stopped. It cannot be used again.
        """
        if self._stopped:
            raise WorkerError(STOPPED)
        self._resign = callableObject
        if not self._begun:
            self._begun = True
            self._session.begin()

    def whenReady(self) -> Deferred[None]:
        """Wait until the cluster has answered for the first time, after a queue has attached the worker.

        Returns:
            A Deferred of None. It fails with `asynqueue.errors.WorkerError` if the cluster cannot be used, for instance
            without AsynQueue, or if the worker was stopped.
        """
        ready = self._readying.add()
        if self._over is not None:
            self._fireReady(self._over)
        elif self._wasConnected:
            self._fireReady()
        elif self._closing:
            self._fireReady(WorkerError(STOPPED))
        return ready

    def run(self, task: Task) -> Deferred[RunOutcome]:
        """Run TASK on the cluster."""
        call = _Call(task, Deferred(lambda _: self._interrupt(call)))
        self._calls[call] = None
        if self._opening is not None:
            self._submit(call, self._opening)
        return call.deferred

    def recall(self) -> None:
        """Return the tasks that have not started.

        Tasks that were not submitted are returned at once, the others after the scheduler's answer.
        """
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
        """Wait for all tasks and iterations, then close the session. The client stays connected.

        Returns:
            A Deferred that fires when the scheduler knows it.
        """
        if self._stopped or not self._begun:
            return succeed(None)
        self._mayClose = True
        stopped = self._stopping.add()
        self._closeIfDone()
        return stopped

    def crash(self) -> Sequence[Task]:
        """Close the session at once.

        Returns:
            The tasks without an outcome.
        """
        unfinished = [call.task for call in self._calls]
        self._calls.clear()
        self._byKey.clear()
        self._loseSources("the worker was crashed")
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
            self._fireReady(self._over or WorkerError(STOPPED))

    def _hasStopped(self) -> None:
        if self._grace is not None and self._grace.active():
            self._grace.cancel()
        self._stopped = True
        self._stopping.fire(None)

    # Called by the session.

    def _sessionWith(self, client: Client) -> Session:
        try:
            from asynqueue.dask.session import Owner, Session
        except ImportError as error:
            if (error.name or "").partition(".")[0] not in ("dask", "distributed"):
                raise
            raise ImportError("DaskWorker needs Dask's distributed: pip install 'asynqueue[dask]'") from error
        owner = Owner(self._connected, self._disconnected, self._failed, self._resized, self._ended, self._workerLeft)
        return Session(client, owner, self._reactor.callFromThread)

    def _connected(self, opening: str) -> None:
        """The cluster is connected (again), as OPENING."""
        if self._closing:
            return
        self._opening = opening
        self._encoder = _Encoder(self._session, opening)
        self._residents = Residents(self._encoder)
        returning, self._wasConnected = self._wasConnected, True
        if returning:
            if self._resign is not None:
                self._resign(Restarted())
            self._reportWindow()
        for call in list(self._calls):
            if call.key is None and self._opening is not None:
                self._submit(call, self._opening)
        self._fireReady()

    def _disconnected(self, reason: str) -> None:
        """The cluster is lost, and may come back."""
        if self._closing or self._opening is None:
            return
        self._log.warn("a Dask worker is disconnected and waits for its cluster: {reason}", reason=reason)
        self._opening = None
        if self._resize is not None:
            self._resize(None)
        for call in [call for call in self._calls if call.key is not None]:
            self._end(call, Lost(reason))
        self._loseSources(reason)

    def _failed(self, error: BaseException) -> None:
        """The cluster is lost for ever, or cannot be used."""
        self._over = WorkerError(f"this Dask cluster cannot be used: {_explained(error)}")
        self._opening = None
        self._loseSources(str(self._over))
        if not self._closing:
            self._log.error("a Dask worker has resigned: {why}", why=self._over)
            if self._resign is not None:
                self._resign()
        self._calls.clear()  # a worker that has resigned reports no outcomes
        self._byKey.clear()
        self._fireReady(self._over)
        self._closeIfDone()

    def _resized(self, threads: int) -> None:
        """The cluster has so many THREADS."""
        if self._followsCluster and not self._closing:
            limits = Window(max(1, threads), max(1, threads))
            if limits != self.window:
                self.window = limits
                self._reportWindow()

    def _ended(self, key: str, outcome: tuple[Any, ...]) -> None:
        """A call has ended."""
        call = self._byKey.get(key)
        what, seconds, it, errors = outcome
        if call is None:
            if what == "Iterating" and self._opening is not None:
                self._session.end(self._opening, key, it, lambda _: None)
            return
        for error in errors:
            text = "an update failed on a worker of a Dask cluster that came later"
            self._log.failure(text, printable(loadError(error)))
        self._end(call, self._outcome(key, what, seconds, it))

    def _workerLeft(self, address: str) -> None:
        """A worker of the cluster has died or left."""
        self._loseSources(f"its Dask worker, {address}, is gone", address)

    # The calls.

    def _submit(self, call: _Call, opening: str) -> None:
        self._lastNumber += 1
        task = call.task
        number = task.id if task.update else self._lastNumber
        try:
            payload, call.owner = self._residents.payload(task, number)
        except SerializationError as error:
            self._end(call, Raised(error))
            return
        except BaseException as error:  # see `notSent`
            self._end(call, Raised(notSent(task, error)))
            return
        call.key = f"{callableName(task.call.f)[:60]}-{opening}-{self._lastNumber}"
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
        if isinstance(outcome, Raised) and isA(outcome.error, Undelivered):
            self._encoder.restart()
        if not call.deferred.called:
            call.deferred.callback(outcome)
        self._closeIfDone()

    def _outcome(self, key: str, what: str, seconds: float, it: Any) -> RunOutcome:
        """Convert an outcome from the session. The type of IT depends on WHAT."""
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
        return Lost(f"the Dask worker abandoned the call: {what}")

    def _fireReady(self, error: BaseException | None = None) -> None:
        self._readying.fire(None if error is None else failureOf(error))

    def _reportWindow(self) -> None:
        if self._resize is not None:
            self._resize(self.window)

    def _loseSources(self, reason: str, address: str | None = None) -> None:
        for source in list(self._sources):
            if address is None or source.address == address:
                source.over(WorkerLost(f"the iteration ended early: {reason}"))
