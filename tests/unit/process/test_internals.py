"""What we use of `multiprocessing` that is not documented: it is there, on this Python; and what happens without it."""

from __future__ import annotations

import multiprocessing
import os
import stat
import sys
from multiprocessing import current_process, forkserver, resource_tracker, spawn
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from asynqueue.process import internals
from tests.support.calls import inLoop, isAbsent, until


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A fork server of its own, which has not started."""
    fresh = forkserver.ForkServer()
    monkeypatch.setattr(forkserver, "_forkserver", fresh)
    monkeypatch.setattr(forkserver, "set_forkserver_preload", fresh.set_forkserver_preload)
    return fresh


def test_modules_are_added_to_those_that_the_fork_server_preloads(server: Any) -> None:
    server.set_forkserver_preload(["json"])
    internals.preload("one", "two")
    internals.preload("two", "three")
    assert server._preload_modules == ["json", "one", "two", "three"]
    del server._preload_modules
    internals.preload("four")
    assert not hasattr(server, "_preload_modules")


def test_the_helper_processes_have_a_descriptor_each(monkeypatch: pytest.MonkeyPatch, server: Any) -> None:
    assert internals.serverDescriptor() is None
    internals.ensureTracker()
    server.ensure_running()
    try:
        for descriptor in (internals.serverDescriptor(), internals.trackerDescriptor()):
            assert descriptor is not None
            assert stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    finally:
        server._stop()
    for module, name in ((forkserver, "_forkserver"), (resource_tracker, "_resource_tracker")):
        monkeypatch.delattr(module, name)
    monkeypatch.delattr(resource_tracker, "ensure_running")
    internals.ensureTracker()
    assert (internals.serverDescriptor(), internals.trackerDescriptor()) == (None, None)


def test_the_socket_has_a_folder_that_is_made_anew_when_it_was_removed(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = current_process()._config  # type: ignore[attr-defined]  # it is private
    monkeypatch.setitem(config, "tempdir", None)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert internals.socketFolder() is None
    internals.placeSocket()
    first = internals.socketFolder()
    assert first is not None
    assert Path(first).stat().st_mode & 0o777 == 0o700
    internals.placeSocket()
    assert internals.socketFolder() == first
    os.rmdir(first)
    internals.placeSocket()
    second = internals.socketFolder()
    assert second is not None
    server.ensure_running()
    try:
        assert [path.name for path in Path(second).iterdir()] == [Path(server._forkserver_address).name]
    finally:
        server._stop()


def test_without_its_settings_multiprocessing_has_the_folder_that_it_likes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(current_process(), "_config")
    internals.placeSocket()
    assert internals.socketFolder() is None
    with internals.startOfWorker():
        pass


def test_a_process_gets_nothing_of_the_programs_main(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    main = {"init_main_from_name", "init_main_from_path"}
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(tmp_path / "script.py"), raising=False)
    assert main & spawn.get_preparation_data("a name").keys()
    with internals.startOfWorker():
        prepared = spawn.get_preparation_data("a name")
        others: list[dict[str, Any]] = []
        thread = Thread(target=lambda: others.append(spawn.get_preparation_data("another")))
        thread.start()
        thread.join()
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        (tmp_path / "here").rmdir()
        bare = spawn.get_preparation_data("a name")
    monkeypatch.undo()
    assert not main & (prepared.keys() | bare.keys())
    assert main & others[0].keys()
    assert {key: bare[key] for key in bare if key != "sys_path"} == {
        key: prepared[key] for key in bare if key != "sys_path"
    }
    assert set(bare["sys_path"]) - {""} <= set(prepared["sys_path"])


def test_a_daemonic_process_may_start_one_and_stays_daemonic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(current_process()._config, "daemon", True)  # type: ignore[attr-defined]  # it is private
    with internals.startOfWorker():
        process = multiprocessing.get_context("spawn").Process(target=int)
        assert not process.daemon
        process.start()
    process.join()
    assert (process.exitcode, current_process().daemon) == (0, True)
    internals.endWithProgram(process)
    assert process.daemon


@pytest.mark.parametrize("context", ["forkserver", "spawn", "fork"])
@inLoop
async def test_a_process_ends_when_the_pipe_of_the_program_is_closed(
    context: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That pipe is one of those that a fork of the program has to give up."""
    contexts: Any = multiprocessing
    process = contexts.get_context(context).Process(target=waitForProgram)
    process.start()
    try:
        pipes = internals.pipesOf(process)
        assert pipes
        for pipe in set(pipes) - {process.sentinel}:
            os.dup2(process.sentinel, pipe)  # as `asynqueue.transport.lifeline.disown` does
        await until(lambda: isAbsent(process.pid))
    finally:
        process.kill()
        process.join()
    with monkeypatch.context() as patch:
        patch.delattr(process._popen.finalizer, "_args")
        assert internals.pipesOf(process) == []
    process.close()
    assert internals.pipesOf(process) == []


def waitForProgram() -> None:
    """Wait until the program has ended, as this process notices it."""
    from multiprocessing import connection, parent_process

    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
