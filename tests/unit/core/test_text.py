"""Unit tests of the texts of objects, calls and errors."""

from __future__ import annotations

import functools
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any, NoReturn

import attrs
import pytest

from asynqueue.core.text import callableName, className, describe, errorMessage, errorText, fullClassName, valueText

Point = namedtuple("Point", "x y")  # this is the kind that is tested


@dataclass
class Page:
    number: int
    content: bytes


@attrs.define
class Sheet:
    number: int = 1


class Text(str):
    def __format__(self, spec: str) -> NoReturn:
        raise SystemExit("no format")

    def __str__(self) -> NoReturn:
        raise SystemExit("no text")


class TextError(Exception):
    def __str__(self) -> str:
        return Text("odd")

    def __repr__(self) -> str:
        return Text("odd")


class Quiet(Exception):
    def __str__(self) -> NoReturn:
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (1, "1"),
        (True, "True"),
        (None, "None"),
        ("a", "'a'"),
        (b"a", "b'a'"),
        ((), "()"),
        ((1,), "(1,)"),
        (tuple(range(7)), "(0, 1, 2, 3, 4, 5, ...)"),
        ([], "[]"),
        ([[[[[1]]]]], "[[[[[...]]]]]"),
        ({}, "{}"),
        ({1: 2, "a": 3}, "{1: 2, 'a': 3}"),
        (dict.fromkeys(range(9)), "{0: None, 1: None, 2: None, 3: None, 4: None, 5: None, ...}"),
        (set(), "set()"),
        (frozenset(), "frozenset()"),
        ({3, 1, 2}, "{1, 2, 3}"),
        (frozenset({1}), "frozenset({1})"),
        (Point(1, 2), "Point(x=1, y=2)"),
        (Page(1, b""), "Page(number=1, content=b'')"),
        (Sheet(), "Sheet(number=1)"),
        (functools.partial(int, "1", base=8), "functools.partial(<class 'int'>, '1', base=8)"),
    ],
)
def test_a_value_reads_as_its_repr(x: object, text: str) -> None:
    assert valueText(x) == text


@pytest.mark.parametrize(
    "make",
    [
        lambda: bytes(50_000_000),
        lambda: bytearray(50_000_000),
        lambda: "x" * 50_000_000,
        lambda: [bytes(10_000_000)] * 5,
        lambda: Page(1, bytes(50_000_000)),
        lambda: Point(bytes(50_000_000), 1),
        lambda: dict.fromkeys(range(1_000_000)),
        lambda: set(range(1_000_000)),
        lambda: functools.partial(len, bytes(50_000_000)),
        lambda: Page(1, bytes(50_000_000)).__repr__,
        lambda: 1 << 30_000_000,
    ],
)
def test_the_text_of_a_large_object_takes_no_time(make: Callable[[], Any]) -> None:
    x = make()
    start = perf_counter()
    assert len(describe(len, (x,))) < 600
    assert perf_counter() - start < 0.01


def test_a_hostile_object_is_described_by_its_class() -> None:
    class Meta(type):  # Inside of a function, because pytest looks at what a module has.
        def __getattribute__(cls, name: str) -> NoReturn:
            raise SystemExit(name)

    class Odd(metaclass=Meta):
        pass

    assert className(Odd()).endswith("Odd")
    assert fullClassName(Odd()).startswith("tests.unit.core.test_text.test_a_hostile")
    assert "Odd" in valueText(Odd())
    assert "Odd" in callableName(Odd())
    assert errorText(Quiet()) == "Quiet: (its str raised KeyboardInterrupt)"
    assert errorMessage(TextError()) == "odd"
    assert valueText([TextError()]) == "[odd]"
    assert describe(len, (Text("a"), 10**9999)) == "len('a', <an integer of 33216 bits>)"
