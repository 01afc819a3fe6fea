"""The progress and the statistics of a run, on standard error.

The *busy share* of a worker is the part of the drawing time that it spent in bands, by its own clock. The *overhead per
call* is the rest of all workers' time divided by the number of calls: what a band costs besides its drawing.
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
    """The cost of a picture's bands, with WORKERS workers."""

    workers: int
    calls: int = field(default=0, init=False)
    busy: dict[int, float] = field(default=Factory(dict), init=False)
    """The time spent in bands by each process, in seconds."""

    def count(self, rows: Rows) -> None:
        """Count the ROWS of one band."""
        self.calls += 1
        self.busy[rows.pid] = self.busy.get(rows.pid, 0.0) + rows.seconds

    def shares(self, seconds: float) -> list[float]:
        """Return each worker's busy share of SECONDS, the highest first. It is 0 for a worker that drew nothing."""
        shares = sorted((busy / seconds for busy in self.busy.values()), reverse=True)
        return shares + [0.0] * (self.workers - len(shares))

    def overhead(self, seconds: float) -> float:
        """Return the overhead per call of a drawing that took SECONDS, in seconds."""
        return max(0.0, self.workers * seconds - sum(self.busy.values())) / max(1, self.calls)


def summary(view: View, tally: Tally, ready: Sequence[Ready], starting: float, drawing: float) -> list[str]:
    """Return the lines that end a run. STARTING and DRAWING are the times of its two parts, in seconds."""
    pixels = view.width * view.height
    shares = ", ".join(f"{share:.0%}" for share in tally.shares(drawing))
    workers = f"{tally.workers} worker{'s' if tally.workers > 1 else ''}"
    lines = [
        f"{pixels:,} pixels in {drawing:.2f} s with {workers}, after {starting:.2f} s to start",
        f"busy: {shares}; overhead: {1000 * tally.overhead(drawing):.3f} ms a call, of {tally.calls} calls",
    ]
    compiling = max((r.compiling for r in ready), default=0.0)
    if compiling:
        lines.insert(0, f"compiled the kernel in {compiling:.1f} s; it is cached on disk if possible")
    return lines


class ProgressBar:
    """Shows how many of TOTAL rows are drawn, on standard error if that is a terminal, unless QUIET."""

    def __init__(self, total: int, quiet: bool = False) -> None:
        # tqdm's monitor thread is for bars that are not updated regularly, and this bar is.
        tqdm.monitor_interval = 0
        silent = quiet or not sys.stderr or not sys.stderr.isatty()
        self._bar = tqdm(total=total, disable=silent, unit=" rows", leave=False, dynamic_ncols=True)

    def describe(self, what: str) -> None:
        """Show WHAT is happening now."""
        self._bar.set_description(what)

    def advance(self, rows: int) -> None:
        """Count ROWS more rows."""
        self._bar.update(rows)

    def note(self, what: str) -> None:
        """Print a line that stays, even if this is quiet."""
        if sys.stderr:
            self._bar.write(f"mcm: {what}", file=sys.stderr)

    def close(self) -> None:
        """Remove the bar."""
        self._bar.close()
