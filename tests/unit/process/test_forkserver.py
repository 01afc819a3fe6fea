"""What the fork server imports for worker processes, and that it is nobody else's."""

from __future__ import annotations

import os
import site
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import asynqueue
from asynqueue.process import forkserver as preload

ROOT = Path(asynqueue.__file__).parents[1]

PROGRAM = """
    from pathlib import Path
    from twisted.internet.task import react
    from asynqueue import ProcessQueue

    def server():
        import os
        return Path(f"/proc/{os.getppid()}/cmdline").read_text().partition("main(")[2]

    async def main(reactor):
        async with ProcessQueue(2) as queue:
            for line in await queue.update(server):
                print(line[line.index("["):line.index("]") + 1])

    react(main)
    """


def servers(here: Path, before: str, environment: dict[str, str]) -> list[str]:
    """What the servers of two processes of a program import, which first does what is said BEFORE."""
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", f"{before}\n{textwrap.dedent(PROGRAM)}"],
        capture_output=True, text=True, timeout=60, env=own | environment, cwd=here,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_the_far_side_is_imported_once_for_all_beside_what_it_imports_anyway(tmp_path: Path) -> None:
    found = servers(tmp_path, "", {"PYTHONPATH": str(ROOT)})
    assert found == ["['__main__', 'asynqueue.process.child.main', 'asynqueue.process.child.leftovers']"] * 2


def test_what_the_program_wants_imported_stays(tmp_path: Path) -> None:
    before = "import multiprocessing; multiprocessing.set_forkserver_preload(['json', 'decimal'])"
    found = servers(tmp_path, before, {"PYTHONPATH": str(ROOT)})
    assert found == ["['json', 'decimal', 'asynqueue.process.child.main', 'asynqueue.process.child.leftovers']"] * 2


def test_a_package_that_a_fresh_interpreter_would_not_find_is_not_named_to_one(tmp_path: Path) -> None:
    (tmp_path / "asynqueue").mkdir()  # what it would find
    (tmp_path / "asynqueue" / "__init__.py").write_text("raise ImportError('the wrong one')")
    found = servers(tmp_path, f"import sys; sys.path.insert(0, {str(ROOT)!r})", {})
    assert found == ["['__main__']"] * 2


def test_a_package_is_found_where_the_site_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setattr(site, "ENABLE_USER_SITE", False)
    monkeypatch.setattr(site, "getsitepackages", lambda: [str(tmp_path)])
    findsUs = preload._findsThisPackage.__wrapped__
    assert not findsUs()
    (tmp_path / "_editable.pth").write_text(f"# no folder\nimport sys\n{ROOT}\n")
    assert findsUs()
    (tmp_path / "_before.pth").write_text("other\n")
    (tmp_path / "other" / "asynqueue").mkdir(parents=True)
    assert not findsUs()


def test_a_server_that_runs_already_stays_as_it_is(tmp_path: Path) -> None:
    before = "from multiprocessing.forkserver import ensure_running; ensure_running()"
    assert servers(tmp_path, before, {"PYTHONPATH": str(ROOT)}) == ["['__main__']"] * 2
