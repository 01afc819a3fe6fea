"""Decide which worker of a Dask cluster may start which call. It runs in the cluster's own scheduler.

A cluster decides by itself which of its workers runs a call. When a worker dies, the cluster gives the worker's calls
to another. So a worker that is about to start a call asks for a permit first (`starting`). There are three answers:

- `Start`: the call may start.
- `First`: the worker has missed an update. It runs that, then asks again.
- `Refuse`: the call was started before, or was cancelled.

A call with a permit has *started*. If its worker dies, the call is lost, and no other worker gets a permit for it. A
call without a permit has not started and may move.

Each queue that uses the cluster has a *session*, with its own calls and updates. The updates of a session run in
order, once on every worker, before the first call of the session there. An update is *handed* to a worker until the
worker asks again. If the worker dies instead, the death is counted, and after the second in a row the update is
abandoned. Workers that were handed the update already at the last death may die of the same cause: their deaths are
not counted.

The cluster imports this module. It needs neither attrs nor Twisted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

DEATHS = 2
"""The number of workers in a row that may die under one update."""


class Start(NamedTuple):
    """Permission: the worker has run all updates, and may start the call, if it asked about one.

    A worker that only catches up on updates asks about no call.
    """


class First(NamedTuple):
    """Load the update of this number from `payload`, run it if `run`, then ask again."""

    number: int
    payload: bytes
    run: bool


class Refuse(NamedTuple):
    """Do not start the call. With `again`, it has been started before."""

    again: bool


Answer = Start | First | Refuse


class _Update(NamedTuple):
    number: int
    payload: bytes
    present: frozenset[str] | None  # the workers that run it; None for all
    resident: bool  # it brings an object that every worker needs

    def concerns(self, worker: str) -> bool:
        return self.resident or self.runsOn(worker)

    def runsOn(self, worker: str) -> bool:
        return self.present is None or worker in self.present


class _Session:
    def __init__(self, client: str) -> None:
        self.client = client
        self.started: dict[str, str] = {}  # the worker, by call
        self.withdrawn: set[str] = set()
        self.updates: dict[int, _Update] = {}
        self.deaths: dict[int, int] = {}  # by update
        self.handed: dict[str, int] = {}  # the update, by worker
        self.excused: set[str] = set()  # the workers that were handed one at the last death
        self.done: dict[str, set[int]] = {}  # updates, by worker: every worker that ever asked

    def takeBack(self, worker: str) -> int | None:
        """Take from a worker the update that it was handed, and return its number, or None."""
        self.excused.discard(worker)
        return self.handed.pop(worker, None)


class Placement:
    """The sessions of one cluster, and what has started where.

    >>> p = Placement()
    >>> p.open("s", "client")
    >>> p.starting("s", "call", "worker 1"), p.starting("s", "call", "worker 2")
    (Start(), Refuse(again=True))
    >>> p.workerLost("worker 1")
    {'s': ['call']}
    """

    def __init__(self) -> None:
        self._sessions: dict[str, _Session] = {}

    def open(self, session: str, client: str) -> None:
        """Open the session of a queue that uses the cluster through `client`."""
        self._sessions[session] = _Session(client)

    def close(self, session: str) -> list[str]:
        """Close a session. Return the workers that keep anything of it."""
        closed = self._sessions.pop(session, None)
        return [] if closed is None else list(closed.done)

    def ofClient(self, client: str) -> list[str]:
        """Return the sessions of a client."""
        return [session for session, it in self._sessions.items() if it.client == client]

    # Calls.

    def starting(self, session: str, call: str | None, worker: str, wanted: bool = True) -> Answer:
        """Answer a worker that is about to start `call`, or that only catches up on updates (None)."""
        it = self._sessions.get(session)
        if it is None:
            return Refuse(again=False)
        if call is not None and (not wanted or call in it.started or call in it.withdrawn):
            return Refuse(call in it.started)
        done = it.done.setdefault(worker, set())
        it.takeBack(worker)
        for update in it.updates.values():
            if update.number not in done and update.concerns(worker):
                it.handed[worker] = update.number
                return First(update.number, update.payload, update.runsOn(worker))
        if call is not None:
            it.started[call] = worker
        return Start()

    def withdraw(self, session: str, calls: Iterable[str]) -> dict[str, str]:
        """Cancel calls: those that have not started never start. Return the worker of each of the others."""
        it = self._sessions.get(session)
        if it is None:
            return {}
        started = {call: it.started[call] for call in calls if call in it.started}
        it.withdrawn.update(calls)
        return started

    def recall(self, session: str, calls: Iterable[str]) -> list[str] | None:
        """Return those of `calls` that have not started; they never start. None if the session is unknown."""
        it = self._sessions.get(session)
        if it is None:
            return None
        unstarted = [call for call in calls if call not in it.started]
        it.withdrawn.update(unstarted)
        return unstarted

    def forget(self, call: str) -> None:
        """Forget a call that the cluster has forgotten."""
        for it in self._sessions.values():
            it.started.pop(call, None)
            it.withdrawn.discard(call)

    # Updates.

    def update(
        self, session: str, number: int, payload: bytes, present: Collection[str] | None, resident: bool
    ) -> None:
        """Have every worker, or those in `present`, run an update. With `resident`, all load the object it brings."""
        it = self._sessions.get(session)
        if it is not None and it.deaths.get(number, 0) < DEATHS:
            it.updates[number] = _Update(number, payload, None if present is None else frozenset(present), resident)

    def updated(self, session: str, number: int, worker: str) -> None:
        """Note that a worker has run the update that it was handed."""
        it = self._sessions.get(session)
        if it is not None:
            it.done.setdefault(worker, set()).add(number)
            if number in it.updates:  # it is not abandoned
                it.deaths.pop(number, None)
            it.takeBack(worker)

    # Workers.

    def workerLost(self, worker: str) -> dict[str, list[str]]:
        """Note that a worker is dead. Return the calls that died with it, by session."""
        lost: dict[str, list[str]] = {}
        for session, it in self._sessions.items():
            it.done.pop(worker, None)
            calls = [call for call, where in it.started.items() if where == worker and call not in it.withdrawn]
            if calls:
                lost[session] = calls
            excused = worker in it.excused
            update = it.takeBack(worker)
            if update is not None and not excused:
                it.deaths[update] = it.deaths.get(update, 0) + 1
                it.excused.update(each for each, handed in it.handed.items() if handed == update)
                if it.deaths[update] >= DEATHS:
                    del it.updates[update]
        return lost
