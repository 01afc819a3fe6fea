"""`Delay` and `deferToDelay`, by a clock that only moves when told."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from asynqueue.iteration.delay import Delay, deferToDelay


def results(d: Deferred[Any]) -> list[Any]:
    """The results that D has had, kept up to date."""
    got: list[Any] = []
    d.addBoth(got.append)
    return got


@pytest.fixture
def clock() -> Clock:
    return Clock()


class TestPlainDelays:
    def test_one_fires_after_the_interval(self, clock: Clock) -> None:
        got = results(Delay(0.5, reactor=clock)())
        clock.advance(0.4)
        assert got == []
        clock.advance(0.1)
        assert got == [None]

    def test_one_fires_after_the_seconds_given(self, clock: Clock) -> None:
        delay = Delay(0.5, reactor=clock)
        now, later = results(delay(0)), results(delay(2))
        clock.advance(0)
        assert (now, later) == ([None], [])
        clock.advance(2)
        assert later == [None]

    def test_deferToDelay_needs_no_delay(self, clock: Clock) -> None:
        got = results(deferToDelay(2, reactor=clock))
        clock.advance(1.9)
        assert got == []
        clock.advance(0.1)
        assert got == [None]

    def test_a_cancelled_one_leaves_nothing(self, clock: Clock) -> None:
        delay = Delay(reactor=clock)
        for d in delay(), deferToDelay(1, reactor=clock):
            got = results(d)
            d.cancel()
            assert got[0].check(CancelledError)
        assert clock.getDelayedCalls() == []
        delay.shutdown()

    @pytest.mark.parametrize("seconds", [-1, float("nan")])
    def test_a_negative_time_is_refused(self, clock: Clock, seconds: float) -> None:
        with pytest.raises(ValueError, match="a delay must be 0 seconds or more"):
            Delay(reactor=clock)(seconds)
        with pytest.raises(ValueError, match="a delay must be 0 seconds or more"):
            deferToDelay(seconds, reactor=clock)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"backoff": 0.99}, "backoff must be from 1.0 to 1.3, got 0.99"),
        ({"backoff": 1.31}, "backoff must be from 1.0 to 1.3, got 1.31"),
        ({"interval": 0}, "interval must be more than 0 seconds, got 0"),
        ({"interval": -1}, "interval must be more than 0 seconds, got -1"),
        ({"timeout": -1}, "timeout must be 0 seconds or more, got -1"),
    ],
)
def test_what_is_out_of_range_is_refused(options: dict[str, float], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Delay(**options)  # type: ignore[arg-type]  # none of the options is a reactor


def test_the_bounds_of_backoff_are_allowed() -> None:
    assert (Delay(backoff=1.0).backoff, Delay(backoff=1.3).backoff) == (1.0, 1.3)


class TestUntilEvent:
    def test_what_has_happened_is_seen_at_once(self, clock: Clock) -> None:
        assert results(Delay(reactor=clock).untilEvent(lambda: "yes")) == [True]
        assert clock.getDelayedCalls() == []

    def test_it_looks_ever_more_seldom(self, clock: Clock) -> None:
        looks: list[float] = []

        def look(enough: int, *, unit: str) -> bool:
            assert unit == "looks"
            looks.append(clock.seconds())
            return len(looks) == enough

        got = results(Delay(1.0, 1.25, reactor=clock).untilEvent(look, 4, unit="looks"))
        clock.pump([0.0625] * 100)
        assert looks == [0, 1, 2.25, 3.8125]
        assert got == [True]

    def test_it_gives_up_with_false_after_a_last_look(self, clock: Clock) -> None:
        looks: list[float] = []
        got = results(Delay(2, 1.0, 5, reactor=clock).untilEvent(lambda: looks.append(clock.seconds())))
        clock.pump([1] * 10)
        assert looks == [0, 2, 4, 5]
        assert got == [False]
        assert clock.getDelayedCalls() == []

    def test_what_the_last_look_sees_has_happened(self, clock: Clock) -> None:
        got = results(Delay(4, timeout=5, reactor=clock).untilEvent(lambda: clock.seconds() >= 5))
        clock.pump([1] * 5)
        assert got == [True]
        assert clock.getDelayedCalls() == []

    def test_a_checkers_deferred_is_waited_for(self, clock: Clock) -> None:
        asked: list[Deferred[bool]] = []

        def ask() -> Deferred[bool]:
            asked.append(Deferred())
            return asked[-1]

        got = results(Delay(1, reactor=clock).untilEvent(ask))
        clock.advance(100)
        assert len(asked) == 1
        asked[0].callback(False)
        clock.advance(1)
        asked[1].callback(True)
        assert got == [True]
        assert clock.getDelayedCalls() == []

    def test_a_checker_may_be_a_coroutine(self, clock: Clock) -> None:
        async def ask() -> bool:
            return await succeed(True)

        assert results(Delay(reactor=clock).untilEvent(ask)) == [True]

    def test_a_checker_that_does_not_answer_in_time_is_cancelled(self, clock: Clock) -> None:
        asked: Deferred[bool] = Deferred()
        answer = results(asked)
        got = results(Delay(1, timeout=5, reactor=clock).untilEvent(lambda: asked))
        clock.advance(5)
        assert got == [False]
        assert answer[0].check(CancelledError)

    @pytest.mark.parametrize("later", [False, True])
    def test_a_checker_that_raises_ends_it_with_none_and_is_logged(self, clock: Clock, later: bool) -> None:
        def boom() -> object:
            return fail(ZeroDivisionError()) if later else 1 // 0

        with capturedLogs() as events:
            got = results(Delay(timeout=5, reactor=clock).untilEvent(boom))
        assert got == [None]
        assert [event["log_failure"].type for event in events] == [ZeroDivisionError]
        assert events[0]["log_namespace"] == "asynqueue"
        assert clock.getDelayedCalls() == []

    def test_a_cancelled_one_asks_no_more(self, clock: Clock) -> None:
        looks: list[int] = []
        d = Delay(timeout=5, reactor=clock).untilEvent(lambda: looks.append(1))
        got = results(d)
        d.cancel()
        assert got[0].check(CancelledError)
        assert clock.getDelayedCalls() == []
        assert looks == [1]

    def test_cancelled_while_a_checker_answers_it_cancels_that_without_a_word(self, clock: Clock) -> None:
        asked: Deferred[bool] = Deferred()
        d = Delay(timeout=5, reactor=clock).untilEvent(lambda: asked)
        got = results(d)
        with capturedLogs() as events:
            d.cancel()
        assert asked.called
        assert got[0].check(CancelledError)
        assert events == []

    def test_a_checker_may_end_its_own_wait(self, clock: Clock) -> None:
        delay = Delay(timeout=5, reactor=clock)
        asked: Deferred[bool] = Deferred()

        def ask() -> Deferred[bool]:
            delay.shutdown()
            return asked

        assert results(delay.untilEvent(ask)) == [False]
        assert asked.called
        assert clock.getDelayedCalls() == []

    def test_what_cannot_be_called_is_refused(self, clock: Clock) -> None:
        checker: Any = "not callable"
        with pytest.raises(TypeError, match="the checker must be callable, got 'not callable'"):
            Delay(reactor=clock).untilEvent(checker)


def test_shutdown_ends_everything_pending_and_leaves_nothing(clock: Clock) -> None:
    delay = Delay(timeout=9, reactor=clock)
    plain, event = results(delay(5)), results(delay.untilEvent(bool))
    delay.shutdown()
    assert (plain, event) == ([None], [False])
    assert clock.getDelayedCalls() == []
    again = results(delay(1))
    clock.advance(1)
    assert again == [None]


def test_shutdown_does_not_wait_for_what_its_callbacks_begin(clock: Clock) -> None:
    delay = Delay(1, reactor=clock)
    begun: list[Deferred[None]] = []
    delay().addCallback(lambda _: begun.append(delay()))
    delay.shutdown()
    assert len(begun) == 1
    assert not begun[0].called


def test_a_program_may_install_its_reactor_after_importing_us() -> None:
    script = (
        "import asynqueue.iteration.delay, asynqueue.util, sys\n"
        "assert 'twisted.internet.reactor' not in sys.modules\n"
        "from twisted.internet import asyncioreactor; asyncioreactor.install()\n"
        "from twisted.internet import reactor\n"
        "asynqueue.iteration.delay.deferToDelay(0).addCallback(lambda _: reactor.stop())\n"
        "reactor.run(); print(type(reactor).__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("AsyncioSelectorReactor\n", "")


def test_the_keywords_and_defaults_of_09_are_accepted() -> None:
    clock = Clock()
    assert (Delay(None, None).interval, Delay(None, None).backoff) == (0.001, 1.1)
    waited = deferToDelay(delay=2, reactor=clock)
    clock.advance(2)
    assert waited.called
    with pytest.raises(TypeError, match="needs the seconds to wait"):
        deferToDelay()
