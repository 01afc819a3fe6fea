"""What never happens on a wire, whatever the network and the peer do."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from asynqueue.core.protocol import messages as m
from asynqueue.core.protocol.admission import CallAdmission, ItemThrottle
from asynqueue.core.protocol.clientquota import ClientQuota
from asynqueue.core.protocol.connectattempts import ATTEMPTS, ConnectPolicy
from asynqueue.core.protocol.framing import PART_COST, WIRE_FRAME_LIMIT, Decoder, encode
from asynqueue.core.protocol.handshake import NONCE, Authenticated, ClientHandshake, Refuse, Send, ServerHandshake
from asynqueue.core.protocol.liveness import TICKS, HeartbeatCounter
from asynqueue.core.protocol.runqueue import RunQueue
from asynqueue.core.protocol.sendqueue import SendQueue
from asynqueue.core.protocol.serverlimits import LimitExceeded, Limits

KEYS = st.binary(min_size=16, max_size=40)
NONCES = st.binary(min_size=NONCE, max_size=NONCE)


@given(KEYS, NONCES, st.lists(st.binary(max_size=120), max_size=6))
def test_a_client_without_the_key_is_never_authenticated(key: bytes, nonce: bytes, speech: list[bytes]) -> None:
    hello = b"".join(c.data for c in ClientHandshake(nonce, key, False).begin() if isinstance(c, Send))
    for beginning in b"", hello:
        far = ServerHandshake(nonce, key, False)
        commands = [*far.received(beginning), *(c for words in speech for c in far.received(words))]
        assert not any(isinstance(c, Authenticated) for c in commands)
        assert len(far._buffer) <= 64 + sum(map(len, speech))
        assert sum(isinstance(c, Refuse) for c in commands) <= 1


@given(KEYS, KEYS, NONCES, NONCES, st.data())
def test_both_are_proved_if_and_only_if_they_have_one_key(
    key: bytes, other: bytes, one: bytes, two: bytes, data: st.DataObject
) -> None:
    theirs = data.draw(st.sampled_from((key, other)))
    near, far = ClientHandshake(one, key, False), ServerHandshake(two, theirs, False)
    proved = 0
    unheard = {near: b"", far: b"".join(c.data for c in near.begin() if isinstance(c, Send))}
    while any(unheard.values()):  # in pieces of any size
        for side, peer in ((far, near), (near, far)):
            cut = data.draw(st.integers(1, 80))
            words, unheard[side] = unheard[side][:cut], unheard[side][cut:]
            commands = side.received(words) if words else []
            unheard[peer] += b"".join(c.data for c in commands if isinstance(c, Send))
            proved += sum(isinstance(c, Authenticated) for c in commands)
    assert proved == (2 if theirs == key else 0)


HAPPENINGS = st.tuples(st.sampled_from(["proved", "ended", "refused"]), st.integers(1, ATTEMPTS + 1))


@given(st.lists(HAPPENINGS, max_size=6))
def test_only_a_server_never_trusted_is_given_up_for_its_silence(rows: list[tuple[str, int]]) -> None:
    happenings = [happening for happening, times in rows for _ in range(times)]
    policy, row = ConnectPolicy(), 0
    for n, happening in enumerate(happenings, 1):
        if happening == "proved":
            policy.authenticated()
            continue
        row = row + 1 if happening == "ended" else 0
        assert policy.failed(happening == "ended") == ("proved" in happenings[:n] or row < ATTEMPTS)


@given(st.lists(st.sampled_from([m.Ping(), m.Pong(), m.Started(1)]), max_size=9))
def test_no_two_pongs_wait(said: list[m.Message]) -> None:
    outgoing, decoder = SendQueue(WIRE_FRAME_LIMIT), Decoder(WIRE_FRAME_LIMIT)
    for _ in range(2):
        for message in said:
            outgoing.add(message)
        kinds, heard = [*map(type, said)], [*map(type, decoder.feed(outgoing.take(1)))]
        assert heard.count(m.Pong) == (m.Pong in kinds)
        assert [kind for kind in heard if kind is not m.Pong] == [kind for kind in kinds if kind is not m.Pong]


MESSAGES = st.one_of(
    st.builds(m.Returned, st.integers(1, 4), st.just(0.0), st.integers(0, 4).map(lambda n: bytes(n * 50_000))),
    st.builds(m.Items, st.integers(1, 4), st.integers(0, 9), st.integers(0, 3).map(lambda n: b"i" * (n * 40_000))),
    st.builds(m.Exhausted, st.integers(1, 4)),
    st.builds(m.Ping),
)


@given(st.lists(MESSAGES, max_size=12), st.lists(st.integers(1, 200_000), min_size=1, max_size=5))
def test_messages_of_one_call_arrive_in_order_and_all_arrive(said: list[m.Message], rooms: list[int]) -> None:
    outgoing, decoder = SendQueue(WIRE_FRAME_LIMIT), Decoder(WIRE_FRAME_LIMIT)
    heard: list[m.Message] = []
    for message in said:
        outgoing.add(message)
        outgoing.validate()
    turn = 0
    while frames := outgoing.take(rooms[turn % len(rooms)]):
        assert len(frames) <= rooms[turn % len(rooms)] + WIRE_FRAME_LIMIT + 5 + 5 * len(said)
        heard += decoder.feed(frames)
        outgoing.validate()
        turn += 1
    assert outgoing.size == 0
    for number in range(1, 5):
        assert [x for x in heard if x and x[0] == number] == [x for x in said if x and x[0] == number]
    assert len(heard) == len(said)


@given(st.integers(2, 60), st.integers(1, 5))
def test_a_small_answer_waits_for_no_more_than_a_frame_of_each_large_one(frames: int, large: int) -> None:
    outgoing = SendQueue(WIRE_FRAME_LIMIT)
    for number in range(1, large + 1):
        outgoing.add(m.Returned(number, 0.0, bytes(frames * WIRE_FRAME_LIMIT)))
    outgoing.take(1)
    outgoing.add(m.Returned(99, 0.0, b"small"))
    decoder = Decoder(WIRE_FRAME_LIMIT)
    heard = [message for _ in range(large + 1) for message in decoder.feed(outgoing.take(1))]
    assert m.Returned(99, 0.0, b"small") in heard


@given(st.lists(st.booleans(), max_size=40))
def test_a_peer_is_given_up_after_three_silent_ticks_and_never_before(heard: list[bool]) -> None:
    counter = HeartbeatCounter()
    assert counter.tick()
    silent = 0
    for one in heard:
        if one:
            counter.received()
        silent = 0 if one else silent + 1
        there = counter.tick()
        assert there == (silent < TICKS - 1)
        if not there:
            return


class Wire(RuleBasedStateMachine):
    """A near side, a far side that obeys `CallAdmission`, and a network that carries what was said, as far as it
    does."""

    def __init__(self) -> None:
        super().__init__()
        self.toFar: list[m.Message] = []  # these two: on their way
        self.toNear: list[m.Message] = []
        self.buffer: list[m.Message] = []  # said by the far side, and not sent yet
        self.unsent: list[int] = []
        self.runs: RunQueue[int, int] = RunQueue(single=False)
        self.started: set[int] = set()
        self.answered: set[int] = set()
        self.running: list[int] = []
        self.last = 0

    @initialize(running=st.integers(1, 3))
    def begin(self, running: int) -> None:
        self.serving = CallAdmission(running, Limits(calls=20))

    @rule()
    def call(self) -> None:
        self.last += 1
        self.runs.given(self.last, self.last)
        self.unsent.append(self.last)

    @rule()
    def send(self) -> None:
        if self.unsent:
            self.toFar.append(m.Call(self.unsent.pop(0), False, b""))

    @rule()
    def recall(self) -> None:
        self.toFar.append(m.Recall())

    @rule()
    def farHears(self) -> None:
        if self.toFar:
            message = self.toFar.pop(0)
            if isinstance(message, m.Call):
                try:
                    self.serving.called(message.id, 0)
                except LimitExceeded:
                    assert len(self.serving._sizes) == 20
            else:
                self.buffer += [m.Recalled(number) for number in self.serving.recalled()]

    @rule()
    def announce(self) -> None:
        number = self.serving.next()
        if number is not None:
            self.buffer.append(m.Started(number))

    @rule()
    def leave(self) -> None:
        self.toNear += self.buffer
        self.buffer.clear()
        while (number := self.serving.flushed()) is not None:
            assert number not in self.started
            self.started.add(number)
            self.running.append(number)

    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        if self.running:
            number = data.draw(st.sampled_from(self.running))
            self.running.remove(number)
            self.serving.ended(number)
            self.buffer.append(m.Returned(number, 0.0, b""))

    @rule()
    def nearHears(self) -> None:
        if self.toNear:
            self._nearHears(self.toNear.pop(0))

    def _nearHears(self, message: m.Message) -> None:
        if isinstance(message, m.Started):
            self.runs.started(message.id)
        elif isinstance(message, (m.Returned, m.Recalled)):
            assert isinstance(message, m.Returned) == (message.id in self.started), "what started is not given back"
            assert self.runs.answered(message.id) is not None, "each is answered once"
            self.answered.add(message.id)

    @invariant()
    def noMoreThanAreWantedRun(self) -> None:
        if hasattr(self, "serving"):
            self.serving.validate()
            self.runs.validate()

    def teardown(self) -> None:
        """The connection ends here: what the network loses is lost, be it heard out or cut."""
        if not hasattr(self, "serving"):
            return
        back = self.runs.unstarted(set(self.unsent), receivedAll=False)
        assert not set(back) & self.started, "what may have started is charged, though the end was lost"
        for message in self.toNear:
            self._nearHears(message)
        back = self.runs.unstarted(set(self.unsent), receivedAll=True)
        assert not set(back) & self.started, "what started is charged"
        assert set(back) == self.runs.calls.keys() - self.started, "and, when all was heard, nothing else is"


TestOnlyWhatMayHaveStartedIsCharged = Wire.TestCase


@given(
    st.lists(st.tuples(st.sampled_from(["call", "send", "hear", "end", "cancel"]), st.integers(0, 500)), max_size=60),
    st.integers(1, 3),
)
@example([(what, 1) for what in ("call", "send", "hear", "cancel", "call", "send", "hear")], 1)  # it overtakes a Cancel
def test_a_client_within_its_quota_is_never_refused_and_no_call_starves(
    steps: list[tuple[str, int]], most: int
) -> None:
    limits = Limits(calls=most, messages=700)
    serving, quota = CallAdmission(1, limits), ClientQuota(limits.calls, limits.messages)
    sizes: dict[int, int] = {}
    going: list[m.Call | m.Cancel] = []  # allowed, and in the outbox
    onWire: list[m.Call | m.Cancel] = []
    open_: set[int] = set()  # calls of which the near side awaits the end
    there: list[int] = []

    def go(numbers: list[int]) -> None:
        going.extend(m.Call(number, False, bytes(sizes[number])) for number in numbers)
        quota.validate()

    def step(what: str, size: int) -> None:
        if what == "call" and quota.fits(size):
            number = len(sizes) + 1
            sizes[number] = size
            open_.add(number)
            go([number] if quota.called(number, size) else [])
        elif what == "send" and going:
            at = size % len(going)  # one may overtake another, but nothing overtakes what was said of its own call
            onWire.append(going.pop([message.id for message in going].index(going[at].id)))
            go(quota.flushed({message.id for message in going}))
        elif what == "hear" and onWire:
            message = onWire.pop(0)
            if isinstance(message, m.Call):
                serving.called(message.id, len(message.payload))  # and this raises nothing
                there.append(message.id)
            elif message.id in there:
                serving.cancelled(message.id)
                there.remove(message.id)
        elif what == "end" and there:
            number = there.pop(0)
            serving.cancelled(number)
            if number in open_:
                open_.remove(number)
                go(quota.ended(number))
        elif what == "cancel" and open_:
            number = sorted(open_)[size % len(open_)]
            open_.remove(number)
            sent = number in there or any(message.id == number for message in [*going, *onWire])
            if sent:
                going.append(m.Cancel(number))
            go(quota.ended(number, leaving=sent))

    for what, size in steps:
        step(what, size)
        serving.validate()
    for _ in range(3 * len(sizes)):
        for what in "send", "send", "hear", "hear", "end":
            step(what, 0)
    assert not open_


@given(st.integers(1, 2000), st.integers(0, 2000))
def test_what_would_never_be_allowed_does_not_fit(messages: int, size: int) -> None:
    quota = ClientQuota(1, messages)
    assert quota.fits(size) == (size + PART_COST <= messages)
    if quota.fits(size):
        assert quota.called(1, size)


@given(st.lists(st.tuples(st.integers(1, 300), st.integers(0, 10_000)), max_size=30), st.integers(1, 100_000))
def test_an_iterator_is_never_asked_for_more_than_was_granted(steps: list[tuple[int, int]], backlog: int) -> None:
    tap = ItemThrottle(backlog)
    granted = drawn = 0
    for items, size in steps:
        tap.granted(items)
        granted += items
        while asked := tap.draw(0):
            drawn += asked
            assert drawn <= granted
            assert tap.draw(0) == 0, "one lot at a time"
            tap.arrived(asked, asked * size)
            tap.validate()
            known = max(1, size)
            assert asked == 1 or asked * known <= backlog or drawn <= granted
        assert drawn == granted, "and all that was granted is given"
        assert tap.draw(backlog) == 0


def test_encode_and_the_frames_of_a_wire_agree() -> None:
    outgoing = SendQueue(WIRE_FRAME_LIMIT)
    message = m.Returned(1, 0.5, b"x" * 300_000)
    outgoing.add(message)
    assert outgoing.take(1 << 20) == encode(message, WIRE_FRAME_LIMIT)
