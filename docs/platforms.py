"""Writes the tables of `platforms.md`, from the features that AsynQueue looks for: `python docs/platforms.py`.

A test tells when a feature has changed since.
"""

from __future__ import annotations

import re
from pathlib import Path

from asynqueue.capabilities import FEATURES, PLATFORMS

PAGE = Path(__file__).with_name("platforms.md")


def tables() -> str:
    """The features by platform, and what AsynQueue does with and without each."""
    has = [[name, *("no" if each in f.lackedBy else "yes" for each in PLATFORMS)] for name, f in FEATURES.items()]
    does = [[name, feature.use, feature.without] for name, feature in FEATURES.items()]
    return f"{_table('feature', *PLATFORMS, rows=has)}\n{_table('feature', 'with it', 'without it', rows=does)}"


def written(page: str) -> str:
    """PAGE with the tables of now, between its two marks."""
    return re.sub(r"(?s)(<!-- tables -->\n).*(<!-- end -->)", lambda m: f"{m[1]}\n{tables()}\n{m[2]}", page)


def _table(*head: str, rows: list[list[str]]) -> str:
    lines = [list(head), ["---"] * len(head)]
    lines += [[f"`{row[0]}`", *row[1:]] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
