"""Where a picture goes: whole under its name, or not at all."""

from __future__ import annotations

import io
import os
import stat
import threading
from pathlib import Path

import pytest

from mcmandelbrot.cli.output import namedFile, standardOutput
from mcmandelbrot.errors import TargetError


def write(name: str | Path, content: bytes = b"picture") -> None:
    with namedFile(str(name)) as file, file:
        file.write(content)


class TestNamedFile:
    def test_it_has_its_name_only_once_it_is_whole(self, tmp_path: Path) -> None:
        final = tmp_path / "a.png"
        with namedFile(str(final)) as file:
            with file:
                file.write(b"picture")
            assert not final.exists()
        assert final.read_bytes() == b"picture"
        assert list(tmp_path.iterdir()) == [final]

    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    def test_nothing_is_left_after_an_error(self, tmp_path: Path, error: type[BaseException]) -> None:
        def fail() -> None:
            with namedFile(str(tmp_path / "a.png")) as file, file:
                file.write(b"half a pic")
                raise error

        with pytest.raises(error):
            fail()
        assert list(tmp_path.iterdir()) == []

    def test_an_old_picture_outlives_an_error(self, tmp_path: Path) -> None:
        final = tmp_path / "a.png"
        final.write_bytes(b"old")

        def fail() -> None:
            with namedFile(str(final)) as file, file:
                raise RuntimeError

        with pytest.raises(RuntimeError):
            fail()
        assert final.read_bytes() == b"old"
        write(final, b"new")
        assert final.read_bytes() == b"new"

    def test_it_may_be_read_by_whom_the_umask_allows(self, tmp_path: Path) -> None:
        before = os.umask(0o027)
        try:
            write(tmp_path / "a.png")
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "a.png").stat().st_mode) == 0o640

    def test_a_link_stays_a_link(self, tmp_path: Path) -> None:
        (tmp_path / "there").mkdir()
        (tmp_path / "link.png").symlink_to("there/a.png")
        write(tmp_path / "link.png")
        assert (tmp_path / "link.png").is_symlink()
        assert (tmp_path / "there" / "a.png").read_bytes() == b"picture"

    def test_a_pipe_is_written_as_it_is(self, tmp_path: Path) -> None:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        read: list[bytes] = []
        reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
        reader.start()
        write(pipe)
        reader.join()
        assert read == [b"picture"]
        assert stat.S_ISFIFO(pipe.stat().st_mode)

    def test_a_name_as_long_as_can_be_is_possible(self, tmp_path: Path) -> None:
        write(tmp_path / (251 * "a" + ".png"))

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("/nonexistent/a.png", "cannot write '/nonexistent/a.png': No such file or directory"),
            ("/dev/null/a.png", "Not a directory"),
            ("/", "not the name of a file"),
            ("", "not the name of a file"),
            ("/dev/shm", "Is a directory"),
            ("a\0b", "null"),
        ],
    )
    def test_it_refuses_at_once_what_cannot_be_written(self, name: str, reason: str) -> None:
        with pytest.raises(TargetError, match=reason), namedFile(name):
            raise AssertionError("it was opened")


class TestStandardOutput:
    def test_it_refuses_a_terminal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        leader, follower = os.openpty()
        try:
            with open(follower, "w") as terminal:
                monkeypatch.setattr("sys.stdout", terminal)
                with pytest.raises(TargetError, match="-o FILE"), standardOutput():
                    raise AssertionError("it was opened")
        finally:
            os.close(leader)

    @pytest.mark.parametrize("nothing", [None, io.StringIO()])
    def test_it_refuses_what_is_no_file(self, nothing: io.StringIO | None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdout", nothing)
        with pytest.raises(TargetError, match="-o FILE"), standardOutput():
            raise AssertionError("it was opened")

    def test_closing_it_leaves_the_program_its_own(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        with open(tmp_path / "out", "w") as out:
            monkeypatch.setattr("sys.stdout", out)
            with standardOutput() as file, file:
                file.write(b"picture")
            out.write(" and more")
        assert (tmp_path / "out").read_bytes() == b"picture and more"
