"""The tables of ``docs/guarantees.md``: every guarantee is in one, and what is said to hold it up is there.

So is every mutant that survived, and why.
"""

from __future__ import annotations

import re
from collections import Counter
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from pkgutil import walk_packages

import pytest

from asynqueue import core
from asynqueue.testing import Guarantee

ROOT = Path(__file__).parents[2]
SCORE = re.compile(r"^\| `(\w+)` \| (\d+) \| (\d+) \| [\d.]+ % \|$", re.MULTILINE)
ROW = re.compile(r"^\| ([^|]*) \| (`[^|]*`) \| `([^|`]*)` \|$", re.MULTILINE)


def rows() -> list[tuple[str, str, str]]:
    """The guarantee, the property and the file of each: one for each property."""
    found: list[tuple[str, str, str]] = []
    guarantee = ""
    for said, properties, file in ROW.findall((ROOT / "docs/guarantees.md").read_text()):
        guarantee = said.strip() or guarantee
        found += [(guarantee, name, file) for name in re.findall(r"`(\w+)`", properties)]
    return found


ROWS = rows()

PLACES = {m.name.rpartition(".")[2]: m.name for m in walk_packages(core.__path__, "asynqueue.core.")}


def test_each_guarantee_is_in_a_table() -> None:
    assert {guarantee for guarantee, _, _ in ROWS} == {guarantee.value for guarantee in Guarantee}


def test_each_worker_that_goes_through_the_kit_is_in_a_table() -> None:
    kits = [path for path in (ROOT / "tests/properties").rglob("test_*.py") if "WorkerConformance" in path.read_text()]
    cases = {
        (name, str(path.relative_to(ROOT)))
        for path in kits
        for name in re.findall(r"^(Test\w+) = \S+\.TestCase$", path.read_text(), re.MULTILINE)
    }
    assert len(cases) >= 9
    assert cases <= {(name, file) for _, name, file in ROWS}


@pytest.mark.parametrize(("name", "file"), sorted({(name, file) for _, name, file in ROWS}))
def test_each_property_is_where_the_table_says(name: str, file: str) -> None:
    text = (ROOT / file).read_text()
    assert re.search(rf"^\s*((async )?def {name}\(|class {name}\b|{name} = )", text, re.MULTILINE), f"{name} in {file}"


def test_each_mutant_that_survived_is_named_by_a_function_that_there_is() -> None:
    page = (ROOT / "docs/guarantees.md").read_text()
    named = Counter[str]()
    for row in re.findall(r"^\| (`\w+`: [^|]*) \|", page, re.MULTILINE):
        for module, functions in re.findall(r"`(\w+)`: ([^;]+)", row):
            for function, numbers in re.findall(r"`([\w.]+)` ([\d, ]+)", functions):
                attrgetter(function)(import_module(PLACES[module]))
                named[module] += len(re.findall(r"\d+", numbers))
    survived = {module: int(mutants) - int(killed) for module, mutants, killed in SCORE.findall(page)}
    assert len(survived) >= 16
    assert named == {module: number for module, number in survived.items() if number}
