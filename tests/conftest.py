"""
What every test shares: its reactor, how hard Hypothesis tries, and that a test leaves nothing behind.

The environment variable `TEST_REACTOR` chooses the reactor: `default`, `select` or `asyncio`. `HYPOTHESIS_PROFILE`
chooses the profile. `default` draws the same examples each time, so
that a run answers for the code and not for its luck; `deep` draws many times more and new ones each time,
and is what `tox -e properties` runs. Neither measures time: a busy machine is no falsifying example.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from twisted.logger import ILogObserver, LogEvent, capturedLogs, globalLogPublisher
from zope.interface import implementer

settings.register_profile(
    "default",
    derandomize=True,
    deadline=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "deep",
    deadline=None,
    max_examples=2000,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

# What starts the tests may ignore signals, as `nohup` and a shell's background do, and programs inherit that: those
# that a test starts are to heed theirs.
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)

GRACE = 2.0
"""Seconds that a thread or a process has to end in, once told to. Delayed calls and unhandled errors have none."""

POOLS = ("PoolThread-twisted", "ThreadPoolExecutor", "pytest", "asyncio_")
"""How the threads are named that others keep for as long as the interpreter runs."""

SERVANTS = ("forkserver", "resource_tracker")
"""The processes that multiprocessing starts once and keeps."""


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Choose the reactor that pytest-twisted is to install."""
    chosen = os.environ.get("TEST_REACTOR", "default")
    if chosen == "select":
        from twisted.internet import default, selectreactor

        default.install = selectreactor.install  # that of every system is none of pytest-twisted's choices
    elif chosen in ("default", "asyncio"):
        config.option.reactor = chosen
    else:
        raise pytest.UsageError(f"TEST_REACTOR must be default, select or asyncio, got {chosen}")


@pytest.fixture(scope="session", autouse=True)
def ownPlace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A directory for the temporary files of this run alone, and a reactor that runs, with all that it opens."""
    kept = os.environ.get("TMPDIR"), tempfile.tempdir
    os.environ["TMPDIR"] = tempfile.tempdir = str(tmp_path_factory.mktemp("tmp"))
    _turn()
    gc.collect()
    gc.freeze()  # what is here now stays, and need not be looked at after every test
    yield
    if kept[0] is None:
        del os.environ["TMPDIR"]
    else:
        os.environ["TMPDIR"] = kept[0]
    tempfile.tempdir = kept[1]


@pytest.fixture
def unhandled() -> Iterator[Sequence[LogEvent]]:
    """What is logged meanwhile: for a test that is about errors which nobody handles, and has its own eye on them."""
    with capturedLogs() as events:
        yield events


@pytest.fixture(autouse=True)
def nothingIsLeft(ownPlace: None, request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves something behind, and say what."""
    errors: list[str] = []

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        if event.get("log_namespace") == "twisted.internet.defer" and "log_failure" in event:
            errors.append(event["log_failure"].getTraceback())

    before = _present()
    globalLogPublisher.addObserver(observe)
    try:
        yield
        gc.collect()
    finally:
        globalLogPublisher.removeObserver(observe)
    left = [f"{what}: {', '.join(map(str, new))}" for what, new in _left(before).items()]
    if "unhandled" not in request.fixturenames:
        left += [f"an error that nobody handled: {text}" for text in errors]
    if left:
        pytest.fail("the test left behind\n  " + "\n  ".join(left), pytrace=False)


def _left(before: dict[str, set[Any]]) -> dict[str, list[Any]]:
    """What there is now and was not BEFORE."""
    deadline = time.monotonic() + GRACE
    while True:
        left = {what: sorted(there - before[what], key=str) for what, there in _present().items()}
        left = {what: new for what, new in left.items() if new}
        if not left or "delayed calls" in left or time.monotonic() > deadline:
            return left
        _turn()


def _present() -> dict[str, set[Any]]:
    """What a test can leave behind."""
    reactor = _reactor()
    calls = set() if reactor is None else {c for c in reactor.getDelayedCalls() if c.active()}
    fromThreads = {
        c for c in calls if type(reactor).__name__.startswith("Asyncio") and c.getTime() <= reactor.seconds()
    }
    return {
        "delayed calls": calls - fromThreads,
        "calls from threads": fromThreads,  # which are delayed calls under asyncio, and due
        "readers": set() if reactor is None else {*reactor.getReaders(), *reactor.getWriters()},
        "threads": {t for t in threading.enumerate() if not t.name.startswith(POOLS)},
        "processes": _children(),
        "file descriptors": _descriptors(),
        "temporary files": _temporaryFiles(),
    }


def _reactor() -> Any:
    """The reactor, if one is installed: looking for it must not install one."""
    return sys.modules.get("twisted.internet.reactor")


def _turn() -> None:
    """Let things happen for a hundredth of a second."""
    reactor = _reactor()
    plugin: Any = sys.modules.get("pytest_twisted")
    if reactor is None or plugin is None:
        time.sleep(0.01)
        return
    from twisted.internet.task import deferLater

    plugin.blockon(deferLater(reactor, 0.01))


def _children() -> set[str]:
    """The processes below this one, but for those that serve it to its end."""
    servants = {number for number in _childrenOf("self") if any(name in _commandLine(number) for name in SERVANTS)}
    below = [number for number in _childrenOf("self") if number not in servants]
    for servant in servants:
        below += _childrenOf(servant)  # the fork server starts processes for us
    return {f"{number} ({_commandLine(number)})" for number in below}


def _childrenOf(number: str) -> list[str]:
    found: list[str] = []
    try:
        for task in os.listdir(f"/proc/{number}/task"):
            with open(f"/proc/{number}/task/{task}/children") as listing:
                found += listing.read().split()
    except OSError:
        pass  # it has gone, or there is no /proc here
    return found


def _commandLine(number: str) -> str:
    try:
        with open(f"/proc/{number}/cmdline", "rb") as line:
            return line.read().replace(b"\0", b" ").decode(errors="replace").strip() or "a zombie"
    except OSError:
        return "gone"


def _descriptors() -> set[str]:
    """The open file descriptors and what they are, but for those that serve this process to its end."""
    there: set[str] = set()
    try:
        numbers = os.listdir("/proc/self/fd")
    except OSError:
        return there
    for number in numbers:
        try:
            there.add(f"{number} -> {os.readlink(f'/proc/self/fd/{number}')}")
        except OSError:
            pass  # the one that listed them
    return there - {f"{fd} -> {name}" for fd, name in _servantDescriptors()}


def _servantDescriptors() -> Iterator[tuple[int, str]]:
    """What multiprocessing keeps open to its servants."""
    for module, holder, names in (
        ("multiprocessing.forkserver", "_forkserver", ("_forkserver_alive_fd",)),
        ("multiprocessing.resource_tracker", "_resource_tracker", ("_fd",)),
    ):
        servant = getattr(sys.modules.get(module), holder, None)
        for name in names:
            fd = getattr(servant, name, None)
            if isinstance(fd, int):
                yield fd, os.readlink(f"/proc/self/fd/{fd}")


def _temporaryFiles() -> set[str]:
    """What is in the directory for temporary files, but for the one where the fork server listens."""
    process: Any = sys.modules.get("multiprocessing.process")
    kept = process and process.current_process()._config.get("tempdir")
    return set(os.listdir(tempfile.gettempdir())) - {os.path.basename(kept or "")}
