"""A call runs in the context of its caller, in the main loop and in threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import ContextVar, copy_context
from typing import Any

import pytest
from twisted.internet.defer import Deferred, gatherResults
from twisted.python import context as twistedContext

from asynqueue import AsyncWorker, TaskQueue, ThreadLooper, ThreadQueue, ThreadWorker, deferToThread
from asynqueue.reactor.callercontext import callerContext
from tests.support.calls import inLoop

user: ContextVar[str] = ContextVar("user", default="nobody")


async def who() -> str:
    return user.get()


def names() -> Iterator[str]:
    try:
        for _ in range(3):
            yield user.get()
    finally:
        closed.append(user.get())


def change() -> str:
    user.set("changed")
    return user.get()


closed: list[str] = []


async def request(queue: TaskQueue, name: str, f: Callable[[], Any]) -> Any:
    user.set(name)
    return await queue.call(f)


async def each(queue: TaskQueue, f: Callable[[], Any]) -> list[Any]:
    """What F gives to three callers who ask in one turn."""
    asking = [Deferred.fromCoroutine(request(queue, name, f)) for name in ("alice", "bob", "carol")]
    return await gatherResults(asking)


@pytest.mark.parametrize("kind", [AsyncWorker, ThreadWorker])
@inLoop
async def test_a_call_sees_the_variables_of_its_own_caller(kind: type[AsyncWorker] | type[ThreadWorker]) -> None:
    async with TaskQueue(kind()) as queue:
        assert await each(queue, user.get) == ["alice", "bob", "carol"]
        assert await each(queue, change) == ["changed"] * 3
        assert await each(queue, user.get) == ["alice", "bob", "carol"], "what a call sets is its own"
        assert await queue.call(user.get) == "nobody"
        assert await queue.update(user.get) == ["nobody"]


@inLoop
async def test_a_coroutine_sees_the_variables_of_its_caller() -> None:
    async with TaskQueue(AsyncWorker()) as queue:
        assert await each(queue, who) == ["alice", "bob", "carol"]


@pytest.mark.parametrize("kind", [AsyncWorker, ThreadWorker])
@inLoop
async def test_an_iterator_runs_and_ends_in_the_context_of_its_caller(kind: Callable[[], Any]) -> None:
    closed.clear()
    async with TaskQueue(kind()) as queue:
        deferators = await each(queue, names)
        for name, deferator in zip(("alice", "bob", "carol"), deferators, strict=True):
            assert [item async for item in deferator] == [name] * 3
    assert sorted(closed) == ["alice", "bob", "carol"]


@inLoop
async def test_a_call_that_is_tried_again_enters_its_context_again() -> None:
    started: list[str] = []

    def slow(gate: Any = None) -> str:
        started.append(user.get())
        if len(started) == 1:
            release.wait(20)
        return user.get()

    import threading

    release = threading.Event()
    user.set("dora")
    async with ThreadQueue() as queue:
        d = queue.call(slow, timeout=0.1)
        assert await d == "dora", "the thread of the first attempt is still in its copy of the context"
        release.set()
    assert started == ["dora", "dora"]


@inLoop
async def test_a_thread_has_the_twisted_context_of_the_caller() -> None:
    def get() -> Any:
        return twistedContext.get("who", "nobody")

    looper = ThreadLooper()
    async with ThreadQueue() as queue:
        for defer in (deferToThread, queue.deferToThread, queue.call, looper.call, looper.deferToThread):
            assert await twistedContext.call({"who": "alice"}, defer, get) == "alice"
            assert await defer(get) == "nobody"
    await looper.stop()
    await deferToThread()


@inLoop
async def test_keywords_named_as_those_of_a_context_reach_the_call() -> None:
    def f(**kw: object) -> dict[str, object]:
        return kw

    user.set("eve")
    async with ThreadQueue() as queue:
        given = {"f": 0, "ctx": 1, "func": 2, "self": 3, "callable": 4}
        assert await queue.deferToThread(f, **given) == given


def test_nothing_is_carried_where_nothing_is_set() -> None:
    from contextvars import Context

    assert Context().run(callerContext) is None
    assert Context().run(lambda: (user.set("x"), callerContext())[1]) is not None
    assert copy_context().run(lambda: twistedContext.call({"x": 1}, callerContext)) is not None
