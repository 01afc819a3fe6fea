"""The guarantees of `core.flow.locking`, against a model that is one sorted list."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

from asynqueue.core.flow.locking import Granted, Locking, Phase


class OneHolderVipsFirstAndFirstComeFirstServed(RuleBasedStateMachine):
    """Nobody waits for a free lock, nobody gets a held one, and every claim is granted once or withdrawn."""

    claims = Bundle[int]("claims")

    def __init__(self) -> None:
        super().__init__()
        self.locking = Locking[int]()
        # The model: who waits, as (not VIP, number), and so in order when sorted; who holds.
        self.line: list[tuple[bool, int]] = []
        self.holder: int | None = None
        self.stopping = self.open = False
        self.begun = 0
        # The stopping has a number of its own in the order of coming.
        self.stopNumber: int | None = None

    def grant(self) -> tuple[Granted[int], ...]:
        """What the model grants now: the next to an idle lock, all once it is open."""
        granted = []
        while self.line and (self.open or self.holder is None):
            self.line.sort()
            _, self.holder = self.line.pop(0)
            granted.append(Granted(self.holder))
        if self.open:
            self.holder = None
        return tuple(granted)

    @property
    def closing(self) -> bool:
        return self.stopNumber is not None and self.holder == self.stopNumber

    @rule(target=claims, vip=st.booleans())
    def acquire(self, vip: bool) -> int:
        self.begun += 1
        self.line.append((not vip, self.begun))
        assert self.locking.acquire(self.begun, vip) == self.grant()
        return self.begun

    @rule()
    def release(self) -> None:
        if self.open:
            assert self.locking.release() == ()
        elif self.holder is None or self.closing:
            with pytest.raises(ValueError, match="released a lock"):
                self.locking.release()
        else:
            self.holder = None
            assert self.locking.release() == self.grant()

    @rule(claim=claims)
    def withdraw(self, claim: int) -> None:
        self.line = [c for c in self.line if c[1] != claim]
        if self.holder == claim:
            self.holder = None
        assert self.locking.withdraw(claim) == self.grant()

    @precondition(lambda self: self.begun > 4 and not self.stopping)
    @rule()
    def stop(self) -> None:
        self.begun += 1
        self.stopNumber = self.begun
        self.stopping = True
        self.line.append((False, self.begun))
        assert self.locking.stop(self.begun) == self.grant()

    @precondition(lambda self: self.stopping)
    @rule()
    def opened(self) -> None:
        if self.closing:
            self.open, self.holder, self.stopNumber = True, None, None
            assert self.locking.opened() == self.grant()
        else:
            with pytest.raises(ValueError, match="a lock opens only while"):
                self.locking.opened()

    @invariant()
    def isWhatTheModelIs(self) -> None:
        self.locking.validate()
        assert self.locking.held == (self.holder is not None)
        assert self.locking.waiting == [number for _, number in sorted(self.line)]
        phase = Phase.OPEN if self.open else Phase.STOPPING if self.stopping else Phase.GUARDING
        assert self.locking.phase is phase


TestOneHolderVipsFirstAndFirstComeFirstServed = OneHolderVipsFirstAndFirstComeFirstServed.TestCase
EXAMPLES = settings().max_examples
TestOneHolderVipsFirstAndFirstComeFirstServed.settings = settings(
    max_examples=max(1000, EXAMPLES) if EXAMPLES >= 100 else EXAMPLES,  # small ones, but for mutants
    stateful_step_count=25,
)
