"""
What every test shares: its reactor, how hard Hypothesis tries, and that a test leaves nothing behind.

The environment variable `TEST_REACTOR` chooses the reactor: `default`, `select` or `asyncio`. `HYPOTHESIS_PROFILE`
chooses the profile:

- `default` draws the same examples each time, so that a run answers for the code and not for its luck. It shortens one
  failing example, not each that it finds: a run with a defect takes minutes more, not hours.
- `brief` draws the first fifth of those. tox runs it on each Python, and `default` once.
- `deep` draws many times more and new ones each time, though fewer where real workers are at it
  (`tests.support.stories`). `tox -e properties` runs it.
- `mutation` draws few and shortens nothing: it is for `tox -e mutation`, where each test runs thousands of times.

None measures time: a busy machine is no falsifying example.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from twisted.logger import ILogObserver, LogEvent, capturedLogs, globalLogPublisher
from zope.interface import implementer

from asynqueue.capabilities import WITHOUT, has
from asynqueue.testing.leaks import left, present

settings.register_profile(
    "default",
    derandomize=True,
    deadline=None,
    max_examples=100,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("brief", settings.get_profile("default"), max_examples=20)
settings.register_profile(
    "deep",
    deadline=None,
    max_examples=2000,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "mutation",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=60,
    phases=(Phase.explicit, Phase.generate),
    stateful_step_count=40,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

# What starts the tests may ignore signals, as `nohup` and a shell's background do, and programs inherit that: those
# that a test starts are to heed theirs.
for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGINT)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)

WITHOUT_REACTOR = [
    *("unit/core", "unit/info", "properties/core", "properties/mcm/test_kernel.py", "properties/mcm/test_deflate.py"),
    *(f"unit/test_{name}.py" for name in ("benchmarks", "diagrams", "docstrings", "guarantees", "typing", "words")),
    *(f"unit/mcm/test_{name}.py" for name in ("kernel", "main", "output", "palette", "picture", "progress")),
]
"""Tests of what knows no reactor, and takes long enough to be worth a line. They run with the default one alone."""

if os.environ.get("TEST_REACTOR", "default") != "default":
    collect_ignore = WITHOUT_REACTOR

GRACE = 2.0
"""Seconds that a thread or a process has to end in, once told to. Delayed calls and unhandled errors have none."""


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
    _listenOnce(str(tmp_path_factory.mktemp("port") / "socket"))
    _drawOnce()
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


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Takes features of the system away, by their names, in this process and in those that it starts."""

    def take(names: str) -> None:
        monkeypatch.setenv(WITHOUT, names)
        has.cache_clear()

    yield take
    monkeypatch.undo()
    has.cache_clear()


@pytest.fixture(autouse=True)
def nothingIsLeft(ownPlace: None, request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves something behind, and say what."""
    errors: list[str] = []

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        if event.get("log_namespace") == "twisted.internet.defer" and "log_failure" in event:
            errors.append(event["log_failure"].getTraceback())

    before = present()
    globalLogPublisher.addObserver(observe)
    try:
        yield
        gc.collect()
    finally:
        globalLogPublisher.removeObserver(observe)
    gc.freeze()  # what a test has brought to stay need not be looked at after each of the others
    found = [f"{what}: {', '.join(map(str, new))}" for what, new in left(before, _turn, GRACE).items()]
    if "unhandled" not in request.fixturenames:
        found += [f"an error that nobody handled: {text}" for text in errors]
    if found:
        pytest.fail("the test left behind\n  " + "\n  ".join(found), pytrace=False)


def _turn() -> None:
    """Let things happen for a hundredth of a second."""
    reactor: Any = sys.modules.get("twisted.internet.reactor")  # looking for it must not install one
    plugin: Any = sys.modules.get("pytest_twisted")
    if reactor is None or plugin is None:
        time.sleep(0.01)
        return
    from twisted.internet.task import deferLater

    plugin.blockon(deferLater(reactor, 0.01))


@settings(max_examples=1, database=None)
@given(st.none())
def _drawOnce(_: None) -> None:
    """Have Hypothesis make what it keeps, before the collector loses sight of what refers to that, and it warns."""


def _listenOnce(path: str) -> None:
    """Have Twisted open the descriptor that it keeps in reserve, once it has listened anywhere."""
    reactor: Any = sys.modules.get("twisted.internet.reactor")
    if reactor is not None and has("AF_UNIX"):
        from twisted.internet.protocol import Factory, Protocol

        reactor.listenUNIX(path, Factory.forProtocol(Protocol)).stopListening()
