"""What decides on a wire: which calls a server runs, what leaves next, what a client may send, what a loss has cost."""

from __future__ import annotations

import pytest

from asynqueue.core.protocol import messages as m
from asynqueue.core.protocol.admission import CallAdmission, ItemThrottle
from asynqueue.core.protocol.clientquota import ClientQuota
from asynqueue.core.protocol.connectattempts import ATTEMPTS, ConnectPolicy
from asynqueue.core.protocol.framing import PART_COST, Decoder, encode
from asynqueue.core.protocol.liveness import TICKS, HeartbeatCounter
from asynqueue.core.protocol.sendqueue import SendQueue
from asynqueue.core.protocol.serverlimits import LimitExceeded, Limits, evictionCandidate


def serving(most: int = 2, **limits: int) -> CallAdmission:
    return CallAdmission(most, Limits(**limits))


class TestServing:
    def test_a_call_waits_then_is_announced_then_runs_and_ends(self) -> None:
        s = serving()
        assert s.idle
        s.called(7, 10)
        assert not s.idle
        assert s.flushed() is None, "what was not announced does not start"
        assert s.next() == 7
        assert not s.idle
        assert s.next() is None
        assert s.flushed() == 7
        assert s.flushed() is None
        assert not s.idle
        s.ended(7)
        assert s.idle
        s.validate()

    def test_calls_are_announced_in_order_up_to_the_limit(self) -> None:
        s = serving(2)
        for number in (1, 2, 3, 4):
            s.called(number, 0)
        assert [s.next(), s.next(), s.next()] == [1, 2, None]
        assert [s.flushed(), s.flushed(), s.flushed()] == [1, 2, None]
        assert s.next() is None
        s.ended(1)
        assert [s.next(), s.next()] == [3, None]

    def test_large_answers_that_wait_count_as_calls_that_run(self) -> None:
        s = serving(2)
        for number in (1, 2):
            s.called(number, 0)
        assert s.next(large=2) is None
        assert s.next(large=1) == 1
        assert s.next(large=1) is None

    def test_nothing_is_announced_from_the_backlog_that_is_allowed_on(self) -> None:
        s = serving(2, backlog=1)
        s.called(1, 0)
        assert s.next(backlog=1) is None
        assert s.next() == 1

    def test_what_waits_is_given_back_and_what_was_announced_is_not(self) -> None:
        s = serving(1, messages=10)
        for number, size in ((1, 3), (2, 4), (3, 2)):
            s.called(number, size)
        s.next()
        assert s.recalled() == [2, 3]
        s.validate()
        assert s.recalled() == []
        s.called(2, 7)  # for which there is room again
        with pytest.raises(LimitExceeded):
            s.called(3, 1)

    def test_only_what_runs_has_to_be_let_go_of_when_it_is_not_wanted(self) -> None:
        s = serving(1, messages=9)
        for number in (1, 2, 3):
            s.called(number, 3)
        assert s.next() == 1
        assert s.flushed() == 1
        assert not s.cancelled(3)
        assert not s.cancelled(3)
        assert s.cancelled(1)
        assert s.next() == 2
        assert not s.cancelled(2)
        assert s.flushed() is None
        assert s.idle
        s.validate()
        s.ended(1)  # which was let go of, and has come to its end all the same
        s.validate()
        s.called(4, 9)

    def test_a_client_beyond_a_limit_gets_the_name_of_the_limit(self) -> None:
        s = serving(2, calls=2, messages=10)
        s.called(1, 4)
        with pytest.raises(LimitExceeded, match=r"^there is a call 1 already$"):
            s.called(1, 0)
        with pytest.raises(LimitExceeded, match=r"^unfinished calls may have no more than 10 bytes$"):
            s.called(2, 7)
        s.called(2, 6)
        with pytest.raises(LimitExceeded, match=r"^no more than 2 calls may be unfinished$"):
            s.called(3, 0)
        s.next()
        s.flushed()
        s.ended(1)
        s.called(3, 4)

    def test_the_bytes_of_all_unfinished_calls_count(self) -> None:
        s = serving(2, messages=10)
        s.called(1, 4)
        s.called(2, 4)
        with pytest.raises(LimitExceeded):
            s.called(3, 4)

    def test_as_many_may_run_as_the_limits_say_and_one_at_least(self) -> None:
        assert serving(5, running=5).idle
        for running in (0, 6):
            with pytest.raises(LimitExceeded, match=rf"^from 1 to 5 calls may run at once, not {running}$"):
                serving(running, running=5)

    @pytest.mark.parametrize("name", ["connections", "strangers", "patience", "calls", "running", "backlog"])
    @pytest.mark.parametrize("value", [0, -1])
    def test_a_limit_is_above_0(self, name: str, value: int) -> None:
        with pytest.raises(ValueError, match=rf"^the limit {name} must be above 0, got {value}$"):
            Limits(**{name: value})


class TestTap:
    def test_one_item_is_drawn_while_nothing_is_known_of_their_size(self) -> None:
        tap = ItemThrottle(1000)
        tap.validate()
        tap.granted(5)
        assert tap.draw(0) == 1

    def test_then_as_many_as_make_a_quarter_of_the_backlog(self) -> None:
        tap = ItemThrottle(1000)
        tap.granted(60)
        tap.granted(40)
        tap.draw(0)
        tap.arrived(1, 25)
        assert tap.draw(0) == 10
        tap.arrived(10, 1000)
        assert tap.draw(0) == 2

    def test_draw_gives_no_items_beyond_the_credit_or_during_a_backlog(self) -> None:
        tap = ItemThrottle(1000)
        tap.granted(2)
        tap.granted(1)
        assert tap.draw(1000) == 0
        assert tap.draw(999) == 1
        assert tap.draw(0) == 0
        tap.arrived(1, 0)
        assert tap.draw(0) == 2
        tap.arrived(2, 0)
        assert tap.draw(0) == 0
        tap.validate()

    def test_an_item_counts_a_byte_at_least_and_one_is_drawn_at_least(self) -> None:
        tap = ItemThrottle(8)
        tap.granted(100)
        tap.draw(0)
        tap.arrived(1, 0)
        assert tap.draw(0) == 2
        tap.arrived(0, 0)  # none of those came
        tap.arrived(2, 8000)
        assert tap.draw(0) == 1


FRAME = 100 + PART_COST
"""The most that a frame may hold, here."""


def result(number: int, size: int) -> m.Returned:
    return m.Returned(number, 0.0, bytes(size))


def numbers(taken: bytes) -> list[int]:
    """The calls of the messages in what was TAKEN."""
    return [message[0] for message in Decoder().feed(taken) if isinstance(message, m.Returned)]


class TestOutgoing:
    def test_small_messages_leave_as_they_came(self) -> None:
        out = SendQueue(FRAME)
        for number in (3, 1, 2, 1):
            out.add(result(number, 5))
        assert out.size == out.small > 20
        assert numbers(out.take(10_000)) == [3, 1, 2, 1]
        assert (out.size, out.small, out.large) == (0, 0, 0)
        assert out.take(10) == b""

    def test_about_as_much_is_taken_as_there_is_room_for_and_one_frame_at_least(self) -> None:
        out = SendQueue(FRAME)
        each = len(encode(result(1, 5)))
        for number in range(1, 7):
            out.add(result(number, 5))
        assert numbers(out.take(1)) == [1]
        assert numbers(out.take(each)) == [2]
        assert numbers(out.take(each + 1)) == [3, 4]
        out.add(m.Ping())
        out.add(m.Ping())
        assert out.take(2 * len(encode(m.Ping()))) == 2 * encode(m.Ping())
        assert numbers(out.take(100 * each)) == [5, 6]

    def test_what_takes_several_frames_takes_turns_and_counts_until_it_has_left(self) -> None:
        out = SendQueue(FRAME)
        out.add(result(1, 250))
        out.add(result(2, 5))
        assert out.large == 1
        assert out.unsent() == {1, 2}
        before = out.size
        first = out.take(1)
        assert len(first) <= FRAME + PART_COST
        out.validate()
        assert out.size == before - len(first)
        assert numbers(out.take(1)) == [2]
        assert out.unsent() == {1}
        while out.unsent():
            assert out.large == 1
            out.take(1)
            out.validate()
        assert (out.size, out.small, out.large) == (0, 0, 0)

    def test_when_less_is_left_than_its_frames_cost_nothing_counts_any_more(self) -> None:
        out = SendQueue(FRAME)
        out.add(result(1, FRAME - 15))  # which is one byte too much for one frame
        assert out.size == FRAME - 15
        for large in (1, 0):
            assert out.take(1)
            assert (out.size, out.large) == (0, large)

    def test_messages_of_a_call_are_withdrawn_unless_one_was_sent_in_part(self) -> None:
        out = SendQueue(FRAME)
        out.add(result(1, 250))
        out.add(result(2, 250))
        out.add(result(2, 5))
        out.add(result(4, 250))
        assert not out.withdraw(3)
        out.take(1)
        assert not out.withdraw(1)
        assert out.withdraw(2)
        assert not out.withdraw(2)
        out.validate()
        assert out.unsent() == {1, 4}
        assert out.large == 2
        assert out.small == 0
        while out.unsent():
            out.take(1)
        assert out.size == 0

    def test_no_further_frame_is_taken_when_there_is_no_room_left(self) -> None:
        out, same = SendQueue(FRAME), SendQueue(FRAME)
        for each in (out, same):
            each.add(result(1, 250))
            each.add(result(2, 250))
        first = out.take(1)
        assert same.take(len(first)) == first

    def test_what_just_fits_into_a_frame_is_not_large(self) -> None:
        out = SendQueue(FRAME)
        out.add(result(1, FRAME - PART_COST))
        assert out.large == 0
        out.add(result(1, FRAME - PART_COST + 1))
        assert out.large == 1

    def test_one_pong_answers_every_ping_before_it(self) -> None:
        out = SendQueue()
        out.add(m.Pong())
        out.add(m.Pong())
        assert out.take(1000) == encode(m.Pong())
        out.add(m.Pong())
        assert out.take(1000) == encode(m.Pong())


class TestAllowance:
    def test_a_call_that_fills_all_fits_and_goes(self) -> None:
        quota = ClientQuota(2, 100)
        assert quota.fits(100 - PART_COST)
        assert not quota.fits(101 - PART_COST)
        assert quota.called(1, 100 - PART_COST)
        quota.validate()

    def test_what_a_part_costs_counts(self) -> None:
        quota = ClientQuota(9, 2 * PART_COST)
        assert quota.called(1, 1)
        assert not quota.called(2, 0)
        assert quota.ended(1) == [2]

    def test_what_was_let_go_of_counts_until_it_has_left(self) -> None:
        quota = ClientQuota(1, 1000)
        assert quota.called(1, 0)
        assert not quota.called(2, 0)
        assert quota.ended(1, leaving=True) == []
        assert quota.flushed({1}) == []
        assert quota.flushed(()) == [2]


class TestStrangers:
    def test_the_first_from_where_most_are_has_to_go(self) -> None:
        def last(number: int) -> int:
            return number - 1

        assert evictionCandidate({1: "a", 2: "b", 3: "b", 4: "c"}, last) == 3
        assert evictionCandidate({1: "a", 2: "b", 3: "a"}, last) == 3
        assert evictionCandidate({5: "a", 6: "b"}, last) == 5


class TestPulse:
    def test_who_is_silent_from_the_first_is_gone_after_so_many_ticks(self) -> None:
        counter = HeartbeatCounter()
        assert [counter.tick() for _ in range(TICKS)] == [True] * (TICKS - 1) + [False]

    def test_any_message_counts_as_a_sign_of_life(self) -> None:
        counter = HeartbeatCounter()
        for _ in range(3 * TICKS):
            assert counter.tick()
            counter.received()


class TestDoubt:
    def test_one_that_was_trusted_is_tried_for_ever(self) -> None:
        policy = ConnectPolicy()
        assert [policy.failed(True) for _ in range(ATTEMPTS)] == [True] * (ATTEMPTS - 1) + [False]
        policy.authenticated()
        assert policy.failed(True)
