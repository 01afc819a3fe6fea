"""The plugin that AsynQueue runs in the scheduler of a Dask cluster.

`SchedulerSide` keeps an `asynqueue.core.scheduling.clusterpermits.Placement`, so that no call starts twice by mistake.
It reports deaths and arrivals of workers to each session, as answers to `watch`. An answer waits until there is news.

The cluster imports this module, which imports neither Twisted nor attrs.
"""

from __future__ import annotations

import asyncio
from typing import Any

from distributed import Scheduler
from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.protocol.pickle import dumps

from asynqueue.core.protocol.scriptdefinitions import DefinitionLog, Node
from asynqueue.core.scheduling.clusterpermits import Placement
from asynqueue.dask import internals
from asynqueue.dask.workerplugin import PROTOCOL, Outcome, install, op

MISSED = 1.0
"""The time within which a scheduler notices, from the connection, that a worker died. In seconds."""


class SchedulerSide(SchedulerPlugin):
    """AsynQueue's part in the scheduler."""

    name = PROTOCOL

    async def start(self, scheduler: Scheduler) -> None:
        """Serve SCHEDULER, unless another instance does."""
        internals.requireScheduler(scheduler)
        if internals.serves(scheduler, op("open")):
            return
        self._scheduler = scheduler
        self._placement = Placement()
        self._notices: dict[str, _Notices] = {}
        self._logs: dict[str, DefinitionLog] = {}
        self._joined = asyncio.Event()
        self._leaving = asyncio.Event()
        calls = (self.open, self.watch, self.starting, self.withdraw, self.recall, self.update, self.leave)
        handlers = (*calls, self.define, self.definitions)
        internals.serve(scheduler, **{op(handler.__name__): handler for handler in handlers})

    # Called by sessions.

    async def open(self, session: str, client: str) -> None:
        """Open SESSION of CLIENT."""
        self._placement.open(session, client)
        self._notices[session] = _Notices()
        self._logs[session] = DefinitionLog()

    async def watch(self, session: str, heartbeat: float) -> dict[str, Any] | None:
        """Return the news since the last call, when there is any or after HEARTBEAT seconds.

        Return None if the session is not known.
        """
        notices = self._notices.get(session)
        if notices is None:
            return None
        try:
            await asyncio.wait_for(notices.event.wait(), heartbeat)
        except asyncio.TimeoutError:
            pass
        threads = sum(worker.nthreads for worker in self._scheduler.workers.values())
        return {"threads": threads, **notices.take()}

    async def withdraw(self, session: str, calls: list[str]) -> None:
        """Cancel CALLS, started or not."""
        for call, worker in self._placement.withdraw(session, calls).items():
            self._send(worker, "abandon", session=session, call=call)

    async def recall(self, session: str, calls: list[str]) -> list[str] | None:
        """Return those of CALLS that have not started and never will, or None if the session is not known."""
        return self._placement.recall(session, calls)

    async def update(
        self, session: str, number: int, payload: bytes, ephemeral: bool, resident: bool
    ) -> list[Outcome] | None:
        """Run an update on every worker, and return its outcomes, that of the first worker first.

        The list is empty if the first worker died of it. The result is None if the session is not known any more. A
        repeated request is safe: no worker runs an update twice.
        """
        while not self._scheduler.workers:
            self._joined.clear()
            await self._joined.wait()
        workers = list(self._scheduler.workers)
        self._placement.update(session, number, payload, workers if ephemeral else None, resident)
        first = await self._catchUp(session, number, workers[0])
        if first is None:
            await self._untilRemoved(workers[0])
            others: list[Outcome | None] = []
        else:
            others = await asyncio.gather(*(self._catchUp(session, number, worker) for worker in workers[1:]))
        if session not in self._notices:
            return None
        return [outcome for outcome in (first, *others) if outcome is not None]

    async def define(self, session: str, number: int, nodes: list[Node], dead: list[int], stream: bytes) -> bool:
        """Keep the STREAM of definitions of this NUMBER, for the workers that need it."""
        log = self._logs.get(session)
        notices = self._notices.get(session)
        if log is not None and notices is not None:
            while log.last < number - 1:  # Requests may arrive in another order.
                notices.defined.clear()
                await notices.defined.wait()
            log.add(number, nodes, dead, stream)
            notices.defined.set()
        return True

    async def leave(self, session: str) -> None:
        """Close SESSION."""
        self._close(session)

    # Called by workers.

    async def definitions(self, session: str, after: int, number: int) -> tuple[int, list[bytes]]:
        """Return the number of the last definitions, NUMBER at least, and the streams after that of number AFTER."""
        while session in self._notices:
            log, notices = self._logs[session], self._notices[session]
            if log.last >= number:
                return log.last, log.after(after)
            notices.defined.clear()
            await notices.defined.wait()
        return number, []

    async def starting(self, session: str, call: str | None, worker: str, did: int | None) -> tuple[Any, ...]:
        """Answer whether WORKER may start CALL. DID is the number of the update that WORKER has just run."""
        if did is not None:
            self._placement.updated(session, did, worker)
        here = call is not None and internals.workerOf(self._scheduler, call) == worker
        answer = self._placement.starting(session, call, worker, here)
        return type(answer).__name__, *answer

    # Called by Dask.

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        """Report that the cluster has grown."""
        self._joined.set()
        for notices in self._notices.values():
            notices.event.set()

    def remove_worker(self, scheduler: Scheduler, worker: str, **_: Any) -> None:
        """Report that the cluster has shrunk, and which calls are lost."""
        self._leaving.set()
        lost = self._placement.workerLost(worker)
        for session, notices in self._notices.items():
            notices.lost += lost.get(session, [])
            notices.gone.append(worker)
            notices.event.set()

    def remove_client(self, scheduler: Scheduler, client: str) -> None:
        """Close the sessions of CLIENT, which has left."""
        for session in self._placement.ofClient(client):
            self._close(session)

    def restart(self, scheduler: Scheduler) -> None:
        """Close all sessions. A restarted cluster does not know which calls had started."""
        for session in list(self._notices):
            self._close(session)

    def transition(self, key: str, start: str, finish: str, *_: Any, **__: Any) -> None:
        """Forget a task that the scheduler has forgotten."""
        if finish == "forgotten":
            self._placement.forget(key)

    async def _catchUp(self, session: str, number: int, worker: str) -> Outcome | None:
        """Return the outcome of an update on WORKER, or None if it died or left.

        Dask itself tries for half a minute to reach a worker that has left.
        """
        message = {"op": op("catchUp"), "session": session, "number": number}
        left = asyncio.ensure_future(self._left(worker))
        asked = asyncio.ensure_future(self._ask(worker, {"op": "run", "function": dumps(install)}, message))
        try:
            await asyncio.wait({left, asked}, return_when=asyncio.FIRST_COMPLETED)
            return tuple(asked.result()) if asked.done() else None
        except OSError:
            return None
        finally:
            left.cancel()
            asked.cancel()

    async def _ask(self, worker: str, *messages: dict[str, Any]) -> Any:
        """Return WORKER's answer to the last of MESSAGES."""
        for message in messages:
            if worker not in self._scheduler.workers:
                raise OSError(f"{worker} has left")
            answer = await self._scheduler.proxy(msg=message, worker=worker)
        return answer

    async def _left(self, worker: str) -> None:
        """Return when WORKER has left the cluster."""
        while worker in self._scheduler.workers:
            self._leaving.clear()
            await self._leaving.wait()

    async def _untilRemoved(self, worker: str) -> None:
        """Wait until the scheduler has removed WORKER, which died. Until then it would send the next call there.

        If that takes too long, the worker is alive after all.
        """
        try:
            await asyncio.wait_for(self._left(worker), MISSED)
        except asyncio.TimeoutError:
            pass

    def _send(self, worker: str, what: str, **message: Any) -> None:
        if worker in self._scheduler.workers:
            self._scheduler.worker_send(worker, {"op": op(what), **message})

    def _close(self, session: str) -> None:
        notices = self._notices.pop(session, None)
        self._logs.pop(session, None)
        if notices is not None:
            notices.event.set()
            notices.defined.set()
        for worker in self._placement.close(session):
            self._send(worker, "forget", session=session)


class _Notices:
    """The news for one session: calls that are LOST, workers that are GONE."""

    def __init__(self) -> None:
        self.lost: list[str] = []
        self.gone: list[str] = []
        self.event = asyncio.Event()
        self.defined = asyncio.Event()  # definitions have come, or the session is closed
        self.event.set()  # the first answer has the number of threads

    def take(self) -> dict[str, Any]:
        notices = {"lost": self.lost, "gone": self.gone}
        self.lost, self.gone = [], []
        self.event.clear()
        return notices
