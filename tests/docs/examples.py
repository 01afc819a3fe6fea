"""The code blocks of the documentation, and what each of them is held to.

A block that is marked ``python`` is a whole program. Its standard output is what the block ``text`` that follows it
at once says, if there is one. A block marked ``pycon`` is a session, run by `doctest`. Any other block is no code of
ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs
from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])


@attrs.frozen
class Example:
    """A block of KIND on PAGE, which begins on LINE, with its TEXT; and what it has to print, if the page says so."""

    page: Path
    line: int
    kind: str
    text: str
    output: str | None = None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def examples(kind: str) -> list[Example]:
    """All blocks of KIND, on all pages."""
    return [example for page in PAGES for example in _blocks(page) if example.kind == kind]


def _blocks(page: Path) -> Iterator[Example]:
    tokens = [token for token in MarkdownIt().parse(page.read_text()) if token.level == 0]
    for token, following in zip(tokens, [*tokens[1:], None], strict=True):
        if token.type != "fence":
            continue
        assert token.map is not None  # of a fence, the parser knows the place
        output = following.content if following is not None and following.info == "text" else None
        yield Example(page, token.map[0] + 1, token.info, token.content, output)
