"""What becomes of the calls that a worker has."""

from __future__ import annotations

import pytest

from asynqueue.core.protocol.runqueue import START_GRACE, RunQueue
from asynqueue.core.records import Interrupted, Lost, Recalled


def having(*calls: int, single: bool = True) -> RunQueue[int, str]:
    """A worker's run queue with CALLS."""
    runs: RunQueue[int, str] = RunQueue(single)
    for call in calls:
        runs.given(call, f"value {call}")
    return runs


class TestAnswers:
    def test_a_call_is_answered_once(self) -> None:
        runs = having(1, 2)
        assert runs.answered(1) == "value 1"
        assert runs.answered(1) is None
        assert list(runs.calls) == [2]

    def test_an_answer_to_a_call_of_nobody_is_ignored(self) -> None:
        runs = having(1)
        runs.started(7)
        assert runs.takenBack([7]) == []
        assert runs.answered(7) is None
        runs.validate()


class TestRecall:
    def test_what_was_taken_back_is_recalled_in_order(self) -> None:
        runs = having(1, 2, 3)
        assert runs.takenBack([3, 2]) == [(2, Recalled()), (3, Recalled())]
        assert (runs.begun, runs.taken) == ([1], [2, 3])

    def test_what_is_given_again_keeps_its_place(self) -> None:
        runs = having(1, 2)
        runs.takenBack([1])
        runs.given(1, "again")
        assert (runs.begun, runs.taken) == ([1, 2], [])
        assert runs.answered(1) == "again"

    def test_one_that_is_asked_is_over_when_each_call_has_started_or_is_back(self) -> None:
        runs = having(1, 2, 3, single=False)
        runs.started(1)
        runs.asked()
        runs.answered(1)
        runs.started(2)
        assert runs.recalling
        runs.answered(3)
        assert not runs.recalling
        runs.asked()
        assert not runs.recalling

    def test_what_was_not_sent_is_not_asked_for(self) -> None:
        runs = having(1, single=False)
        runs.takenBack([1])
        runs.asked()
        assert not runs.recalling

    def test_what_was_asked_for_and_taken_back_after_all_is_back(self) -> None:
        runs = having(1, single=False)
        runs.asked()
        runs.takenBack([1])
        assert not runs.recalling

    def test_what_was_not_sent_has_not_started_whatever_the_server_says(self) -> None:
        runs = having(1, 2, single=False)
        runs.started(1)
        assert runs.takenBack([1, 2]) == [(1, Recalled()), (2, Recalled())]
        runs.started(2)
        runs.validate()
        assert runs.unstarted((), receivedAll=True) == [1, 2]


class TestInterrupt:
    def test_the_running_call_has_the_worker_replaced_and_the_rest_recalled(self) -> None:
        assert having(1, 2, 3).interrupt(1, [2, 3]) == (True, [(1, Interrupted()), (2, Recalled()), (3, Recalled())])

    def test_a_call_that_has_not_started_is_recalled(self) -> None:
        assert having(1, 2).interrupt(2, [2]) == (False, [(2, Recalled())])

    def test_a_call_before_the_running_one_has_ended(self) -> None:
        assert having(1, 2, 3).interrupt(1, [3]) == (False, [(1, Interrupted()), (3, Recalled())])

    def test_any_started_call_may_be_running_where_several_run(self) -> None:
        assert having(1, 2, single=False).interrupt(1, []) == (True, [(1, Interrupted())])

    def test_a_call_with_its_outcome_is_not_interrupted(self) -> None:
        runs = having(1, 2)
        runs.answered(1)
        assert runs.interrupt(1, [2]) == (False, [(2, Recalled())])

    def test_a_running_call_may_go_on_to_its_end(self) -> None:
        assert having(1, 2).interrupt(1, [2], finishes=True) == (False, [(2, Recalled())])

    def test_one_that_has_not_started_goes_nowhere(self) -> None:
        assert having(1, 2).interrupt(2, [2], finishes=True) == (False, [(2, Recalled())])


class TestAWorkerThatStartsNothing:
    def test_is_replaced_when_a_call_has_waited_for_long(self) -> None:
        runs: RunQueue[int, str] = RunQueue()
        runs.given(1, "", now=0.0)
        runs.given(2, "", now=START_GRACE)  # the worker was not idle
        assert runs.interrupt(2, [1, 2], START_GRACE, idle=True) == (True, [(1, Recalled()), (2, Recalled())])

    def test_counts_the_time_from_the_first_call(self) -> None:
        assert having(1).interrupt(1, [1], START_GRACE, idle=True)[0]
        assert not having(1).interrupt(1, [1], idle=True)[0]

    def test_counts_no_time_twice(self) -> None:
        runs = having(1, 2, 3)
        assert not runs.interrupt(1, [1, 2, 3], 0.6 * START_GRACE, idle=True)[0]
        assert not runs.interrupt(2, [], 0.9 * START_GRACE, idle=True)[0]
        assert runs.interrupt(3, [], START_GRACE, idle=True)[0]

    def test_is_not_replaced_unless_it_is_idle(self) -> None:
        assert not having(1).interrupt(1, [1], 3600.0)[0]

    def test_is_given_a_moment(self) -> None:
        runs = having(1)
        assert runs.interrupt(1, [1], START_GRACE / 2, idle=True) == (False, [(1, Recalled())])

    @pytest.mark.parametrize(("taken", "idle"), [([2], True), ([1, 2], False)])
    def test_may_run_another_call_or_an_iterator(self, taken: list[int], idle: bool) -> None:
        assert not having(1, 2).interrupt(2, taken, 3600.0, idle)[0]

    def test_waits_add_up_until_it_sends_something(self) -> None:
        runs: RunQueue[int, str] = RunQueue()
        ends = []
        for call, start in enumerate((0.0, 100.0, 200.0, 300.0)):
            runs.given(call, "", start)
            if call == 3:
                runs.received(start)
            ends.append(runs.interrupt(call, [call], start + 0.4 * START_GRACE, idle=True)[0])
            runs.answered(call)
        assert ends == [False, False, True, False]

    def test_is_stuck_in_its_iterators_unless_a_call_has_started(self) -> None:
        assert having(1, 2).stuck([1, 2]) == (True, [(1, Recalled()), (2, Recalled())])
        assert having(1, 2).stuck([2]) == (False, [(2, Recalled())])


class TestLoss:
    def test_what_may_have_started_is_lost_and_the_rest_recalled_in_order(self) -> None:
        runs = having(1, 2, 3)
        runs.takenBack([2])
        assert runs.lost([3], "it died") == [(1, Lost("it died")), (2, Recalled()), (3, Recalled())]

    def test_all_received_means_only_started_calls_were_running(self) -> None:
        runs = having(1, 2, 3, single=False)
        for call in (1, 2):
            runs.started(call)
        runs.answered(1)
        assert runs.unstarted((), receivedAll=True) == [3]

    def test_cut_all_that_was_sent_may_have_been_running(self) -> None:
        assert having(1, 2, 3, single=False).unstarted({3}, receivedAll=False) == [3]
