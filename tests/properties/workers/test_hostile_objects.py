"""Hostile objects, which raise whenever they are looked at, in each place where an object of a user can stand.

Each call settles, with an error or a result, within a bounded time. Its neighbours have their results, and the
shutdown ends and leaves nothing. The objects raise in one or several of their special methods, and in those of their
metaclass.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from random import Random
from typing import Any, NoReturn

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from asynqueue import AsyncWorker, ListConsumer, ProcessQueue, TaskQueue, ThreadQueue
from tests.support.calls import inLoop

METHODS = [
    "__getattr__",
    "__getattribute__",
    "__repr__",
    "__str__",
    "__hash__",
    "__eq__",
    "__bool__",
    "__len__",
    "__iter__",
    "__next__",
    "__reduce_ex__",
    "__reduce__",
    "__getstate__",
    "__format__",
    "__call__",
    "__class__",
    "__cause__",
    "__traceback__",
    "args",
]
PROPERTIES = {"__class__", "__cause__", "__traceback__", "args"}
META = ("__getattr__", "__getattribute__", "__instancecheck__", "__subclasscheck__", "__hash__", "__eq__", "__repr__")
ERRORS: tuple[type[BaseException], ...] = (ValueError, SystemExit, BaseException, RecursionError, StopIteration)
PATIENCE = 5


def hostile(methods: list[str], meta: list[str], error: type[BaseException], base: type) -> Any:
    """Return an object of a class derived from BASE whose METHODS, and those of its metaclass META, raise ERROR."""

    def refuse(self: object, *args: object, **kw: object) -> NoReturn:
        raise error("hostile")

    namespace = {name: property(refuse) if name in PROPERTIES else refuse for name in methods}
    Meta = type("Meta", (type,), dict.fromkeys(meta, refuse))
    return type.__call__(Meta("Hostile", (base,), namespace))


def made(kind: tuple[list[str], list[str], type[BaseException]], base: type = object) -> Any:
    """Return a hostile object, or if it cannot be made at all, a dead proxy."""
    try:
        return hostile(*kind, base)
    except BaseException:
        return weakref.proxy(set())


def returned(kind: Any) -> Any:
    return made(kind)


def raised(kind: Any) -> NoReturn:
    error = made(kind, Exception)
    raise error if issubclass(type(error), BaseException) else ValueError("it could not be made")


def items(kind: Any) -> Iterator[Any]:
    yield 1
    yield made(kind)
    raised(kind)


def taken(*args: Any, **kw: Any) -> int:
    return len(args)


def drawn(draw: Random) -> tuple[list[str], list[str], type[BaseException]]:
    """Draw a kind of hostile object."""
    meta = draw.sample(META, draw.randint(0, 1))
    # Twisted's log asks the class of an error, and lets a SystemExit out of that.
    return draw.sample(METHODS, draw.randint(1, 2)), meta, draw.choice(ERRORS) if not meta else ValueError


PLACES = ("function", "argument", "keyword", "series", "result", "item", "fed", "error", "consumer", "iterable")


def placed(queue: TaskQueue, place: str, kind: Any) -> Deferred[Any]:
    """Make a call with a hostile object of KIND in PLACE. What `call` itself raises is its error."""
    try:
        if place == "function":
            return queue.call(made(kind), 1)
        if place == "argument":
            return queue.call(taken, made(kind))
        if place == "keyword":
            return queue.call(taken, x=made(kind))
        if place == "series":
            return queue.call(taken, series=made(kind)).addTimeout(0.05, reactor)
        if place == "result":
            return queue.call(returned, kind)
        if place == "error":
            return queue.call(raised, kind)
        if place == "fed":
            return queue.call(items, kind, consumer=ListConsumer())
        if place == "consumer":
            return queue.call(items, kind, consumer=made(kind))
        if place == "item":
            return queue.call(items, kind).addCallback(lambda deferator: Deferred.fromCoroutine(drained(deferator)))
        return Deferred.fromCoroutine(drained(queue.map(taken, iter(made(kind)))))
    except BaseException as error:
        return Deferred.fromCoroutine(raising(error))


async def drained(deferator: Any) -> int:
    number = 0
    async for _ in deferator:
        number += 1
    return number


async def raising(error: BaseException) -> None:
    raise ValueError("refused by call itself") from None


QUEUES: dict[str, Callable[[], TaskQueue]] = {
    "main loop": lambda: TaskQueue(AsyncWorker()),
    "thread": ThreadQueue,
    "process": lambda: ProcessQueue(1),
}


def settled(result: object) -> str:
    """Return how a call has ended, and drop what it gave."""
    return "failed" if type(result) is Failure else "ended"


@pytest.mark.parametrize("where", QUEUES)
@pytest.mark.parametrize("seed", range(8))
@inLoop
async def test_a_hostile_object_harms_its_own_call_alone(where: str, seed: int) -> None:
    draw = Random(seed)
    queue = QUEUES[where]()
    try:
        calls = []
        neighbours = []
        for n, place in enumerate(draw.sample(PLACES, len(PLACES))):
            kind = drawn(draw)
            calls.append((place, kind, placed(queue, place, kind)))
            neighbours.append(queue.call(abs, -n))
        for place, kind, call in calls:
            call.addTimeout(PATIENCE, reactor)
            outcome = await call.addBoth(settled)
            assert outcome in ("failed", "ended"), (place, kind)
        for n, neighbour in enumerate(neighbours):
            assert await neighbour.addTimeout(PATIENCE, reactor) == n
    finally:
        await queue.shutdown().addTimeout(PATIENCE, reactor)
