"""The near side of a link, by a far side that the test plays."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from asynqueue.core.protocol import messages as m
from asynqueue.core.protocol import runqueue
from asynqueue.core.protocol.framing import Decoder, encode
from asynqueue.core.protocol.spinning import SPIN
from asynqueue.core.records import CallSpec, Interrupted, Iterating, Lost, Raised, Recalled, Returned, RunOutcome, Task
from asynqueue.errors import SerializationError, WorkerLost
from asynqueue.queue.adapter import ReportingWorker
from asynqueue.reactor import watchdog as closings
from asynqueue.reactor.spinner import Spinner
from asynqueue.transport import link
from asynqueue.transport.callcodec import CallDecoder
from asynqueue.transport.errorcodec import dumpError
from asynqueue.transport.link import Link
from asynqueue.transport.permits import PermitHolder, PermitIssuer
from asynqueue.transport.pickler import dumps
from asynqueue.transport.serialization import INLINE, Resident, Undelivered
from tests.support.deferreds import logged, resultOf


def newTransport() -> Any:
    """A transport to look into. (It says less of itself to a type checker than it can do: hence Any.)"""
    return StringTransport()


class FarSide(ReportingWorker):
    """A far side, and the link that speaks to it."""

    def __init__(self) -> None:
        super().__init__()
        self.office = PermitIssuer()
        self.holder = PermitHolder(self.office.taking)
        self.lost = self.interrupts = 0
        self.reports: list[list[tuple[int, RunOutcome]]] = []
        self.setReport(lambda outcomes: self.reports.append([*outcomes]))
        self.link = Link(self.office, self.onLost, self.onInterrupt, self.reported)
        self.transport = newTransport()
        self.transport.protocol = self.link
        self.link.makeConnection(self.transport)  # type: ignore[no-untyped-call]  # Twisted leaves it untyped
        self.decoder = Decoder()
        self.heard: list[m.Message] = []

    def onLost(self) -> None:
        self.lost += 1
        self.link.conclude("it died")

    def onInterrupt(self) -> None:
        self.interrupts += 1

    def give(self, runs: Sequence[tuple[int, Task]]) -> None:
        """Have the link send calls."""
        self.link.give(runs, False)

    def interrupt(self, ticket: int) -> None:
        """Have the link cancel a call."""
        self.link.cancel(ticket)

    def call(self, f: Any, *args: Any, update: bool = False) -> Deferred[RunOutcome]:
        """Have the link send a call."""
        return self.run(Task(1, CallSpec(f, args), update=update))

    def callUnder(self, ticket: int, f: Any, *args: Any) -> None:
        """Have the link send a call under TICKET."""
        self.give([(ticket, Task(1, CallSpec(f, args)))])

    def hear(self) -> list[m.Message]:
        """What the link has said since it was last asked for."""
        heard = self.decoder.feed(self.transport.value())
        self.transport.clear()
        return heard

    def say(self, *messages: m.ToLocal) -> None:
        """Let the link hear MESSAGES in one go."""
        self.link.dataReceived(b"".join(map(encode, messages)))

    def goAway(self) -> None:
        """Let the connection be lost."""
        self.link.connectionLost(Failure(ConnectionDone()))


@pytest.fixture
def far() -> Iterator[FarSide]:
    far = FarSide()
    yield far
    far.office.close()


class Sink:
    def __init__(self) -> None:
        self.items: list[Any] = []
        self.ended: list[BaseException | None] = []

    def arrived(self, items: Any, more: bool = False) -> None:
        self.items += items

    def over(self, error: BaseException | None) -> None:
        self.ended.append(error)


def opened(far: FarSide) -> tuple[Any, Sink]:
    """An iteration of FAR's first call, and its sink."""
    run = far.call(iter, [])
    far.holder.mayStart(1)
    far.say(m.Opened(1, 0.0))
    outcome = resultOf(run)
    assert isinstance(outcome, Iterating)
    sink = Sink()
    outcome.source.begin(sink)
    far.hear()
    return outcome.source, sink


class TestClosing:
    @pytest.fixture
    def clock(self, far: FarSide) -> Clock:
        clock = Clock()
        far.link.closeWatchdog = closings.CloseWatchdog(far.link, clock)
        return clock

    def test_an_iterator_that_does_not_close_has_the_far_side_end(self, far: FarSide, clock: Clock) -> None:
        source, _ = opened(far)
        source.close()
        waiting = far.call(abs, -1)
        clock.advance(closings.STOP_GRACE)
        assert far.interrupts == 1
        assert resultOf(waiting) == Recalled()

    def test_one_that_closes_leaves_nothing_to_wait_for(self, far: FarSide, clock: Clock) -> None:
        source, sink = opened(far)
        source.close()
        far.say(m.Exhausted(1))
        assert sink.ended == [None]
        assert not clock.getDelayedCalls()

    def test_one_that_closes_behind_a_call_has_as_long_as_that_takes(self, far: FarSide, clock: Clock) -> None:
        source, _ = opened(far)
        run = far.call(abs, -1)
        far.holder.mayStart(2)
        source.close()
        clock.pump([closings.STOP_GRACE] * 3)
        assert far.interrupts == 0
        far.say(m.Returned(2, 0.5, dumps(1)))
        assert resultOf(run) == Returned(1, 0.5)
        clock.advance(closings.STOP_GRACE)
        assert far.interrupts == 0
        clock.advance(closings.STOP_GRACE)
        assert far.interrupts == 1

    def test_a_far_side_that_leaves_has_to_close_all_it_has(self, far: FarSide, clock: Clock) -> None:
        opened(far)
        far.link.goodbye()
        clock.advance(closings.STOP_GRACE)
        assert far.interrupts == 1

    def test_one_that_is_lost_is_not_waited_for(self, far: FarSide, clock: Clock) -> None:
        source, _ = opened(far)
        source.close()
        far.goAway()
        assert not clock.getDelayedCalls()


class TestLookingOut:
    """The answer to a call that is alone is looked out for, if calls are quick."""

    @pytest.fixture
    def clock(self, far: FarSide) -> Clock:
        clock, looks = Clock(), count()
        far.link.spinner = Spinner(clock, poll=lambda: False, now=lambda: next(looks) * SPIN / 4)
        return clock

    def lookingOut(self, clock: Clock) -> bool:
        """Whether that is so; it is not from then on, until it begins anew."""
        began = bool(clock.getDelayedCalls())
        clock.advance(0)  # a clock's turns go on for as long as there is one at once
        return began

    def test_after_a_quick_one(self, far: FarSide, clock: Clock) -> None:
        far.call(int)
        assert not self.lookingOut(clock), "nothing is known of calls before there was one"
        far.say(m.Returned(1, SPIN / 2, dumps(None)))
        far.call(int)
        assert self.lookingOut(clock)

    def test_not_after_a_slow_one(self, far: FarSide, clock: Clock) -> None:
        far.call(int)
        far.say(m.Returned(1, SPIN, dumps(None)))
        far.call(int)
        assert not self.lookingOut(clock)

    def test_not_among_others(self, far: FarSide, clock: Clock) -> None:
        far.call(int)
        far.call(int)
        far.say(m.Returned(1, 0.0, dumps(None)))
        far.call(int)
        assert not self.lookingOut(clock)

    def test_not_for_one_that_has_gone(self, far: FarSide, clock: Clock) -> None:
        far.call(int)
        far.say(m.Returned(1, 0.0, dumps(None)))
        far.call(int)
        far.goAway()
        assert not clock.getDelayedCalls()


class TestLooking:
    def test_hears_what_has_come(self, far: FarSide) -> None:
        run = far.call(int)
        far.transport.doRead = lambda: far.say(m.Returned(1, 0.0, dumps(3)))
        assert far.link.poll()
        assert resultOf(run) == Returned(3, 0.0)

    def test_says_so_when_nothing_has(self, far: FarSide) -> None:
        far.transport.doRead = lambda: None
        assert not far.link.poll()

    def test_asks_nobody_who_has_gone(self, far: FarSide) -> None:
        far.transport.doRead = lambda: far.say(m.Ready(1))
        far.goAway()
        assert not far.link.poll()


class TestTickets:
    def test_what_comes_in_one_read_is_reported_in_one_go(self, far: FarSide) -> None:
        for ticket in (7, 8, 9):
            far.callUnder(ticket, abs, -ticket)
        far.say(m.Returned(1, 0.5, dumps(7)), m.Returned(2, 0.5, dumps(8)))
        assert far.reports == [[(7, Returned(7, 0.5)), (8, Returned(8, 0.5))]]

    def test_what_cannot_be_sent_is_reported_and_nothing_else_suffers(self, far: FarSide) -> None:
        far.callUnder(1, abs, far)
        far.callUnder(2, abs, -2)
        (((ticket, outcome),),) = far.reports
        assert ticket == 1
        assert isinstance(outcome, Raised)
        assert isinstance(outcome.error, SerializationError)
        assert [message.id for message in far.hear() if isinstance(message, m.Call)] == [1]

    def test_what_has_not_started_is_given_back_in_one_go(self, far: FarSide) -> None:
        for ticket in (7, 8, 9):
            far.callUnder(ticket, abs, -ticket)
        assert far.holder.mayStart(1)
        far.link.recall()
        assert far.reports == [[(8, Recalled()), (9, Recalled())]]

    def test_one_that_runs_is_let_go_of_and_its_neighbours_are_given_back(self, far: FarSide) -> None:
        for ticket in (7, 8):
            far.callUnder(ticket, abs, -ticket)
        assert far.holder.mayStart(1)
        far.link.cancel(7)
        assert far.interrupts == 1
        assert far.reports == [[(7, Interrupted()), (8, Recalled())]]
        far.link.cancel(7)  # it has its outcome
        assert len(far.reports) == 1

    def test_what_ran_when_the_far_side_went_is_lost(self, far: FarSide) -> None:
        for ticket in (7, 8):
            far.callUnder(ticket, abs, -ticket)
        assert far.holder.mayStart(1)
        far.goAway()
        assert far.reports == [[(7, Lost("it died")), (8, Recalled())]]


class TestCalls:
    def test_one_goes_with_its_permit_and_comes_back_with_its_outcome(self, far: FarSide) -> None:
        run = far.call(max, 1, 2)
        (call,) = far.hear()
        assert isinstance(call, m.Call)
        assert (call.id, call.raw, CallDecoder().load(call.payload)) == (1, False, (max, (1, 2), {}, []))
        assert far.holder.mayStart(1)
        far.say(m.Returned(1, 0.5, dumps(2)))
        assert resultOf(run) == Returned(2, 0.5)

    def test_what_one_turn_has_to_say_goes_in_one_write(self, far: FarSide) -> None:
        writes: list[bytes] = []
        far.transport.write = writes.append
        first = far.call(abs, -1)
        more = [(ticket, Task(ticket, CallSpec(abs, (-ticket,)))) for ticket in (2, 3)]
        first.addCallback(lambda _: far.give(more))
        far.say(m.Returned(1, 0.0, dumps(1)))
        assert len(writes) == 2
        assert [far.holder.mayStart(n) for n in (1, 2, 3)] == [True] * 3

    def test_a_result_that_does_not_come_out_fails_its_call_alone(self, far: FarSide) -> None:
        bad, good = far.call(abs, -1), far.call(abs, -2)
        far.say(m.Returned(1, 0.0, b"junk"), m.Returned(2, 0.0, dumps(2)))
        outcome = resultOf(bad)
        assert isinstance(outcome, Raised)
        assert isinstance(outcome.error, SerializationError)
        assert resultOf(good) == Returned(2, 0.0)

    def test_an_answer_to_nothing_is_no_harm(self, far: FarSide) -> None:
        far.say(m.Returned(7, 0.0, dumps(1)), m.Raised(8, 0.0, b"junk"), m.Exhausted(9), m.Items(9, 1, b""))
        assert far.link.open

    def test_an_iterator_that_nobody_waits_for_is_closed(self, far: FarSide) -> None:
        far.call(iter, []).cancel()
        far.hear()
        far.say(m.Opened(1, 0.0))
        assert far.hear() == [m.Close(1)]

    def test_a_call_that_cannot_be_carried_is_not_sent(self, far: FarSide) -> None:
        outcome = resultOf(far.call(abs, far.office.giving))
        assert isinstance(outcome, Raised)
        assert "argument 1 of abs(" in str(outcome.error)
        assert far.hear() == []
        assert far.office.revoke() == []


class TestWhatComesToAnEnd:
    def test_with_the_connection_what_had_started_is_lost_and_the_rest_comes_back(self, far: FarSide) -> None:
        runs = [far.call(abs, n) for n in range(4)]
        far.holder.mayStart(1)
        far.holder.mayStart(2)
        far.say(m.Returned(1, 0.0, dumps(0)))
        assert len(far.link.unfinished) == 3
        far.goAway()
        assert [resultOf(run) for run in runs] == [Returned(0, 0.0), Lost("it died"), Recalled(), Recalled()]
        assert far.lost == 1
        assert far.link.unfinished == []

    def test_a_recall_brings_back_what_has_not_started(self, far: FarSide) -> None:
        runs = [far.call(abs, n) for n in range(3)]
        far.holder.mayStart(1)
        far.link.recall()
        assert [run.called for run in runs] == [False, True, True]
        assert resultOf(runs[1]) == Recalled()
        assert not far.holder.mayStart(2)
        runs[0].cancel()

    def test_a_cancelled_call_that_has_started_interrupts(self, far: FarSide) -> None:
        runs = [far.call(abs, n) for n in range(3)]
        far.holder.mayStart(1)
        runs[0].cancel()
        assert [resultOf(run) for run in runs] == [Interrupted(), Recalled(), Recalled()]
        assert far.interrupts == 1

    def test_a_cancelled_call_that_had_ended_when_the_next_began_does_not_interrupt_that(self, far: FarSide) -> None:
        runs = [far.call(abs, n) for n in range(2)]
        far.holder.mayStart(1)
        far.holder.mayStart(2)
        runs[0].cancel()
        assert resultOf(runs[0]) == Interrupted()
        assert far.interrupts == 0
        assert not runs[1].called
        far.say(m.Returned(1, 0.0, dumps(0)), m.Returned(2, 0.0, dumps(1)))
        assert resultOf(runs[1]) == Returned(1, 0.0)

    def test_a_cancelled_call_that_should_have_started_long_ago_interrupts(
        self, far: FarSide, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(runqueue, "START_GRACE", 0)
        far.say(m.Ready(1))
        run, other = far.call(abs, -1), far.call(abs, -2)
        run.cancel()
        assert far.interrupts == 1
        assert (resultOf(run), resultOf(other)) == (Recalled(), Recalled())

    def test_one_of_a_far_side_that_is_not_up_interrupts_nothing(
        self, far: FarSide, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(runqueue, "START_GRACE", 0)
        far.call(abs, -1).cancel()
        assert far.interrupts == 0

    def test_one_beside_an_iteration_interrupts_nothing(self, far: FarSide, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(runqueue, "START_GRACE", 0)
        far.say(m.Ready(1))
        opened(far)
        far.call(abs, -1).cancel()
        assert far.interrupts == 0

    def test_waits_that_end_early_add_up_until_something_is_heard(
        self, far: FarSide, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = 0.0
        monkeypatch.setattr(link, "perf_counter", lambda: now)
        far.say(m.Ready(1))
        for _ in range(3):
            run = far.call(abs, -1)
            now += 0.4 * runqueue.START_GRACE
            run.cancel()
            now += 3600
        assert far.interrupts == 1
        far.say(m.Ready(1))
        run = far.call(abs, -1)
        now += 0.4 * runqueue.START_GRACE
        run.cancel()
        assert far.interrupts == 1

    def test_a_cancelled_call_that_has_not_started_interrupts_nothing(self, far: FarSide) -> None:
        runs = [far.call(abs, n) for n in range(2)]
        far.holder.mayStart(1)
        runs[1].cancel()
        assert resultOf(runs[1]) == Recalled()
        assert far.interrupts == 0
        assert not runs[0].called
        runs[0].cancel()

    def test_cancelling_one_when_another_is_lost_is_no_harm(self, far: FarSide) -> None:
        runs = [far.call(abs, n) for n in range(2)]
        far.holder.mayStart(1)
        far.holder.mayStart(2)
        runs[0].addCallback(lambda _: runs[1].cancel())
        far.goAway()
        assert runs[1].called

    def test_what_is_said_when_nobody_hears_it_is_kept_nowhere(self, far: FarSide) -> None:
        far.goAway()
        for n in range(100):
            far.link.send(m.Close(n))
        assert far.link._outgoing == []


class TestIterations:
    def test_items_and_the_end_come_to_the_sink(self, far: FarSide) -> None:
        source, sink = opened(far)
        source.grant(3)
        assert far.hear() == [m.Grant(1, 3)]
        far.say(m.Items(1, 2, INLINE.dumpItem("a") + INLINE.dumpItem("b")), m.Exhausted(1))
        assert (sink.items, sink.ended) == (["a", "b"], [None])

    def test_an_error_comes_with_its_traceback(self, far: FarSide) -> None:
        _, sink = opened(far)
        far.say(m.Failed(1, dumpError(KeyError(1))))
        (error,) = sink.ended
        assert isinstance(error, KeyError)
        assert "KeyError: 1" in str(error.__cause__)

    def test_an_item_that_does_not_come_out_ends_it_here_and_there(self, far: FarSide) -> None:
        _, sink = opened(far)
        far.say(m.Items(1, 2, pickle.dumps("a") + b"junk"))
        assert sink.items == ["a"]
        assert isinstance(sink.ended[0], SerializationError)
        assert far.hear() == [m.Close(1)]

    def test_one_ends_with_the_connection(self, far: FarSide) -> None:
        source, sink = opened(far)
        far.goAway()
        assert isinstance(sink.ended[0], WorkerLost)
        source.grant(1)
        assert all(isinstance(error, WorkerLost) for error in sink.ended)


class Kept:
    def see(self) -> None:
        """Be updated."""


class TestResidents:
    @pytest.mark.parametrize(
        ("answer", "resident"),
        [
            (m.Returned(1, 0.0, dumps(None)), True),
            (m.Returned(1, 0.0, b"junk"), True),
            (m.Raised(1, 0.0, dumpError(KeyError(1))), True),
            (m.Raised(1, 0.0, dumpError(SerializationError("the result stays"))), True),
            (m.Raised(1, 0.0, dumpError(Undelivered("the call got lost"))), False),
        ],
        ids=["result", "bad result", "error", "result that stays", "never arrived"],
    )
    def test_an_updated_object_is_one_if_it_arrived(self, answer: m.ToLocal, resident: bool, far: FarSide) -> None:
        kept = Kept()
        run = far.call(kept.see, update=True)
        far.say(answer)
        resultOf(run)
        far.hear()
        far.call(kept.see).addBoth(lambda _: None)
        (call,) = far.hear()
        assert isinstance(call, m.Call)
        f = CallDecoder().load(call.payload)[0]
        assert (f == Resident(1, "see")) is resident


class TestNonsense:
    @given(st.binary(min_size=1, max_size=200), st.booleans())
    def test_it_ends_the_connection_or_does_no_harm_and_every_call_has_its_end(self, junk: bytes, late: bool) -> None:
        far = FarSide()
        try:
            with logged() as events:
                runs = [far.call(abs, n) for n in range(3)]
                far.holder.mayStart(1)
                if late:
                    far.say(m.Ready(1))
                far.link.dataReceived(junk)
                assert far.transport.disconnecting == bool(events)
            far.goAway()
            assert all(run.called for run in runs)
        finally:
            far.office.close()

    @pytest.mark.parametrize(
        "junk",
        [
            b"\xff" * 5,  # a frame too long
            b"\x00\x00\x00\x00\x63",  # a kind that does not exist
            encode(m.Goodbye()),  # what only we say
            encode(m.Call(1, False, b"")),
        ],
        ids=["length", "kind", "goodbye", "call"],
    )
    def test_it_is_logged_and_ends_the_connection(self, junk: bytes, far: FarSide) -> None:
        run = far.call(abs, 1)
        with logged() as events:
            far.link.dataReceived(junk)
        assert "invalid message" in events[0]["log_format"]
        assert far.transport.disconnecting
        far.goAway()
        assert resultOf(run) == Recalled()

    def test_a_second_iterator_of_a_call_ends_the_connection_and_with_it_the_first(self, far: FarSide) -> None:
        source, sink = opened(far)
        source.grant(1)
        with logged() as events:
            far.say(m.Opened(1, 0.0), m.Items(1, 1, INLINE.dumpItem("lie")), m.Exhausted(1))
        assert "call 1, which has one already" in str(events[0]["error"])
        assert far.transport.disconnecting
        far.goAway()
        assert sink.items == []
        assert [type(error) for error in sink.ended] == [WorkerLost]

    @pytest.mark.parametrize("number", [0, 2, 1 << 40])
    def test_an_iterator_of_no_call_ends_the_connection(self, number: int, far: FarSide) -> None:
        run = far.call(abs, 1)
        with logged() as events:
            far.say(m.Opened(number, 0.0))
        assert "or was never made" in str(events[0]["error"])
        assert far.transport.disconnecting
        assert far.link.iterations == 0
        far.goAway()
        assert resultOf(run) == Recalled()

    def test_more_items_than_were_granted_end_the_connection(self, far: FarSide) -> None:
        from asynqueue import Deferator

        run = far.call(iter, [])
        far.say(m.Opened(1, 0.0))
        outcome = resultOf(run)
        assert isinstance(outcome, Iterating)
        deferator: Deferator[int] = Deferator(outcome.source)
        with logged():
            far.say(m.Items(1, 3, INLINE.dumpItem(1) * 3))
        assert far.transport.disconnecting
        far.goAway()
        deferator.stop()
