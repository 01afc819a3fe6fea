"""What AsynQueue has at the scheduler of a Dask cluster.

`SchedulerSide` is a plugin of the scheduler: it keeps an `asynqueue.core.scheduling.placement.Placement`, so that no
call starts twice unasked, and tells each session of the deaths and arrivals that concern it, in answer to a `watch`
that it lets wait until there is something to tell.

The cluster imports this module: it imports neither Twisted nor attrs.
"""

from __future__ import annotations

import asyncio
from typing import Any

from distributed import Scheduler
from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.protocol.pickle import dumps

from asynqueue.core.scheduling.placement import Placement
from asynqueue.dask.workerplugin import PROTOCOL, Outcome, op, settle

MISSED = 1.0
"""Seconds within which a scheduler misses a worker that is dead: it hears that from the connection."""


class SchedulerSide(SchedulerPlugin):
    """Our part at the scheduler."""

    name = PROTOCOL

    async def start(self, scheduler: Scheduler) -> None:
        """Serve SCHEDULER, unless one of us does."""
        if op("open") in scheduler.handlers:
            return
        self._scheduler = scheduler
        self._placement = Placement()
        self._notices: dict[str, _Notices] = {}
        self._joined = asyncio.Event()
        self._leaving = asyncio.Event()
        for handler in (self.open, self.watch, self.starting, self.withdraw, self.recall, self.update, self.leave):
            scheduler.handlers[op(handler.__name__)] = handler

    # For the near side.

    async def open(self, session: str, client: str) -> None:
        """A queue begins to use the cluster."""
        self._placement.open(session, client)
        self._notices[session] = _Notices()

    async def watch(self, session: str, heartbeat: float) -> dict[str, Any] | None:
        """What has happened since the last time, as soon as something has, or nothing has in HEARTBEAT seconds; None if
        the session is not known."""
        notices = self._notices.get(session)
        if notices is None:
            return None
        try:
            await asyncio.wait_for(notices.some.wait(), heartbeat)
        except asyncio.TimeoutError:
            pass
        threads = sum(worker.nthreads for worker in self._scheduler.workers.values())
        return {"threads": threads, **notices.take()}

    async def withdraw(self, session: str, calls: list[str]) -> None:
        """CALLS are not wanted any more, started or not."""
        for call, worker in self._placement.withdraw(session, calls).items():
            self._tell(worker, "abandon", session=session, call=call)

    async def recall(self, session: str, calls: list[str]) -> list[str] | None:
        """Those of CALLS that have not started, and will not; None if the session is not known any more."""
        return self._placement.recall(session, calls)

    async def update(
        self, session: str, number: int, payload: bytes, ephemeral: bool, resident: bool
    ) -> list[Outcome] | None:
        """Run an update on every worker. How it ended on each, that of the first of them first; nothing when that died
        of it. None if the session is not known any more.

        It may be asked for again: no worker runs it twice.
        """
        while not self._scheduler.workers:
            self._joined.clear()
            await self._joined.wait()
        workers = list(self._scheduler.workers)
        self._placement.update(session, number, payload, workers if ephemeral else None, resident)
        first = await self._catchUp(session, number, workers[0])
        if first is None:
            await self._missing(workers[0])
            others: list[Outcome | None] = []
        else:
            others = await asyncio.gather(*(self._catchUp(session, number, worker) for worker in workers[1:]))
        if session not in self._notices:
            return None
        return [outcome for outcome in (first, *others) if outcome is not None]

    async def leave(self, session: str) -> None:
        """A queue has done with the cluster."""
        self._close(session)

    # For the workers.

    async def starting(self, session: str, call: str | None, worker: str, did: int | None) -> tuple[Any, ...]:
        """May WORKER, which just DID an update, start CALL?"""
        if did is not None:
            self._placement.updated(session, did, worker)
        task = None if call is None else self._scheduler.tasks.get(call)
        place = None if task is None else task.processing_on
        answer = self._placement.starting(session, call, worker, place is not None and place.address == worker)
        return type(answer).__name__, *answer

    # What happens.

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        """There are more threads than there were."""
        self._joined.set()
        for notices in self._notices.values():
            notices.some.set()

    def remove_worker(self, scheduler: Scheduler, worker: str, **_: Any) -> None:
        """There are fewer, and what had started there is lost."""
        self._leaving.set()
        lost = self._placement.workerLost(worker)
        for session, notices in self._notices.items():
            notices.lost += lost.get(session, [])
            notices.gone.append(worker)
            notices.some.set()

    def remove_client(self, scheduler: Scheduler, client: str) -> None:
        """Nobody hears any more what comes of its sessions."""
        for session in self._placement.ofClient(client):
            self._close(session)

    def restart(self, scheduler: Scheduler) -> None:
        """The cluster begins anew, and has forgotten every task without a word on which of them had started."""
        for session in list(self._notices):
            self._close(session)

    def transition(self, key: str, start: str, finish: str, *_: Any, **__: Any) -> None:
        """The scheduler has forgotten a task: so may we."""
        if finish == "forgotten":
            self._placement.forget(key)

    async def _catchUp(self, session: str, number: int, worker: str) -> Outcome | None:
        """How an update ended on WORKER; None if it died, or left.

        Dask tries for half a minute to reach one that has left.
        """
        message = {"op": op("catchUp"), "session": session, "number": number}
        left = asyncio.ensure_future(self._left(worker))
        asked = asyncio.ensure_future(self._ask(worker, {"op": "run", "function": dumps(settle)}, message))
        try:
            await asyncio.wait({left, asked}, return_when=asyncio.FIRST_COMPLETED)
            return tuple(asked.result()) if asked.done() else None
        except OSError:
            return None
        finally:
            left.cancel()
            asked.cancel()

    async def _ask(self, worker: str, *messages: dict[str, Any]) -> Any:
        """What WORKER answers to the last of MESSAGES."""
        for message in messages:
            if worker not in self._scheduler.workers:
                raise OSError(f"{worker} has left")
            answer = await self._scheduler.proxy(msg=message, worker=worker)
        return answer

    async def _left(self, worker: str) -> None:
        """Return when WORKER is not in the cluster any more."""
        while worker in self._scheduler.workers:
            self._leaving.clear()
            await self._leaving.wait()

    async def _missing(self, worker: str) -> None:
        """Wait until the scheduler misses WORKER, which is dead: or what comes next would be sent there.

        One that it does not miss soon is there after all.
        """
        try:
            await asyncio.wait_for(self._left(worker), MISSED)
        except asyncio.TimeoutError:
            pass

    def _tell(self, worker: str, what: str, **message: Any) -> None:
        if worker in self._scheduler.workers:
            self._scheduler.worker_send(worker, {"op": op(what), **message})

    def _close(self, session: str) -> None:
        notices = self._notices.pop(session, None)
        if notices is not None:
            notices.some.set()
        for worker in self._placement.close(session):
            self._tell(worker, "forget", session=session)


class _Notices:
    """What a session has not been told yet: calls that are LOST, workers that are GONE."""

    def __init__(self) -> None:
        self.lost: list[str] = []
        self.gone: list[str] = []
        self.some = asyncio.Event()
        self.some.set()  # at first: how many threads there are

    def take(self) -> dict[str, Any]:
        told = {"lost": self.lost, "gone": self.gone}
        self.lost, self.gone = [], []
        self.some.clear()
        return told
