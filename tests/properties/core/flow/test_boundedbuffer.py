"""A handover never loses, doubles, misorders, nor keeps anybody waiting for what is there."""

from __future__ import annotations

from collections import deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from asynqueue.core.flow.boundedbuffer import Action, BoundedBuffer, End, Items, Phase, Wait


class ExactlyTheItemsInOrderEachOnceUpToTheEnd(RuleBasedStateMachine):
    """Against a model that is one list of what is to come."""

    @initialize(limit=st.integers(1, 5), streaming=st.sampled_from((None, False, True)))
    def begin(self, limit: int, streaming: bool | None) -> None:
        self.limit = limit
        self.h = BoundedBuffer[int](limit)
        self.coming: deque[int] = deque()
        self.count = 0
        self.ended = self.gone = False
        self.error: BaseException | None = None
        self.did: list[Action] = []
        self.mayWrite = streaming is not False  # as far as a producer in the loop has been told
        self.streaming = streaming
        self.readerWaits = self.writerWaits = False
        if streaming is not None:
            self.h.attach(streaming)

    @rule()
    def put(self) -> None:
        attention = self.h.put(self.count)
        if not self.ended and not self.gone:
            self.coming.append(self.count)
            assert attention or not (self.readerWaits or self.h.pending)
            if self.streaming is False:
                self.mayWrite = False
        self.count += 1

    @rule(most=st.none() | st.integers(1, 4))
    def take(self, most: int | None) -> None:
        answer = self.h.take(most)
        expected = [self.coming.popleft() for _ in range(min(len(self.coming), most or self.count))]
        if expected:
            assert answer == Items(expected)
        elif self.ended or self.gone:
            assert answer == End(self.error)
            assert self.h.complete == (not self.gone and self.error is None)
            self.gone = self.gone or self.error is not None
            self.error = None
        else:
            assert answer == Wait()
            self.readerWaits = True

    @rule()
    def awaitRoom(self) -> None:
        full = not self.ended and not self.gone and len(self.coming) >= self.limit
        assert self.h.awaitRoom() == full
        self.writerWaits = self.writerWaits or full

    @rule(error=st.none() | st.builds(ValueError))
    def end(self, error: BaseException | None) -> None:
        self.h.end(error)
        if not self.ended and not self.gone:
            self.ended, self.error = True, error

    @rule(error=st.none() | st.builds(KeyError))
    def dropAll(self, error: BaseException | None) -> None:
        over = self.h.phase is Phase.OVER
        if error is None:
            self.h.closeReader()
        else:
            self.h.abort(error)
        if not over:
            self.gone, self.error = True, error
            self.coming.clear()

    @precondition(lambda self: self.h.pending is not None)
    @rule()
    def attend(self) -> None:
        due = self.h.pending
        assert due is not None
        self.h.done(due)
        self.did.append(due)
        if due is Action.PAUSE:
            assert self.mayWrite
            assert len(self.coming) >= self.limit
            self.mayWrite = False
        elif due is Action.RESUME:
            assert not self.mayWrite
            assert len(self.coming) < self.limit
            self.mayWrite = True
        else:
            assert self.ended or self.gone
            assert self.did.count(due) == 1

    @invariant()
    def nobodyIsKeptWaiting(self) -> None:
        over = self.ended or self.gone
        assert self.h.shouldWakeReaders() == (self.readerWaits and (bool(self.coming) or over))
        self.readerWaits = self.readerWaits and not self.coming and not over
        due = self.h.shouldWakeWriters()
        assert due or not (self.writerWaits and (over or not self.coming))
        assert not due or self.writerWaits
        self.writerWaits = self.writerWaits and not due
        self.h.validate()
        assert len(self.h) == len(self.coming)

    def teardown(self) -> None:
        while hasattr(self, "h") and self.h.pending is not None:
            self.attend()
        if hasattr(self, "h") and (self.ended or self.gone) and self.streaming is not None:
            assert Action.STOP in self.did


TestHandover = ExactlyTheItemsInOrderEachOnceUpToTheEnd.TestCase
TestHandover.settings = settings(stateful_step_count=40)
