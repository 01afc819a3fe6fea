"""What has started where on a cluster: who may start what, kept where the cluster's own scheduler is.

Theory of operation. A cluster decides by itself which of its workers runs a call, and when a worker dies it gives what
that held to another. So before a call starts, the worker it has come to asks for leave, *starting*. It is told to
start; or first to run an update that it has missed, and to ask again; or not to start, because the call has started
before or is not wanted any more. What has leave has *started*: if its worker dies, it is lost, and no other worker
gets leave for it. What had none has not started and may go anywhere.

Each queue that uses the cluster has a *session* here, with its own calls and updates. The updates of a session are
run in order, each once on every worker, before the first call of the session there. An update is *handed* to one
worker until that asks again; if the worker dies instead, the death is the update's, and after the second in a row it
is not given to any other. Those that had it already at the last such death may have died of the same cause: their
deaths are not counted.

This module is read by the cluster, which needs neither attrs nor Twisted for it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

DEATHS = 2
"""How many workers may die under one update, with none that lives through it between them."""


class Start(NamedTuple):
    """Start the call; without one, there is nothing that has to be done first."""


class First(NamedTuple):
    """Load update NUMBER, in PAYLOAD, and with RUN run it; then ask again."""

    number: int
    payload: bytes
    run: bool


class Refuse(NamedTuple):
    """Do not start the call: with AGAIN, it has started before."""

    again: bool


Answer = Start | First | Refuse


class _Update(NamedTuple):
    number: int
    payload: bytes
    present: frozenset[str] | None  # who runs it, if not everybody
    resident: bool  # it brings an object that everybody has to have

    def concerns(self, worker: str) -> bool:
        return self.resident or self.runsOn(worker)

    def runsOn(self, worker: str) -> bool:
        return self.present is None or worker in self.present


class _Session:
    def __init__(self, client: str) -> None:
        self.client = client
        self.started: dict[str, str] = {}  # worker, by call
        self.withdrawn: set[str] = set()
        self.updates: dict[int, _Update] = {}
        self.deaths: dict[int, int] = {}  # by update
        self.handed: dict[str, int] = {}  # update, by worker
        self.excused: set[str] = set()  # those of them that had it at the last death
        self.done: dict[str, set[int]] = {}  # updates, by worker; has every worker that ever asked

    def takeBack(self, worker: str) -> int | None:
        """The update that WORKER was handed, and has no longer, if there is one."""
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
        """A queue begins to use the cluster, through CLIENT."""
        self._sessions[session] = _Session(client)

    def close(self, session: str) -> list[str]:
        """A queue has done with the cluster; the workers that have anything of it."""
        closed = self._sessions.pop(session, None)
        return [] if closed is None else list(closed.done)

    def ofClient(self, client: str) -> list[str]:
        """The sessions through CLIENT."""
        return [session for session, it in self._sessions.items() if it.client == client]

    # Calls.

    def starting(self, session: str, call: str | None, worker: str, wanted: bool = True) -> Answer:
        """WORKER has CALL and is about to start it. Not WANTED, it should not be there. No call: to catch up."""
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
        """CALLS are not wanted: those that have not started never will. Where each of the others is running."""
        it = self._sessions.get(session)
        if it is None:
            return {}
        started = {call: it.started[call] for call in calls if call in it.started}
        it.withdrawn.update(calls)
        return started

    def recall(self, session: str, calls: Iterable[str]) -> list[str] | None:
        """Give back those of CALLS that have not started. They never will, here. None if that is not known any more."""
        it = self._sessions.get(session)
        if it is None:
            return None
        unstarted = [call for call in calls if call not in it.started]
        it.withdrawn.update(unstarted)
        return unstarted

    def forget(self, call: str) -> None:
        """The cluster has forgotten CALL."""
        for it in self._sessions.values():
            it.started.pop(call, None)
            it.withdrawn.discard(call)

    # Updates.

    def update(
        self, session: str, number: int, payload: bytes, present: Collection[str] | None, resident: bool
    ) -> None:
        """Every worker is to run update NUMBER, or those PRESENT; with RESIDENT, all are to have what it brings."""
        it = self._sessions.get(session)
        if it is not None and it.deaths.get(number, 0) < DEATHS:
            it.updates[number] = _Update(number, payload, None if present is None else frozenset(present), resident)

    def updated(self, session: str, number: int, worker: str) -> None:
        """WORKER has done what it was handed."""
        it = self._sessions.get(session)
        if it is not None:
            it.done.setdefault(worker, set()).add(number)
            if number in it.updates:  # it was not given up
                it.deaths.pop(number, None)
            it.takeBack(worker)

    # Workers.

    def workerLost(self, worker: str) -> dict[str, list[str]]:
        """WORKER is dead. The calls that died with it, by session."""
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
