"""Hostile objects, which raise whenever they are looked at, and calls that have, return or raise them.

Worker processes and servers import this module.
"""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator, Collection, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from asynqueue.wire import WireWorkerUniverse
from tests.support.calls import Collector

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

PROPERTIES = (
    "__class__",
    "__dict__",
    "__doc__",
    "__module__",
    "__name__",
    "__qualname__",
    "__self__",
    "__func__",
    "__cause__",
    "__context__",
    "__suppress_context__",
    "__traceback__",
    "__notes__",
    "args",
)
METHODS = (
    "__getattr__",
    "__getattribute__",
    "__setattr__",
    "__repr__",
    "__str__",
    "__hash__",
    "__eq__",
    "__ne__",
    "__bool__",
    "__len__",
    "__iter__",
    "__next__",
    "__aiter__",
    "__anext__",
    "__await__",
    "__contains__",
    "__getitem__",
    "__index__",
    "__float__",
    "__reduce_ex__",
    "__reduce__",
    "__getstate__",
    "__setstate__",
    "__copy__",
    "__format__",
    "__call__",
    "__get__",
    "__del__",
    "__dir__",
    "__sizeof__",
    "__buffer__",
    *PROPERTIES,
    "with_traceback",
    "add_note",
    "registerProducer",
    "unregisterProducer",
    "write",
    "close",
    "addBoth",
)
META = (
    "__getattr__",
    "__getattribute__",
    "__instancecheck__",
    "__subclasscheck__",
    "__hash__",
    "__eq__",
    "__repr__",
    "__bool__",
    "__len__",
    "__iter__",
    "__call__",
    "__reduce_ex__",
    "__module__",
    "__name__",
    "__qualname__",
    "__mro__",
    "__class__",
    "__dict__",
    "mro",
)
META_PROPERTIES = frozenset(("__module__", "__name__", "__qualname__", "__mro__", "__class__", "__dict__"))

ERRORS: tuple[type[BaseException], ...] = (
    ValueError,
    AttributeError,
    RecursionError,
    MemoryError,
    StopIteration,
    StopAsyncIteration,
    GeneratorExit,
    KeyboardInterrupt,
    SystemExit,
    BaseException,
)


class Kind(NamedTuple):
    """A kind of hostile object: METHODS of its class, and META of its metaclass, raise ERROR, or RETURN nonsense."""

    methods: tuple[str, ...]
    meta: tuple[str, ...]
    error: type[BaseException]
    returns: bool


def hostile(kind: Kind, base: type) -> Any:
    """Return a hostile object of KIND, of a class that is named Hostile and is derived from BASE."""

    def refuse(self: object, *args: object, **kw: object) -> Any:
        if kind.returns:
            return NotImplemented
        raise kind.error("hostile")

    def namespace(names: tuple[str, ...], properties: Collection[str]) -> dict[str, Any]:
        return {name: property(refuse) if name in properties else refuse for name in names}

    Meta: Any = type
    if kind.meta:
        Meta = type("Meta", (type,), namespace(kind.meta, META_PROPERTIES))
    cls = type.__call__(Meta, "Hostile", (base,), namespace(kind.methods, PROPERTIES))
    new: Any = base.__new__
    made = new(cls)
    if base is Collector:
        made.__dict__["got"] = []
    return made


def made(kind: Kind, base: type = object) -> Any:
    """Return a hostile object, or if Python cannot make it at all, a dead proxy."""
    try:
        return hostile(kind, base)
    except BaseException:
        return weakref.proxy(set())


# What calls do.


def returned(kind: Kind) -> Any:
    return made(kind)


def raised(kind: Kind) -> NoReturn:
    error = made(kind, Exception)
    raise error if issubclass(type(error), BaseException) else ValueError("Hostile: it could not be made")


def items(kind: Kind) -> Iterator[Any]:
    yield 1
    yield made(kind)
    raised(kind)


def iterator(kind: Kind) -> Any:
    """Return a hostile iterator, without items."""
    return made(kind, type("Iterator", (), {"__iter__": lambda self: self, "__next__": lambda self: next(iter(()))}))


def taken(*args: Any, **kw: Any) -> int:
    return len(args)


async def returnedLater(kind: Kind) -> Any:
    return made(kind)


async def raisedLater(kind: Kind) -> NoReturn:
    raised(kind)


async def itemsLater(kind: Kind) -> AsyncIterator[Any]:
    yield 1
    yield made(kind)
    raised(kind)


def echo(value: int) -> int:
    return value


def fired(kind: Kind) -> Deferred[Any]:
    """Return a Deferred with a hostile result."""
    from twisted.internet.defer import succeed

    return succeed(1).addCallback(lambda _: made(kind))


class Owner:
    """Its methods are called in updates, so that it becomes resident."""

    def raised(self, kind: Kind) -> NoReturn:
        raised(kind)

    def taken(self) -> None:
        pass


class Hostilities(WireWorkerUniverse):
    """The same, on a server."""

    returned = staticmethod(returned)
    raised = staticmethod(raised)
    items = staticmethod(items)
    iterator = staticmethod(iterator)
    taken = staticmethod(taken)
    returnedLater = staticmethod(returnedLater)
    raisedLater = staticmethod(raisedLater)
    itemsLater = staticmethod(itemsLater)
    fired = staticmethod(fired)
    echo = staticmethod(echo)
