"""Draws the machines of the core as SVG, from the tables that are the machines: `python docs/diagrams.py`.

They are kept beside the pages that show them, where a page can be read without being built. A test tells when a table
has changed since.

What is decided here is where a state stands and on which side an arrow passes. Which states and arrows there are, and
what they are called, comes from `asynqueue.core.scheduling.states`; a state without a place is a KeyError, so a table
cannot grow without its picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from math import hypot
from pathlib import Path
from typing import TypeVar

from asynqueue.core.scheduling.states import TASK, WORKER, TaskState, WorkerState

S = TypeVar("S", bound=Enum)
Point = tuple[float, float]

WIDTH, HEIGHT = 104, 40
"""Of a state's box, in pixels."""

TASK_PLACES: dict[TaskState, Point] = {
    TaskState.QUEUED: (90, 110),
    TaskState.ASSIGNED: (350, 110),
    TaskState.SETTLED: (610, 110),
}
WORKER_PLACES: dict[WorkerState, Point] = {
    WorkerState.AWAY: (390, 40),
    WorkerState.JOINING: (120, 300),
    WorkerState.OPEN: (390, 300),
    WorkerState.FULL: (660, 300),
    WorkerState.LEAVING: (255, 510),
    WorkerState.GONE: (525, 510),
}
STYLE = """
  rect { fill: #e8eef7; stroke: #4a6fa5; stroke-width: 1.5 } path { fill: none; stroke: #555; stroke-width: 1.3 }
  text { font: 14px sans-serif; text-anchor: middle; fill: #222 } text.event, text.ground { font-size: 12px }
  text.ground { stroke: #fff; stroke-width: 5 } rect.paper { fill: #fff; stroke: none } polygon { fill: #555 }
"""


FOLDER = Path(__file__).parent / "_diagrams"
"""Where they are kept."""


def drawn() -> dict[str, str]:
    """Each diagram, by the name of its file."""
    return {
        "task.svg": diagram(TASK, TASK_PLACES, (700, 160)),
        "worker.svg": diagram(WORKER, WORKER_PLACES, (780, 550)),
    }


def diagram(table: Mapping[tuple[S, str], S], places: Mapping[S, Point], size: tuple[int, int]) -> str:
    """The machine of TABLE as SVG of SIZE pixels, each state at its place."""
    arrows: dict[tuple[S, S], list[str]] = {}
    for (state, event), following in table.items():
        arrows.setdefault((state, following), []).append(event)
    parts = [_arrow(places[a], places[b], ", ".join(events), (b, a) in arrows) for (a, b), events in arrows.items()]
    for state in dict.fromkeys(state for ends in arrows for state in ends):
        x, y = places[state]
        box = f'<rect x="{x - WIDTH / 2}" y="{y - HEIGHT / 2}" width="{WIDTH}" height="{HEIGHT}" rx="8"/>'
        parts.append(f'{box}<text x="{x}" y="{y + 5}">{state.value}</text>')
    width, height = size
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">\n'
        f'<style>{STYLE}</style><rect class="paper" width="100%" height="100%"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _arrow(start: Point, end: Point, label: str, hasReverse: bool) -> str:
    """Draw an arrow. It bends to its left if there is one the other way, or along a row; a long one passes above."""
    (ax, ay), (bx, by) = start, end
    if start == end:
        top = ay - HEIGHT / 2
        path = f"M {ax - 22} {top} C {ax - 40} {top - 48}, {ax + 40} {top - 48}, {ax + 22} {top}"
        return _drawn(path, (ax + 22, top), (ax + 34, top - 32), (ax, top - 42), label)
    length = hypot(bx - ax, by - ay)
    left = (by - ay) / length, -(bx - ax) / length
    level, far = ay == by, abs(bx - ax) > 300
    bend = (150 if bx > ax else -150) if far and level else 26 if level or hasReverse else 0
    mx, my = (ax + bx) / 2 + bend * left[0], (ay + by) / 2 + bend * left[1]
    sx, sy = _edge(start, (mx, my))
    ex, ey = _edge(end, (mx, my))
    t, aside = (0.3 if far else 0.5, 12 if bend > 0 else -12) if level else (0.3, 0)
    on = tuple((1 - t) ** 2 * s + 2 * t * (1 - t) * m + t**2 * e for s, m, e in ((sx, mx, ex), (sy, my, ey)))
    path = f"M {sx:.0f} {sy:.0f} Q {mx:.0f} {my:.0f} {ex:.0f} {ey:.0f}"
    return _drawn(path, (ex, ey), (mx, my), (on[0], on[1] + aside * left[1]), label)


def _edge(box: Point, towards: Point) -> Point:
    """Where a line from the middle of BOX leaves it."""
    dx, dy = towards[0] - box[0], towards[1] - box[1]
    scale = min(WIDTH / 2 / abs(dx) if dx else 9e9, HEIGHT / 2 / abs(dy) if dy else 9e9)
    return box[0] + dx * scale, box[1] + dy * scale


def _drawn(path: str, tip: Point, before: Point, label: Point, text: str) -> str:
    """The line of PATH, its head at TIP, where it comes from BEFORE, and TEXT at LABEL, on a ground of its own."""
    dx, dy = tip[0] - before[0], tip[1] - before[1]
    length = hypot(dx, dy)
    ux, uy = dx / length, dy / length
    sides = [(tip[0] - 10 * ux + side * uy, tip[1] - 10 * uy - side * ux) for side in (4.5, -4.5)]
    head = " ".join(f"{x:.1f},{y:.1f}" for x, y in (tip, *sides))
    x, y = label
    words = f'<text class="{{}}" x="{x:.0f}" y="{y + 4:.0f}">{text}</text>'
    return f'<path d="{path}"/><polygon points="{head}"/>{words.format("ground")}{words.format("event")}'


if __name__ == "__main__":
    for name, content in drawn().items():
        (FOLDER / name).write_text(content)
