"""What a type checker holds a user's program to, as mypy says it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest
from mypy import api

ROOT = Path(__file__).parents[2]

PRELUDE = """
from collections.abc import Iterator
from typing import Any
from twisted.internet.defer import Deferred
from asynqueue import CallSpec, Deferator, Task, TaskQueue

def plain(x: int, y: str = "") -> int: return x
def nothing() -> None: ...
def items(n: int) -> Iterator[int]: yield n
def later(x: int) -> Deferred[int]: raise NotImplementedError
async def coroutine(x: int) -> int: return x
def anything() -> Any: ...

class Consumer:
    def registerProducer(self, producer: Any, streaming: bool) -> None: ...
    def unregisterProducer(self) -> None: ...
    def write(self, data: Any) -> None: ...

async def main(queue: TaskQueue) -> None:
"""

Check = Callable[[str], list[str]]


@pytest.fixture(scope="module")
def check(tmp_path_factory: pytest.TempPathFactory) -> Check:
    """Have mypy read a program whose `main` has the lines given: what it says, without the places."""
    directory = tmp_path_factory.mktemp("typing")

    def run(lines: str) -> list[str]:
        program = directory / "program.py"
        body = dedent(lines).strip().splitlines()
        program.write_text(PRELUDE + "".join(f"    {line}\n" for line in body))
        config = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(directory / "cache")]
        out, err, _ = api.run([*config, "--no-error-summary", "--hide-error-context", str(program)])
        assert not err, err
        messages = re.findall(r"^[^:]+program\.py:\d+: (?:error|note): (.*)$", out, re.MULTILINE)
        assert bool(messages) == bool(out.strip()), out
        return messages

    return run


def revealed(messages: list[str]) -> list[str]:
    """The types in MESSAGES, by their short names; nothing else may be in them."""
    types = [re.fullmatch(r'Revealed type is "(.*)"', message) for message in messages]
    assert all(types), messages
    return [re.sub(r"[\w.]+\.(\w+)", r"\1", match[1]) for match in types if match]


class TestRejected:
    def test_a_wrong_argument_of_a_spec(self, check: Check) -> None:
        messages = check("""
            queue.submit(CallSpec.of(plain, "one"))
            CallSpec.of(plain, 1, z=2)
        """)
        text = "\n".join(messages)
        assert 'Argument 2 to "of" of "CallSpec" has incompatible type "str"; expected "int"' in text
        assert 'Unexpected keyword argument "z" for "of" of "CallSpec"' in text

    def test_a_wrong_option_of_call(self, check: Check) -> None:
        for option in ('niceness="5"', 'timeout="soon"', "doNext=3.5", "retries=1.5", "consumer=5"):
            messages = check(f"queue.call(plain, 1, {option})")
            assert 'No overload variant of "call" of "Submission" matches' in messages[0], option

    def test_a_wrong_option_of_submit(self, check: Check) -> None:
        for option in ('niceness="5"', "nicenes=5", "consumer=5"):
            messages = check(f"queue.submit(CallSpec.of(plain, 1), {option})")
            assert "[call-overload]" in messages[0], option
            assert '"submit" of "Submission"' in messages[0], option

    def test_a_wrong_option_of_update_and_of_map(self, check: Check) -> None:
        for option in ("consumer=Consumer()", "ephemeral=3.5", 'sequential="yes"'):
            messages = check(f"queue.update(plain, 1, {option})")
            assert 'No overload variant of "update" of "Submission" matches' in messages[0], option
        for option in ("consumer=Consumer()", 'niceness="5"', "nicenes=5", "raw=2"):
            messages = check(f"queue.map(plain, [1], {option})")
            assert "[call-overload]" in messages[0], option
            assert '"map" of "MappingSubmission"' in messages[0], option

    def test_a_name_that_is_not_public(self, check: Check) -> None:
        messages = check("""
            import asynqueue
            asynqueue.ThredQueue()
        """)
        assert 'Module has no attribute "ThredQueue"' in messages[0]

    def test_a_wrong_option_of_a_queue(self, check: Check) -> None:
        assert 'Unexpected keyword argument "tiemout"' in check("TaskQueue(tiemout=5)")[0]

    def test_a_class_that_is_no_worker(self, check: Check) -> None:
        messages = check("""
            class Half:
                def run(self, task: Task) -> int: return 1
            TaskQueue(Half())
            queue.attachWorker(Half())
        """)
        wanted = [message for message in messages if 'has incompatible type "Half"; expected "Worker"' in message]
        assert len(wanted) == 2, messages

    def test_an_assignment_to_a_field_of_a_record(self, check: Check) -> None:
        messages = check("""
            spec = CallSpec.of(plain, 1)
            spec.args = ()
            Task(1, spec).niceness = 5
        """)
        assert messages == [
            'Property "args" defined in "CallSpec" is read-only  [misc]',
            'Property "niceness" defined in "Task" is read-only  [misc]',
        ]


class TestInferred:
    def test_from_call(self, check: Check) -> None:
        assert revealed(
            check("""
            reveal_type(queue.call(plain, 1, niceness=5))
            reveal_type(queue.call(items, 1))
            reveal_type(queue.call(items, 1, raw=True))
            reveal_type(queue.call(items, 1, consumer=Consumer()))
            reveal_type(queue.call(later, 1))
            reveal_type(queue.call(coroutine, 1))
            reveal_type(queue.call(nothing))
            reveal_type(await queue.call(plain, 1))
        """)
        ) == [
            "Deferred[int]",
            "Deferred[Deferator[int]]",
            "Deferred[Iterator[int]]",
            "Deferred[Consumer]",
            "Deferred[int]",
            "Deferred[int]",
            "Deferred[None]",
            "int",
        ]

    def test_from_submit(self, check: Check) -> None:
        assert revealed(
            check("""
            reveal_type(queue.submit(CallSpec.of(plain, 1), niceness=5))
            reveal_type(queue.submit(CallSpec.of(items, 1)))
            reveal_type(queue.submit(CallSpec.of(items, 1), raw=True))
            reveal_type(queue.submit(CallSpec.of(items, 1), consumer=Consumer()))
            reveal_type(queue.submit(CallSpec.of(later, 1)))
            reveal_type(queue.submit(CallSpec.of(coroutine, 1)))
        """)
        ) == [
            "Deferred[int]",
            "Deferred[Deferator[int]]",
            "Deferred[Iterator[int]]",
            "Deferred[Consumer]",
            "Deferred[int]",
            "Deferred[int]",
        ]

    def test_of_a_generic_callable_through_its_spec_only(self, check: Check) -> None:
        assert revealed(
            check("""
            reveal_type(queue.call(abs, -1))
            reveal_type(queue.call(max, 1, 2))
            reveal_type(queue.submit(CallSpec.of(abs, -1)))
        """)
        ) == ["Deferred[Any]", "Deferred[Any]", "Deferred[int]"]

    def test_from_what_a_deferator_gives(self, check: Check) -> None:
        assert revealed(
            check("""
            deferator = await queue.call(items, 1)
            async for item in deferator:
                reveal_type(item)
            for d in deferator:
                reveal_type(d)
        """)
        ) == ["int", "Deferred[int]"]

    def test_from_update(self, check: Check) -> None:
        assert revealed(
            check("""
            reveal_type(queue.update(plain, 1))
            reveal_type(queue.update(later, 1, ephemeral=True))
            reveal_type(queue.update(coroutine, 1, sequential=True))
            reveal_type(queue.update(nothing))
            reveal_type(queue.update(abs, -1))
        """)
        ) == [
            "Deferred[list[int]]",
            "Deferred[list[int]]",
            "Deferred[list[int]]",
            "Deferred[list[None]]",
            "Deferred[list[Any]]",
        ]

    def test_from_map(self, check: Check) -> None:
        assert revealed(
            check("""
            reveal_type(queue.map(plain, [1]))
            reveal_type(queue.map(plain, [1], ["y"], niceness=5))
            reveal_type(queue.map(items, [1]))
            reveal_type(queue.map(items, [1], raw=True))
            reveal_type(queue.map(later, [1]))
            reveal_type(queue.map(coroutine, [1], series="mail"))
            reveal_type(queue.map(nothing))
            reveal_type(queue.map(abs, [-1]))
            reveal_type([result async for result in queue.map(coroutine, [1])])
        """)
        ) == [
            "Deferator[int]",
            "Deferator[int]",
            "Deferator[Deferator[int]]",
            "Deferator[Iterator[int]]",
            "Deferator[int]",
            "Deferator[int]",
            "Deferator[None]",
            "Deferator[Any]",
            "list[int]",
        ]

    def test_from_processes(self, check: Check) -> None:
        messages = check("""
            from asynqueue import ProcessBase, ProcessQueue, deferToProcess
            reveal_type(deferToProcess(plain, 1, y="x"))
            reveal_type(deferToProcess(items, 3))
            reveal_type(deferToProcess())
            class Base(ProcessBase):
                def half(self, x: float) -> float: return x / 2
                async def slowly(self, x: float) -> float: return x / 2
            reveal_type(Base().callInProcess(Base().half, 1))
            reveal_type(Base().updateProcesses(Base().half, 1))
            reveal_type(Base().callInProcess(Base().slowly, 1))
            reveal_type(Base().updateProcesses(Base().slowly, 1))
            reveal_type([process for _, process in ProcessQueue(callStats=True).stats()])
        """)
        assert revealed(messages) == [
            "Deferred[int]",
            "Deferred[Deferator[int]]",
            "Deferred[None]",
            "Deferred[float]",
            "Deferred[list[float]]",
            "Deferred[float]",
            "Deferred[list[float]]",
            "list[float]",
        ]

    def test_of_wrong_arguments_of_a_call_in_a_process(self, check: Check) -> None:
        messages = check("""
            from asynqueue import deferToProcess
            deferToProcess(plain, "one")
        """)
        assert 'No overload variant of "deferToProcess" matches' in messages[0]


class TestAccepted:
    def test_a_correct_program_passes_clean(self, check: Check) -> None:
        assert (
            check("""
            from collections.abc import Collection, Hashable, Sequence
            from asynqueue import AsyncWorker, NullQueue, ProcessQueue, ThreadQueue
            from asynqueue.core.records import RunOutcome
            from asynqueue.interfaces import Resignator, Window, Worker

            class Mine:
                qualifications: Collection[Hashable] = ("mine",)
                window = Window()
                def run(self, task: Task) -> Deferred[RunOutcome]: raise NotImplementedError
                def stop(self) -> Deferred[None]: raise NotImplementedError
                def crash(self) -> Sequence[Task]: return []
                def setResignator(self, resign: Resignator) -> None: ...

            worker: Worker = Mine()
            async with TaskQueue(worker, AsyncWorker(), timeout=5, warn=True) as q:
                total: int = await q.call(plain, 1, y="two", series="mine", niceness=-3) + 1
                spec: CallSpec[int] = CallSpec.of(plain, total, y="two")
                again: int = await q.submit(spec, doNext=True, retries=2, raw=None)
                fed: Consumer = await q.call(items, again, consumer=Consumer())
                unknown: str = await q.call(anything)
                results: list[int] = await q.update(plain, 1, sequential=True)
                q.detachWorker(worker, reassign=True)
            for other in (NullQueue(spew=True), ThreadQueue(workers=2, warn=True), ProcessQueue(2, maxQueued=5)):
                await other.shutdown()
        """)
            == []
        )
