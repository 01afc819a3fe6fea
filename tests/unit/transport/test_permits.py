"""Leave to start a call: got by exactly one side."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynqueue.transport.permits import PermitHolder, PermitIssuer


@pytest.fixture
def office() -> Iterator[PermitIssuer]:
    office = PermitIssuer()
    yield office
    office.close()


class TestPermits:
    def test_a_call_with_one_may_start_and_one_without_may_not(self, office: PermitIssuer) -> None:
        holder = PermitHolder(office.taking)
        office.give([1, 2])
        assert [holder.mayStart(n) for n in (1, 2, 3)] == [True, True, False]

    def test_one_that_was_taken_back_lets_nothing_start(self, office: PermitIssuer) -> None:
        holder = PermitHolder(office.taking)
        office.give([1, 2, 3])
        assert holder.mayStart(1)
        assert office.revoke() == [2, 3]
        office.give([4])
        assert [holder.mayStart(n) for n in (2, 3, 4)] == [False, False, True]

    def test_one_that_was_used_cannot_be_taken_back(self, office: PermitIssuer) -> None:
        holder = PermitHolder(office.taking)
        office.give([1])
        assert holder.mayStart(1)
        assert office.revoke() == []

    def test_none_given_is_none_to_take_back(self, office: PermitIssuer) -> None:
        office.give([])
        assert office.revoke() == []

    def test_a_thousand_can_be_taken_back_at_once(self, office: PermitIssuer) -> None:
        numbers = [n + (1 << 40) for n in range(1000)]
        office.give(numbers)
        assert office.revoke() == numbers

    def test_with_the_office_gone_nothing_starts(self, office: PermitIssuer) -> None:
        holder = PermitHolder(office.taking.dup())
        office.close()
        assert not holder.mayStart(1)
        holder._taking.close()

    def test_a_closed_office_takes_nothing_back(self, office: PermitIssuer) -> None:
        office.give([1])
        office.close()
        assert office.revoke() == []

    def test_those_that_a_dead_process_left_are_the_calls_that_it_never_started(self, office: PermitIssuer) -> None:
        office.give([1, 2, 3])
        taking = office.taking.fileno()
        dead = subprocess.run([sys.executable, "-c", CHILD, str(taking)], pass_fds=[taking], check=False)
        assert dead.returncode == -signal.SIGKILL
        assert office.revoke() == [2, 3]


CHILD = f"""
import os, socket, sys
socket.socket(fileno=int(sys.argv[1])).recv(8)
os.kill(os.getpid(), {int(signal.SIGKILL)})
"""


class TestTheRace:
    @given(st.lists(st.integers(1, 40), min_size=1, max_size=20))
    def test_each_permit_is_got_by_exactly_one_side(self, batches: list[int]) -> None:
        office = PermitIssuer()
        try:
            holder = PermitHolder(office.taking)
            started: list[int] = []
            announced: list[int] = []
            told = threading.Semaphore(0)
            total = sum(batches)

            def run() -> None:
                for n in range(1, total + 1):
                    told.acquire()
                    if holder.mayStart(announced[n - 1]):
                        started.append(announced[n - 1])

            far = threading.Thread(target=run)
            far.start()
            back: list[int] = []
            last = 0
            for size in batches:
                numbers = list(range(last + 1, last + 1 + size))
                last += size
                office.give(numbers)
                announced += numbers
                told.release(size)
                back += office.revoke()  # while the other side takes as many as it can
            far.join()
            back += office.revoke()
            assert sorted(started + back) == list(range(1, total + 1))
            assert started == sorted(started)
        finally:
            office.close()
