"""Given these events of an iteration, exactly these commands."""

from __future__ import annotations

import pytest

from asynqueue.core.flow.iteration import Close, Deliver, Ended, Finish, FirstKnown, Grant, Inflow, LateError, Outflow
from asynqueue.errors import ImplementationError, WorkerLost


@pytest.fixture
def i() -> Inflow:
    """An iteration that has begun."""
    inflow = Inflow()
    assert inflow.begin() == [Grant(1)]
    return inflow


def test_one_item_is_fetched_to_know_whether_there_is_any(i: Inflow) -> None:
    assert i.arrived(["a"]) == [FirstKnown()]
    assert i.more


def test_an_item_that_is_here_is_delivered_at_once_and_one_more_fetched(i: Inflow) -> None:
    i.arrived(["a"])
    assert i.ask() == [Deliver("a"), Grant(1)]


def test_who_waits_has_ever_more_fetched_up_to_the_limit() -> None:
    inflow = Inflow(limit=5)
    inflow.begin()
    granted, number = 1, 0
    reach = []
    for _ in range(12):
        commands = inflow.ask()
        while inflow.asked:
            number += 1
            granted += sum(command.items for command in commands if isinstance(command, Grant))
            commands = inflow.arrived([number])
        granted += sum(command.items for command in commands if isinstance(command, Grant))
        inflow.validate()
        reach.append(granted - number)
    assert reach[:3] == [2, 3, 5]
    assert max(reach) == 5


def test_nothing_is_granted_while_nothing_is_asked_for(i: Inflow) -> None:
    i.ask()
    assert i.arrived(["a"]) == [FirstKnown(), Deliver("a"), Grant(1)]
    assert i.arrived(["b", "c"]) == []


def test_with_lookahead_an_item_waits_for_what_comes_after_it(i: Inflow) -> None:
    i.arrived(["a"])
    assert i.ask(lookahead=True) == [Grant(1)]
    assert i.asked
    assert i.arrived(["b"]) == [Deliver("a"), Grant(1)]
    assert i.more
    i.ask(lookahead=True)
    assert i.over() == [Deliver("b"), Ended(True)]
    assert not i.more
    assert i.ended


def test_with_lookahead_the_last_item_before_an_error_is_not_the_last(i: Inflow) -> None:
    error = ValueError()
    i.arrived(["a"])
    i.over(error)
    assert i.ask(lookahead=True) == [Deliver("a")]
    assert i.more
    assert i.ask(lookahead=True) == [Finish(error), Ended(False)]


def test_an_iterator_without_items_ends_at_once(i: Inflow) -> None:
    assert i.over() == [FirstKnown(), Ended(True)]
    assert not i.more


def test_lookahead_in_an_empty_iterator_finishes_without_an_item(i: Inflow) -> None:
    i.ask(lookahead=True)
    assert i.over() == [FirstKnown(), Finish(None), Ended(True)]


def test_an_error_comes_after_the_items_before_it(i: Inflow) -> None:
    error = ValueError()
    i.arrived(["a"])
    assert i.over(error) == []
    assert i.ask() == [Deliver("a")]
    assert i.more
    assert not i.ended
    assert i.ask() == [Finish(error), Ended(False)]


def test_who_waits_at_the_end_is_told(i: Inflow) -> None:
    i.ask()
    assert i.over() == [FirstKnown(), Finish(None), Ended(True)]


def test_after_the_end_there_is_no_item(i: Inflow) -> None:
    i.over()
    assert i.ask() == [Finish(None)]
    assert i.over() == []


def test_stopping_closes_the_iterator_and_tells_who_waits(i: Inflow) -> None:
    i.ask()
    assert i.stop() == [FirstKnown(), Close(), Finish(None), Ended(False)]
    assert i.stop() == []


def test_what_arrives_after_the_stop_is_dropped(i: Inflow) -> None:
    i.stop()
    assert i.arrived(["a"]) == []
    assert i.over() == []
    i.validate()


def test_an_error_after_the_stop_is_for_the_log(i: Inflow) -> None:
    error = ValueError()
    i.stop()
    assert i.over(error) == [LateError(error)]
    assert i.over(error) == []


def test_a_loss_after_the_stop_is_no_news(i: Inflow) -> None:
    i.stop()
    assert i.over(WorkerLost()) == []


def test_who_looks_ahead_need_not_wait_where_more_is_promised(i: Inflow) -> None:
    i.arrived(["a"], more=True)
    assert i.ask(lookahead=True) == [Deliver("a"), Grant(1)]
    assert i.arrived(["b"]) == []
    assert i.ask(lookahead=True) == [Grant(1)], "a promise is kept by what comes next"


def test_stopping_what_is_over_closes_nothing(i: Inflow) -> None:
    i.arrived(["a"])
    i.over()
    assert i.stop() == [Ended(False)]


def test_an_item_that_is_not_waited_for_any_more_stays_the_next(i: Inflow) -> None:
    i.ask()
    i.unask()
    assert i.arrived(["a"]) == [FirstKnown()]
    assert i.ask() == [Deliver("a"), Grant(1)]


def test_asked_and_ended_show_the_state_of_the_iteration(i: Inflow) -> None:
    seen = [(i.asked, i.ended)]
    for event in (i.ask, i.unask, i.ask, lambda: i.arrived(["a"]), i.ask, i.over):
        event()
        seen.append((i.asked, i.ended))
    waits = [False, True, False, True, False, True, False]
    assert seen == [(wait, n == 6) for n, wait in enumerate(waits)]


def test_what_is_stopped_is_not_waited_for(i: Inflow) -> None:
    i.ask()
    i.stop()
    assert (i.asked, i.ended) == (False, True)


def test_one_item_is_asked_for_at_a_time(i: Inflow) -> None:
    i.ask()
    with pytest.raises(ValueError, match=r"^a request for an item is waiting already$"):
        i.ask()


def test_items_beyond_the_credit_are_refused(i: Inflow) -> None:
    with pytest.raises(ValueError, match="2 items came where 1 were granted"):
        i.arrived(["a", "b"])
    with pytest.raises(ValueError, match="1 items came where 0 were granted"):
        Inflow().arrived(["a"])


def test_a_limit_that_forbids_lookahead_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        Inflow(limit=1)


def test_the_far_side_sends_what_it_was_granted() -> None:
    outflow = Outflow()
    assert (outflow.ready, outflow.ended) == (False, False)
    outflow.granted(2)
    assert outflow.ready
    outflow.sent(2)
    assert not outflow.ready
    with pytest.raises(ValueError, match="1 items were sent where 0 were granted"):
        outflow.sent(1)


def test_the_far_side_sends_nothing_after_the_end() -> None:
    outflow = Outflow()
    outflow.granted(2)
    outflow.end()
    outflow.granted(2)
    assert not outflow.ready


def test_who_was_told_of_another_item_is_told_when_there_was_none(i: Inflow) -> None:
    i.arrived(["a"], more=True)
    i.ask(lookahead=True)
    i.ask(lookahead=True)
    (finish, ended) = i.over()
    assert isinstance(finish, Finish)
    assert isinstance(finish.error, ImplementationError)
    assert str(finish.error) == "the iterator promised another item and then had none (see moreLeft)"
    assert ended == Ended(False)


def test_who_was_told_of_another_item_and_hears_of_an_error_hears_of_that(i: Inflow) -> None:
    error = KeyError("x")
    i.arrived(["a"], more=True)
    i.ask(lookahead=True)
    i.ask(lookahead=True)
    assert i.over(error) == [Finish(error), Ended(False)]


def test_who_does_not_look_ahead_was_told_of_nothing(i: Inflow) -> None:
    i.arrived(["a"], more=True)
    i.ask()
    i.ask()
    assert i.over() == [Finish(None), Ended(True)]


def test_the_far_side_has_no_credit_after_the_end() -> None:
    o = Outflow()
    o.granted(5)
    o.end()
    with pytest.raises(ValueError, match="1 items were sent where 0 were granted"):
        o.sent(1)
