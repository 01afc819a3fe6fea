"""Processes start wherever their program is: without a temporary directory, a working directory, descriptors..."""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import zipapp
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import gatherResults
from twisted.logger import LogEvent, globalLogPublisher

import asynqueue
from asynqueue import ProcessQueue
from asynqueue.errors import ProcessError, WorkerLost
from asynqueue.iteration import deferToDelay
from asynqueue.process import starting
from tests.support.calls import failureOf, inLoop, until

CONTEXTS = ("forkserver", "spawn", "fork")
ROOT = Path(asynqueue.__file__).parents[2]

PROGRAM = """
import os, sys
from twisted.internet.task import react
from twisted.logger import globalLogPublisher
from asynqueue import ProcessQueue

warned = []
globalLogPublisher.addObserver(lambda event: event["log_namespace"] == "asynqueue" and warned.append(event))

def directory():
    try:
        return os.path.basename(os.getcwd())
    except FileNotFoundError:
        return None

async def main(reactor, context):
    async with ProcessQueue(2, context=context) as queue:
        found = [await queue.call(directory)]
        await queue.call(os._exit, 1, retries=0).addErrback(lambda _: None)
        found.append(await queue.call(directory))
    print(*found, len(warned))

react(main, sys.argv[1:])
"""


def run(before: str, context: str, here: Path, **environment: str) -> str:
    """What the program prints, which first does what is said BEFORE."""
    done = subprocess.run(
        [sys.executable, "-c", before + PROGRAM, context],
        capture_output=True, text=True, timeout=60, cwd=here, env={**os.environ, **environment}, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


@pytest.mark.parametrize("name", ["x" * 100, "a:b"])
def test_any_temporary_directory_will_do(name: str, tmp_path: Path) -> None:
    place = tmp_path / name
    place.mkdir()
    assert run("", "forkserver", tmp_path, TMPDIR=str(place)) == f"{tmp_path.name} {tmp_path.name} 0"
    assert not list(place.iterdir())


def test_none_will_do_too_and_is_logged_once(tmp_path: Path) -> None:
    before = """
import tempfile
def refuse(*args, **kw):
    raise FileNotFoundError(2, "No usable temporary directory found")
tempfile.gettempdir = tempfile._get_default_tempdir = tempfile.mkdtemp = refuse
"""
    assert run(before, "forkserver", tmp_path) == f"{tmp_path.name} {tmp_path.name} 1"


MOUNTS = """
root=$1; shift
mount -t tmpfs none $root
for place in usr lib lib64 bin proc dev "$PYTHONS"; do
    [ -e /$place ] && mkdir -p $root/$place && mount --rbind /$place $root/$place
done
mkdir -p $root/app && mount --rbind "$APP" $root/app
for place in app usr; do mount -o remount,bind,ro $root/$place || exit 99; done
mount -o remount,ro $root || exit 99
cd / && PYTHONPATH=/app/src:$PACKAGES PYTHONDONTWRITEBYTECODE=1 exec chroot $root "$@"
"""


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="only root of a Linux can mount file systems")
@pytest.mark.parametrize("context", ["forkserver", "fork"])
def test_a_root_that_is_read_only_and_has_no_temporary_directory_will_do(context: str, tmp_path: Path) -> None:
    if subprocess.run(["unshare", "--mount", "true"], check=False).returncode:
        pytest.skip("this system lets nobody mount file systems")
    python = Path(sys._base_executable).resolve()  # type: ignore[attr-defined]  # it is private, and there since 3.7
    packages = Path(pytest.__file__).parents[1]
    program = "import os\nos.chdir('/app')\n" + PROGRAM
    here = ["unshare", "--mount", "--propagation", "private", "sh", "-c", MOUNTS, "sh", str(tmp_path)]
    done = subprocess.run(
        [*here, str(python), "-c", program, context], capture_output=True, text=True, timeout=60, check=False,
        env={"PATH": os.environ["PATH"], "PYTHONS": str(python.parents[1]).lstrip("/"), "APP": str(ROOT),
             "PACKAGES": f"/app/{packages.relative_to(ROOT)}" if packages.is_relative_to(ROOT) else str(packages)},
    )  # fmt: skip
    if done.returncode in (99, 127):
        pytest.skip(f"this system cannot be made such a root: {done.stderr}")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == f"app app {int(context == 'forkserver')}"


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.skipif(sys.version_info[:3] == (3, 13, 0), reason="Python 3.13.0 cannot import socket there")
def test_a_working_directory_that_was_removed_will_do(context: str, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    before = "import os\nos.rmdir(os.getcwd())\n"
    assert run(before, context, tmp_path / "here") == "None None 0"


def test_an_application_in_one_archive_works_beside_a_folder_of_our_name(tmp_path: Path) -> None:
    app = tmp_path / "app"
    package = Path(asynqueue.__file__).parent
    shutil.copytree(package, app / "asynqueue", ignore=shutil.ignore_patterns("__pycache__"))
    (app / "__main__.py").write_text("import asynqueue\nassert '.pyz' in asynqueue.__file__\n" + PROGRAM)
    zipapp.create_archive(app, tmp_path / "app.pyz")
    (tmp_path / "asynqueue").mkdir()
    for context in CONTEXTS:
        command = [sys.executable, "app.pyz", context]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False)
        assert (done.stdout.strip(), done.stderr) == (f"{tmp_path.name} {tmp_path.name} 0", "")


@pytest.mark.parametrize("context", CONTEXTS)
@inLoop
async def test_no_call_is_lost_while_no_descriptor_is_free(context: str) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    held: list[int] = []
    async with ProcessQueue(1, context=context) as running:
        await running.call(abs, 1)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/dev/fd"))) + 20, limits[1]))
        try:
            with suppress(OSError):
                while True:
                    held.append(os.open(os.devnull, os.O_RDONLY))
            fresh = ProcessQueue(1, context=context)
            assert isinstance(await failureOf(running.call(os._exit, 1, retries=0)), WorkerLost)
            calls = [queue.call(abs, -number) for queue in (running, fresh) for number in range(3)]
            await deferToDelay(0.2)  # for some attempts
            assert not any(d.called for d in calls)
        finally:
            for descriptor in held:
                os.close(descriptor)
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert await gatherResults(calls) == [0, 1, 2] * 2
        await fresh.shutdown()


def work(context: str, answers: Any, shutsDown: bool) -> None:
    """Run a queue in a process of `multiprocessing`, and put what a call returns and the worker into ANSWERS."""
    import threading

    from twisted.internet import reactor

    done = threading.Event()

    async def main() -> None:
        queue = ProcessQueue(1, context=context)
        answers.put((await queue.call(pow, 2, 5), await queue.call(os.getpid)))
        if shutsDown:
            await queue.shutdown()
        done.set()

    def start() -> None:
        from twisted.internet.defer import ensureDeferred

        ensureDeferred(main())

    loop: Any = reactor
    loop.callWhenRunning(start)
    threading.Thread(target=loop.run, kwargs={"installSignalHandlers": False}, daemon=True).start()
    done.wait()


@pytest.mark.parametrize(("daemonic", "shutsDown"), [(True, True), (True, False), (False, False)])
@pytest.mark.parametrize("context", CONTEXTS)
@inLoop
async def test_a_process_of_multiprocessing_has_workers_and_ends_with_them(
    context: str, daemonic: bool, shutsDown: bool
) -> None:
    spawning = multiprocessing.get_context("spawn")
    answers = spawning.SimpleQueue()
    process = spawning.Process(target=work, args=(context, answers, shutsDown), daemon=daemonic)
    process.start()
    try:
        result, worker = answers.get()
        assert result == 32
        process.join(20)
        assert process.exitcode == 0
        await until(lambda: not Path(f"/proc/{worker}").exists())
    finally:
        process.kill()
        process.join()
        answers.close()


@pytest.mark.parametrize("error", [PermissionError(1, "a sandbox forbids it"), ImportError("a sandbox forbids it")])
@inLoop
async def test_what_keeps_all_processes_from_starting_is_in_the_error(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any) -> None:
        raise error

    monkeypatch.setattr(starting, "WorkerProcess", refuse)
    starting._logFallback.cache_clear()
    events: list[LogEvent] = []
    observer: Any = events.append
    globalLogPublisher.addObserver(observer)
    try:
        with pytest.raises(ProcessError, match=r"no process could be started.*a sandbox forbids it"):
            ProcessQueue(1)
    finally:
        globalLogPublisher.removeObserver(observer)
    fellBack = any("a sandbox forbids it" in str(event.get("error")) for event in events)
    assert fellBack == isinstance(error, OSError)


def test_only_what_may_be_over_soon_is_tried_again() -> None:
    assert all(map(starting._isPassing, [EOFError(), ConnectionResetError(), OSError(24, ""), BlockingIOError(11, "")]))
    assert not any(
        map(starting._isPassing, [OSError("AF_UNIX path too long"), FileNotFoundError(2, ""), PermissionError(1, "")])
    )


@pytest.mark.parametrize("context", CONTEXTS)
def test_a_program_that_blocks_signals_will_do(context: str, tmp_path: Path) -> None:
    before = (
        "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT})\n"
    )
    assert run(before, context, tmp_path) == f"{tmp_path.name} {tmp_path.name} 0"
