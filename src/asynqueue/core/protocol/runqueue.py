"""Decide what becomes of the calls that one worker was given and has not answered: its run queue.

A worker starts its calls in order. Each call is in one of these states:

    given ────► started ──► answered      the worker has the outcome
      ├───────► asked ────► started, or answered as recalled (wires only)
      └───────► taken back ──► answered as recalled

An adapter *takes back* what has not started, and passes the calls that it got as TAKEN. A thread and this program share
a list, a process and this program a socket with permits (`asynqueue.transport.permits`): both are taken from once. So
after that, exactly the other calls have started. A wire has only the connection, and this rule:

    The server sends `Started` for a call, and hands it to the network, before the call starts.

A connection can end in two ways:

- *All received*: the server's system ended it (it closed or reset the connection, for instance because the process
  was killed). Everything sent before has arrived: a stream keeps its order, its end included, and a reset is accepted
  only after all earlier bytes (RFC 5961). So a call without `Started` had not started.
- *Cut*: the network failed, or this side timed out. The last messages may be lost, `Started` included. So every call
  that was sent completely may have started. This may charge a call that did not start, but it never misses one that
  did. Few are affected: a worker with slow calls gets no more calls than it runs at once.

The rules:

- A call is answered once (`answered`).
- What was taken back never starts. It ends as `Recalled`, in particular when it is interrupted, and is not charged.
- To end a running call, the worker is replaced or, if it runs several calls at once, asked. The call ends as
  `Interrupted`. The calls behind it on a replaced worker were taken back.
- When the worker is gone, what may have started ends as `Lost`: that call is charged.
- A worker that does nothing, and has not started a cancelled call within `START_GRACE` seconds, is stuck and is
  replaced. So is one that does not come back from closing its iterators, unless a call has started there.
- A call whose recall was asked either comes back or has started. Until this is known for each (`recalling`), the server
  is sent no new call: it would start that ahead of those that come back.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping
from typing import Generic, TypeAlias, TypeVar

from asynqueue.core.records import Interrupted, Lost, Recalled, RunOutcome

C = TypeVar("C", bound=Hashable)
V = TypeVar("V")

Outcomes: TypeAlias = list[tuple[C, RunOutcome]]
"""What an adapter has to answer: calls, in the order in which they were given, each with its outcome."""

START_GRACE = 0.1
"""The time within which an otherwise idle worker must start a call, in seconds."""


class RunQueue(Generic[C, V]):
    """The calls that one worker has, in order, each with a value of the adapter.

    Unless it is SINGLE, the worker runs several calls at once. Times are in seconds on any monotonic clock.

    >>> runs: RunQueue[int, str] = RunQueue()
    >>> for number in (1, 2):
    ...     runs.given(number, "a value")
    >>> runs.interrupt(1, taken=[2])
    (True, [(1, Interrupted()), (2, Recalled())])
    """

    __slots__ = ("_asked", "_calls", "_since", "_single", "_started", "_taken", "_waited", "calls")

    def __init__(self, single: bool = True) -> None:
        self._single = single
        self._calls: dict[C, V] = {}
        self.calls: Mapping[C, V] = self._calls  # for reading
        self._started: set[C] = set()  # these three: disjoint, and of those calls
        self._asked: set[C] = set()
        self._taken: set[C] = set()
        self._since = 0.0  # when the worker sent something last, or was given a call while it had none
        self._waited = 0.0  # how long interrupted calls have waited to start since it sent something last

    @property
    def begun(self) -> list[C]:
        """The calls that may have started, in order."""
        return [call for call in self._calls if call not in self._taken]

    @property
    def taken(self) -> list[C]:
        """The calls that were taken back, in order."""
        return [call for call in self._calls if call in self._taken] if self._taken else []

    @property
    def recalling(self) -> bool:
        """True while a call whose recall was asked has neither come back nor started."""
        return bool(self._asked)

    def given(self, call: C, value: V, now: float = 0.0) -> None:
        """Add CALL, which the worker may start. One that was taken back is given again, at its place."""
        if not self._calls:
            self._since = now
        self._calls[call] = value
        if self._taken:
            self._taken.discard(call)

    def received(self, now: float) -> None:
        """Record that the worker has sent something."""
        self._since = now
        self._waited = 0.0

    def started(self, call: C) -> None:
        """Record that CALL has started, as the worker says."""
        if call in self._calls and call not in self._taken:
            self._started.add(call)
            self._asked.discard(call)

    def answered(self, call: C) -> V | None:
        """Remove CALL, which has its outcome, and return its value. Return None if it had its outcome before."""
        if self._started or self._asked or self._taken:
            self._started.discard(call)
            self._asked.discard(call)
            self._taken.discard(call)
        return self._calls.pop(call, None)

    def asked(self) -> None:
        """Record that the worker is asked for the calls that have not started."""
        self._asked.update(call for call in self.begun if call not in self._started)

    def takenBack(self, taken: Iterable[C]) -> Outcomes[C]:
        """Record that the calls TAKEN never start. Return the outcomes of all calls that were taken back."""
        for call in taken:
            if call in self._calls:
                self._taken.add(call)
                self._started.discard(call)
                self._asked.discard(call)
        return [(call, Recalled()) for call in self.taken]

    def interrupt(
        self, call: C, taken: Iterable[C], now: float = 0.0, idle: bool = False, finishes: bool = False
    ) -> tuple[bool, Outcomes[C]]:
        """Cancel CALL. Return whether the worker has to be replaced (or asked to end the call), and the outcomes.

        With IDLE, the worker should start a call at once: it is ready and has no iterators. With FINISHES, a running
        call goes on to its end.
        """
        recalled = self.takenBack(taken)
        begun = self.begun
        if call in self._taken:
            self._waited += now - self._since
            self._since = now
            return idle and not begun and self._waited >= START_GRACE, recalled
        if call not in self._calls:
            return False, recalled
        # The calls of a single worker before the last have ended, and their answers are on the way.
        runs = not self._single or begun[-1] == call
        if runs and finishes:
            return False, recalled
        return runs, [(call, Interrupted()), *recalled]

    def stuck(self, taken: Iterable[C]) -> tuple[bool, Outcomes[C]]:
        """Return whether the worker, which does not come back from its iterators, is replaced, and the outcomes."""
        recalled = self.takenBack(taken)
        return not self.begun, recalled

    def lost(self, taken: Iterable[C], reason: str) -> Outcomes[C]:
        """Return the outcomes of all calls: the worker is gone for REASON."""
        self.takenBack(taken)
        return [(call, Recalled() if call in self._taken else Lost(reason)) for call in self._calls]

    def unstarted(self, unsent: Collection[C], receivedAll: bool) -> list[C]:
        """Return the calls that did not start and never will, after the connection has ended.

        UNSENT are the calls that were not sent completely. RECEIVEDALL is as described in the module's head.
        """
        return [call for call in self._calls if (call not in self._started if receivedAll else call in unsent)]

    def validate(self) -> None:
        """Assert that each call is in one state."""
        assert len(self._started) + len(self._asked) + len(self._taken) == len(
            self._started | self._asked | self._taken
        )
        assert self._started | self._asked | self._taken <= self._calls.keys()
