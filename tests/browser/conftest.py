"""What the tests in a real browser share: a server, a browser, and pages that are watched.

The browser is Debian's Chromium (`apt-get install chromium`), or what `CHROMIUM` names. Nothing is downloaded.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import pytest
from playwright.sync_api import Browser, BrowserContext, sync_playwright

from tests.browser.explorer import Explorer
from tests.support.programs import Program

QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
"""What keeps Chromium from asking anybody for anything, and lets it run as root."""

PATIENCE = 60.0
"""Seconds in which a server has to be there, and to be gone."""


class Opening(Protocol):
    """How a test opens the explorer."""

    def __call__(self, view: str = "", *, width: int = ..., height: int = ..., phone: bool = ...) -> Explorer: ...


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """Where `mcm serve` is, with two workers."""
    with mcm("serve", "--port", "0", "-w", "2") as (said, server):
        yield addressIn(said)
        server.send_signal(signal.SIGINT)
        assert server.wait(PATIENCE) == 128 + signal.SIGINT


@contextmanager
def mcm(*arguments: str, scratch: Path | None = None) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """What `mcm` with ARGUMENTS says first, and its process; that is ended in the end, if it has not.

    One that is to be killed leaves behind what it has in the directory SCRATCH.
    """
    environment = os.environ if scratch is None else {**os.environ, "TMPDIR": str(scratch)}
    command = [sys.executable, "-m", "mcmandelbrot", *arguments]
    with Program(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            assert select.select([process.stdout], [], [], PATIENCE)[0], "it says nothing"
            yield process.stdout.readline(), process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)


def addressIn(said: str) -> str:
    """The address that a server has SAID."""
    found = re.match(r"http://127\.0\.0\.1:\d+/", said)
    assert found, "the server says no address"
    return found[0]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium, with a directory of its own for what it knows of its user."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    assert chromium, "these tests need Chromium: apt-get install chromium, or set CHROMIUM to one"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def opening(browser: Browser, address: str) -> Iterator[Opening]:
    """Opens the explorer as a visitor of its own; what is wrong in it fails the test."""
    explorers: list[Explorer] = []
    contexts: list[BrowserContext] = []

    def opened(view: str = "", *, width: int = 1000, height: int = 700, phone: bool = False) -> Explorer:
        context = browser.new_context(
            viewport={"width": width, "height": height},
            device_scale_factor=2 if phone else 1,
            is_mobile=phone,
            has_touch=phone,
        )
        contexts.append(context)
        explorers.append(Explorer(context.new_page(), address))
        explorers[-1].open(view)
        return explorers[-1]

    yield opened
    for context in contexts:
        context.close()
    for explorer in explorers:
        assert not explorer.errors
        assert all(url.startswith((address, "blob:")) for url in explorer.asked), explorer.asked
