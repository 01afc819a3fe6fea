"""What waits between two sides, who goes on, and how it ends."""

from __future__ import annotations

import pytest

from asynqueue.core.flow.boundedbuffer import Action, BoundedBuffer, End, Items, Phase, Wait


def obey(h: BoundedBuffer[int]) -> list[Action]:
    """Do all that there is to do in the loop."""
    did = []
    while (due := h.pending) is not None:
        h.done(due)
        did.append(due)
    h.validate()
    return did


class TestItems:
    def test_they_come_out_as_they_went_in_all_at_once(self) -> None:
        h = BoundedBuffer[int](4)
        for item in 1, 2, 3:
            h.put(item)
        assert h.take() == Items([1, 2, 3])
        assert h.take() == Wait()

    def test_or_as_many_as_are_wanted(self) -> None:
        h = BoundedBuffer[int](4)
        for item in 1, 2, 3:
            h.put(item)
        assert (h.take(2), h.take(2)) == (Items([1, 2]), Items([3]))

    def test_what_is_put_when_it_is_full_is_kept(self) -> None:
        h = BoundedBuffer[int](1)
        h.put(1)
        h.put(2)
        assert h.full
        assert h.take() == Items([1, 2])

    def test_at_least_one_has_to_be_allowed(self) -> None:
        with pytest.raises(ValueError, match="got a limit of 0"):
            BoundedBuffer[int](0)


class TestThreadsThatWait:
    def test_a_reader_is_woken_once_for_an_item(self) -> None:
        h = BoundedBuffer[int](4)
        h.take()
        assert not h.shouldWakeReaders()
        assert h.put(1)
        assert (h.shouldWakeReaders(), h.shouldWakeReaders()) == (True, False)

    def test_nobody_is_woken_who_does_not_wait(self) -> None:
        h = BoundedBuffer[int](4)
        assert not h.put(1)
        assert (h.shouldWakeReaders(), h.shouldWakeWriters()) == (False, False)

    def test_a_writer_is_woken_when_half_of_it_is_gone(self) -> None:
        h = BoundedBuffer[int](4)
        for item in range(4):
            assert not h.awaitRoom()
            h.put(item)
        assert h.awaitRoom()
        h.take(1)
        assert not h.shouldWakeWriters()
        h.take(1)
        assert h.shouldWakeWriters()
        h.validate()

    @pytest.mark.parametrize("how", ["end", "closeReader", "abort"])
    def test_an_end_wakes_both(self, how: str) -> None:
        empty, full = BoundedBuffer[int](1), BoundedBuffer[int](1)
        empty.take()
        full.put(1)
        full.awaitRoom()
        for h in empty, full:
            if how == "abort":
                h.abort(ValueError())
            else:
                getattr(h, how)()
        assert empty.shouldWakeReaders()
        assert full.shouldWakeWriters()


class TestAProducerInTheLoop:
    def test_a_streaming_one_is_paused_and_resumed(self) -> None:
        h = BoundedBuffer[int](2)
        h.attach(streaming=True)
        assert obey(h) == []
        h.put(1)
        assert obey(h) == []
        h.put(2)
        assert obey(h) == [Action.PAUSE]
        h.put(3)
        assert obey(h) == []
        h.take(1)
        assert obey(h) == []
        h.take(1)
        assert obey(h) == [Action.RESUME]

    def test_what_is_over_before_it_is_done_is_not_done(self) -> None:
        """The other side may have made room before the loop came to pause its producer."""
        h = BoundedBuffer[int](1)
        h.attach(streaming=True)
        h.put(1)
        assert h.pending is Action.PAUSE
        h.take()
        assert h.pending is None
        with pytest.raises(ValueError, match="not pending"):
            h.done(Action.PAUSE)

    def test_another_is_resumed_for_each_item(self) -> None:
        h = BoundedBuffer[int](2)
        h.attach(streaming=False)
        assert obey(h) == [Action.RESUME]
        assert h.put(1)
        assert obey(h) == [Action.RESUME]
        h.put(2)
        assert obey(h) == []
        h.take()
        assert obey(h) == [Action.RESUME]

    def test_one_at_a_time(self) -> None:
        h = BoundedBuffer[int](2)
        h.attach(streaming=True)
        with pytest.raises(ValueError, match=r"^the buffer has a producer already: detach it first$"):
            h.attach(streaming=True)
        h.detach()
        h.attach(streaming=True)


class TestItsEnd:
    def test_comes_after_what_waits(self) -> None:
        h = BoundedBuffer[int](2)
        h.put(1)
        h.end()
        h.put(2)
        assert (h.take(), h.phase, h.take(), h.take()) == (Items([1]), Phase.ENDED, End(None), End(None))
        assert h.complete
        assert obey(h) == [Action.FINISHED]

    def test_may_be_an_error_which_is_heard_once(self) -> None:
        h, error = BoundedBuffer[int](2), ValueError()
        h.put(1)
        h.end(error)
        h.end(KeyError())
        assert (h.take(), h.take(), h.take()) == (Items([1]), End(error), End(None))
        assert not h.complete

    def test_by_leaving_drops_what_waits_and_stops_the_producer(self) -> None:
        h = BoundedBuffer[int](2)
        h.attach(streaming=True)
        h.put(1)
        h.closeReader()
        assert h.put(2), "whoever writes on without end has to hear of it"
        h.end()
        assert (len(h), h.take()) == (0, End(None))
        assert obey(h) == [Action.STOP, Action.FINISHED]
        assert not h.complete

    def test_by_abort_drops_what_waits_and_is_heard_of(self) -> None:
        h, error = BoundedBuffer[int](2), ValueError()
        h.put(1)
        h.abort(error)
        assert (h.take(), h.take()) == (End(error), End(None))
        assert obey(h) == [Action.FINISHED]

    def test_stops_a_producer_that_comes_too_late(self) -> None:
        h = BoundedBuffer[int](2)
        h.end()
        h.attach(streaming=True)
        assert obey(h) == [Action.STOP]
