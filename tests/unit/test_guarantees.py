"""The tables of ``docs/guarantees.md``: every guarantee is in one, and what is said to hold it up is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from asynqueue.testing import Guarantee

ROOT = Path(__file__).parents[2]
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


def test_each_guarantee_is_in_a_table() -> None:
    assert {guarantee for guarantee, _, _ in ROWS} == {guarantee.value for guarantee in Guarantee}


def test_each_worker_that_goes_through_the_kit_is_in_a_table() -> None:
    kits = [path for path in (ROOT / "tests/properties").glob("test_*.py") if "WorkerConformance" in path.read_text()]
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
