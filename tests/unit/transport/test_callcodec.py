"""A call as bytes: small when its callable has a name, whole when it has not, and on its own in either case."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from operator import add
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynqueue.errors import SerializationError
from asynqueue.transport import callcodec as callees
from asynqueue.transport.callcodec import CallDecoder, CallEncoder
from tests.support.calls import Local, echo


def dump(near: CallEncoder, f: Any, /, *args: Any, **kw: Any) -> bytes:
    return near.dump(f, args, kw, describe=lambda: "the call")


VALUES = st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3), max_leaves=5)
CALLABLES = st.sampled_from([add, echo, dict, Local, [].append, "".join, partial(add, 1), dict.fromkeys, os.getpid])


@given(st.lists(st.tuples(CALLABLES, st.lists(VALUES, max_size=3), st.dictionaries(st.text(min_size=1), VALUES))))
def test_a_call_comes_out_as_it_went_in_whatever_was_called_before(calls: list[Any]) -> None:
    near, far = CallEncoder(), CallDecoder()
    for f, args, kw in calls:
        f_, args_, kw_, more = far.load(dump(near, f, *args, **kw))
        assert (args_, kw_, more) == (tuple(args), kw, [])
        assert f_ == f or repr(f_)[:20] == repr(f)[:20]  # what goes by value is another one


def test_a_callable_with_a_name_is_pickled_once_and_found_once() -> None:
    near, far = CallEncoder(), CallDecoder()
    first, second = dump(near, echo, 1), dump(near, echo, 2)
    assert first[:-10] == second[:-10]
    assert far.load(first)[0] is far.load(second)[0] is echo
    assert list(far._known.values()) == [echo]


def test_two_calls_that_are_passed_the_same_object_do_not_share_it_over_there() -> None:
    near, far = CallEncoder(), CallDecoder()
    shared: list[int] = []
    one, other = far.load(dump(near, echo, shared))[1][0], far.load(dump(near, echo, shared))[1][0]
    one.append(1)
    assert other == shared == []


def test_a_function_of_main_goes_by_value() -> None:
    program = "\n".join(
        [
            "def f(x): return x + 1",
            "from asynqueue.transport.callcodec import CallEncoder",
            "import sys",
            "sys.stdout.buffer.write(CallEncoder().dump(f, (1,), {}, describe=str))",
        ]
    )
    sent = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=True).stdout
    f, args, _, _ = CallDecoder().load(sent)
    assert f(*args) == 2


def test_a_name_that_means_something_else_by_now_is_not_relied_upon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.calls.echo", lambda value: -value)
    f, args, _, _ = CallDecoder().load(dump(CallEncoder(), echo, 5))
    assert f(*args) == 5


def test_what_cannot_be_pickled_is_named_though_the_callable_can_be() -> None:
    near = CallEncoder()
    for _ in range(2):
        with pytest.raises(SerializationError, match="argument 2 of the call cannot be pickled"):
            dump(near, add, 1, sys._getframe())


def test_no_more_callables_are_remembered_than_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callees, "KNOWN", 2)
    near, far = CallEncoder(), CallDecoder()
    for f in (add, echo, dict, os.getpid, add):
        assert far.load(dump(near, f))[0] is f
        assert len(near._known) <= 2
        assert len(far._known) <= 2


def test_the_definitions_of_a_call_that_is_dropped_count(monkeypatch: pytest.MonkeyPatch) -> None:
    main = ModuleType("__main__")
    exec("n = 5\ndef f(): return n\ndef g(): return f()", vars(main))
    monkeypatch.setitem(sys.modules, "__main__", main)
    near, far = CallEncoder(), CallDecoder()
    far.drop(dump(near, main.g))
    again = dump(near, main.f)
    assert len(again) < 200  # It goes by its key alone.
    f = far.load(again)[0]
    assert f() == 5
    assert f is not main.f
