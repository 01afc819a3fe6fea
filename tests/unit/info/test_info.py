"""`asynqueue.info`: what a call was, and what became of it, for people."""

from __future__ import annotations

import doctest
import inspect
import io
import pickle
import re
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import redirect_stdout
from functools import partial
from typing import Any, NoReturn

import pytest
from twisted.internet.defer import Deferred, ensureDeferred, fail, succeed
from twisted.python.failure import Failure
from typing_extensions import assert_type

from asynqueue.info import Converter, Info, hashIt, showResult, whichThread
from asynqueue.transport.errorcodec import dumpError, loadError


class Reader:
    """Something with every kind of method."""

    def read(self, path: str, n: int = 0) -> str:
        return path * n

    @classmethod
    def open(cls, path: str) -> Reader:
        return cls()

    @staticmethod
    def close() -> None: ...


class LogReader(Reader):
    """It inherits its methods."""


class Adder:
    """It can be called, and has no name of its own."""

    def __call__(self, x: int) -> int:
        return x + 1


class NamedAdder(Adder):
    """It says itself what it is."""

    def __repr__(self) -> str:
        return "NamedAdder(1)"


class Awkward:
    """It raises whatever is asked of it."""

    def __repr__(self) -> NoReturn:
        raise RuntimeError("no repr")

    def __getattr__(self, name: str) -> NoReturn:
        raise RuntimeError("no attributes")

    def __reduce__(self) -> NoReturn:
        raise RuntimeError("no pickle")

    def __call__(self) -> None: ...


class OneWay:
    """It pickles, and does not come out."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return int, ("no number",)


class Secretive:
    """It will not even say what it is an instance of."""

    @property  # type: ignore[misc]  # what is tested
    def __class__(self) -> NoReturn:  # type: ignore[override]  # likewise
        raise RuntimeError("no class")


class AwkwardError(Exception):
    """It will not say what it is."""

    def __str__(self) -> NoReturn:
        raise RuntimeError("no str")


def raised(error: BaseException) -> BaseException:
    """ERROR with a traceback."""
    try:
        raise error
    except BaseException as caught:
        return caught


def test_importing_it_installs_no_reactor() -> None:
    check = "import sys, asynqueue.info; sys.exit('twisted.internet.reactor' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0


class TestTheTextOfACall:
    @pytest.mark.parametrize(
        ("f", "text"),
        [
            (raised, "raised(1, n=2)"),
            (len, "len(1, n=2)"),
            (Reader, "Reader(1, n=2)"),
            (dict[str, int], "dict(1, n=2)"),
            (Reader().read, "Reader.read(1, n=2)"),
            (LogReader().read, "LogReader.read(1, n=2)"),
            (LogReader.read, "Reader.read(1, n=2)"),
            (LogReader.open, "LogReader.open(1, n=2)"),
            (LogReader.close, "Reader.close(1, n=2)"),
            ([].append, "list.append(1, n=2)"),
            (str.upper, "str.upper(1, n=2)"),
            (Adder(), "<Adder object>(1, n=2)"),
            (NamedAdder(), "NamedAdder(1)(1, n=2)"),
            (NamedAdder().__call__, "NamedAdder.__call__(1, n=2)"),
            (partial(divmod, 0), "divmod(0, 1, n=2)"),
            (partial(partial(LogReader().read, "a"), n=3), "LogReader.read('a', 1, n=2)"),
            ("reader.read", "reader.read(1, n=2)"),
            (None, "None[Not Callable!](1, n=2)"),
            ([3], "[3][Not Callable!](1, n=2)"),
        ],
    )
    def test_names_what_was_called(self, f: object, text: str) -> None:
        assert Info().setCall(f, (1,), {"n": 2}).aboutCall() == text

    def test_says_where_a_lambda_is(self) -> None:
        f = lambda x: x  # noqa: E731  # what is tested
        line = f.__code__.co_firstlineno
        name = f"{type(self).__name__}.test_says_where_a_lambda_is.<locals>.<lambda at test_info.py:{line}>"
        assert Info().setCall(f, 1).aboutCall() == f"{name}(1)"

    def test_names_the_class_of_the_instance_given(self) -> None:
        assert Info().setCall(Reader.read, "a", instance=LogReader()).aboutCall() == "LogReader.read('a')"
        assert Info().setCall("read").setCall(args=["a"], instance=LogReader()).aboutCall() == "read('a')"

    def test_is_made_of_what_cannot_be_printed(self) -> None:
        text = Info().setCall(Awkward(), [Awkward()], {"x": Awkward()}).aboutCall()
        told = r"<Awkward instance at 0x\w+>"
        assert re.fullmatch(rf"{told}\({told}, x={told}\)", text)

    def test_is_made_of_what_will_not_say_its_class(self) -> None:
        secret = Secretive()
        assert "ive object at" in Info().setCall(secret, secret, instance=secret).aboutCall()
        assert hashIt([secret]) == hashIt([secret])
        assert showResult(lambda: secret)() is secret

    def test_is_short_for_huge_arguments(self) -> None:
        huge = ["x" * 10_000] * 10_000
        text = Info().setCall(partial(sorted, *huge), huge, {f"k{n}": huge for n in range(1000)}).aboutCall()
        assert text.startswith("sorted('xxx")
        assert len(text) < 3000

    def test_is_short_for_deep_arguments(self) -> None:
        deep: list[Any] = ["x" * 100]
        for _ in range(7):
            deep = [deep] * 6
        assert len(Info().setCall(len, (deep,)).aboutCall()) < 3000

    def test_ends_for_a_partial_of_itself(self) -> None:
        endless: Any = partial(len)
        endless.__setstate__((endless, (), {}, {}))
        assert Info().setCall(endless).aboutCall().endswith("()")

    def test_is_of_the_time_when_it_was_set(self) -> None:
        info, numbers = Info(), [1]
        info.setCall(sorted, (numbers,))
        numbers.append(2)
        assert info.aboutCall() == "sorted([1])"

    def test_names_the_thread_if_it_is_to(self) -> None:
        info = Info(whichThread=True)
        thread = threading.Thread(target=info.setCall, args=(len, "a"), name="over there")
        thread.start()
        thread.join()
        assert info.aboutCall() == "len('a') <Thread: over there>"
        assert info.getInfo(None, "callDict")["thread"] == "over there"

    def test_is_empty_without_a_call(self) -> None:
        assert Info().aboutCall() == ""
        assert Info(remember=True).setCall(len, "a").aboutCall(-1) == ""
        assert Info().ID is None


class TestSettingACall:
    @pytest.mark.parametrize(
        ("metaArgs", "args", "kw"),
        [
            ((len,), (), {}),
            ((len, 1), (1,), {}),
            ((len, "abc"), ("abc",), {}),
            ((len, None), (None,), {}),
            ((len, [1, 2]), (1, 2), {}),
            ((len, (1, 2), {"a": 3}), (1, 2), {"a": 3}),
        ],
    )
    def test_takes_args_as_they_come(self, metaArgs: tuple[Any, ...], args: object, kw: object) -> None:
        told = Info().setCall(*metaArgs).getInfo(None, "callDict")
        assert told == {"f": len, "fs": "len", "args": args, "kw": kw, "instance": None}

    def test_takes_them_by_name_as_well(self) -> None:
        info = Info().setCall(len, args=[1], kw={"a": 2})
        assert info.aboutCall() == "len(1, a=2)"
        assert info.setCall(kw={}).aboutCall() == "len(1)"
        assert info.setCall(args=(3, 4)).aboutCall() == "len(3, 4)"

    def test_leaves_the_callers_objects_alone(self) -> None:
        args, kw = [1], {"a": 2}
        info = Info().setCall(len, args, kw)
        info.getInfo(None, "callDict")["kw"]["b"] = 3
        assert (args, kw) == ([1], {"a": 2})
        args.append(2)
        kw["c"] = 4
        told = info.getInfo(None, "callDict")
        assert (told["args"], told["kw"]) == ((1,), {"a": 2})

    @pytest.mark.parametrize("kw", [{}, {"args": (1,)}])
    def test_needs_a_callable(self, kw: Any) -> None:
        with pytest.raises(ValueError, match="give setCall a callable"):
            Info().setCall(**kw)

    def test_needs_something_to_amend(self) -> None:
        with pytest.raises(ValueError, match="give setCall a callable"):
            Info().setCall(len).setCall()

    def test_refuses_more_than_three(self) -> None:
        with pytest.raises(TypeError, match="got 4"):
            Info().setCall(len, (), {}, None)


class TestRemembering:
    def test_every_call_has_an_ID_of_its_own_and_is_found_by_it(self) -> None:
        info = Info(remember=True)
        IDs = [info.setCall(len, n).ID for n in (1, 2, 1)]
        assert len(set(IDs)) == 3
        assert [info.aboutCall(ID) for ID in IDs] == ["len(1)", "len(2)", "len(1)"]

    def test_is_not_done_unless_asked_for(self) -> None:
        info = Info()
        first = info.setCall(len, 1).ID
        assert info.aboutCall(first) == "len(1)"
        assert info.setCall(len, 2).aboutCall(first) == ""

    def test_ends_with_forgetID(self) -> None:
        info = Info(remember=True)
        first, second = info.setCall(len, 1).ID, info.setCall(len, 2).ID
        info.forgetID(first)
        assert (info.aboutCall(first), info.aboutCall(second)) == ("", "len(2)")
        info.forgetID(second)
        info.forgetID(None)
        assert (info.aboutCall(second), info.aboutCall(), info.ID) == ("", "", None)

    @pytest.mark.parametrize(
        "ask",
        [
            lambda info, ID: info.getInfo(ID, "callDict", nowForget=True),
            lambda info, ID: info.aboutCall(ID, nowForget=True),
            lambda info, ID: info.aboutException(ID, ValueError(), nowForget=True),
            lambda info, ID: info.aboutFailure(Failure(ValueError()), ID, nowForget=True),
        ],
    )
    def test_ends_with_nowForget(self, ask: Callable[[Info, int | None], object]) -> None:
        info = Info(remember=True)
        first = info.setCall(len, 1).ID
        info.setCall(len, 2)
        assert ask(info, first)
        assert info.getInfo(first, "callDict") is None
        assert info.aboutCall() == "len(2)"

    def test_is_bounded_but_for_open_contexts(self) -> None:
        info = Info(remember=True)
        with info.context(len, "open") as held:
            IDs = [info.setCall(len, n).ID for n in range(1005)]
            assert [info.aboutCall(ID) for ID in IDs[:5]] == [""] * 5
            assert all(info.aboutCall(ID) for ID in IDs[5:])
            assert held.aboutCall() == "len('open')"

    def test_keeps_what_is_saved_with_a_call(self) -> None:
        info = Info(remember=True)
        first = info.setCall(len, 1).ID
        info.saveInfo("seconds", 1.5)
        info.setCall(len, 2)
        assert info.saveInfo("seconds", 2.5) == 2.5
        info.saveInfo("tries", 3, first)
        assert info.saveInfo("seconds", 4, -1) == 4
        assert (info.getInfo(first, "seconds"), info.getInfo(first, "tries")) == (1.5, 3)
        assert (info.getInfo(None, "seconds"), info.getInfo(None, "tries")) == (2.5, None)
        assert info.getInfo(-1, "seconds") is None

    def test_keeps_the_texts(self) -> None:
        info = Info().setCall(len, 1)
        texts = info.aboutCall(), info.aboutException(None, ValueError("a")), info.aboutFailure(Failure(ValueError()))
        names = "aboutCall", "aboutException", "aboutFailure"
        assert tuple(info.getInfo(info.ID, name) for name in names) == texts
        assert info.aboutException(info.ID) == texts[1]


class TestAContext:
    def test_is_about_its_own_call_whatever_comes_between(self) -> None:
        info = Info()
        with info.context(len, 1) as one:
            with info.context(len, 1) as other:
                info.setCall(len, 3)
                other.saveInfo("a", 1)
            assert (one.aboutCall(), other.aboutCall()) == ("len(1)", "")
            assert (one.getInfo("a"), one.getInfo("callDict")["args"]) == (None, (1,))
            assert one.nn(raw=True) == (None, len)
            assert one.nn() == (None, Converter().objToPickle(len))
            assert "doing call 'len(1)'" in one.aboutException(ValueError())
            assert "doing call 'len(1)'" in one.aboutFailure(Failure(ValueError()))
        assert one.aboutCall() == ""
        assert info.aboutCall() == "len(3)"

    def test_forgets_when_it_ends_by_an_error(self) -> None:
        info = Info(remember=True)
        with pytest.raises(ValueError, match="mine"), info.context(len, args=[1]) as held:
            raise ValueError("mine")
        assert info.getInfo(held.ID, "callDict") is None


class TestTheTextOfAnError:
    def test_says_what_was_raised_where_by_which_call(self) -> None:
        info = Info().setCall(divmod, (1, 0))
        try:
            divmod(1, 0)
        except ZeroDivisionError as error:
            handled = info.aboutException()
            message = str(error)
        lines = handled.splitlines()
        assert lines[0] == f"Exception 'ZeroDivisionError: {message}' doing call 'divmod(1, 0)':"
        assert lines[1] == "-" * min(len(lines[0]), 79)
        assert lines[2] == "Traceback (most recent call last):"
        assert "divmod(1, 0)" in lines[4]
        assert lines[-1] == f"ZeroDivisionError: {message}"

    def test_is_of_the_call_asked_about(self) -> None:
        info = Info(remember=True)
        first = info.setCall(len, 1).ID
        info.setCall(len, 2)
        assert "'len(1)'" in info.aboutException(first, ValueError())
        assert "'len(1)'" in info.aboutFailure(Failure(ValueError()), first)

    def test_is_empty_when_there_is_no_error(self) -> None:
        assert Info().setCall(len).aboutException() == ""

    def test_needs_no_call(self) -> None:
        assert Info().aboutException(None, ValueError("a: b")).startswith("Exception 'ValueError: a: b':\n-----")

    def test_is_made_of_what_cannot_be_printed(self) -> None:
        text = Info().aboutException(None, raised(AwkwardError()))
        assert text.startswith("Exception 'AwkwardError: (its str raised RuntimeError)':")
        assert "test_info.py" in text

    def test_is_short_and_has_both_ends(self) -> None:
        error = raised(ValueError("x" * 10**6 + "the end"))
        error.__cause__ = raised(KeyError("the origin"))
        text = Info().aboutException(None, error)
        assert len(text) < 25_000
        assert "the origin" in text
        assert text.endswith("the end")

    def test_shows_a_failures_traceback(self) -> None:
        text = Info().aboutFailure(Failure(raised(ValueError("mine"))))
        assert text.startswith("Failure 'ValueError: mine':\n---")
        assert "raise error" in text
        assert text.endswith("ValueError: mine")

    def test_shows_that_of_a_failure_that_was_sent(self) -> None:
        failure: Failure = pickle.loads(pickle.dumps(Failure(raised(ValueError("mine")))))
        text = Info().aboutFailure(failure)
        assert "test_info.py" in text
        assert text.endswith("ValueError: mine")

    def test_shows_the_remote_traceback(self) -> None:
        error = loadError(dumpError(raised(ValueError("mine"))))
        text = Info().aboutFailure(Failure(raised(error)))
        assert text.count("Traceback (most recent call last)") == 2
        assert text.count("raise error") == 3
        assert "RemoteTraceback" in text

    def test_is_an_errbacks_result(self) -> None:
        d = fail(ValueError("mine")).addErrback(Info().setCall(len, 1).aboutFailure)
        got: list[object] = []
        d.addBoth(got.append)
        assert "'len(1)'" in str(got[0])


class TestNamespaceAndName:
    def test_of_a_function_is_none_and_its_pickle(self) -> None:
        namespace, name = Info().setCall(raised).nn()
        assert namespace is None
        assert isinstance(name, bytes)
        assert pickle.loads(name) is raised

    def test_of_a_method_is_its_object_and_its_name(self) -> None:
        reader = LogReader()
        namespace, name = Info().setCall(reader.read).nn()
        assert isinstance(namespace, bytes)
        assert type(pickle.loads(namespace)) is LogReader
        assert name == "read"
        assert Info().setCall(reader.read).nn(raw=True) == (reader, "read")
        assert Info().setCall(LogReader.open).nn(raw=True) == (LogReader, "open")

    def test_of_what_cannot_be_sent_is_nothing(self) -> None:
        assert Info().setCall(Awkward()).nn() == (None, None)
        assert Info().setCall(Awkward()).nn(raw=True) == (None, None)
        assert Info().setCall("no.such.name").nn() == (None, None)
        assert Info().nn() == (None, None)


class TestConverter:
    def test_a_name_is_given_only_if_it_is_that_objects(self) -> None:
        def local() -> None: ...

        local.__qualname__ = "raised"
        names = [Converter().objToFQN(x) for x in (raised, doctest, LogReader.open, local, Awkward(), 1)]
        assert names == [f"{__name__}.raised", "doctest", f"{__name__}.LogReader.open", None, None, None]

    def test_an_object_is_pickled_if_it_comes_out_again(self) -> None:
        assert pickle.loads(Converter().objToPickle([1]) or b"") == [1]
        assert Converter().processObject([1]) == Converter().objToPickle([1])
        assert Converter().objToPickle(Awkward()) is None
        assert Converter().objToPickle(OneWay()) is None
        assert Converter().processObject(Awkward()) is None

    def test_what_cannot_be_pickled_is_named(self) -> None:
        assert Converter().objToPickle(sys.stdout) is None
        assert Converter().processObject(lockOfTheModule) is None
        assert Converter().processObject(unpicklable) == f"{__name__}.unpicklable"


lockOfTheModule = threading.Lock()


class _Unpicklable(Awkward):
    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


unpicklable = _Unpicklable()
unpicklable.__dict__.update(__module__=__name__, __qualname__="unpicklable")


class TestShowResult:
    @pytest.fixture
    def shown(self, capsys: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
        """What was printed since the last time, a call a line, without the numbers."""

        def look() -> list[str]:
            text = capsys.readouterr().out.replace("\n -> ", " -> ")
            return [re.sub(r"^\d{3,}: ", "", line) for line in text.splitlines()]

        return look

    def test_numbers_the_calls(self, capsys: pytest.CaptureFixture[str]) -> None:
        f = showResult(divmod)
        assert [f(7, 2), f(8, 2)] == [(3, 1), (4, 0)]
        out = capsys.readouterr().out
        first, second = (int(line.split(":")[0]) for line in out.splitlines())
        assert second == first + 1
        assert out == f"{first:03d}: divmod(7, 2) -> (3, 1)\n{second:03d}: divmod(8, 2) -> (4, 0)\n"

    def test_shows_an_error_and_raises_it(self, shown: Callable[[], list[str]]) -> None:
        with pytest.raises(ValueError, match="mine"):
            showResult(raising)(ValueError("mine"))
        assert shown() == ["raising(ValueError('mine')) -> raised ValueError: mine"]

    def test_waits_for_a_deferred_and_leaves_it_alone(self, shown: Callable[[], list[str]]) -> None:
        d: Deferred[int] = Deferred()
        giveIt = showResult(itself)
        assert giveIt(d) is d
        assert shown() == []
        d.callback(3)
        got: list[object] = []
        d.addCallback(got.append)
        assert got == [3]
        assert [line.split(" -> ")[1] for line in shown()] == ["3"]

    def test_shows_a_failure_and_leaves_it_a_failure(self, shown: Callable[[], list[str]]) -> None:
        got: list[Any] = []
        showResult(fail)(ValueError("mine")).addErrback(got.append)
        assert isinstance(got[0], Failure)
        assert shown() == ["fail(ValueError('mine')) -> raised ValueError: mine"]

    def test_follows_a_coroutine(self, shown: Callable[[], list[str]]) -> None:
        follow = showResult(doubled)
        assert inspect.iscoroutinefunction(follow)
        got: list[object] = []
        first: Deferred[int] = Deferred()
        ensureDeferred(follow(first)).addCallback(got.append)
        assert shown() == []
        first.callback(2)
        ensureDeferred(follow(fail(KeyError(1)))).addErrback(lambda failure: got.append(failure.type))
        assert got == [4, KeyError]
        assert [line.split(" -> ")[1] for line in shown()] == ["4", "raised KeyError: 1"]

    def test_follows_a_plain_functions_coroutine(self, shown: Callable[[], list[str]]) -> None:
        got: list[object] = []
        ensureDeferred(showResult(lambda: doubled(succeed(2)))()).addCallback(got.append)
        assert got == [4]
        assert [line.split(" -> ")[1] for line in shown()] == ["4"]

    def test_shows_a_method_by_its_objects_class(self, shown: Callable[[], list[str]]) -> None:
        assert SubShower().read("a", n=2) == "aa"
        assert SubShower.read(SubShower(), "a", 1) == "a"
        assert shown() == ["SubShower.read('a', n=2) -> 'aa'", "SubShower.read('a', 1) -> 'a'"]

    def test_shows_the_first_argument_of_what_is_no_method_of_it(self, shown: Callable[[], list[str]]) -> None:
        assert showResult(itself)(3) == 3
        assert shown() == ["itself(3) -> 3"]

    def test_breaks_a_long_line_before_the_result(self, capsys: pytest.CaptureFixture[str]) -> None:
        showResult(itself)("x" * 50)
        call, result = capsys.readouterr().out.splitlines()
        assert call.endswith("x')")
        assert result == f" -> '{'x' * 50}'"

    def test_is_short(self, capsys: pytest.CaptureFixture[str]) -> None:
        showResult(itself)(["x" * 10**6] * 10**4)
        assert len(capsys.readouterr().out) < 1000

    def test_a_closed_output_does_not_harm_the_call(self) -> None:
        with redirect_stdout(io.StringIO()) as out:
            out.close()
            assert showResult(itself)(1) == 1

    @pytest.mark.parametrize("decorate", [lambda f: showResult(whichThread(f)), lambda f: whichThread(showResult(f))])
    @pytest.mark.parametrize("name", ["len", "size"])
    def test_names_the_thread_with_whichThread(self, shown: Callable[[], list[str]], decorate: Any, name: str) -> None:
        def size(x: object) -> int:
            return 1

        size.__qualname__ = "size"
        f = decorate(len if name == "len" else size)
        thread = threading.Thread(target=f, args=("a",), name="over there")
        thread.start()
        thread.join()
        assert shown() == [f"{name}('a') <Thread: over there> -> 1"]

    def test_keeps_the_types(self) -> None:
        f = showResult(whichThread(LogReader.open))
        assert_type(f("a"), Reader)
        with pytest.raises(TypeError):
            f("a", 1)  # type: ignore[call-arg]  # what is tested

    def test_keeps_name_and_docstring(self) -> None:
        assert (showResult(raised).__name__, showResult(raised).__doc__) == ("raised", raised.__doc__)
        assert inspect.signature(showResult(raised)) == inspect.signature(raised)


def raising(error: BaseException) -> NoReturn:
    raise error


def itself(x: Any) -> Any:
    return x


async def doubled(x: Awaitable[int]) -> int:
    return 2 * await x


class Shower(Reader):
    """One of its methods shows its results."""

    @showResult
    def read(self, path: str, n: int = 0) -> str:
        return path * n


class SubShower(Shower):
    """It inherits that method."""


class TestHashIt:
    def test_takes_what_can_be_neither_hashed_nor_pickled(self) -> None:
        class Unhashable(Awkward):
            __hash__ = None  # type: ignore[assignment]  # this is how Python says it

        one, other = Unhashable(), Unhashable()
        assert hashIt(one) == hashIt(one)
        assert hashIt(one) != hashIt(other)

    def test_takes_what_contains_itself_or_is_endlessly_deep(self) -> None:
        ring: list[Any] = [1]
        ring += [ring, ring]
        deep: list[Any] = []
        wide: list[Any] = []
        for _ in range(10_000):
            deep, wide = [deep], [wide, wide]
        assert len({hashIt(ring), hashIt(deep), hashIt(wide)}) == 3

    def test_takes_a_list_that_will_not_be_iterated(self) -> None:
        class Closed(list[int]):
            def __iter__(self) -> NoReturn:
                raise RuntimeError("no items")

        assert isinstance(hashIt(Closed([1])), int)

    def test_takes_any_number(self) -> None:
        assert len({hashIt(), hashIt(1), hashIt(1, 2), hashIt([1, 2]), hashIt((1, 2))}) == 5
        assert len({hashIt(0), hashIt(""), hashIt(b"")}) == 3
        assert hashIt(succeed) == hashIt(succeed)
