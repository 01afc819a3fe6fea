"""Programs written for 0.9: each name is where it was, or is in a table of docs/coming-from-0.9.md."""

from __future__ import annotations

import inspect
import os
import re
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from twisted.internet.defer import Deferred, DeferredList, DeferredSemaphore, inlineCallbacks
from twisted.internet.interfaces import IConsumer
from zope.interface import implementer
from zope.interface.interface import InterfaceClass

import asynqueue
from asynqueue.errors import ImplementationError
from asynqueue.placeholders import GONE, Placeholder
from tests.support.calls import inLoop
from tests.support.names09 import NAMES

PAGE = (Path(__file__).parents[2] / "docs" / "coming-from-0.9.md").read_text()

BY_POSITION = {"func", "f", "fb", "fp", "eventChecker", "namespace", "dName", "objOrRep"}
"""The parameters that the page says are passed by position: callables, and what comes before them."""


def tables() -> set[str]:
    """The names in the first columns of the page's tables."""
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("|")]
    return {name for row in rows for name in re.findall(r"`([\w.]+)`", row)}


TABLES = tables()


def found(name: str) -> Any:
    """What NAME stands for. Raises AttributeError if that is nothing."""
    module, *parts = name.split(".")
    what: Any = import_module(f"asynqueue.{module}")
    for part in parts:
        if isinstance(what, InterfaceClass):
            return what[part]
        what = what if part == "__init__" else getattr(what, part)
    return what


@pytest.mark.parametrize("fact", NAMES)
def test_a_name_is_there_with_its_parameters_or_in_a_table(fact: str) -> None:
    name, _, parameters = fact.rstrip(")").partition("(")
    if name in TABLES or ".".join(name.split(".")[:2]) in TABLES:
        return
    what = found(name)
    if not parameters:
        return
    if isinstance(found(name.rpartition(".")[0]), InterfaceClass):
        assert list(what.positional) == parameters.split(", ")
        return
    taken = inspect.signature(what).parameters
    names = {each.name for each in taken.values() if each.kind not in (each.POSITIONAL_ONLY, each.VAR_KEYWORD)}
    anyName = isinstance(what, type) and any(each.kind is each.VAR_KEYWORD for each in taken.values())
    for parameter in parameters.split(", "):
        assert parameter in names or parameter in BY_POSITION or anyName, (fact, str(inspect.signature(what)))


def test_the_tables_name_what_is_gone_and_nothing_that_is_there() -> None:
    facts = {name.partition("(")[0] for name in NAMES}
    modules = {name.split(".")[0] for name in facts}
    for name in TABLES:
        if name.split(".")[0] not in modules or name.count(".") == 0:
            continue
        if name in ("tasks.Task", "errors.InvariantError"):
            continue  # they are there, and differ
        placeholder = any(f"asynqueue.{name}" == f"{module}.{each}" for module in GONE for each in GONE[module])
        if not placeholder and not name.endswith(("__init__", ".loop", ".resign", ".stopper")):
            assert name in facts, name
            with pytest.raises(AttributeError):
                found(name)


class TestPlaceholders:
    @pytest.mark.parametrize(("module", "name"), [(module, name) for module in GONE for name in GONE[module]])
    def test_can_be_imported_and_say_what_to_write_instead(self, module: str, name: str) -> None:
        what: Any = getattr(import_module(module), name)
        assert f"{module.removeprefix('asynqueue.')}.{name}" in TABLES
        text = re.escape(f"{module}.{name} was a name of AsynQueue 0.9 and is gone: {GONE[module][name]}")
        for use in (
            lambda: what(5, a=6),
            lambda: what.method,
            lambda: type("Mine", (), {}) and make(what),
        ):
            with pytest.raises(ImplementationError, match=text):
                use()
        assert not isinstance(5, what)
        assert not hasattr(what, "__wrapped__")
        assert text.replace("\\", "")[:20] in repr(what).replace("\\", "")

    @pytest.mark.parametrize("module", ["base", "misc", "tasks", "util", "va", "wire"])
    def test_are_none_of_the_names_that_never_were(self, module: str) -> None:
        where: ModuleType = import_module(f"asynqueue.{module}")
        with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
            _ = where.Nothing

    def test_are_no_type_of_name_that_is_there(self) -> None:
        assert not any(isinstance(getattr(asynqueue, name), Placeholder) for name in asynqueue.__all__)


def make(base: Any) -> type:
    """A class with the base BASE."""

    class Mine(base):  # type: ignore[misc]  # that is the point
        pass

    return Mine


class LogReader:
    """Reads a log in a process, and leaves out addresses that it was told to ignore."""

    def __init__(self) -> None:
        self.ignored: set[str] = set()

    def ignore(self, addresses: list[str]) -> int:
        self.ignored.update(addresses)
        return len(self.ignored)

    def __call__(self, path: str) -> Any:
        with open(path) as log:
            for line in log:
                address, _, request = line.strip().partition(" ")
                if address not in self.ignored:
                    yield address, request


@implementer(IConsumer)
class Records:
    """A consumer that registers itself with its producer, and refuses a second time."""

    def __init__(self) -> None:
        self.records: list[Any] = []

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if hasattr(self, "producer"):
            raise RuntimeError("registered already")
        self.producer = producer
        producer.registerConsumer(self)
        self.done: Deferred[None] = Deferred()

    def unregisterProducer(self) -> None:
        del self.producer
        self.done.callback(None)

    def write(self, data: Any) -> None:
        self.records.append(data)


def released(consumer: Records, semaphore: DeferredSemaphore) -> Records:
    semaphore.release()
    return consumer


@inLoop
async def test_the_reader_of_the_seed_runs_over_processes(tmp_path: Path) -> None:
    for n in range(6):
        (tmp_path / f"{n}.log").write_text("10.0.0.7 GET /\n10.0.0.66 GET /evil\n" * 10 * (n + 1))

    @inlineCallbacks
    def run() -> Any:
        reader, lock = LogReader(), asynqueue.DeferredLock()
        lock.acquire()
        queue: Any = asynqueue.ProcessQueue(2)
        assert asynqueue.ProcessQueue.cores() >= 1
        semaphore = DeferredSemaphore(2 * len(queue))
        assert (yield queue.update(reader.ignore, ["10.0.0.66"])) == [1, 1]
        consumers, calls = [], []
        for name in sorted(os.listdir(tmp_path)):
            yield semaphore.acquire()
            consumers.append(Records())
            call = queue.call(reader, str(tmp_path / name), consumer=consumers[-1])
            calls.append(call)
            call.addCallback(released, semaphore)
        results = yield DeferredList(calls)
        assert [consumer for _, consumer in results] == consumers
        lock.release()
        yield lock.acquireAndRelease(vip=True)
        yield queue.shutdown()
        return [len(consumer.records) for consumer in consumers]

    assert await run() == [10 * (n + 1) for n in range(6)]
