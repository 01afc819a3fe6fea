"""Objects as bytes: what crosses, what does not, and what is said of it."""

from __future__ import annotations

import copyreg
import pickle
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynqueue.errors import SerializationError
from asynqueue.transport.errorcodec import RemoteTraceback, dumpError, loadError
from asynqueue.transport.pickler import dumps
from asynqueue.transport.serialization import (
    INLINE,
    Resident,
    loadItems,
    loads,
)

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.just("__main__"),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


class Rude:
    """Raises whatever it is asked for."""

    def __init__(self, error: type[BaseException] = ZeroDivisionError) -> None:
        self.error = error

    def __reduce__(self) -> str:
        raise self.error("not me")

    def __repr__(self) -> str:
        raise ValueError("I have no name")


class RudeError(Exception):
    def __reduce__(self) -> str:
        raise TypeError("it stays")

    def __str__(self) -> str:
        raise ValueError("it says nothing")


class FrozenError(Exception):
    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name} stays as it is")


def caused(kind: type[Exception], args: tuple[Any, ...]) -> Exception:
    """An error as tblib makes it anew, which Dask has do so."""
    error = kind(*args)
    error.__cause__ = None
    return error


class CauselessError(Exception):
    @property
    def __cause__(self) -> None:  # type: ignore[override]  # that is the point of it
        return None


class Unlucky:
    """Goes in and does not come out."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return int, ("not a number",)


class TestObjects:
    @given(plain)
    def test_what_goes_in_comes_out(self, x: Any) -> None:
        assert loads(dumps(x), "it") == x

    def test_a_closure_comes_out_as_one(self) -> None:
        n = 40
        f = loads(dumps(lambda x: x + n), "it")
        assert f(2) == 42

    def test_what_pickle_can_carry_goes_by_pickle(self) -> None:
        assert dumps(threading.Event) == pickle.dumps(threading.Event, 5)

    def test_what_belongs_to_main_goes_by_value(self) -> None:
        def f() -> int:
            return 42

        f.__module__ = "__main__"
        f.__qualname__ = "f"
        assert loads(dumps(f), "it")() == 42

    @pytest.mark.parametrize("payload", [b"", b"junk", pickle.dumps([1])[:-1], b"\x80\x05cnowhere\nnothing\n."])
    def test_bytes_that_are_nothing_are_an_error_that_says_what_they_were_for(self, payload: bytes) -> None:
        with pytest.raises(SerializationError, match=r"the thing cannot be unpickled: [A-Z]"):
            loads(payload, "the thing")

    def test_a_result_that_cannot_be_carried_is_named_by_its_type(self) -> None:
        with pytest.raises(SerializationError, match=r"the result, of type Rude, .* ZeroDivisionError: not me"):
            INLINE.dumpResult(Rude())


class TestCalls:
    def test_one_comes_out_with_its_parts(self) -> None:
        payload = INLINE.dumpCall(
            (Resident(3, "x"), (1, "a"), {"b": 2}), Resident(3, "x"), (1, "a"), {"b": 2}, lambda: ""
        )
        assert loads(payload, "it") == (Resident(3, "x"), (1, "a"), {"b": 2})

    @pytest.mark.parametrize(
        ("f", "args", "kw", "culprit"),
        [
            (len, (1, Rude()), {}, "argument 2"),
            (len, (1,), {"width": Rude()}, "argument width"),
            (Rude(), (1,), {}, "the callable"),
            (len, (1, Rude(SystemExit)), {}, "argument 2"),
            (len, (1,), {"width": Rude(KeyboardInterrupt)}, "argument width"),
        ],
    )
    def test_the_part_that_cannot_be_carried_is_named(
        self, f: object, args: tuple[Any, ...], kw: dict[str, Any], culprit: str
    ) -> None:
        with pytest.raises(SerializationError) as raised:
            INLINE.dumpCall((f, args, kw), f, args, kw, lambda: "the call so and so")
        cause = raised.value.__cause__
        message = f"{culprit} of the call so and so cannot be pickled: {type(cause).__name__}: not me"
        assert str(raised.value) == message
        assert isinstance(cause, (ZeroDivisionError, SystemExit, KeyboardInterrupt))

    @pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit])
    def test_a_result_that_cannot_be_carried_is_named_by_its_type(self, error: type[BaseException]) -> None:
        with pytest.raises(SerializationError, match=f"^the result, of type Rude, .*: {error.__name__}: not me$"):
            INLINE.dumpResult(Rude(error))

    def test_an_object_that_goes_with_it_and_cannot_be_carried_fails_it(self) -> None:
        with pytest.raises(SerializationError, match=r"^so and so cannot be pickled: ZeroDivisionError"):
            INLINE.dumpCall((len, (1,), {}, Rude()), len, (1,), {}, lambda: "so and so")


class TestErrors:
    def test_one_comes_out_as_itself_caused_by_its_traceback(self) -> None:
        try:
            raise KeyError("gone")
        except KeyError as raised:
            error = loadError(dumpError(raised))
        assert type(error) is KeyError
        assert error.args == ("gone",)
        assert isinstance(error.__cause__, RemoteTraceback)
        assert "test_one_comes_out_as_itself" in str(error.__cause__)
        assert str(error.__cause__).endswith("KeyError: 'gone'\n")

    def test_its_attributes_come_out_too(self) -> None:
        error = OSError(2, "No such file", "there")
        error.hint = "look elsewhere"  # type: ignore[attr-defined]  # any exception takes any attribute
        came = loadError(dumpError(error))
        assert (came.args, vars(came)) == ((2, "No such file"), {"hint": "look elsewhere"})
        assert isinstance(came, OSError)
        assert came.filename == "there"

    def test_an_error_that_pickle_refuses_is_rebuilt_from_its_parts(self) -> None:
        try:
            raise RudeError
        except RudeError as raised:
            error = loadError(dumpError(raised))
        assert type(error) is RudeError
        assert "raise RudeError" in str(error.__cause__)

    def test_an_argument_that_cannot_be_unpickled_is_left_out(self) -> None:
        error = loadError(dumpError(ValueError(Unlucky())))
        assert type(error) is ValueError
        assert "ky object at" in str(error.args[0])
        assert "without argument 1: ValueError: invalid literal for int" in error.__notes__[0]

    def test_an_argument_that_exits_while_it_is_pickled_is_left_out(self) -> None:
        error = loadError(dumpError(ValueError(Rude(SystemExit))))
        assert type(error) is ValueError
        assert "SystemExit: not me" in error.__notes__[0]

    @pytest.mark.parametrize("kind", [FrozenError, CauselessError])
    def test_one_that_takes_no_cause_is_given_it_all_the_same(self, kind: type[Exception]) -> None:
        error = loadError(dumpError(kind("so it is")))
        assert (type(error), error.args) == (kind, ("so it is",))
        assert "so it is" in str(BaseException.__dict__["__cause__"].__get__(error))

    @pytest.mark.parametrize("kind", [FrozenError, CauselessError])
    def test_nor_by_what_a_library_does_with_errors(
        self, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def reduced(error: BaseException) -> tuple[Any, ...]:
            return caused, (type(error), error.args)

        monkeypatch.setitem(copyreg.dispatch_table, kind, reduced)
        self.test_one_that_takes_no_cause_is_given_it_all_the_same(kind)

    @pytest.mark.parametrize(
        ("payload", "message"),
        [
            (b"junk", "the exception cannot be unpickled"),
            (pickle.dumps(("no error", "text")), "an exception came out as tuple"),
            (pickle.dumps(3), "an exception came out as int"),
            (pickle.dumps((ValueError("alone"),)), "an exception came out as tuple"),
        ],
    )
    def test_bytes_that_are_none_give_an_error_that_says_so(self, payload: bytes, message: str) -> None:
        error = loadError(payload)
        assert isinstance(error, SerializationError)
        assert message in str(error)

    def test_an_error_that_brings_its_traceback_along_comes_without(self) -> None:
        def bring() -> BaseException:
            try:
                raise ValueError("mine")
            except ValueError as error:
                return error

        class Bringing(Exception):
            def __reduce__(self) -> tuple[Any, ...]:
                return (bring, ())

        error = loadError(dumpError(Bringing()))
        assert (type(error), error.__traceback__) == (Bringing, None)


class TestItems:
    @given(st.lists(plain, max_size=10))
    def test_what_goes_in_comes_out(self, items: list[Any]) -> None:
        assert loadItems(len(items), b"".join(map(INLINE.dumpItem, items))) == (items, None)

    def test_what_one_refers_to_twice_is_nothing_to_the_next(self) -> None:
        twice = "twice"
        items = [[], (twice, twice), [twice], {twice: twice}]
        assert loadItems(4, b"".join(map(INLINE.dumpItem, items))) == (items, None)

    @pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit])
    def test_one_that_cannot_be_carried_is_named_by_its_type(self, error: type[BaseException]) -> None:
        with pytest.raises(SerializationError) as raised:
            INLINE.dumpItem(Rude(error))
        assert str(raised.value) == f"an item, of type Rude, cannot be pickled: {error.__name__}: not me"

    @given(st.lists(plain, max_size=10), st.lists(plain, max_size=10))
    def test_those_before_one_that_does_not_come_out_do(self, before: list[Any], after: list[Any]) -> None:
        items = [*before, Unlucky(), *after]
        came, error = loadItems(len(items), b"".join(map(INLINE.dumpItem, items)))
        assert came == before
        assert "an item cannot be unpickled: ValueError: invalid literal" in str(error)

    def test_fewer_than_were_announced_is_an_error(self) -> None:
        items, error = loadItems(3, INLINE.dumpItem(1) + INLINE.dumpItem(2))
        assert items == [1, 2]
        assert isinstance(error, SerializationError)

    def test_one_stands_for_what_it_was_when_it_was_given(self) -> None:
        reused = [1]
        first = INLINE.dumpItem(reused)
        reused[0] = 2
        assert loadItems(2, first + INLINE.dumpItem(reused)) == ([[1], [2]], None)
