"""Send damaged streams to a link, for long: no crash, no hang, no unbounded memory, only a named error.

    python -m benchmarks.fuzz [--streams 100000] [--seed 1]          # a plain loop
    python -m benchmarks.fuzz --atheris [atheris's own options]      # guided by coverage, until stopped

Each stream consists of good messages, of which some bytes are changed, dropped, doubled or inserted. A `Decoder`
with limits reads it, and a `Link` with calls that wait for answers. Each of those calls must end once when the link
ends. The program may use at most `ROOM` more memory than at its start: pickle allocates room for the number of
objects that a damaged payload names, some 600 MB for one byte. What it cannot have is an error of that one call.
Atheris is not among the developers' tools: ``pip install atheris``.
"""

from __future__ import annotations

import argparse
import pickle
import random
import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.logger import LogPublisher, globalLogBeginner
from twisted.python.failure import Failure

from asynqueue.core.protocol import messages as m
from asynqueue.core.protocol.framing import Decoder, FrameError, encode
from asynqueue.core.records import CallSpec, Iterating, RunOutcome, Task
from asynqueue.transport.link import Link
from asynqueue.transport.permits import PermitIssuer

FRAME_LIMIT, PARTS_LIMIT = 256, 4096
CALLS = 4

ROOM = 256 << 20
"""Bytes of memory that may be allocated while a stream is read."""


class Sink:
    """Takes what an iteration sends."""

    def arrived(self, items: Any, more: bool = False) -> None:
        """Ignore the items."""

    def over(self, error: BaseException | None) -> None:
        """Ignore the end."""


def decode(stream: bytes, size: int) -> list[m.Message]:
    """Return the messages of STREAM, read in pieces of SIZE bytes, up to the first error."""
    decoder = Decoder(FRAME_LIMIT, PARTS_LIMIT)
    heard: list[m.Message] = []
    for start in range(0, len(stream), size):
        try:
            heard += decoder.feed(stream[start : start + size])
        except FrameError:
            decoder.validate()
            break
        decoder.validate()
    return heard


def tell(stream: bytes, size: int) -> None:
    """Have a link read STREAM in pieces of SIZE bytes. Each of its calls must end, once."""
    office = PermitIssuer()
    outcomes: list[RunOutcome] = []

    def report(ended: Sequence[tuple[int, RunOutcome]]) -> None:
        for _, outcome in ended:
            _heard(outcome, outcomes)

    link = Link(office, lambda: link.conclude("it was lost"), lambda: None, report)
    transport: Any = StringTransport()  # its type says less than it can do
    transport.protocol = link
    link.makeConnection(transport)  # type: ignore[no-untyped-call]  # Twisted leaves it untyped
    try:
        for number in range(CALLS):
            link.give([(number + 1, Task(number + 1, CallSpec.of(abs, -1)))], raw=False)
        for start in range(0, len(stream), size):
            link.dataReceived(stream[start : start + size])
            if transport.disconnected:  # it has closed the connection
                break
        link.connectionLost(Failure(ConnectionDone()))
        assert len(outcomes) == CALLS, f"{len(outcomes)} outcomes of {CALLS} calls"
    finally:
        office.close()


def _heard(outcome: RunOutcome, outcomes: list[RunOutcome]) -> None:
    outcomes.append(outcome)
    if isinstance(outcome, Iterating):
        outcome.source.begin(Sink())
        outcome.source.grant(3)


# The plain loop.


def streams(seed: int) -> Iterator[tuple[bytes, int]]:
    """Yield streams without end, with the size of the pieces in which each is read."""
    draw = random.Random(seed)
    while True:
        stream = bytearray(b"".join(encode(message(draw)) for _ in range(draw.randrange(8))))
        for _ in range(draw.choice((0, 1, 1, 3, 20))):
            at = draw.randrange(len(stream) + 1)
            spoil = draw.choice((_change, _drop, _double, _put))
            spoil(draw, stream, at)
        yield bytes(stream), draw.choice((1, 7, 100, 1 << 20))


def message(draw: random.Random) -> m.Message:
    """Return a message that the remote side of a link may send, about a call that may exist."""
    number = draw.choice((1, 2, 3, 4, 5, 2**64 - 1))
    payload = pickle.dumps(draw.choice((1, "text", [1, 2], ValueError("no"))))
    kinds: list[Callable[[], m.Message]] = [
        lambda: m.Ready(number),
        lambda: m.Returned(number, 0.1, payload),
        lambda: m.Raised(number, 0.1, payload),
        lambda: m.Opened(number, float("nan")),
        lambda: m.Items(number, draw.choice((0, 1, 2, 2**32 - 1)), payload * draw.choice((0, 1, 2))),
        lambda: m.Exhausted(number),
        lambda: m.Failed(number, payload),
        lambda: m.Goodbye(),
    ]
    return draw.choice(kinds)()


def _change(draw: random.Random, stream: bytearray, at: int) -> None:
    if at < len(stream):
        stream[at] = draw.randrange(256)


def _drop(draw: random.Random, stream: bytearray, at: int) -> None:
    del stream[at : at + draw.randrange(1, 9)]


def _double(draw: random.Random, stream: bytearray, at: int) -> None:
    stream[at:at] = stream[at : at + draw.randrange(1, 40)]


def _put(draw: random.Random, stream: bytearray, at: int) -> None:
    stream[at:at] = draw.randbytes(draw.randrange(1, 9))


def main() -> None:
    """Fuzz as the command line asks."""
    if "--atheris" in sys.argv:
        sys.argv.remove("--atheris")
        guided()
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    globalLogBeginner.beginLoggingTo([LogPublisher()], redirectStandardIO=False)  # to nobody; or it would be kept
    _limitMemory()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun, octets, heard = perf_counter(), 0, 0
    for _, (stream, size) in zip(range(asked.streams), streams(asked.seed), strict=False):
        heard += len(decode(stream, size))
        tell(stream, size)
        octets += len(stream)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(
        f"{asked.streams:,} streams of {octets / asked.streams:.0f} bytes, {heard:,} messages heard, in "
        f"{perf_counter() - begun:.0f} s; memory grew by {grown:.1f} MB at most; nothing but named errors"
    )


def _limitMemory() -> None:
    """Limit the memory to `ROOM` more than now, where the present size is known."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except FileNotFoundError:
        return
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, most))


def guided() -> None:
    """Fuzz with atheris, until it is stopped."""
    atheris: Any = import_module("atheris")  # it is not among the tools that every developer has, nor are its types

    def target(stream: bytes) -> None:
        size = 1 + stream[0] if stream else 1
        decode(stream, size)
        tell(stream, size)

    atheris.instrument_all()
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
