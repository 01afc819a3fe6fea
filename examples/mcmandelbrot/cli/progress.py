"""What a run tells whoever started it, on standard error: how far it is, and what it took.

A worker's *busy share* is the part of the drawing's time that it spent in bands, by its own clock. The *overhead a
call* is the rest, of all workers, divided by the number of calls: all that a band cost beyond itself.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from attrs import Factory, define, field
from tqdm import tqdm

from mcmandelbrot.fractal.picture import View
from mcmandelbrot.fractal.worker import Ready, Rows


@define
class Tally:
    """What the bands of a picture took, of WORKERS workers."""

    workers: int
    calls: int = field(default=0, init=False)
    busy: dict[int, float] = field(default=Factory(dict), init=False)
    """Seconds in bands, by process."""

    def count(self, rows: Rows) -> None:
        """Count the ROWS of a band in."""
        self.calls += 1
        self.busy[rows.pid] = self.busy.get(rows.pid, 0.0) + rows.seconds

    def shares(self, seconds: float) -> list[float]:
        """Each worker's busy share of SECONDS, the highest first; 0 for one that drew nothing."""
        shares = sorted((busy / seconds for busy in self.busy.values()), reverse=True)
        return shares + [0.0] * (self.workers - len(shares))

    def overhead(self, seconds: float) -> float:
        """The overhead a call, in seconds, of a drawing that took SECONDS."""
        return max(0.0, self.workers * seconds - sum(self.busy.values())) / max(1, self.calls)


def summary(view: View, tally: Tally, ready: Sequence[Ready], starting: float, drawing: float) -> list[str]:
    """The lines that end a run: STARTING and DRAWING are the seconds of its two parts."""
    pixels = view.width * view.height
    shares = ", ".join(f"{share:.0%}" for share in tally.shares(drawing))
    workers = f"{tally.workers} worker{'s' if tally.workers > 1 else ''}"
    lines = [
        f"{pixels:,} pixels in {drawing:.2f} s with {workers}, after {starting:.2f} s to start",
        f"busy: {shares}; overhead: {1000 * tally.overhead(drawing):.3f} ms a call, of {tally.calls} calls",
    ]
    compiling = max((r.compiling for r in ready), default=0.0)
    if compiling:
        lines.insert(0, f"compiled the kernel in {compiling:.1f} s; it is kept on disk where possible")
    return lines


class ProgressBar:
    """Rows done of TOTAL, on standard error if that is a terminal; nowhere if it is not, or if QUIET."""

    def __init__(self, total: int, quiet: bool = False) -> None:
        # Its own thread would only watch over threads that do not advance; there is one, and it does.
        tqdm.monitor_interval = 0
        silent = quiet or not sys.stderr or not sys.stderr.isatty()
        self._bar = tqdm(total=total, disable=silent, unit=" rows", leave=False, dynamic_ncols=True)

    def say(self, what: str) -> None:
        """What is going on now, in a word or two."""
        self._bar.set_description(what)

    def advance(self, rows: int) -> None:
        """So many more ROWS are done."""
        self._bar.update(rows)

    def note(self, what: str) -> None:
        """Say something, be this quiet or not, that stays to be read."""
        if sys.stderr:
            self._bar.write(f"mcm: {what}", file=sys.stderr)

    def close(self) -> None:
        """Clear it away."""
        self._bar.close()
