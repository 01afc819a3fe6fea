"""When a worker that says nothing is stuck."""

from __future__ import annotations

from asynqueue.core.protocol.liveness import CloseTracker


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
