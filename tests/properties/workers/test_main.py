"""A random program behaves the same as ``__main__`` and as a module that its worker has imported.

The worker is the codec of a link's two ends, without a process: `tests/unit/transport/test_script.py` has processes. A
global that the program binds anew is bound anew in the worker too: of a module, no worker would hear of that.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asynqueue.transport.callcodec import CallDecoder, CallEncoder
from asynqueue.transport.pickler import dumps
from asynqueue.transport.script.context import using
from asynqueue.transport.script.namespace import Namespace
from asynqueue.transport.serialization import loads

NAMES = 4
"""How many functions, and how many globals, a program has."""

_global = st.sampled_from([f"g{n}" for n in range(NAMES)])
_function = st.integers(0, NAMES - 1)
_fresh = st.sampled_from(["[3]", "{'a': [4]}", "C0()", "C1([5])", "(1, [2])", "[C1(), C0, f0]", "[lambda: g0]"])
"""What a global is bound to: another object each time, since the same object is not sent again."""

_value = st.sampled_from(["0", "None", "C0", "f0", "C1", "LAMBDA", "ENUM.A", "kind", "cached"]) | _fresh

BODIES = [
    "return {g}",
    "global {g}; {g} = [x]; return x",
    "global {g}; {g} = [{g}, x]; return x",
    "return f{lower}(x)",
    "return [f{lower}(x), {g}]",
    "return C0(x), C1.made, C1(x)",
    "C1.made += 1; return C1.made, {g}",
    "return (lambda: ({g}, x))()",
    "globals()['{g}'] = [x]; return {g}",
    "return [{g} for _ in range(2)]",
    "return C1.get(x), isinstance(x, C0)",
    "return SHARED[0](), SHARED[1]()",
    "return x is C0, x is ENUM.A, x is f{lower}, type(x) is C1",
    "return cached(type(x).__name__), cached.cache_info().misses",
    "return kind(x)",
    "return [x, lambda: {g}][1]()",
]
DECORATORS = ["", "", "", "@twice\n"]

HEAD = """
import enum, functools
class C0:
    def __init__(self, x=None): self.x = x
    def __repr__(self): return f"{type(self).__name__}({self.x!r})"
class C1(C0):
    made = 0
    __slots__ = ("y",)
    def get(x): return x, g0
class ENUM(enum.Enum):
    A = 1
def twice(f):
    @functools.wraps(f)
    def wrapped(x): return f(x), f(x)
    return wrapped
def counter():
    n = 0
    def up():
        nonlocal n
        n += 1
        return n
    return up, lambda: n
SHARED = counter()
LAMBDA = lambda: g1
LAMBDA2 = lambda x: (g1, LAMBDA())
@functools.lru_cache
def cached(name): return [name]
@functools.singledispatch
def kind(x): return "any", g2
@kind.register
def _(x: list): return "list", g3
"""


@st.composite
def definitions(draw: st.DrawFn, number: int) -> str:
    """The source of function NUMBER, which calls only those of lower numbers."""
    body = draw(st.sampled_from(BODIES))
    if number == 0:
        body = body.replace("f{lower}", "C0")
    text = body.format(g=draw(_global), lower=draw(st.integers(0, max(0, number - 1))))
    return f"{draw(st.sampled_from(DECORATORS))}def f{number}(x=None): {text}\n"


_operation = st.one_of(
    st.tuples(st.just("call"), _function.map("f{}".format), _value),
    st.tuples(st.just("call"), st.sampled_from(["C1.get", "C0", "kind", "LAMBDA2", "SHARED[0]"]), _value),
    st.tuples(st.just("bind"), _global, _fresh),
    st.tuples(st.just("exec"), _function.flatmap(definitions), st.just("")),
    st.tuples(st.just("call"), st.builds("lambda x: (f{}(x), {})".format, _function, _global), _value),
    st.tuples(st.just("delete"), _global, st.just("")),
)


class Program:
    """A program that is there twice: as ``__main__``, and as the module that a worker would have imported."""

    def __init__(self, source: str) -> None:
        self.main = ModuleType("__main__")
        self.model = ModuleType("__main__")
        self.exec(source)
        self._namespace = Namespace()
        self._decoder = CallDecoder(namespace=self._namespace)

    def exec(self, source: str) -> None:
        for module in (self.main, self.model):
            exec(source, vars(module))

    def call(self, encoder: CallEncoder, f: str, x: str) -> tuple[Any, Any]:
        """Call F with X in the worker and in the model. Return both results, comparable."""
        main, model = vars(self.main), vars(self.model)
        theirs, passed, _, _ = self._decoder.load(encoder.dump(eval(f, main), (eval(x, main),), {}, describe=str))
        with using(self._namespace):
            payload = dumps(outcome(theirs, *passed))
        return described(loads(payload, "the result"), main), described(outcome(eval(f, model), eval(x, model)), model)


def outcome(f: Any, *args: Any) -> Any:
    try:
        return f(*args)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def described(obj: Any, names: dict[str, Any]) -> Any:
    """Say what OBJ is, by the NAMES that its program has: objects of two programs can then be compared."""
    if isinstance(obj, (list, tuple)):
        return [type(obj).__name__, *(described(each, names) for each in obj)]
    if isinstance(obj, dict):
        return [(name, described(each, names)) for name, each in obj.items()]
    if type(obj) in (names["C0"], names["C1"]):
        return type(obj).__name__, described(obj.x, names)
    if callable(obj) or type(obj) is names["ENUM"]:
        return type(obj).__name__, [name for name in sorted(names) if names[name] is obj and name[0] != "g"]
    return repr(obj)


@settings(max_examples=150)
@given(st.tuples(*map(definitions, range(NAMES))), st.lists(_operation, min_size=1, max_size=25))
def test_a_program_behaves_the_same_as_main_and_as_a_module(
    functions: tuple[str, ...], operations: list[tuple[str, str, str]]
) -> None:
    program = Program(HEAD + "".join(functions) + "".join(f"g{n} = [{n}]\n" for n in range(NAMES)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "__main__", program.main)
        encoder = CallEncoder()
        for what, first, second in operations:
            if what == "call":
                ours, right = program.call(encoder, first, second)
                assert ours == right
            elif what == "delete":
                if first in vars(program.main):  # else nothing happens in the program
                    program.exec(f"globals().pop({first!r}, None)")
            else:
                program.exec(f"{first} = {second}" if what == "bind" else first)
