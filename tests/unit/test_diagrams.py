"""The diagrams of the documentation, beside the tables that they are drawn from."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", ["task.svg", "worker.svg"])
def test_a_diagram_is_what_its_table_draws_now(name: str) -> None:
    drawn: dict[str, str] = runpy.run_path(str(DOCS / "diagrams.py"))["drawn"]()
    assert (DOCS / "_diagrams" / name).read_text() == drawn[name], "draw them again: python docs/diagrams.py"
