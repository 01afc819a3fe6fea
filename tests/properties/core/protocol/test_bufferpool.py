"""What is kept to be used again is bounded, and never in two hands."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from asynqueue.core.protocol.bufferpool import BufferPool

LIMIT, MOST = 100, 4


class Lending(RuleBasedStateMachine):
    """A pool beside what is known of each memory: its size, and whether it is lent."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BufferPool(LIMIT, MOST)
        self.last = 0
        self.lent: dict[int, int] = {}
        self.free: dict[int, int] = {}

    @rule(size=st.sampled_from([1, 10, 20, 30, 60, LIMIT, LIMIT + 1]))
    def send(self, size: int) -> None:
        """Something of SIZE goes: in a free memory in which it has room, else in a new one that is kept if it may."""
        number = self.pool.take(size)
        fitting = [n for n, room in self.free.items() if room >= size]
        if number is not None:
            assert self.free[number] == min(self.free[n] for n in fitting), "the smallest that is large enough"
            self.lent[number] = self.free.pop(number)
            return
        assert not fitting, "what is free is used again"
        self.last += 1
        gone = self.pool.add(self.last, size)
        if gone is None:
            assert sum(self.lent.values()) + size > LIMIT or len(self.lent) == MOST, "what has room is kept"
            return
        for n in gone:
            left = [*self.lent.values(), *self.free.values()]
            assert sum(left) + size > LIMIT or len(left) == MOST, "no more give way than have to"
            del self.free[n]  # nothing that is lent gives way
        self.lent[self.last] = size

    @precondition(lambda self: self.lent)
    @rule(choice=st.integers(0))
    def back(self, choice: int) -> None:
        """A memory comes back."""
        number = sorted(self.lent)[choice % len(self.lent)]
        self.pool.returned(number)
        self.free[number] = self.lent.pop(number)

    @precondition(lambda self: self.lent)
    @rule(choice=st.integers(0))
    def lose(self, choice: int) -> None:
        """A memory never arrived."""
        number = sorted(self.lent)[choice % len(self.lent)]
        self.pool.remove(number)
        del self.lent[number]

    @rule(number=st.integers(1000, 1010))
    def backOfNone(self, number: int) -> None:
        """What was never kept comes back: nothing is made of that."""
        self.pool.returned(number)
        self.pool.remove(number)

    @rule()
    def clear(self) -> None:
        """Nothing large was sent for a while."""
        assert self.pool.clear() == sorted(self.free), "all that is free is given back"
        self.free.clear()

    @invariant()
    def bounded(self) -> None:
        """No more is kept than may be, and it is known which."""
        self.pool.validate()
        assert all(n in self.pool for n in (*self.lent, *self.free))
        assert sum(self.lent.values()) + sum(self.free.values()) <= LIMIT
        assert len(self.lent) + len(self.free) <= MOST


TestLending = Lending.TestCase
