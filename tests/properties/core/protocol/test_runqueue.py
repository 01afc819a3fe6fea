"""What never happens to the calls that a worker has, whatever it does and whatever is asked of it."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from asynqueue.core.protocol.runqueue import Outcomes, RunQueue
from asynqueue.core.records import Interrupted, Lost, Recalled, Returned


class SingleWorker(RuleBasedStateMachine):
    """A worker that runs one call at a time, and the owner that gives it calls, recalls, interrupts and loses them.

    The list of permits is what both have in common: a call starts, or is taken back, by being taken from there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.runs: RunQueue[int, int] = RunQueue()
        self.last = 0
        self.permits: list[int] = []
        self.running: int | None = None
        self.ended: list[int] = []  # their answers are on the way
        self.started: set[int] = set()
        self.outcomes: dict[int, object] = {}

    @rule(calls=st.integers(1, 3))
    def give(self, calls: int) -> None:
        for _ in range(calls):
            self.last += 1
            self.runs.given(self.last, -self.last)
            self.permits.append(self.last)

    @precondition(lambda self: self.permits or self.running is not None)
    @rule(calls=st.integers(1, 3))
    def proceed(self, calls: int) -> None:
        """The running call ends, and the next starts."""
        for _ in range(calls):
            if self.running is not None:
                self.ended.append(self.running)
                self.running = None
            if self.permits:
                self.running = self.permits.pop(0)
                assert self.running not in self.started, "a call starts once on a worker"
                assert self.running not in self.outcomes, "what was answered, and so what was recalled, never starts"
                self.started.add(self.running)

    @precondition(lambda self: self.ended)
    @rule()
    def answer(self) -> None:
        call = self.ended.pop(0)
        value = self.runs.answered(call)
        assert (value is None) == (call in self.outcomes), "a call is answered once"
        if value is not None:
            assert value == -call
            self.outcomes[call] = Returned(call)

    @rule(upset=st.sampled_from(["recall", "comeBackFromNoIterator", "die"]))
    def upset(self, upset: str) -> None:
        getattr(self, upset)()

    def recall(self) -> None:
        unstarted = list(self.permits)
        outcomes = self.runs.takenBack(self._takeBack())
        assert outcomes == [(call, Recalled()) for call in unstarted], "what has not started can be recalled, in order"
        self._answerAll(outcomes)

    @precondition(lambda self: self.last)
    @rule(back=st.integers(0, 4), finishes=st.booleans())
    def interrupt(self, back: int, finishes: bool) -> None:
        call = max(1, self.last - back)
        pending, running = call in self.runs.calls, self.running
        ends, outcomes = self.runs.interrupt(call, self._takeBack(), finishes=finishes)
        if pending and call not in self.started:
            assert dict(outcomes)[call] == Recalled(), "interrupting what has not started recalls it"
            assert not ends
        if ends:
            assert pending
            assert running in (None, call), "no other call pays for it"
            assert not finishes
            self._replace()
        self._answerAll(outcomes)
        if pending and not finishes:
            assert call in self.outcomes, "what is interrupted is over"

    def comeBackFromNoIterator(self) -> None:
        ends, outcomes = self.runs.stuck(self._takeBack())
        assert not (ends and self.running is not None), "a running call is not ended because of an iterator"
        if ends:
            self._replace()
        self._answerAll(outcomes)

    def die(self) -> None:
        calls = list(self.runs.calls)
        if self.last % 2:  # its owner has looked whether it was in a call
            self.runs.takenBack(self._takeBack())
        outcomes = self.runs.lost(self._takeBack(), "it died")
        assert [call for call, _ in outcomes] == calls, "each call has an outcome, in order"
        for call, outcome in outcomes:
            assert outcome == (Lost("it died") if call in self.started else Recalled()), "only what started is charged"
        self._replace()
        self._answerAll(outcomes)
        assert not self.runs.calls

    @invariant()
    def theCallsWithoutOutcomeAreThereInOrder(self) -> None:
        self.runs.validate()
        assert list(self.runs.calls) == [call for call in range(1, self.last + 1) if call not in self.outcomes]

    def _takeBack(self) -> list[int]:
        taken, self.permits = self.permits, []
        return taken

    def _replace(self) -> None:
        self.running = None
        self.ended.clear()
        assert not self.permits

    def _answerAll(self, outcomes: Outcomes[int]) -> None:
        calls = [call for call, _ in outcomes]
        assert calls == sorted(calls), "outcomes come in the order of the calls"
        for call, outcome in outcomes:
            assert isinstance(outcome, (Recalled, Interrupted, Lost))
            assert call not in self.outcomes, "a call is answered once"
            assert self.runs.answered(call) == -call
            self.outcomes[call] = outcome


TestAWorkersCallsEachEndOnceAndOnlyWhatStartedIsCharged = SingleWorker.TestCase
