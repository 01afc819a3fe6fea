"""The public names: each where a program looks for it and explained, and nothing else."""

from __future__ import annotations

import inspect
import pkgutil
import re
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest
from zope.interface.interface import InterfaceClass

import asynqueue

# What the contract has in each module, and with it what one of these names gives or takes.
NAMES: dict[str, set[str]] = {
    "base": {"TaskQueue"},
    "null": {"NullQueue"},
    "threads": {
        "Consumerator",
        "Filerator",
        "IterationGetter",
        "OrderedItemProducer",
        "PoolUser",
        "ThreadLooper",
        "ThreadQueue",
        "ThreadWorker",
        "deferToThread",
    },
    "bridges": {"Consumerator", "Filerator", "IterationGetter", "OrderedItemProducer", "PoolUser"},
    "process": {
        "CallTimes",
        "ProcessBase",
        "ProcessQueue",
        "ProcessStats",
        "ProcessUniverse",
        "ProcessWorker",
        "cores",
        "deferToProcess",
    },
    "workers": {"AsyncWorker", "DaskWorker", "ProcessWorker", "ThreadWorker", "WireWorker"},
    "iteration": {
        "Deferator",
        "Delay",
        "IterationProducer",
        "ListConsumer",
        "Prefetcherator",
        "deferToDelay",
        "iteratorToProducer",
    },
    "util": {"CallRunner", "DeferredLock", "DeferredTracker", "callAfterDeferred", "killProcess", "o2p", "p2o"},
    "info": {"Converter", "Info", "InfoHolder", "hashIt", "showResult", "whichThread"},
    "interfaces": {
        "Clock",
        "Consumer",
        "DelayedCall",
        "Departed",
        "Disconnected",
        "IWorker",
        "ItemSink",
        "ItemSource",
        "Producer",
        "Recaller",
        "Reconnected",
        "Report",
        "Reporter",
        "Resignation",
        "Resignator",
        "Resizable",
        "Resizer",
        "Restarted",
        "Serializer",
        "ThreadCaller",
        "Tracker",
        "Window",
        "Worker",
    },
    "errors": {
        "AsynQueueError",
        "AuthenticationError",
        "ImplementationError",
        "InvariantError",
        "NotReadyError",
        "ProcessError",
        "QueueRunError",
        "SerializationError",
        "ThreadError",
        "TimeoutError",
        "WorkerError",
        "WorkerLost",
    },
}

# What has a contract of its own, and tests of that.
ELSEWHERE = {"wire": {"WireQueue", "WireWorker"}, "dask": {"DaskWorker"}}

# The protocols of the contract are at the top, too, but a star gives them to nobody.
PROTOCOLS = {"Clock", "Consumer", "Producer", "Serializer", "Tracker", "Worker"}

# What the others give or take; it is to be had from its module.
BESIDES = {"CallTimes", "InfoHolder", "ProcessStats"}

TOP = {"CallSpec", "Task", "__version__"}
TOP |= {name for module, names in NAMES.items() if module != "interfaces" for name in names} - BESIDES

EVERY = sorted((module, name) for module, names in NAMES.items() for name in names)
OURS = [(module, name) for module, name in EVERY if name not in {"DaskWorker", "WireWorker", "Resignation"}]


def home(module: str) -> ModuleType:
    return import_module(f"asynqueue.{module}")


def test_the_top_level_has_the_names_of_the_contract_and_no_others() -> None:
    assert set(asynqueue.__all__) == TOP | {name for names in ELSEWHERE.values() for name in names}
    assert len(asynqueue.__all__) == len(set(asynqueue.__all__))


@pytest.mark.parametrize("module", sorted(NAMES))
def test_a_public_module_has_the_names_of_the_contract_and_no_others(module: str) -> None:
    assert set(home(module).__all__) == NAMES[module]


@pytest.mark.parametrize(("module", "name"), EVERY)
def test_a_name_is_the_same_thing_wherever_it_is_imported_from(module: str, name: str) -> None:
    there = {id(getattr(home(other), name)) for other, names in NAMES.items() if name in names}
    if name in TOP | PROTOCOLS:
        there.add(id(getattr(asynqueue, name)))
    assert len(there) == 1


@pytest.mark.parametrize("module", sorted(NAMES))
def test_what_a_public_module_defines_is_public(module: str) -> None:
    defined = {
        name
        for name, value in vars(home(module)).items()
        if (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__ == f"asynqueue.{module}"
    }
    assert {name for name in defined if not name.startswith("_")} <= NAMES[module]


def test_no_other_module_has_public_names_of_its_own() -> None:
    public = {name for names in (*NAMES.values(), *ELSEWHERE.values(), TOP) for name in names}
    apart = {*NAMES, *ELSEWHERE, "core", "testing"}
    for found in pkgutil.iter_modules(asynqueue.__path__, "asynqueue."):
        name = found.name.removeprefix("asynqueue.")
        if name not in apart and not name.startswith("dask"):
            assert set(getattr(import_module(found.name), "__all__", ())) <= public, found.name


def explanation(owner: Any, *values: Any) -> str:
    """What the docstrings of VALUES say, with those of what they refer to: of OWNER, or of the package."""
    text = "\n".join(inspect.getdoc(value) or "" for value in values)
    for reference in re.findall(r"`([\w.]+)`", text):
        last = reference.rpartition(".")[2]
        text += "\n" + (inspect.getdoc(getattr(owner, last, None) or getattr(asynqueue, last, None)) or "")
    return text


def callables(value: Any) -> Iterator[tuple[str, Any, str]]:
    """What can be called of VALUE: its name, itself, and what is said of it."""
    if not inspect.isclass(value):
        yield value.__name__, value, explanation(None, value)
        return
    family = [kind for kind in value.__mro__ if kind.__module__.startswith("asynqueue.")]
    if inspect.isfunction(value.__init__) and not getattr(value, "_is_protocol", False):
        yield value.__name__, value.__init__, explanation(value, *family)
    for name, member in vars(value).items():
        if inspect.isfunction(member) and (not name.startswith("_") or name == "__call__"):
            yield f"{value.__name__}.{name}", member, explanation(value, getattr(value, name), *family)


@pytest.mark.parametrize(("module", "name"), OURS)
def test_a_name_has_a_docstring_that_says_what_each_argument_is(module: str, name: str) -> None:
    value = getattr(home(module), name)
    assert inspect.getdoc(value), name
    if isinstance(value, InterfaceClass):
        return  # its methods have no `self`
    for what, f, said in callables(value):
        assert inspect.getdoc(f) or what == name, f"{what} has no docstring"
        unsaid = [
            parameter.name
            for parameter in inspect.signature(f).parameters.values()
            if parameter.name not in ("self", "args", "kw") and not re.search(rf"\b{parameter.name}\b", said, re.I)
        ]
        assert unsaid == [], f"{what} does not say what {', '.join(unsaid)} is"
