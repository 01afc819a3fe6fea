"""Deferreds that wait for the same thing fire together."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from asynqueue.reactor.waiters import Waiters


def note(waiting: Deferred[int], fired: list[object], name: str) -> None:
    """Add NAME and the result of WAITING to FIRED when it fires."""
    waiting.addBoth(lambda result: fired.append((name, result.type if isinstance(result, Failure) else result)))


def test_all_fire_in_order_and_only_once() -> None:
    waiters = Waiters[int]()
    fired: list[object] = []
    for name in "abc":
        note(waiters.add(), fired, name)
    assert len(waiters) == 3
    waiters.fire(1)
    assert fired == [("a", 1), ("b", 1), ("c", 1)]
    assert not waiters
    waiters.fire(2)
    assert len(fired) == 3


def test_a_failure_fails_each() -> None:
    waiters = Waiters[int]()
    fired: list[object] = []
    for name in "ab":
        note(waiters.add(), fired, name)
    waiters.fire(Failure(KeyError(1)))
    assert fired == [("a", KeyError), ("b", KeyError)]


def test_a_cancelled_one_is_forgotten_before_its_owner_is_notified() -> None:
    waiters = Waiters[int]()
    fired: list[object] = []
    waiting = waiters.add(lambda: fired.append(len(waiters)))
    note(waiting, fired, "a")
    waiting.cancel()
    assert fired == [0, ("a", CancelledError)]
    waiters.fire(1)
    assert len(fired) == 2


def test_one_cancelled_by_the_callback_of_another_does_not_fire() -> None:
    waiters = Waiters[int]()
    fired: list[object] = []
    first, second = waiters.add(), waiters.add()
    first.addCallback(lambda _: second.cancel())
    note(second, fired, "second")
    waiters.fire(1)
    assert fired == [("second", CancelledError)]


def test_one_added_by_a_callback_waits_for_the_next_time() -> None:
    waiters = Waiters[int]()
    fired: list[object] = []
    waiters.add().addCallback(lambda _: note(waiters.add(), fired, "later"))
    waiters.fire(1)
    assert (fired, len(waiters)) == ([], 1)
    waiters.fire(2)
    assert fired == [("later", 2)]
