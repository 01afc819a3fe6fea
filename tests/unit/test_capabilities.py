"""What a system may lack: each feature can be taken away, and the pages and the self-test agree on what there is."""

from __future__ import annotations

import os
import platform
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import asynqueue
from asynqueue.__main__ import CHECKS, table
from asynqueue.capabilities import FEATURES, PLATFORMS, WITHOUT, descriptorLimit, has, openPidfd, proc

DOCS = Path(__file__).parents[2] / "docs"
Taking = Callable[[str], None]


def selfTest(without: str) -> tuple[int, str]:
    """The exit status and the output of the self-test on a machine that lacks the features WITHOUT."""
    done = subprocess.run(
        [sys.executable, "-m", "asynqueue"],
        env={**os.environ, WITHOUT: without},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=120,
    )
    return done.returncode, done.stdout


# Each of these replaces what every process worker or wire depends on. `tox -e without` has all.
@pytest.mark.parametrize("name", ["all", "SCM_RIGHTS", "F_SETSIG", "pidfd_open", "AF_UNIX"])
def test_workers_of_each_kind_work_without(name: str) -> None:
    status, text = selfTest(name)
    assert (status, text.count(" OK\n")) == (0, len(CHECKS)), text


def test_without_posix_all_works_but_processes() -> None:
    status, text = selfTest("posix")
    assert (status, text.count(" OK\n")) == (0, len(CHECKS) - 1), text
    assert "not on this system" in text


def test_a_worker_that_does_not_work_is_the_exit_status() -> None:
    program = """
from asynqueue import NullQueue, __main__ as it
it.CHECKS["wire"] = lambda: it._calls(NullQueue(), max)
it.main([])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "wire              ValueError" in done.stdout


def test_the_self_test_says_what_it_is_for() -> None:
    done = subprocess.run([sys.executable, "-m", "asynqueue", "--help"], capture_output=True, text=True, check=True)
    assert WITHOUT in done.stdout


def test_the_page_has_the_features_as_they_are() -> None:
    page = (DOCS / "platforms.md").read_text()
    written: Callable[[str], str] = runpy.run_path(str(DOCS / "platforms.py"))["written"]
    assert page == written(page), "write it again: python docs/platforms.py"


@pytest.mark.skipif(
    WITHOUT in os.environ or sys.platform != "linux", reason="features are missing on purpose, or not Linux"
)
@pytest.mark.parametrize("name", FEATURES)
def test_this_machine_and_the_page_agree(name: str) -> None:
    here = "PyPy" if platform.python_implementation() == "PyPy" else "Linux"
    row = next(line for line in (DOCS / "platforms.md").read_text().splitlines() if line.startswith(f"| `{name}` |"))
    listed = row.split("|")[2 + PLATFORMS.index(here)].strip()
    assert listed == ("yes" if has(name) else "no")
    assert f"{name:18}{listed:5}" in table()


def test_a_feature_is_taken_away_by_its_name_and_no_other_with_it(without: Taking) -> None:
    there = {name for name in FEATURES if has(name)}
    without("eventfd,/proc")
    assert {name for name in FEATURES if has(name)} == there - {"eventfd", "/proc"}


def test_all_leaves_what_has_no_substitute(without: Taking) -> None:
    needed = {name for name, feature in FEATURES.items() if feature.needed}
    without("all")
    assert {name for name in FEATURES if has(name)} == needed


def test_a_feature_that_the_system_refuses_is_not_there(without: Taking, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError

    without("")
    monkeypatch.setattr(os, "memfd_create", refuse)
    monkeypatch.delattr(os, "eventfd")
    assert not has("memfd_create")
    assert not has("eventfd")


def test_what_is_taken_away_is_not_used(without: Taking) -> None:
    without("pidfd_open,/proc,getrlimit")
    assert openPidfd(os.getpid()) is None
    assert descriptorLimit() == 256
    with pytest.raises(FileNotFoundError):
        proc("self/status")


def test_no_other_module_asks_the_system_what_it_has() -> None:
    asking = re.compile(r"(has|get)attr\((os|signal|mmap|fcntl|resource), |sys\.platform|os\.name|[\"']/proc/")
    allowed = {"capabilities.py", "__main__.py", "keys.py", "chunkedpayload.py"}  # flags of Windows, and the core
    source = Path(asynqueue.__file__).parent
    assert not [path for path in source.rglob("*.py") if path.name not in allowed and asking.search(path.read_text())]
