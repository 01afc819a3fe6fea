"""When a worker that says nothing is stuck."""

from __future__ import annotations

from asynqueue.core.protocol.liveness import START_GRACE, CloseTracker, isStuckUnstarted


class TestACallThatNobodyWants:
    def test_never_starts_where_nothing_is_done_and_it_has_waited(self) -> None:
        assert isStuckUnstarted(START_GRACE, 0, 0)

    def test_may_start_as_long_as_it_has_not_waited(self) -> None:
        assert not isStuckUnstarted(START_GRACE / 2, 0, 0)

    def test_may_start_after_a_call_or_beside_an_iterator(self) -> None:
        assert not isStuckUnstarted(3600, 1, 0)
        assert not isStuckUnstarted(3600, 0, 1)


class TestAnIteratorThatDoesNotClose:
    def test_is_stuck_after_a_grace_period_without_a_message(self) -> None:
        closing = CloseTracker()
        closing.closeSent("it", received=5)
        assert closing.waiting
        assert closing.graceExpired(received=5, iterations=1)

    def test_is_not_stuck_while_messages_come(self) -> None:
        closing = CloseTracker()
        closing.closeSent("it", received=5)
        assert not closing.graceExpired(received=6, iterations=1)
        assert closing.graceExpired(received=6, iterations=1)

    def test_is_not_while_another_iterator_is_wanted(self) -> None:
        closing = CloseTracker()
        closing.closeSent("it", received=5)
        assert not closing.graceExpired(received=5, iterations=2)
        closing.closeSent("other", received=5)
        assert closing.graceExpired(received=5, iterations=2)

    def test_is_not_when_it_has_closed(self) -> None:
        closing = CloseTracker()
        closing.closeSent("it", received=5)
        closing.ended("it")
        assert not closing.waiting
        assert not closing.graceExpired(received=5, iterations=0)
