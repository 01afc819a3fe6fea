"""An iteration across a link with any delays: exactly the items, in order, each once.

`Line` is the two sides and a channel in each direction. A step of a test is one thing that happens: something
that was said arrives at the other side, the far side makes an item, or somebody asks for one.
"""

from __future__ import annotations

from collections import deque
from typing import TypeAlias

import attrs
from hypothesis import given
from hypothesis import strategies as st

from asynqueue.core.flow.iteration import (
    Close,
    Command,
    Deliver,
    Ended,
    Finish,
    FirstKnown,
    Grant,
    Inflow,
    LateError,
    Outflow,
)

Items: TypeAlias = list[int]
Over: TypeAlias = BaseException | None


@attrs.define(eq=False)
class Line:
    """An iteration over COUNT items, which then ends or raises ERROR."""

    count: int
    error: Over
    limit: int
    near: Inflow = attrs.field(init=False)
    far: Outflow = attrs.field(factory=Outflow)
    toFar: deque[Grant | Close] = attrs.field(factory=deque)
    toNear: deque[tuple[Items, bool] | tuple[Over]] = attrs.field(factory=deque)
    made: int = 0
    taken: list[int] = attrs.field(factory=list)
    ends: list[Finish | Ended] = attrs.field(factory=list)
    known: int = 0
    stopped: bool = False
    lookahead: bool = False
    unheard: int = 0

    def __attrs_post_init__(self) -> None:
        self.near = Inflow(self.limit)
        self.obey(self.near.begin())

    def obey(self, commands: list[Command]) -> None:
        self.near.validate()
        for command in commands:
            if isinstance(command, (Grant, Close)):
                assert not isinstance(command, Grant) or command.items > 0
                self.toFar.append(command)
            elif isinstance(command, Deliver):
                assert not self.ends
                assert not self.stopped
                self.taken.append(command.item)
                if self.lookahead:
                    more = len(self.taken) < self.count or self.error is not None
                    assert self.near.more == more, "who looks ahead knows whether there is more"
            elif isinstance(command, FirstKnown):
                self.known += 1
            elif isinstance(command, LateError):
                assert self.stopped, "an error is an answer while anybody may ask"
                assert command.error is self.error
                self.unheard += 1
            else:
                self.ends.append(command)
        assert self.underWay() <= self.limit, "never more in flight or ahead than the credit allows"

    def underWay(self) -> int:
        granted = sum(message.items for message in self.toFar if isinstance(message, Grant))
        return granted + self.far.credit + self.inFlight() + len(self.near._ahead)

    def inFlight(self) -> int:
        return sum(len(message[0]) for message in self.toNear if len(message) == 2)

    # What can happen.

    def ask(self, lookahead: bool) -> None:
        self.lookahead = lookahead
        self.obey(self.near.ask(lookahead))

    def stop(self) -> None:
        self.stopped = True
        self.obey(self.near.stop())
        assert self.near.ended
        assert not self.near.asked

    def make(self, most: int, promise: bool) -> None:
        """The far side makes and sends up to MOST items, then what is said at the end.

        With PROMISE, it says with the items whether something follows.
        """
        items: Items = []
        while self.far.ready and len(items) < most and self.made < self.count:
            items.append(self.made)
            self.made += 1
            self.far.sent(1)
        if items:
            known = promise and (self.made < self.count or self.error is not None)
            self.toNear.append((items, known))
        if self.far.ready and self.made == self.count:
            self.far.end()
            self.toNear.append((self.error,))

    def arriveFar(self) -> None:
        message = self.toFar.popleft()
        if isinstance(message, Grant):
            self.far.granted(message.items)
        else:
            self.far.end()

    def arriveNear(self) -> None:
        message = self.toNear.popleft()
        self.obey(self.near.arrived(*message) if len(message) == 2 else self.near.over(message[0]))

    def step(self, what: str, lookahead: bool, most: int) -> None:
        if what == "ask" and not self.near.asked and not self.near.ended:
            self.ask(lookahead)
        elif what == "unask":
            self.near.unask()
        elif what == "make":
            self.make(most, promise=lookahead)
        elif what == "far" and self.toFar:
            self.arriveFar()
        elif what == "near" and self.toNear:
            self.arriveNear()

    def settle(self, lookahead: bool | None = None) -> None:
        """Everything that was said arrives; with LOOKAHEAD given, everything is asked for."""
        for _ in range(20 * (self.count + 3)):
            self.step("far", False, 0)
            self.step("make", False, 3)
            self.step("near", False, 0)
            if lookahead is not None:
                self.step("ask", lookahead, 0)


@st.composite
def lines(draw: st.DrawFn) -> Line:
    """A line on which anything has happened, but the end of it."""
    line = Line(
        draw(st.integers(0, 12)), draw(st.sampled_from((None, ValueError("x")))), draw(st.sampled_from((2, 3, 8)))
    )
    what = st.sampled_from(("ask", "ask", "make", "make", "far", "far", "near", "near", "unask"))
    for step in draw(st.lists(st.tuples(what, st.booleans(), st.integers(1, 4)), max_size=60)):
        line.step(*step)
    return line


@given(lines(), st.booleans())
def test_exactly_the_items_in_order_each_once(line: Line, lookahead: bool) -> None:
    """And then the end, once, or the error."""
    line.settle(lookahead)
    assert line.taken == list(range(line.count))
    assert line.ends[-1] == Ended(line.error is None)
    assert line.ends.count(line.ends[-1]) == 1
    finished = [end.error for end in line.ends if isinstance(end, Finish)]
    assert finished == [line.error] or (finished == [] and line.error is None)
    assert line.known == 1
    assert not line.near.more


@given(lines())
def test_what_was_taken_is_a_beginning(line: Line) -> None:
    assert line.taken == list(range(len(line.taken)))


@given(lines())
def test_who_asks_is_answered_once_everything_has_arrived(line: Line) -> None:
    """No credit is ever missing: nobody waits for an item while the far side waits for leave to send it."""
    line.settle()
    if not line.near.ended and not line.near.asked:
        line.ask(lookahead=True)
        line.settle()
    assert not line.near.asked


@given(lines())
def test_nothing_is_fetched_for_who_does_not_ask(line: Line) -> None:
    """To pause is to ask for nothing: what is granted already comes, and no more."""
    line.settle()
    line.near.unask()
    made = line.made + line.far.credit
    line.settle()
    assert line.made <= made
    assert line.made - len(line.taken) <= line.limit


@given(lines())
def test_stop_ends_at_once_and_leaves_nothing(line: Line) -> None:
    done = line.near.ended
    taken = len(line.taken)
    line.stop()
    line.settle()
    assert len(line.taken) == taken
    assert [type(end) for end in line.ends].count(Ended) == 1
    assert done or line.ends[-1] == Ended(False)
    assert line.known == 1
    assert line.far.ended
    assert not line.near._ahead


@given(lines(), st.booleans())
def test_loss_of_the_far_side_comes_after_the_items_that_had_arrived(line: Line, lookahead: bool) -> None:
    if line.near.ended:
        return
    over = line.near._over
    before = len(line.taken) + len(line.near._ahead)
    error = ConnectionError()
    line.count, line.error = (line.count, line.error) if over else (before, error)
    line.toNear.clear()
    line.obey(line.near.over(error))
    for _ in range(before + 1):
        line.step("ask", lookahead, 0)
    assert line.taken == list(range(before))
    assert line.near.ended
    assert over or Finish(error) in line.ends
