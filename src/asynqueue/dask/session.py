"""The near side of a Dask cluster, in the loop of a `distributed.Client`.

A client has an asyncio loop, in a thread of its own or the reactor's. All that has to do with Dask happens there, in
coroutines; what comes of it is told to an *owner* in the reactor's thread. Neither side waits for the other.

A `Session` lives as long as its owner. Time and again it *opens*: the scheduler knows it, by a number of that
opening, until one of the two is gone or has said nothing for too long. It then tries to open again for as long as the
client does: how long that is, is Dask's setting ``distributed.comm.timeouts.connect``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import nullcontext
from itertools import count
from typing import Any, TypeVar

import attrs
import dask
from distributed import Client, Future, KilledWorker
from distributed.client import FutureCancelledError
from distributed.core import Comm, send_recv
from distributed.protocol.pickle import dumps

from asynqueue.dask.schedulerplugin import SchedulerSide
from asynqueue.dask.workerplugin import PROTOCOL, Outcome, op, run

HEARTBEAT = 10.0
"""Seconds within which a scheduler answers, though there is nothing to tell."""

SILENCE = 6 * HEARTBEAT
"""Seconds after which a scheduler that says nothing is taken for lost."""

GRACE = 5.0
"""Seconds that a scheduler has to hear that we leave."""

FIRST_PAUSE, LAST_PAUSE = 0.05, 2.0
"""Seconds between attempts to reach a scheduler that was lost: doubled from the one to the other."""

LARGE = 1_000_000
"""Bytes from which on Dask is told that we know that a call is large."""

ASKED = 256
"""Iterators that are asked for items at a time; more wait in line. Each takes one of the client's 512 connections."""

ALIVE = ("running", "connecting")
"""What a client that may be used says of itself."""

_numbers = count(1)

T = TypeVar("T")


@attrs.frozen
class Owner:
    """Who hears, in the reactor's thread, what becomes of a session."""

    present: Callable[[str], None]
    """It is open, anew: what is submitted to that opening is run."""

    away: Callable[[str], None]
    """The scheduler is lost, for that reason, and all that was submitted; perhaps not for ever."""

    gone: Callable[[BaseException], None]
    """That was all: it will not be open again, because of that error."""

    resized: Callable[[int], None]
    """The cluster has so many threads."""

    ended: Callable[[str, Outcome], None]
    """What came of a call."""

    workerGone: Callable[[str], None]
    """The worker of the cluster at that address has died or left."""


class Session:
    """Uses the cluster of CLIENT for OWNER, who is told of it by TELL(f, *args)."""

    def __init__(self, client: Client, owner: Owner, tell: Callable[..., object]) -> None:
        if not isinstance(client, Client):
            raise TypeError(f"DaskWorker takes a distributed.Client, got {type(client).__name__}")
        if client.status not in ALIVE:
            raise ValueError(
                f"the client has to run, but is {client.status}: pass one that is connected "
                "(one with asynchronous=True is, once it has been awaited)"
            )
        self._client = client
        self._scheduler = client.scheduler
        self._loop: asyncio.AbstractEventLoop = client.loop.asyncio_loop
        if not self._loop.is_running():
            raise ValueError(
                "the client's loop does not run: leave it to Client() to run one in a thread, or have Twisted run "
                "that of a client with asynchronous=True: asyncioreactor.install()"
            )
        self._owner = owner
        self._tell = tell
        self._id = ""
        self._connection: Comm | None = None
        self._opening = asyncio.Lock()  # while it is not known what there is to close
        self._line = asyncio.Semaphore(ASKED)
        self._futures: dict[str, Future] = {}
        self._coroutines: set[asyncio.Task[None]] = set()
        self._over = False

    def begin(self) -> None:
        """Open, and stay open."""
        if not self._post(self._live):
            self._end(ConnectionError("the client was closed"))

    def submit(self, opening: str, call: str, raw: bool, payload: bytes) -> None:
        """Have the cluster make the call in PAYLOAD, and tell its outcome. CALL is its key among all on the cluster."""
        self._post(self._run, opening, call, raw, payload)

    def update(self, opening: str, call: str, number: int, payload: bytes, ephemeral: bool, resident: bool) -> None:
        """Have every worker make the call in PAYLOAD, and tell the outcome of all."""
        self._post(self._update, opening, call, number, payload, ephemeral, resident)

    def withdraw(self, call: str) -> None:
        """Let a call not run, or go on by itself where it does."""
        self._post(self._withdraw, call)

    def recall(self, calls: list[str]) -> None:
        """Tell of those of CALLS that have not started that they are recalled."""
        self._post(self._recall, calls)

    def items(self, opening: str, call: str, worker: str, credit: int, then: Callable[[Any], None]) -> None:
        """Ask WORKER for CREDIT more items of the iterator that a call returned; THEN hears the answer, or an error."""
        self._post(
            self._askInLine, worker, {"op": op("items"), "session": opening, "call": call, "credit": credit}, then
        )

    def end(self, opening: str, call: str, worker: str, then: Callable[[Any], None]) -> None:
        """Have WORKER close an iterator; THEN hears what that raised, or an error."""
        self._post(self._ask, worker, {"op": op("end"), "session": opening, "call": call}, then)

    def close(self, then: Callable[[], None]) -> None:
        """Use the cluster no more: what runs there goes on by itself. THEN hears when that is known there."""
        if not self._post(self._close, then):
            self._tell(then)

    def _post(self, f: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> bool:
        """Run the coroutine of F in the client's loop. False if that does not run any more."""
        try:
            self._loop.call_soon_threadsafe(self._spawn, f, args)
        except RuntimeError:  # it is closed
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
            self._end(ConnectionError("the client was closed"))  # unless we did that: the loop ends, with all in it
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
                self._lose(f"the cluster's scheduler was lost: {str(error) or type(error).__name__}")
            except Exception as error:  # of use it is no more, or it never was
                self._end(error)
                return
            finally:
                self._hangUp()
            if self._client.status not in ALIVE:
                self._end(ConnectionError("the client was closed"))
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, LAST_PAUSE)

    def _end(self, error: Exception) -> None:
        """It will not be open again: the client is closed, or else because of ERROR."""
        if not self._over:
            self._over = True
            if self._client.status not in ALIVE:
                error = ConnectionError(f"the client is {self._client.status}")
            self._tell(self._owner.gone, error)

    async def _open(self) -> None:
        """Begin an opening, with a connection of its own: the one ends with the other.

        A request of the client's would look for another connection first, and that for half a minute where there is
        nobody.
        """
        self._connection = await self._within(self._client.rpc.connect(self._scheduler.address))
        plugin = dumps(SchedulerSide())
        await self._request("register_scheduler_plugin", plugin=plugin, name=PROTOCOL, idempotent=True)
        if self._id:
            await self._request(op("leave"), session=self._id)
        self._id = f"{self._client.id}/{next(_numbers)}"
        await self._request(op("open"), session=self._id, client=self._client.id)
        self._tell(self._owner.present, self._id)

    def _hangUp(self) -> None:
        if self._connection is not None:
            self._connection.abort()
            self._client.rpc.reuse(self._scheduler.address, self._connection)  # that is, it has one less
            self._connection = None

    async def _watch(self) -> None:
        """Tell what happens on the cluster, until the scheduler is lost."""
        threads = 0
        while not self._over:
            news = await self._request(op("watch"), session=self._id, heartbeat=HEARTBEAT)
            if news is None:
                raise OSError("it has forgotten us")
            if news["threads"] != threads:
                threads = news["threads"]
                self._tell(self._owner.resized, threads)
            for call in news["lost"]:
                self._forget(call, ("Lost", 0.0, "the Dask worker that ran it died", []))
            for address in news["gone"]:
                self._tell(self._owner.workerGone, address)

    async def _request(self, what: str, **message: Any) -> Any:
        """What the scheduler answers to WHAT on the opening's own connection, and on no other."""
        assert self._connection is not None
        return await self._within(send_recv(self._connection, op=what, **message))

    async def _within(self, answer: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wait_for(answer, SILENCE)

    async def _answer(self, opening: str, what: str, **message: Any) -> Any:
        """What the scheduler answers to WHAT: asked again when a connection ends, and None once OPENING is lost."""
        while self._isOpen(opening):
            try:
                answer = await getattr(self._scheduler, op(what))(session=opening, **message)
            except OSError:
                answer = None
            if answer is not None:  # as it is when the connection ends just then, too
                return answer
            await asyncio.sleep(FIRST_PAUSE)
        return None

    def _isOpen(self, opening: str) -> bool:
        """True until OPENING is lost, and all that was submitted to it: of which the watch tells, and nobody else."""
        return self._client.status in ALIVE and self._connection is not None and opening == self._id

    def _lose(self, reason: str) -> None:
        for future in self._futures.values():
            future.release()
        self._futures.clear()
        self._tell(self._owner.away, reason)

    async def _run(self, opening: str, call: str, raw: bool, payload: bytes) -> None:
        if opening != self._id:
            return  # lost since, as the owner has been told
        known = {"distributed.admin.large-graph-warning-threshold": 2 * len(payload)}
        try:
            with dask.config.set(known) if len(payload) > LARGE else nullcontext():
                future = self._client.submit(
                    run, opening, call, raw, payload, key=call, pure=False, retries=0, fifo_timeout=0
                )
        except Exception as error:
            if self._isOpen(opening):
                self._tell(self._owner.ended, call, ("Failed", 0.0, error, []))
            return
        self._futures[call] = future
        try:
            outcome: Outcome = await future
        except (KilledWorker, FutureCancelledError, asyncio.CancelledError, OSError) as error:
            if self._over and isinstance(error, asyncio.CancelledError):
                raise
            if self._futures.get(call) is future:
                await self._recall([call], f"Dask gave it up: {error!r}")
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
            self._tell(self._owner.ended, call, outcome)

    async def _withdraw(self, call: str) -> None:
        future = self._futures.pop(call, None)
        if future is None:
            return
        try:
            await self._within(getattr(self._scheduler, op("withdraw"))(session=self._id, calls=[call]))
        except Exception:  # with the scheduler gone, there is nobody to tell
            pass
        future.release()

    async def _recall(self, calls: list[str], lost: str | None = None) -> None:
        """Tell of those of CALLS that have not started that they are recalled; of the others, why they are LOST."""
        unstarted = await self._answer(self._id, "recall", calls=calls)
        if unstarted is None:
            return
        for call in calls:
            if call in unstarted:
                self._forget(call, ("Recalled", 0.0, None, []))
            elif lost is not None:
                self._forget(call, ("Lost", 0.0, lost, []))

    def _forget(self, call: str, outcome: Outcome) -> None:
        """Tell how a call ended, and let the cluster forget it."""
        future = self._futures.pop(call, None)
        if future is not None:
            future.release()
            self._tell(self._owner.ended, call, outcome)

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
        self._tell(then, answer)

    async def _askInLine(self, worker: str, message: dict[str, Any], then: Callable[[Any], None]) -> None:
        async with self._line:
            await self._ask(worker, message, then)

    async def _close(self, then: Callable[[], None]) -> None:
        self._over = True
        try:
            if self._client.status == "running":
                await asyncio.wait_for(self._leave(), GRACE)
        except Exception:  # what is gone needs no telling
            pass
        finally:
            self._letGo()
            self._tell(then)

    async def _leave(self) -> None:
        async with self._opening:  # Dask leaves a connection open when one lets it be half-way
            pass
        if self._id:
            await getattr(self._scheduler, op("leave"))(session=self._id)

    def _letGo(self) -> None:
        """Leave nothing in the loop."""
        me = asyncio.current_task()
        for coroutine in self._coroutines:
            if coroutine is not me:
                coroutine.cancel()
        for future in self._futures.values():
            future.release()
        self._futures.clear()
