"""Present the figures: a Markdown table and a plot."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from importlib import import_module
from statistics import median
from typing import Any

from benchmarks.cases import lessIsMore

Measured = Mapping[str, Mapping[str, Sequence[float]]]
"""The figures of each round, by figure and system."""


def ratio(figure: str, ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return how many times better OURS is than THEIRS: the median over the rounds in which both were measured."""
    pairs = zip(ours, theirs, strict=False)
    return median(their / our if lessIsMore(figure) else our / their for our, their in pairs if our and their)


def table(measured: Measured, ours: str, title: str) -> str:
    """Return a Markdown table: a row for each figure of each system, with median, spread and ratio to OURS."""
    lines = [f"**{title}**", "", "| | median | from … to | ours is |", "|---|---:|---:|---:|"]
    for figure, systems in measured.items():
        lines.append(f"| **{figure}** | | | |")
        for system, values in systems.items():
            compared = "" if system == ours or ours not in systems else f"{ratio(figure, systems[ours], values):.2f} ×"
            spread = f"{_short(min(values))} … {_short(max(values))}"
            lines.append(f"| {system} | {_short(median(values))} | {spread} | {compared} |")
    return "\n".join(lines)


def formats() -> Collection[str]:
    """Return the possible endings of a plot's file name."""
    bases: Any = import_module("matplotlib.backend_bases")  # it gives no types
    filetypes: dict[str, str] = bases.FigureCanvasBase.get_supported_filetypes()
    return filetypes


def plot(measured: Measured, ours: str, path: str) -> bool:
    """Draw the first six figures that several systems have as bars into PATH. Return False if there is none."""
    pyplot: Any = import_module("matplotlib.pyplot")  # it gives no types
    pyplot.switch_backend("agg")
    figures = [figure for figure, systems in measured.items() if len(systems) > 1][:6]
    if not figures:
        return False
    _, axes = pyplot.subplots((len(figures) + 1) // 2, 2, figsize=(13, 3.6 * ((len(figures) + 1) // 2)), squeeze=False)
    for axis in axes.flat[len(figures) :]:
        axis.remove()
    for axis, figure in zip(axes.flat, figures, strict=False):
        systems = measured[figure]
        medians = [median(values) for values in systems.values()]
        below = [m - min(values) for m, values in zip(medians, systems.values(), strict=True)]
        above = [max(values) - m for m, values in zip(medians, systems.values(), strict=True)]
        colours = ["#c0392b" if system == ours else "#95a5a6" for system in systems]
        axis.barh(list(systems), medians, xerr=[below, above], color=colours, ecolor="#34495e", capsize=3)
        axis.invert_yaxis()
        axis.set_title(figure + (" (less is better)" if lessIsMore(figure) else " (more is better)"), fontsize=10)
        if max(medians) > 30 * min(medians):
            axis.set_xscale("log")
    pyplot.tight_layout()
    pyplot.savefig(path, dpi=110)
    return True


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.1f}" if abs(value) >= 10 else f"{value:,.2f}"
