"""Unit tests of what a result is."""

from __future__ import annotations

import io
import sys
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import Any, NoReturn

import pytest
from twisted.internet.defer import Deferred

from asynqueue.core.results import Kind, isDeferred, kindOf


class Items:
    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        raise StopIteration


class Closed(Items):
    __next__ = None  # type: ignore[assignment]  # so that its objects are no iterators


class Later(Deferred[int]):
    pass


async def items() -> AsyncIterator[int]:
    yield 1


ITEMS = Items()


@pytest.mark.parametrize(
    ("x", "kind"),
    [
        (1, Kind.VALUE),
        ([], Kind.VALUE),
        (iter([]), Kind.ITERATOR),
        ((n for n in "a"), Kind.ITERATOR),
        (map(len, ()), Kind.ITERATOR),
        (ITEMS, Kind.ITERATOR),
        (Closed(), Kind.VALUE),
        (Items, Kind.VALUE),
        (weakref.proxy(ITEMS), Kind.VALUE),
        (io.BytesIO(), Kind.VALUE),
        (io.StringIO(), Kind.VALUE),
        (sys.__stdout__, Kind.VALUE),
        (items(), Kind.ASYNC_ITERATOR),
        (Deferred(), Kind.DEFERRED),
        (Later(), Kind.DEFERRED),
    ],
)
def test_each_result_is_of_one_kind(x: Any, kind: Kind) -> None:
    assert kindOf(x) is kind


def test_a_coroutine_is_one() -> None:
    async def f() -> None: ...

    coroutine = f()
    assert kindOf(coroutine) is Kind.COROUTINE
    coroutine.close()


def test_nothing_is_a_deferred_without_twisted(monkeypatch: pytest.MonkeyPatch) -> None:
    d: Deferred[None] = Deferred()
    monkeypatch.delitem(sys.modules, "twisted.internet.defer")
    assert not isDeferred(d)


def test_a_hostile_object_is_not_asked() -> None:
    # Inside of a function, because pytest looks at what a module has.
    class Meta(type):
        def __getattribute__(cls, name: str) -> NoReturn:
            raise SystemExit(name)

        def __hash__(cls) -> NoReturn:
            raise SystemExit("no hash")

        def __instancecheck__(cls, x: object) -> NoReturn:
            raise SystemExit("no check")

    class Odd(metaclass=Meta):
        pass

    class OddItems(Items, metaclass=Meta):
        pass

    class Lazy:
        def __getattribute__(self, name: str) -> NoReturn:
            raise SystemExit(name)

    kinds = [kindOf(x) for x in (Odd(), Lazy(), weakref.proxy(Items()), OddItems())]
    assert kinds == [Kind.VALUE, Kind.VALUE, Kind.VALUE, Kind.ITERATOR]
