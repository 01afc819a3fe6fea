"""The guarantees of `core.flow.tracking`, against a model that counts in the plainest way."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from asynqueue.core.flow.tracking import Tracking, WaitEnded

Ended = tuple[WaitEnded[int], ...]
THINGS = st.integers(0, 4)


class EveryWaitEndsWhenItsConditionComesTrue(RuleBasedStateMachine):
    """Exactly once, in the very event, in order of beginning; and met only if the condition holds."""

    waits = Bundle[int]("waits")

    def __init__(self) -> None:
        super().__init__()
        self.tracking = Tracking[int]()
        # The model: each put by its thing, an anonymous one as -1; each wait's limit, 0 for any fall.
        self.outstanding: list[int] = []
        self.limits: dict[int, int] = {}
        self.begun = 0

    def count(self) -> int:
        return len(set(self.outstanding) - {-1}) + self.outstanding.count(-1)

    def check(self, ended: Ended, before: int) -> None:
        met = [w for w, n in self.limits.items() if (before > self.count() if n == 0 else self.count() < n)]
        assert ended == tuple(WaitEnded(w, True) for w in met)
        for wait in met:
            del self.limits[wait]

    def begin(self, limit: int) -> int:
        wait = self.begun = self.begun + 1
        if limit:
            ended, met = self.tracking.waitFewer(wait, limit), self.count() < limit
        else:
            ended, met = self.tracking.waitAny(wait), self.count() == 0
        assert ended == ((WaitEnded(wait, True),) if met else ())
        if not met:
            self.limits[wait] = limit
        return wait

    @rule(thing=THINGS)
    def put(self, thing: int) -> None:
        self.tracking.put(thing)
        self.outstanding.append(thing)

    @rule(thing=THINGS)
    def passed(self, thing: int) -> None:
        before = self.count()
        if thing in self.outstanding:
            self.outstanding.remove(thing)
            self.check(self.tracking.passed(thing), before)

    @rule()
    def add(self) -> None:
        self.tracking.add()
        self.outstanding.append(-1)

    @precondition(lambda self: -1 in self.outstanding)
    @rule()
    def remove(self) -> None:
        before = self.count()
        self.outstanding.remove(-1)
        self.check(self.tracking.remove(), before)

    @rule(target=waits, limit=st.integers(0, 5))
    def wait(self, limit: int) -> int:
        return self.begin(limit)

    @rule(wait=waits)
    def expired(self, wait: int) -> None:
        known = self.limits.pop(wait, None) is not None
        assert self.tracking.expired(wait) == ((WaitEnded(wait, False),) if known else ())

    @rule(wait=consumes(waits))
    def withdraw(self, wait: int) -> None:
        self.tracking.withdraw(wait)
        self.limits.pop(wait, None)

    @rule()
    def quit(self) -> None:
        assert self.tracking.quit() == tuple(WaitEnded(wait, False) for wait in self.limits)
        self.limits.clear()

    @invariant()
    def isWhatTheModelIs(self) -> None:
        self.tracking.validate()
        assert self.tracking.count == self.count()
        assert list(self.tracking) == list(self.limits)


TestEveryWaitEndsWhenItsConditionComesTrue = EveryWaitEndsWhenItsConditionComesTrue.TestCase
EXAMPLES = settings().max_examples
TestEveryWaitEndsWhenItsConditionComesTrue.settings = settings(
    max_examples=max(1000, EXAMPLES) if EXAMPLES >= 100 else EXAMPLES,  # small ones, but for mutants
    stateful_step_count=25,
)
