"""What may start where on a cluster."""

from __future__ import annotations

import pytest

from asynqueue.core.scheduling.clusterpermits import DEATHS, First, Placement, Refuse, Start


@pytest.fixture
def p() -> Placement:
    placement = Placement()
    placement.open("s", "client")
    return placement


def test_a_worker_runs_the_updates_in_order_each_once_before_a_call(p: Placement) -> None:
    p.update("s", 1, b"one", None, False)
    p.update("s", 2, b"two", None, False)
    assert p.starting("s", "call", "w") == First(1, b"one", True)
    p.updated("s", 1, "w")
    assert p.starting("s", "call", "w") == First(2, b"two", True)
    p.updated("s", 2, "w")
    assert p.starting("s", "call", "w") == Start()
    assert p.starting("s", "other", "w") == Start()
    assert p.starting("s", None, "v") == First(1, b"one", True)


def test_an_update_for_some_is_not_for_the_others(p: Placement) -> None:
    p.update("s", 1, b"one", ["w"], False)
    assert p.starting("s", None, "v") == Start()
    assert p.starting("s", None, "w") == First(1, b"one", True)


def test_what_everybody_has_to_have_is_loaded_by_all_and_run_by_some(p: Placement) -> None:
    p.update("s", 1, b"one", ["w"], True)
    assert p.starting("s", None, "v") == First(1, b"one", False)
    assert p.starting("s", None, "w") == First(1, b"one", True)


def test_an_update_that_was_handed_on_and_asked_about_again_is_no_death(p: Placement) -> None:
    p.update("s", 1, b"one", None, False)
    for worker in "abc":
        p.starting("s", None, worker)
        p.updated("s", 1, worker)
        p.workerLost(worker)
    assert p.starting("s", None, "d") == First(1, b"one", True)


def test_a_worker_that_asks_again_has_not_died_of_what_it_was_handed(p: Placement) -> None:
    p.update("s", 1, b"one", ["w", "v"], False)
    p.starting("s", None, "w")
    p.withdraw("s", ["call"])
    p.updated("s", 1, "w")
    assert p.starting("s", None, "w") == Start()
    assert p.workerLost("w") == {}
    p.starting("s", None, "v")
    p.workerLost("v")
    assert p.starting("s", None, "v") == First(1, b"one", True), "one has died of it"


def test_an_update_that_killed_as_many_as_may_die_is_not_made_again(p: Placement) -> None:
    p.update("s", 1, b"one", None, False)
    for worker in range(DEATHS):
        assert p.starting("s", None, f"w{worker}") == First(1, b"one", True)
        p.workerLost(f"w{worker}")
    assert p.starting("s", None, "another") == Start()
    p.update("s", 1, b"one", None, False)
    assert p.starting("s", None, "another") == Start()
    p.update("s", 2, b"two", None, False)
    assert p.starting("s", None, "another") == First(2, b"two", True)


def test_one_that_killed_once_may_be_made_again(p: Placement) -> None:
    p.update("s", 1, b"one", None, False)
    p.starting("s", None, "w")
    p.workerLost("w")
    p.update("s", 1, b"one", None, False)
    assert p.starting("s", None, "w") == First(1, b"one", True)


def test_a_worker_that_asked_again_and_started_a_call_did_not_die_of_an_update(p: Placement) -> None:
    p.update("s", 1, b"one", ["w", "v"], False)
    assert p.starting("s", "call", "w") == First(1, b"one", True)
    p.update("s", 1, b"one", ["v"], False)
    assert p.starting("s", "call", "w") == Start()
    assert p.workerLost("w") == {"s": ["call"]}
    p.starting("s", None, "v")
    p.workerLost("v")
    assert p.starting("s", None, "v") == First(1, b"one", True), "one has died of it"


def test_any_number_may_die_of_an_update_that_they_had_before_it_was_known_to_kill(p: Placement) -> None:
    p.update("s", 1, b"one", None, False)
    for worker in range(DEATHS + 1):
        p.starting("s", None, f"w{worker}")
    for worker in range(DEATHS + 1):
        assert p.workerLost(f"w{worker}") == {}
    assert p.starting("s", None, "another") == First(1, b"one", True), "that was one death"
    p.starting("s", None, "w0")
    p.workerLost("another")
    assert p.workerLost("w0") == {}
    assert p.starting("s", None, "w0") == Start()


def test_who_had_another_update_at_a_death_is_not_excused(p: Placement) -> None:
    p.update("s", 1, b"one", ["w"], False)
    assert p.starting("s", None, "w") == First(1, b"one", True)
    p.update("s", 2, b"two", None, False)
    assert p.starting("s", None, "v") == First(2, b"two", True)
    p.workerLost("v")
    p.workerLost("w")
    assert p.starting("s", None, "w") == First(1, b"one", True)
    p.workerLost("w")
    assert p.starting("s", None, "w") == First(2, b"two", True)


def test_who_lived_through_an_update_is_not_excused_for_the_next(p: Placement) -> None:
    p.update("s", 1, b"one", None, False)
    p.starting("s", None, "v")
    p.starting("s", None, "w")
    p.workerLost("v")
    p.updated("s", 1, "w")
    p.update("s", 2, b"two", None, False)
    assert p.starting("s", None, "w") == First(2, b"two", True)
    p.workerLost("w")
    for worker in ("x", "y"):
        assert p.starting("s", None, worker) == First(1, b"one", True)
        p.updated("s", 1, worker)
    assert p.starting("s", None, "x") == First(2, b"two", True)
    p.workerLost("x")
    assert p.starting("s", None, "y") == Start()


def test_who_was_lost_and_says_then_what_it_did_is_heard(p: Placement) -> None:
    p.update("s", 1, b"one", None, False)
    p.starting("s", None, "w")
    p.workerLost("w")
    p.updated("s", 1, "w")
    assert p.starting("s", "call", "w") == Start()


def test_a_fresh_worker_of_an_old_name_runs_the_updates_too(p: Placement) -> None:
    p.update("s", 1, b"one", None, False)
    p.starting("s", None, "w")
    p.updated("s", 1, "w")
    p.workerLost("w")
    assert p.starting("s", None, "w") == First(1, b"one", True)


def test_closing_tells_which_workers_have_anything_of_it(p: Placement) -> None:
    p.starting("s", "call", "w")
    p.starting("s", None, "v")
    assert p.close("s") == ["w", "v"]
    assert p.close("s") == []
    assert p.starting("s", "call", "w") == Refuse(again=False)


def test_what_of_a_session_that_is_closed_had_started_is_not_known(p: Placement) -> None:
    assert p.recall("none", ["a", "b"]) is None
    assert p.withdraw("none", ["a", "b"]) == {}
    p.update("none", 1, b"one", None, False)
    p.updated("none", 1, "w")


def test_what_is_recalled_never_starts_and_what_has_started_is_not_recalled(p: Placement) -> None:
    p.starting("s", "a", "w")
    assert p.recall("s", ["a", "b"]) == ["b"]
    assert p.starting("s", "b", "w") == Refuse(again=False)
    assert p.starting("s", "a", "v") == Refuse(again=True)


def test_what_is_forgotten_may_start_again(p: Placement) -> None:
    p.starting("s", "a", "w")
    p.recall("s", ["b"])
    p.forget("a")
    p.forget("b")
    assert p.workerLost("w") == {}
    assert p.starting("s", "a", "w") == Start()
    assert p.starting("s", "b", "w") == Start()


def test_an_update_that_was_given_up_stays_so_though_a_worker_lives_through_it(p: Placement) -> None:
    p.update("s", 1, b"one", None, False)
    for worker in "abc":
        p.starting("s", None, worker)
    p.workerLost("a")
    p.starting("s", None, "a")
    p.workerLost("a")
    p.updated("s", 1, "c")
    p.update("s", 1, b"one", None, False)
    assert p.starting("s", None, "d") == Start()


def test_a_death_is_that_of_what_is_wanted_and_ran_there(p: Placement) -> None:
    p.starting("s", "here", "w")
    p.starting("s", "elsewhere", "v")
    p.starting("s", "unwanted", "w")
    p.withdraw("s", ["unwanted"])
    assert p.workerLost("w") == {"s": ["here"]}
