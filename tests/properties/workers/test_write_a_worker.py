"""The worker of ``docs/write-a-worker.md``, written from the documentation alone, goes through the kit as it says."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

from hypothesis import settings

from asynqueue.testing import WorkerConformance

PAGE = Path(__file__).parents[3] / "docs" / "write-a-worker.md"


def conformance() -> type[WorkerConformance]:
    """What the program on the page puts its worker through."""
    (program,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    module = ModuleType("worker")
    exec(compile(program, str(PAGE), "exec"), module.__dict__)
    found: type[WorkerConformance] = module.__dict__["SubprocessConformance"]
    return found


TestTheWorkerOfTheDocumentation = conformance().TestCase
TestTheWorkerOfTheDocumentation.settings = settings(max_examples=4, stateful_step_count=8)
