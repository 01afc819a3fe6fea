"""What the tests of real workers share: what calls do over there, and how to wait for what they did.

Worker processes import this module.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from asynqueue.process import ProcessWorker

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE = 120.0
"""Seconds after which a test that waits in vain fails."""


def inLoop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, Deferred[None]]:
    """The test TEST, a coroutine function, as one that pytest-twisted waits for, though not for ever."""

    @functools.wraps(test)
    def run(*args: P.args, **kw: P.kwargs) -> Deferred[None]:
        from twisted.internet import reactor
        from twisted.internet.defer import Deferred

        clock: Any = reactor  # its type says nothing of time
        return Deferred.fromCoroutine(test(*args, **kw)).addTimeout(PATIENCE, clock)

    return run


async def until(event: Callable[P, object], *args: P.args, **kw: P.kwargs) -> None:
    """Wait until EVENT says so."""
    from asynqueue import Delay

    assert await Delay(0.002, timeout=PATIENCE / 2).untilEvent(event, *args, **kw) is True


async def failureOf(d: Deferred[Any]) -> BaseException:
    """What D fails with."""
    from twisted.python.failure import Failure

    (result,) = await d.addBoth(lambda result: [result])
    assert isinstance(result, Failure), f"it did not fail, but gave {result!r}"
    assert result.value is not None
    return result.value


async def drained(iteration: AsyncIterable[T]) -> list[T]:
    """What there is left of ITERATION."""
    return [item async for item in iteration]


class Collector:
    """A consumer that keeps what it is given in GOT."""

    def __init__(self, got: list[Any]) -> None:
        self.got = got

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Take whatever PRODUCER has."""

    def unregisterProducer(self) -> None:
        """That was all."""

    def write(self, data: Any) -> None:
        """Keep DATA."""
        self.got.append(data)


def killProcessOf(worker: ProcessWorker) -> None:
    """``kill -9`` the process that WORKER has, unless that has just died and nobody has noticed yet."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(worker.process.pid, signal.SIGKILL)


def isAlive(pid: int) -> bool:
    """True until process PID has exited, be it buried or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def mark(path: Path, what: object = "started") -> None:
    """Add a line that says WHAT to the file PATH."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{what}\n".encode())
    os.close(descriptor)


def marks(path: Path) -> Counter[str]:
    """How often what was marked in the file PATH."""
    return Counter(path.read_text().split()) if path.exists() else Counter()


# What calls do.


def echo(value: int) -> int:
    """Return VALUE."""
    return value


def markAndReturn(path: Path, value: int) -> int:
    """Mark VALUE and return it."""
    mark(path, value)
    return value


def markAndRaise(path: Path, value: int) -> int:
    """Mark VALUE and raise a KeyError of it."""
    mark(path, value)
    raise KeyError(value)


def markAndIterate(path: Path, number: int, error: bool) -> Iterator[int]:
    """Mark NUMBER and count up to it; with ERROR, raise a KeyError of it then."""
    mark(path, number)
    yield from range(number)
    if error:
        raise KeyError(number)


def markPid(path: Path, value: int) -> int:
    """Mark VALUE in the file PATH and the number of this process in the one beside it; return VALUE."""
    mark(path, value)
    mark(path.with_suffix(".pids"), os.getpid())
    return value


_kept: list[bytes] = []


def grow(kB: int) -> int:
    """Use so many kB more, for ever; return the number of this process."""
    _kept.append(b"x" * (kB << 10))
    return os.getpid()


class Tally:
    """How often something was seen, which is marked too."""

    def __init__(self) -> None:
        self.number = 0

    def see(self, path: Path) -> None:
        """See it."""
        self.number += 1
        mark(path)

    def __call__(self) -> int:
        """The number so far."""
        return self.number


def giveLater(place: str, number: int) -> int:
    """What `asynqueue.testing.workload.give` does, some time later."""
    from asynqueue.testing import workload

    workload.mark(place, "start", number)
    time.sleep(0.003)
    workload.mark(place, "end", number)
    return number


def markAndHang(path: Path, what: object = "started") -> None:
    """Mark WHAT and never end."""
    mark(path, what)
    while True:
        signal.pause()


def markAndSpin(path: Path) -> NoReturn:
    """Mark this process and keep it busy for ever."""
    mark(path, os.getpid())
    while True:
        pass


def markAndDie(path: Path, what: object = "started") -> NoReturn:
    """Mark WHAT and kill this process."""
    mark(path, what)
    die()


def die() -> NoReturn:
    """Kill this process."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("it is dead")


def dieAtOnce(*_: object) -> None:
    """Exit before anything is said, in the place of `asynqueue.process.child.main.main`."""
    sys.exit(3)


def dieOnceReady(path: Path, stream: Any, *_: object) -> None:
    """Mark PATH and exit once ready, in the place of `asynqueue.process.child.main.main`."""
    from asynqueue.core.protocol.framing import encode
    from asynqueue.core.protocol.messages import Ready

    mark(path)
    stream.sendall(encode(Ready(os.getpid())))
    sys.exit(3)


def serveWhen(path: Path, *args: Any) -> None:
    """As `asynqueue.process.child.main.main`, but no sooner than the file PATH is there."""
    from asynqueue.process.child import main as universe

    waitFor(path, "")
    universe.main(*args)


def waitFor(path: Path, value: str) -> str:
    """Return VALUE when the file PATH is there."""
    while not path.exists():
        time.sleep(0.001)
    return value


def waitAfterMark(started: Path, go: Path) -> None:
    """Mark that it has started and return when GO is there."""
    mark(started)
    waitFor(go, "gone on")


class Traveller:
    """Counts how often it is pickled, and what it is told."""

    pickled = 0

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.lock = None

    def __getstate__(self) -> dict[str, Any]:
        type(self).pickled += 1
        return self.__dict__

    def see(self, n: int) -> None:
        """Be told N."""
        self.seen.append(n)

    def __call__(self) -> list[int]:
        """What it was told."""
        return self.seen

    def seeBadly(self, n: int) -> threading.Lock:
        """Be told N, and give what cannot come back."""
        self.seen.append(n)
        return threading.Lock()

    def seeAndRaise(self, n: int) -> None:
        """Be told N, and raise."""
        self.seen.append(n)
        raise ValueError(n)


def modules() -> list[str]:
    """The names of the modules imported here."""
    return sorted(sys.modules)


def markedItems(path: Path, number: int) -> Iterator[int]:
    """0, 1 ... below NUMBER, each marked as it is made; then, or when it is stopped, the end is marked."""
    try:
        for n in range(number):
            mark(path, n)
            yield n
    finally:
        mark(path, "end")


def countedItems(path: Path, which: int, number: int, raises: bool) -> Iterator[int]:
    """0, 1 ... below NUMBER, then WHICH as an error if it RAISES; how many were made is marked in the end."""
    made = 0
    try:
        while made < number:
            made += 1
            yield made - 1
        if raises:
            raise ZeroDivisionError(which)
    finally:
        mark(path, f"{which}:{made}")


def itemsThatHang(path: Path) -> Iterator[int]:
    """The number of this process; then mark and never end."""
    yield os.getpid()
    mark(path)
    time.sleep(3600)


def itemsThatStay(path: Path) -> Iterator[int]:
    """The number of this process; when it is stopped, mark and never end."""
    try:
        while True:
            yield os.getpid()
    finally:
        mark(path)
        time.sleep(3600)


def isAbsent(pid: int) -> bool:
    """The contrary of `isAlive`."""
    return not isAlive(pid)


def raiseThis(error: BaseException) -> NoReturn:
    """Raise ERROR."""
    raise error


class Local:
    """What comes out of a pickle in one process only."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def __reduce__(self) -> tuple[Callable[[int], Local], tuple[int]]:
        return onlyIn, (self.pid,)


def onlyIn(pid: int) -> Local:
    """The `Local` of this process."""
    if os.getpid() != pid:
        raise LookupError(f"this is not process {pid}")
    return Local(pid)


class LocalError(Exception):
    """An error that comes out of a pickle in one process only."""

    def __init__(self, pid: int) -> None:
        super().__init__(pid)
        self.local = Local(pid)


def local() -> Local:
    """What nobody else can unpickle."""
    return Local(os.getpid())


def raiseLocal() -> NoReturn:
    """Raise what nobody else can unpickle."""
    raise LocalError(os.getpid())
