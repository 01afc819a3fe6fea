"""The pages name what is in the code, and the glossary and the journey are linked from where a reader begins."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from types import ModuleType

import pytest

from asynqueue import core

ROOT = Path(__file__).parents[2]
PAGES = ("glossary", "journey-of-a-call")
ALL_PAGES = sorted(path.stem for path in (ROOT / "docs").glob("*.md"))


def names(page: str) -> list[str]:
    """The dotted names of ours that a page has in backticks."""
    return sorted(set(re.findall(r"`(asynqueue\.[\w.]+)`", (ROOT / f"docs/{page}.md").read_text())))


def resolve(name: str) -> object:
    """Return what a dotted name stands for: a module, or an attribute of one or of a class; an annotation counts."""
    parts = name.split(".")
    found: object = import_module(parts[0])
    for n, part in enumerate(parts[1:], 2):
        if isinstance(found, ModuleType) and not hasattr(found, part):
            found = import_module(".".join(parts[:n]))
        elif part in getattr(found, "__annotations__", {}):
            found = found.__annotations__[part]
        else:
            found = getattr(found, part)
    return found


@pytest.mark.parametrize(("page", "name"), [(page, name) for page in ALL_PAGES for name in names(page)])
def test_a_name_on_a_page_is_in_the_code(page: str, name: str) -> None:
    assert resolve(name) is not None


def test_the_journey_passes_every_package_of_the_hot_path() -> None:
    packages = {name.split(".")[1] for name in names("journey-of-a-call")}
    wanted = {"core", "queue", "transport", "process", "wire", "threads", "iteration", "mainloop", "dask"}
    assert wanted <= packages


def test_a_module_in_the_drawing_is_in_the_code() -> None:
    drawing = (ROOT / "docs/journey-of-a-call.md").read_text().split("```")[1]
    modules = set(re.findall(r"\b((?:queue|core|process|transport)\.[a-z.]+[a-z])\b", drawing))
    assert len(modules) > 6
    for module in modules - {"queue.call"}:
        import_module(f"asynqueue.{module}")


def test_the_architecture_has_one_row_for_each_module_of_the_core() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    rows: list[str] = []
    for package, table in re.findall(r"(?m)^### `(asynqueue\.core[\w.]*)`\n\n((?:\|.*\n)+)", page):
        rows += [f"{package}.{module}" for module in re.findall(r"(?m)^\| `(\w+)` \|", table)]
    assert sorted(rows) == sorted(m.name for m in walk_packages(core.__path__, "asynqueue.core.") if not m.ispkg)


def test_the_glossary_has_one_row_for_each_word() -> None:
    words = re.findall(r"(?m)^\| ([a-z ,]+) \| [A-Z]", (ROOT / "docs/glossary.md").read_text())
    assert len(words) >= 40
    assert len(words) == len(set(words))


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("place", ["README.md", "CONTRIBUTING.md", "docs/index.md"])
def test_a_reader_finds_the_page(page: str, place: str) -> None:
    assert page in (ROOT / place).read_text()
