"""What `asynqueue.info` guarantees, whatever is called with whatever."""

from __future__ import annotations

from collections import OrderedDict
from copy import deepcopy
from functools import partial
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, multiple, rule

from asynqueue.info import Info, hashIt, knowncalls
from asynqueue.info import text as calltext


class Awkward:
    """It raises an error for being looked at, in the way it is told to."""

    def __init__(self, how: str) -> None:
        object.__setattr__(self, "how", how)

    def __getattribute__(self, name: str) -> Any:
        if object.__getattribute__(self, "how") == name:
            raise RuntimeError(name)
        return object.__getattribute__(self, name)

    def __repr__(self) -> str:
        raise RuntimeError("repr")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("eq")

    def __hash__(self) -> int:
        raise RuntimeError("hash")


awkward = st.sampled_from(["__name__", "__qualname__", "__reduce_ex__", "__len__"]).map(Awkward)
leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=300) | st.binary(max_size=300)
keys = st.integers() | st.text(max_size=5)


def nested(leaf: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """LEAF, in lists, tuples and dicts."""
    return st.recursive(
        leaf,
        lambda x: st.lists(x) | st.lists(x).map(tuple) | st.dictionaries(keys, x),
        max_leaves=30,
    )


anything = nested(leaves | awkward)
callables = st.deferred(
    lambda: (
        st.sampled_from([len, Info, "".join, Info().setCall, lambda: None, None, "a.b"])
        | awkward
        | st.builds(partial, st.sampled_from([len, Info().setCall]), anything, key=anything)
    )
)


@given(callables, st.lists(anything), st.dictionaries(st.text(), anything), st.none() | awkward)
def test_every_call_has_a_text_and_it_is_short(f: object, args: list[Any], kw: dict[str, Any], owner: object) -> None:
    text = Info().setCall(f, args, kw, instance=owner).aboutCall()
    assert text.endswith(")")
    assert len(text) < calltext.CALL_LENGTH + 50


@given(nested(leaves))
def test_equal_objects_have_equal_hashes_in_any_order_of_a_dict(x: Any) -> None:
    assert hashIt(x) == hashIt(deepcopy(x)) == hashIt(turned(x))


def turned(x: Any) -> Any:
    """X with its dicts made the other way round."""
    if isinstance(x, dict):
        return OrderedDict((k, turned(v)) for k, v in reversed(x.items()))
    return type(x)(map(turned, x)) if isinstance(x, list | tuple) else x


@given(st.sets(st.integers()))
def test_equal_sets_have_equal_hashes(x: set[int]) -> None:
    assert hashIt(x) == hashIt(frozenset(x)) == hashIt({*reversed([*x])})


small = nested(st.integers(0, 9) | st.text("ab", max_size=2))


@given(small, small)
def test_unequal_objects_have_different_hashes(x: Any, y: Any) -> None:
    assert (hashIt(x) == hashIt(y)) == (x == y)


@given(st.lists(anything))
def test_everything_has_a_hash(xs: list[Any]) -> None:
    assert hashIt(*xs) == hashIt(*xs)


class EachCallIsToldOfUntilItIsForgottenOrAThousandLater(RuleBasedStateMachine):
    """An `Info` against a dict that is in the order of setting; here, of five rather than a thousand."""

    IDs = Bundle[int]("IDs")
    contexts = Bundle[Any]("contexts")

    def __init__(self) -> None:
        super().__init__()
        self.bound = knowncalls.REMEMBERED
        knowncalls.REMEMBERED = 5
        self.info = Info(remember=True)
        # The model: what is said of each call; the ones in contexts, apart; the current one.
        self.past: dict[int, str] = {}
        self.held: dict[int, str] = {}
        self.current: int | None = None
        self.number = 0

    def teardown(self) -> None:
        knowncalls.REMEMBERED = self.bound

    def told(self, ID: int | None) -> str:
        assert ID is not None
        self.number += 1
        self.current = ID
        return f"len({self.number})"

    @rule(target=IDs)
    def setCall(self) -> int:
        ID = self.info.setCall(len, self.number + 1).ID
        assert ID is not None
        assert ID not in {*self.past, *self.held}
        self.past[ID] = self.told(ID)
        self.past = dict(list(self.past.items())[-5:])
        return ID

    @rule(target=contexts)
    def enter(self) -> Any:
        context = self.info.context(len, self.number + 1)
        holder = context.__enter__()
        self.held[holder.ID] = self.told(holder.ID)
        return context, holder

    @rule(pair=consumes(contexts))
    def leave(self, pair: Any) -> None:
        pair[0].__exit__(None, None, None)
        del self.held[pair[1].ID]
        self.forgot(pair[1].ID)
        assert pair[1].aboutCall() == ""

    @rule(ID=IDs)
    def forget(self, ID: int) -> None:
        self.info.forgetID(ID)
        self.past.pop(ID, None)
        self.forgot(ID)

    @rule(target=IDs, ID=IDs)
    def save(self, ID: int) -> Any:
        self.info.saveInfo("note", ID, ID)
        assert self.info.getInfo(ID, "note") == (ID if ID in self.past else None)
        return multiple()

    @rule(ID=IDs)
    def ask(self, ID: int) -> None:
        assert self.info.aboutCall(ID) == self.past.get(ID, "")
        assert self.current == self.info.ID

    @rule(pair=contexts)
    def askInContext(self, pair: Any) -> None:
        assert pair[1].aboutCall() == self.held[pair[1].ID]

    def forgot(self, ID: int) -> None:
        if self.current == ID:
            self.current = None


TestEachCallIsToldOf = EachCallIsToldOfUntilItIsForgottenOrAThousandLater.TestCase
