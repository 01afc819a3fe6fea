"""What is large goes through shared memory, comes out as it was, and leaves nothing behind."""

from __future__ import annotations

import mmap
import os
import pickle
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.task import deferLater

from asynqueue import ProcessQueue
from asynqueue.core.protocol import bufferpool as shelf
from asynqueue.core.protocol import messages as m
from asynqueue.core.protocol.bufferpool import MOST
from asynqueue.core.protocol.framing import encode
from asynqueue.core.records import CallSpec, Task
from asynqueue.errors import SerializationError
from asynqueue.process import ProcessWorker
from asynqueue.transport import sharedmemory
from asynqueue.transport.callcodec import CallDecoder, CallEncoder
from asynqueue.transport.link import Link
from asynqueue.transport.permits import PermitIssuer
from asynqueue.transport.pickler import LARGE, PickleWriter, plainPickler
from asynqueue.transport.serialization import Codec, loadItems, loads
from asynqueue.transport.sharedmemory import SharedMemoryChannel, pair, referenceLength
from tests.support import calls as kit
from tests.support.calls import echo, failureOf, inLoop, until
from tests.support.features import needs


def dumpResult(result: object, channel: SharedMemoryChannel) -> bytes:
    return Codec(channel.dumps).dumpResult(result)


def dumpItem(item: object, channel: SharedMemoryChannel) -> bytes:
    return Codec(channel.dumps).dumpItem(item)


@pytest.fixture
def ends() -> Iterator[tuple[SharedMemoryChannel, SharedMemoryChannel]]:
    sockets = pair()
    if sockets is None:
        pytest.skip("this system cannot share memory")
    near, far = map(SharedMemoryChannel, sockets)
    yield near, far
    near.close()
    far.close()


def descriptors() -> int:
    """How many this process has open."""
    return len(descriptorsOf())


def descriptorsOf() -> list[str]:
    """Those this process has open."""
    return os.listdir("/proc/self/fd")


def linked(descriptor: str) -> str:
    """What DESCRIPTOR stands for; nothing if it is closed."""
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except FileNotFoundError:
        return ""


VALUES: list[Any] = [
    bytes(LARGE),
    bytearray(b"x" * LARGE),
    "é" * LARGE,
    [bytes(LARGE), {"a": bytes(2 * LARGE + 1)}],
    np.arange(LARGE, dtype="u1"),
    (np.ones((300, 300)), bytes(LARGE), np.zeros(3)),
]


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_large_values_go_through_shared_memory_unchanged(
    value: Any, ends: tuple[SharedMemoryChannel, SharedMemoryChannel]
) -> None:
    near, far = ends
    before = descriptors()
    slip = dumpResult(value, near)
    assert referenceLength(slip) == len(slip) < 200
    assert pickle.dumps(loads(slip, "it", far)) == pickle.dumps(value)
    near.tidy()
    far.tidy()
    assert descriptors() == before


class Counted:
    """What says how often it was pickled."""

    def __init__(self) -> None:
        self.times = 0

    def __reduce__(self) -> tuple[Any, ...]:
        self.times += 1
        return Counted, ()


def test_many_small_values_go_through_shared_memory_pickled_once(
    ends: tuple[SharedMemoryChannel, SharedMemoryChannel],
) -> None:
    counted = Counted()
    value = [counted, *range(LARGE)]
    slip = dumpResult(value, ends[0])
    assert referenceLength(slip) == len(slip)
    assert loads(slip, "it", ends[1])[1:] == value[1:]
    assert counted.times == 1


def test_what_is_small_goes_as_it_is(ends: tuple[SharedMemoryChannel, SharedMemoryChannel]) -> None:
    payload = dumpResult(bytes(LARGE // 2), ends[0])
    assert not referenceLength(payload)
    assert loads(payload, "it", ends[1]) == bytes(LARGE // 2)


def test_an_array_from_shared_memory_is_writable(
    ends: tuple[SharedMemoryChannel, SharedMemoryChannel],
) -> None:
    array = loads(dumpResult(np.zeros(LARGE), ends[0]), "it", ends[1])
    array += 1
    assert array.sum() == LARGE


FRAME = 1 << 16
"""Bytes in a frame of pickle's."""


def ofMain() -> None:
    """It is found in ``__main__``, by its test."""


@given(
    st.lists(st.sampled_from([0, 1, 40_000, FRAME - 1, FRAME, 100_000, 2 * FRAME, 3 * LARGE]), max_size=6),
    st.integers(0, 6),
)
def test_a_name_in_main_is_seen_wherever_it_stands(sizes: list[int], where: int) -> None:
    values: list[object] = [bytes(size) for size in sizes]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ofMain, "__module__", "__main__")
        patch.setattr(sys.modules["__main__"], "ofMain", ofMain, raising=False)
        for more in ([], [ofMain]):
            chunks = PickleWriter()
            plainPickler(chunks, None).dump([*values[:where], *more, *values[where:]])
            assert chunks.isForeign() == bool(more)


@pytest.mark.parametrize("size", [LARGE, 3 * LARGE])
@pytest.mark.parametrize("beginning", [b"", b"\x80", b"\x95"])
def test_what_only_reads_like_such_a_name_comes_out_as_it_was(
    size: int, beginning: bytes, ends: tuple[SharedMemoryChannel, SharedMemoryChannel]
) -> None:
    value = beginning + b"__main__" + bytes(size)
    payload = dumpResult(value, ends[0])
    assert referenceLength(payload)
    assert loads(payload, "it", ends[1]) == value


@needs("memfd_create", "SCM_RIGHTS")
@settings(max_examples=30)
@given(st.lists(st.sampled_from([0, 1, LARGE, 3 * LARGE]), max_size=6))
def test_small_and_large_items_come_in_order(sizes: list[int]) -> None:
    sockets = pair()
    if sockets is None:
        pytest.skip("this system cannot share memory")
    near, far = map(SharedMemoryChannel, sockets)
    payload = b"".join(dumpItem(bytes(size), near) for size in sizes)
    assert loadItems(len(sizes), payload, far) == ([bytes(size) for size in sizes], None)
    near.close()
    far.close()


def test_what_is_not_wanted_is_let_go_of(ends: tuple[SharedMemoryChannel, SharedMemoryChannel]) -> None:
    before = descriptors()
    near, far = CallEncoder(ends[0]), CallDecoder(ends[1])
    payloads = [near.dump(echo, (bytes(LARGE),), {}, describe=str) for _ in range(MOST + 1)]
    far.drop(payloads[0])
    far.drop(payloads[MOST])
    assert far.load(payloads[2])[1] == (bytes(LARGE),)
    for end in ends:
        end.tidy()
    assert descriptors() == before + 2 * (MOST - 2)
    for end in ends:
        end.close()
    assert descriptors() == before - 3  # the sockets, and the one in reserve


def test_what_was_read_is_filled_again_with_what_has_room_in_it(
    ends: tuple[SharedMemoryChannel, SharedMemoryChannel],
) -> None:
    near, far = ends
    values = [bytes([n]) * (3 * LARGE - n) for n in range(9)]
    open_ = []
    for value in values:
        open_.append(loads(dumpResult(value, near), "it", far))
        memories = [name for name in map(linked, descriptorsOf()) if "asynqueue" in name]
        assert len(memories) == 2, "one, that each side has"
    assert open_ == values


def test_what_is_not_read_yet_is_not_filled_again(ends: tuple[SharedMemoryChannel, SharedMemoryChannel]) -> None:
    near, far = ends
    values = [bytes([n]) * LARGE for n in range(2 * MOST)]
    slips = [dumpResult(value, near) for value in values]
    assert [loads(slip, "it", far) for slip in reversed(slips)] == values[::-1]


def test_memory_that_is_given_back_is_free_before_the_other_side_hears_of_it(
    ends: tuple[SharedMemoryChannel, SharedMemoryChannel],
) -> None:
    near, far = ends
    loads(dumpResult(os.urandom(8 * LARGE), near), "it", far)
    kept = next(file for file in descriptorsOf() if "asynqueue" in linked(file))
    with open(f"/proc/self/fd/{kept}", "rb") as memory:
        assert os.fstat(memory.fileno()).st_blocks > 0
        near.tidy()
        assert os.fstat(memory.fileno()).st_blocks == 0


def test_memory_is_freed_on_both_sides_where_a_part_of_it_cannot_be(
    ends: tuple[SharedMemoryChannel, SharedMemoryChannel],
    without: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    near, far = ends
    before = descriptors()
    without("")
    monkeypatch.delattr(mmap, "MADV_REMOVE")
    for _ in range(3):
        loads(dumpResult(os.urandom(8 * LARGE), near), "it", far)
        near.tidy()
        far.tidy()
    assert "asynqueue" not in Path("/proc/self/maps").read_text()
    assert descriptors() == before


@needs("memfd_create", "SCM_RIGHTS")
def test_without_a_receiver_large_values_go_through_the_pipe() -> None:
    sockets = pair()
    assert sockets is not None
    sockets[1].close()
    near = SharedMemoryChannel(sockets[0])
    payload = dumpResult(bytes(LARGE), near)
    near.close()
    assert not referenceLength(payload)
    assert pickle.loads(payload) == bytes(LARGE)


def test_what_came_before_the_other_side_died_is_there_though_it_had_not_read_all(
    ends: tuple[SharedMemoryChannel, SharedMemoryChannel],
) -> None:
    near, far = ends
    one, other = dumpResult(b"1" * LARGE, far), dumpResult(b"2" * LARGE, far)
    assert loads(one, "it", near) == b"1" * LARGE  # which the far side never hears of
    far.close()
    assert loads(other, "it", near) == b"2" * LARGE


def test_too_many_on_the_way_go_through_the_stream(ends: tuple[SharedMemoryChannel, SharedMemoryChannel]) -> None:
    payloads = [dumpResult(bytes(LARGE), ends[0]) for _ in range(600)]
    assert not all(map(referenceLength, payloads))
    assert {len(loads(payload, "it", ends[1])) for payload in payloads} == {LARGE}


def total(*values: Any) -> int:
    return sum(len(value) for value in values)


def chunks(number: int) -> Iterator[bytes]:
    for _ in range(number):
        yield bytes(LARGE)


@inLoop
async def test_a_queue_s_arguments_results_and_items_go_there_and_back() -> None:
    async with ProcessQueue(1) as queue:
        value = os.urandom(3 * LARGE)
        assert await queue.call(bytes, value) == value
        assert await queue.call(total, value, bytes(1), value) == 6 * LARGE + 1
        assert (await queue.call(np.ones, (LARGE,))).sum() == LARGE
        assert [len(chunk) async for chunk in await queue.call(chunks, 5)] == 5 * [LARGE]


@needs("memfd_create", "SCM_RIGHTS")
@inLoop
async def test_memory_that_is_kept_is_given_back_on_both_sides_when_nothing_large_is_sent_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shelf, "KEEP", 0.01)
    async with ProcessQueue(1) as queue:
        await queue.call(echo, bytes(8 * LARGE))
        assert memories()
        while (await queue.call(memories)) or memories():
            await deferLater(reactor, 0.01)


@needs("memfd_create", "SCM_RIGHTS")
@inLoop
async def test_memory_that_is_in_use_when_the_rest_is_given_back_is_given_back_later(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shelf, "KEEP", 0.01)
    async with ProcessQueue(1) as queue:
        worker = queue.workers()[0]
        assert isinstance(worker, ProcessWorker)
        outcome = worker.run(Task(1, CallSpec.of(kit.waitAfterMark, tmp_path / "started", tmp_path / "go")))
        await until((tmp_path / "started").exists)
        unwanted = worker.run(Task(2, CallSpec.of(len, bytes(LARGE))))
        unwanted.cancel()
        await until(lambda: worker.process._tidied)
        assert memories() == 1
        (tmp_path / "go").touch()
        await outcome
        await until(lambda: not memories())


def memories() -> int:
    """How many memories this process has a descriptor of."""
    return sum("asynqueue" in linked(descriptor) for descriptor in descriptorsOf())


@contextmanager
def shortage(left: int) -> Iterator[None]:
    """So many descriptors can be opened meanwhile, and no more."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, descriptorsOf())) + 20, before[1]))
    taken: list[int] = []
    try:
        with suppress(OSError):
            while True:
                taken.append(os.dup(0))
        for _ in range(left):
            os.close(taken.pop())
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("left", [0, 1, 2])
@pytest.mark.parametrize("value", [os.urandom(LARGE), np.arange(LARGE)], ids=["bytes", "array"])
def test_what_comes_when_descriptors_are_short_comes_as_it_is(
    left: int, value: Any, ends: tuple[SharedMemoryChannel, SharedMemoryChannel]
) -> None:
    near, far = ends
    before = descriptors()
    payloads = [dumpResult(value, near) for _ in range(3)]
    with shortage(left):
        for payload in payloads:
            assert pickle.dumps(loads(payload, "it", far)) == pickle.dumps(value)
    assert pickle.dumps(loads(dumpResult(value, near), "it", far)) == pickle.dumps(value)
    near.tidy()
    far.tidy()
    assert descriptors() == before


@pytest.mark.parametrize("most", [0, 1, 2, 3])
def test_no_more_are_kept_than_a_quarter_of_the_descriptors_that_there_may_be(
    most: int, ends: tuple[SharedMemoryChannel, SharedMemoryChannel], monkeypatch: pytest.MonkeyPatch
) -> None:
    near, far = ends
    before = descriptors()
    monkeypatch.setattr(resource, "getrlimit", lambda _: (4 * most + 3, 10_000))
    for number in range(4):
        payloads = [dumpResult(bytes([number]) * (LARGE + n), near) for n in range(3)]
        assert near.kept + far.kept <= most
        assert [loads(payload, "it", far) for payload in payloads] == [bytes([number]) * (LARGE + n) for n in range(3)]
        near.receiveNotices()
        assert near.kept + far.kept <= most
        assert descriptors() - before <= most
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    payloads = [dumpResult(bytes(LARGE), near) for n in range(MOST)]
    assert all(loads(payload, "it", far) == bytes(LARGE) for payload in payloads)
    assert near.kept == far.kept == MOST


def test_what_comes_without_its_memory_says_so_and_is_not_kept(
    ends: tuple[SharedMemoryChannel, SharedMemoryChannel], monkeypatch: pytest.MonkeyPatch
) -> None:
    near, far = ends
    before = descriptors()
    payloads = [dumpResult(bytes(LARGE), near) for _ in range(3)]
    with monkeypatch.context() as patch, shortage(left=0):
        patch.setattr(sharedmemory, "_reserve", nullcontext())
        for payload in payloads[:2]:
            with pytest.raises(
                SerializationError, match=r"OSError: \[Errno 24\] Too many open files, for what is large"
            ):
                loads(payload, "it", far)
        far.drop(payloads[2])  # nor does it matter to who does not want it
    near.tidy()
    assert descriptors() == before


def test_items_that_nobody_takes_any_more_leave_nothing_in_use(
    ends: tuple[SharedMemoryChannel, SharedMemoryChannel],
) -> None:
    near, far = ends
    link = Link(PermitIssuer(), lambda: None, lambda: None, lambda _: None, near)
    for _ in range(3 * MOST):
        link.dataReceived(encode(m.Items(1, 1, dumpItem(bytes(LARGE), far))))
    assert len([name for name in map(linked, descriptorsOf()) if "asynqueue" in name]) == 2
    link.conclude("the test is over")


@inLoop
async def test_a_process_that_dies_leaves_no_shared_memory() -> None:
    async with ProcessQueue(1) as queue:
        await queue.call(total, bytes(LARGE))
        poison = queue.call(kit.die, retries=0)
        after = [queue.call(total, bytes(LARGE)) for _ in range(20)]
        await failureOf(poison)
        assert [await d for d in after] == 20 * [LARGE]
    assert not [name for name in os.listdir("/dev/shm") if "asynqueue" in name]


def test_a_socket_that_is_closed_gives_nothing(ends: tuple[SharedMemoryChannel, SharedMemoryChannel]) -> None:
    slip = dumpResult(bytes(LARGE), ends[0])
    ends[1].close()
    with pytest.raises(ValueError, match="cannot be unpickled"):
        loads(slip, "it", ends[1])
