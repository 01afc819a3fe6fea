"""The connection to a Dask cluster, in the loop of a `distributed.Client`.

A client has an asyncio loop, in a thread of its own or the reactor's. Everything about Dask happens there, in
coroutines. An *owner* in the reactor's thread is notified of the results. Neither side waits for the other.

A `Session` lasts as long as its owner. It *opens* repeatedly: the scheduler then knows it under a number of that
opening. An opening ends when the connection is lost or silent for too long. The session tries to open again for as long
as the client does, which is Dask's setting ``distributed.comm.timeouts.connect``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import nullcontext
from itertools import count
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import attrs
import dask
from distributed import Client, Future, KilledWorker
from distributed.client import FutureCancelledError
from distributed.core import Comm, send_recv
from distributed.protocol.pickle import dumps

from asynqueue.dask import internals
from asynqueue.dask.schedulerplugin import SchedulerSide
from asynqueue.dask.workerplugin import PROTOCOL, Outcome, op, run
from asynqueue.transport.script.exports import Definitions

HEARTBEAT = 10.0
"""The time within which the scheduler answers although it has no news, in seconds."""

SILENCE = 6 * HEARTBEAT
"""The time without a message after which the scheduler counts as lost, in seconds."""

GRACE = 5.0
"""The time for telling the scheduler that the session ends, in seconds."""

FIRST_PAUSE, LAST_PAUSE = 0.05, 2.0
"""The first and the last pause between attempts to reach a lost scheduler, in seconds. Each doubles the one before."""

LARGE = 1_000_000
"""The size of a call, in bytes, above which Dask's warning about large calls is suppressed."""

ASKED = 256
"""The number of iterators of one client that are asked for items at a time, by all its sessions. More wait.

Each takes one of the client's 512 connections.
"""

ALIVE = ("running", "connecting")
"""The values of `Client.status` with which a client can be used."""

_numbers = count(1)
_slots: WeakKeyDictionary[Client, asyncio.Semaphore] = WeakKeyDictionary()

T = TypeVar("T")


@attrs.frozen
class Owner:
    """The callbacks of a session's owner, which are called in the reactor's thread."""

    connected: Callable[[str], None]
    """The session is open (again). Calls submitted to this opening are run."""

    disconnected: Callable[[str], None]
    """The scheduler is lost for this reason, and so are all submitted calls. It may come back."""

    failed: Callable[[BaseException], None]
    """The session has ended for good, because of this error."""

    resized: Callable[[int], None]
    """The cluster has so many threads."""

    ended: Callable[[str, Outcome], None]
    """A call has ended with this outcome."""

    workerLeft: Callable[[str], None]
    """The cluster's worker at this address has died or left."""


class Session:
    """Uses the cluster of CLIENT for OWNER, whose callbacks it calls through NOTIFY(f, *args)."""

    def __init__(self, client: Client, owner: Owner, notify: Callable[..., object]) -> None:
        if not isinstance(client, Client):
            raise TypeError(f"DaskWorker takes a distributed.Client, got {type(client).__name__}")
        if client.status not in ALIVE:
            raise ValueError(
                f"the client must be running, but is {client.status}: pass one that is connected "
                "(with asynchronous=True, await it first)"
            )
        internals.requireClient(client)
        self._client = client
        self._scheduler = client.scheduler
        self._loop: asyncio.AbstractEventLoop = client.loop.asyncio_loop
        if not self._loop.is_running():
            raise ValueError(
                "the client's loop does not run: let Client() run one in a thread, or use asynchronous=True with "
                "Twisted's asyncio reactor, asyncioreactor.install()"
            )
        self._owner = owner
        self._notify = notify
        self._id = ""
        self._connection: Comm | None = None
        self._opening = asyncio.Lock()  # held while the session opens, so that it is not closed half-open
        self._slots = _slots.setdefault(client, asyncio.Semaphore(ASKED))
        self._futures: dict[str, Future] = {}
        self._coroutines: set[asyncio.Task[None]] = set()
        self._over = False

    def begin(self) -> None:
        """Open the session, and keep it open."""
        if not self._post(self._live):
            self._end(ConnectionError("the client was closed"))

    def submit(self, opening: str, call: str, raw: bool, payload: bytes) -> None:
        """Make the call in PAYLOAD on the cluster. CALL is its key, unique in the cluster."""
        self._post(self._run, opening, call, raw, payload)

    def update(self, opening: str, call: str, number: int, payload: bytes, ephemeral: bool, resident: bool) -> None:
        """Make the call in PAYLOAD on every worker of the cluster."""
        self._post(self._update, opening, call, number, payload, ephemeral, resident)

    def define(self, opening: str, number: int, definitions: Definitions) -> None:
        """Give the scheduler DEFINITIONS, which later calls refer to by NUMBER."""
        self._post(self._define, opening, number, definitions)

    def withdraw(self, call: str) -> None:
        """Cancel a call. If it runs, its thread continues on its own."""
        self._post(self._withdraw, call)

    def recall(self, calls: list[str]) -> None:
        """Recall those of CALLS that have not started."""
        self._post(self._recall, calls)

    def items(self, opening: str, call: str, worker: str, credit: int, then: Callable[[Any], None]) -> None:
        """Request CREDIT more items of a call's iterator from WORKER. THEN gets the answer, or an error."""
        self._post(
            self._askInTurn, worker, {"op": op("items"), "session": opening, "call": call, "credit": credit}, then
        )

    def end(self, opening: str, call: str, worker: str, then: Callable[[Any], None]) -> None:
        """Close an iterator on WORKER. THEN gets the error that it raised, or None."""
        self._post(self._ask, worker, {"op": op("end"), "session": opening, "call": call}, then)

    def close(self, then: Callable[[], None]) -> None:
        """End the session. Running calls continue on their own. THEN is called when the scheduler knows it."""
        if not self._post(self._close, then):
            self._notify(then)

    def _post(self, f: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> bool:
        """Run the coroutine of F in the client's loop. Return False if the loop does not run."""
        try:
            self._loop.call_soon_threadsafe(self._spawn, f, args)
        except RuntimeError:  # the loop is closed
            return False
        return self._loop.is_running()

    def _spawn(self, f: Callable[..., Coroutine[Any, Any, None]], args: tuple[Any, ...]) -> None:
        coroutine = self._loop.create_task(f(*args))
        self._coroutines.add(coroutine)
        coroutine.add_done_callback(self._coroutines.discard)

    # In the client's loop.

    async def _live(self) -> None:
        try:
            await self._stayOpen()
        except asyncio.CancelledError:
            self._end(ConnectionError("the client was closed"))  # the client's loop ends
            raise

    async def _stayOpen(self) -> None:
        pause = FIRST_PAUSE
        while not self._over:
            try:
                async with self._opening:
                    await self._open()
                pause = FIRST_PAUSE
                await self._watch()
            except (OSError, asyncio.TimeoutError) as error:
                if self._over:
                    return
                self._lost(f"the cluster's scheduler was lost: {str(error) or type(error).__name__}")
            except Exception as error:  # AsynQueue cannot use this cluster
                self._end(error)
                return
            finally:
                self._disconnect()
            if self._client.status not in ALIVE:
                self._end(ConnectionError("the client was closed"))
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, LAST_PAUSE)

    def _end(self, error: Exception) -> None:
        """End for good, because of ERROR or because the client is closed."""
        if not self._over:
            self._over = True
            if self._client.status not in ALIVE:
                error = ConnectionError(f"the client is {self._client.status}")
            self._notify(self._owner.failed, error)

    async def _open(self) -> None:
        """Open the session with a connection of its own, so that both end together.

        A request through the client would first look for another connection, for half a minute if the scheduler is
        gone.
        """
        self._connection = await self._within(internals.connect(self._client, self._scheduler.address))
        plugin = dumps(SchedulerSide())
        await self._request("register_scheduler_plugin", plugin=plugin, name=PROTOCOL, idempotent=True)
        if self._id:
            await self._request(op("leave"), session=self._id)
        self._id = f"{self._client.id}/{next(_numbers)}"
        await self._request(op("open"), session=self._id, client=self._client.id)
        self._notify(self._owner.connected, self._id)

    def _disconnect(self) -> None:
        if self._connection is not None:
            internals.drop(self._client, self._scheduler.address, self._connection)
            self._connection = None

    async def _watch(self) -> None:
        """Report events of the cluster until the scheduler is lost."""
        threads = 0
        while not self._over:
            news = await self._request(op("watch"), session=self._id, heartbeat=HEARTBEAT)
            if news is None:
                raise OSError("the scheduler does not know this session any more")
            if news["threads"] != threads:
                threads = news["threads"]
                self._notify(self._owner.resized, threads)
            for call in news["lost"]:
                self._forget(call, ("Lost", 0.0, "the Dask worker that ran it died", []))
            for address in news["gone"]:
                self._notify(self._owner.workerLeft, address)

    async def _request(self, what: str, **message: Any) -> Any:
        """Return the scheduler's answer to WHAT, on the connection of this opening only."""
        assert self._connection is not None
        return await self._within(send_recv(self._connection, op=what, **message))

    async def _within(self, answer: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wait_for(answer, SILENCE)

    async def _answer(self, opening: str, what: str, **message: Any) -> Any:
        """Return the scheduler's answer to WHAT. Retry after a lost connection. Return None once OPENING is lost."""
        while self._isOpen(opening):
            try:
                answer = await getattr(self._scheduler, op(what))(session=opening, **message)
            except OSError:
                answer = None
            if answer is not None:  # it is also None if the connection ends at that moment
                return answer
            await asyncio.sleep(FIRST_PAUSE)
        return None

    def _isOpen(self, opening: str) -> bool:
        """Return whether OPENING is still open. `_watch` alone reports its loss."""
        return self._client.status in ALIVE and self._connection is not None and opening == self._id

    def _lost(self, reason: str) -> None:
        for future in self._futures.values():
            future.release()
        self._futures.clear()
        self._notify(self._owner.disconnected, reason)

    async def _run(self, opening: str, call: str, raw: bool, payload: bytes) -> None:
        if opening != self._id:
            return  # this opening is lost, and the owner was notified
        known = {"distributed.admin.large-graph-warning-threshold": 2 * len(payload)}
        try:
            with dask.config.set(known) if len(payload) > LARGE else nullcontext():
                future = self._client.submit(
                    run, opening, call, raw, payload, key=call, pure=False, retries=0, fifo_timeout=0
                )
        except Exception as error:
            if self._isOpen(opening):
                self._notify(self._owner.ended, call, ("Failed", 0.0, error, []))
            return
        self._futures[call] = future
        try:
            outcome: Outcome = await future
        except (KilledWorker, FutureCancelledError, asyncio.CancelledError, OSError) as error:
            if self._over and isinstance(error, asyncio.CancelledError):
                raise
            if self._futures.get(call) is future:
                await self._recall([call], f"Dask abandoned the call: {error!r}")
        except Exception as error:
            if self._isOpen(opening):
                self._forget(call, ("Failed", 0.0, error, []))
        else:
            if outcome[0] == "Refused":
                outcome = "Lost", 0.0, "the Dask worker that ran it died", []
            self._forget(call, outcome)

    async def _update(
        self, opening: str, call: str, number: int, payload: bytes, ephemeral: bool, resident: bool
    ) -> None:
        outcome: Outcome = "Lost", 0.0, "a Dask worker died under it", []
        try:
            outcomes = await self._answer(
                opening, "update", number=number, payload=payload, ephemeral=ephemeral, resident=resident
            )
        except Exception as error:
            outcome = "Failed", 0.0, error, []
        else:
            if outcomes:
                failed = [it for it in outcomes if it[0] != "Returned"]
                outcome = *(failed or outcomes)[0], []
        if self._isOpen(opening):
            self._notify(self._owner.ended, call, outcome)

    async def _define(self, opening: str, number: int, definitions: Definitions) -> None:
        stream, nodes, dead = definitions
        await self._answer(opening, "define", number=number, nodes=nodes, dead=dead, stream=stream)

    async def _withdraw(self, call: str) -> None:
        future = self._futures.pop(call, None)
        if future is None:
            return
        try:
            await self._within(getattr(self._scheduler, op("withdraw"))(session=self._id, calls=[call]))
        except Exception:  # without a scheduler there is no call to withdraw
            pass
        future.release()

    async def _recall(self, calls: list[str], lost: str | None = None) -> None:
        """Report `Recalled` for the CALLS that have not started. Report the others as LOST, if it is given."""
        unstarted = await self._answer(self._id, "recall", calls=calls)
        if unstarted is None:
            return
        for call in calls:
            if call in unstarted:
                self._forget(call, ("Recalled", 0.0, None, []))
            elif lost is not None:
                self._forget(call, ("Lost", 0.0, lost, []))

    def _forget(self, call: str, outcome: Outcome) -> None:
        """Report how a call ended, and let the cluster forget it."""
        future = self._futures.pop(call, None)
        if future is not None:
            future.release()
            self._notify(self._owner.ended, call, outcome)

    async def _ask(self, worker: str, message: dict[str, Any], then: Callable[[Any], None]) -> None:
        client = self._client
        try:
            if client.direct_to_workers:
                request = dict(message)
                answer = await getattr(client.rpc(worker), request.pop("op"))(**request)
            else:
                answer = await client.scheduler.proxy(worker=worker, msg=message)
        except Exception as error:
            answer = error
        self._notify(then, answer)

    async def _askInTurn(self, worker: str, message: dict[str, Any], then: Callable[[Any], None]) -> None:
        async with self._slots:
            await self._ask(worker, message, then)

    async def _close(self, then: Callable[[], None]) -> None:
        self._over = True
        try:
            if self._client.status == "running":
                await asyncio.wait_for(self._leave(), GRACE)
        except Exception:  # a lost scheduler does not need the message
            pass
        finally:
            self._cancelAll()
            self._notify(then)

    async def _leave(self) -> None:
        async with self._opening:  # Dask would leak a connection that is only half open
            pass
        if self._id:
            await getattr(self._scheduler, op("leave"))(session=self._id)

    def _cancelAll(self) -> None:
        """Cancel everything that runs in the loop."""
        me = asyncio.current_task()
        for coroutine in self._coroutines:
            if coroutine is not me:
                coroutine.cancel()
        for future in self._futures.values():
            future.release()
        self._futures.clear()
