"""What a cluster may start, and when: `asynqueue.core.scheduling.clusterpermits` against a ledger of what its workers
really did."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from asynqueue.core.scheduling.clusterpermits import DEATHS, First, Placement, Refuse, Start

SESSION, OTHER = "session", "other"
WORKERS = st.sampled_from(["w1", "w2", "w3"])
CALLS = st.sampled_from([f"c{n}" for n in range(6)])


class PlacementMachine(RuleBasedStateMachine):
    """A cluster that gives any call to any worker at any time, again too, and whose workers die and come back."""

    def __init__(self) -> None:
        super().__init__()
        self.placement = Placement()
        self.placement.open(SESSION, "client")
        self.placement.open(OTHER, "another client")
        self.ran: dict[str, str] = {}  # worker, by call
        self.withdrawn: set[str] = set()
        self.wanted: dict[int, frozenset[str] | None] = {}  # who is to run an update
        self.resident: set[int] = set()
        self.updated: dict[str, list[int]] = defaultdict(list)  # updates, by worker, in order
        self.handed: dict[str, int] = {}
        self.now = 0
        self.since: dict[str, int] = {}  # when a worker was handed what it has
        self.counted: dict[int, int] = defaultdict(int)  # when a death was counted last, by update
        self.deaths: dict[int, int] = defaultdict(int)  # in a row, by update
        self.givenUp: set[int] = set()
        self.last = 0

    @rule(call=CALLS | st.none(), worker=WORKERS, wanted=st.sampled_from([True, True, True, False]))
    def starting(self, call: str | None, worker: str, wanted: bool) -> None:
        answer = self.placement.starting(SESSION, call, worker, wanted)
        if isinstance(answer, Refuse):
            assert call is not None
            assert not wanted or call in self.ran or call in self.withdrawn
            assert answer.again == (call in self.ran)
            return
        self.handed.pop(worker, None)
        if isinstance(answer, First):
            assert answer.number == self.due(worker)[0], "the updates in order, each once"
            who = self.wanted[answer.number]
            assert answer.run == (who is None or worker in who)
            self.handed[worker] = answer.number
            self.now = self.since[worker] = self.now + 1
        else:
            assert not self.due(worker), "no call before the updates"
            if call is not None:
                assert call not in self.ran, "no call starts twice"
                assert call not in self.withdrawn, "nor when it is not wanted"
                self.ran[call] = worker

    def due(self, worker: str) -> list[int]:
        """The updates that WORKER has not done and has to."""
        return [
            number
            for number, who in self.wanted.items()
            if number not in self.updated[worker]
            and number not in self.givenUp
            and (who is None or worker in who or number in self.resident)
        ]

    @precondition(lambda self: self.handed)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(self.handed)))
        self.placement.updated(SESSION, self.handed[worker], worker)
        self.deaths[self.handed[worker]] = 0
        self.updated[worker].append(self.handed.pop(worker))

    @rule(present=st.none() | st.frozensets(WORKERS), resident=st.booleans())
    def update(self, present: frozenset[str] | None, resident: bool) -> None:
        self.last += 1
        self.wanted[self.last] = present
        if resident:
            self.resident.add(self.last)
        self.placement.update(SESSION, self.last, b"it", present, resident)

    @rule(calls=st.lists(CALLS, unique=True))
    def withdraw(self, calls: list[str]) -> None:
        running = self.placement.withdraw(SESSION, calls)
        assert running == {call: self.ran[call] for call in calls if call in self.ran}
        self.withdrawn.update(calls)

    @rule(calls=st.lists(CALLS, unique=True))
    def recall(self, calls: list[str]) -> None:
        unstarted = self.placement.recall(SESSION, calls)
        assert unstarted is not None
        assert unstarted == [call for call in calls if call not in self.ran]
        self.withdrawn.update(unstarted)

    @rule(call=CALLS)
    def forget(self, call: str) -> None:
        """The near side has heard of it and the cluster forgot it: the name may be used again."""
        self.placement.forget(call)
        self.ran.pop(call, None)
        self.withdrawn.discard(call)

    @rule(worker=WORKERS)
    def die(self, worker: str) -> None:
        lost = self.placement.workerLost(worker)
        died = [call for call, where in self.ran.items() if where == worker and call not in self.withdrawn]
        assert lost == ({SESSION: died} if died else {}), "a death is charged to what ran there, and to nothing else"
        self.updated.pop(worker, None)
        update = self.handed.pop(worker, None)
        if update is not None and self.since[worker] > self.counted[update]:
            self.counted[update] = self.now
            self.deaths[update] += 1
            if self.deaths[update] == DEATHS:
                self.givenUp.add(update)

    @invariant()
    def anotherSessionIsItsOwn(self) -> None:
        assert self.placement.recall(OTHER, ["c0"]) == ["c0"]

    def teardown(self) -> None:
        assert self.placement.ofClient("client") == [SESSION]
        self.placement.close(SESSION)
        assert self.placement.starting(SESSION, "c0", "w1") == Refuse(False)
        assert self.placement.ofClient("client") == []


TestPlacement = PlacementMachine.TestCase


@given(st.lists(WORKERS, min_size=1, max_size=12))
def test_started_once_and_never_again_whatever_the_cluster_does(workers: list[str]) -> None:
    """However often Dask gives a call to however many workers that die, it starts once until it is submitted anew."""
    placement = Placement()
    placement.open(SESSION, "client")
    answers = []
    for worker in workers:
        answers.append(placement.starting(SESSION, "call", worker))
        placement.workerLost(worker)
    assert answers == [Start(), *[Refuse(again=True)] * (len(workers) - 1)]


@given(st.lists(st.tuples(WORKERS, st.booleans()), max_size=12))
def test_an_update_is_given_up_when_it_kills_two_workers_in_a_row(happened: list[tuple[str, bool]]) -> None:
    placement = Placement()
    placement.open(SESSION, "client")
    placement.update(SESSION, 1, b"it", None, False)
    inARow, done = 0, set()
    for worker, lives in happened:
        given = isinstance(placement.starting(SESSION, None, worker), First)
        assert given == (inARow < DEATHS and worker not in done)
        if given and lives:
            placement.updated(SESSION, 1, worker)
            done.add(worker)
            inARow = 0
        elif not lives:
            placement.workerLost(worker)
            done.discard(worker)
            inARow += given
