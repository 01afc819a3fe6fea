"""`mcm` as it is used: real processes, real files, real signals."""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.request import urlopen

import png
import pytest

from mcmandelbrot.fractal.kernel import rowLevels
from mcmandelbrot.fractal.palette import paint
from mcmandelbrot.fractal.picture import Picture, View
from tests.support.programs import Program

MCM = [sys.executable, "-m", "mcmandelbrot"]
SMALL = ["-w", "2", "60", "-0.630", "0", "1.4", "1.2"]
ENDLESS = ["-w", "2", "60000", "-0.630", "0", "1.4"]
PATIENCE = 120

INTERRUPTED_SERVER = """
import os, signal, sys
if "multiprocessing.forkserver" in " ".join(sys.orig_argv):
    with open(os.environ["STARTED"], "a") as started:
        print(os.getpid(), file=started)
    os.kill(os.getpid(), signal.SIGINT)
"""
"""What each Python does first: a fork server gets Ctrl-C long before it ignores it."""


def expected(picture: Picture) -> list[bytes]:
    """The rows of PICTURE, drawn here."""
    view = picture.view
    return [
        paint(rowLevels(view.left, view.level(row), view.step, view.width, picture.limit, picture.steepness))
        for row in range(view.height)
    ]


def decoded(content: bytes) -> list[bytes]:
    """The rows of a PNG."""
    _, _, rows, _ = png.Reader(bytes=content).read()
    return [bytes(row) for row in rows]


def some(fd: int) -> bytes:
    """What comes from FD next; nothing once everybody who could write there has gone."""
    ready, _, _ = select.select([fd], [], [], PATIENCE)
    assert ready, "nothing came, and nobody went"
    return os.read(fd, 65536)


class TestAPicture:
    def test_in_a_file_it_is_what_the_kernel_draws_and_what_it_took_is_told(self, tmp_path: Path) -> None:
        file = tmp_path / "m.png"
        done = subprocess.run([*MCM, "-o", file, *SMALL], capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
        assert done.stdout == ""
        picture = Picture(View.around(60, -0.63, 0.0, 1.4, 1.2))
        assert decoded(file.read_bytes()) == expected(picture)
        assert list(tmp_path.iterdir()) == [file]
        assert re.fullmatch(
            r"3,060 pixels in [\d.]+ s with 2 workers, after [\d.]+ s to start\n"
            rf"busy: \d+%, \d+%; overhead: [\d.]+ ms a call, of {len(picture.bands(2))} calls\n",
            done.stderr,
        )

    def test_on_standard_output_it_is_the_same_and_nothing_is_told(self) -> None:
        done = subprocess.run(
            [*MCM, "-N", "50", "-s", "1.5", *SMALL], capture_output=True, check=True, timeout=PATIENCE
        )
        assert decoded(done.stdout) == expected(Picture(View.around(60, -0.63, 0.0, 1.4, 1.2), 50, 1.5))
        assert done.stderr == b""

    def test_a_terminal_sees_how_far_it_is(self, tmp_path: Path) -> None:
        with Terminal([*MCM, "-o", str(tmp_path / "m.png"), *SMALL]) as terminal:
            terminal.readUntil(rb"/51 ")
            assert b"busy: " in terminal.readToTheEnd()
        assert terminal.status == 0


class Terminal:
    """A command in a process group of its own, with a terminal for its standard error."""

    def __init__(self, command: list[str]) -> None:
        self._leader, follower = os.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self._process = Program(
            command, stdout=subprocess.DEVNULL, stderr=follower, stdin=subprocess.DEVNULL, start_new_session=True
        )
        os.close(follower)
        self._seen = b""
        self.status: int | None = None

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        os.close(self._leader)

    def readUntil(self, pattern: bytes) -> None:
        while not re.search(pattern, self._seen):
            more = self._read()
            assert more, f"it ended after {self._seen!r}"
            self._seen += more

    def readToTheEnd(self) -> bytes:
        """All that came, when the last process that could write it has gone."""
        while more := self._read():
            self._seen += more
        self.status = self._process.wait(PATIENCE)
        return self._seen

    def _read(self) -> bytes:
        try:
            return some(self._leader)
        except OSError:  # what Linux says when nobody holds the other end
            return b""

    def interrupt(self, number: int, *, group: bool) -> None:
        if group:
            os.killpg(self._process.pid, number)
        else:
            self._process.send_signal(number)


class TestEndingEarly:
    @pytest.mark.parametrize(
        ("number", "group", "status"),
        [(signal.SIGINT, True, 130), (signal.SIGINT, False, 130), (signal.SIGTERM, False, 143)],
        ids=["Ctrl-C", "kill -INT", "kill"],
    )
    def test_a_signal_in_the_middle_leaves_no_file_and_no_process(
        self, number: int, group: bool, status: int, tmp_path: Path
    ) -> None:
        with Terminal([*MCM, "-o", str(tmp_path / "m.png"), *ENDLESS]) as terminal:
            terminal.readUntil(rb"[1-9]\d*/60000 ")
            terminal.interrupt(number, group=group)
            seen = terminal.readToTheEnd()
        assert terminal.status == status
        assert b"Traceback" not in seen
        assert list(tmp_path.iterdir()) == []

    def test_ctrl_c_while_the_fork_server_starts_is_not_heard_there(self, tmp_path: Path) -> None:
        (tmp_path / "sitecustomize.py").write_text(INTERRUPTED_SERVER)
        places = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, "PYTHONPATH": places, "STARTED": str(tmp_path / "started")}
        command = [*MCM, "-o", str(tmp_path / "m.png"), *SMALL]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=environment)
        assert done.returncode == 0, done.stderr
        assert "Interrupt" not in done.stderr
        assert len((tmp_path / "started").read_text().splitlines()) == 1

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_a_signal_at_the_very_beginning_leaves_no_file(self, number: int, tmp_path: Path) -> None:
        with Program([*MCM, "-o", str(tmp_path / "m.png"), *ENDLESS], stderr=subprocess.PIPE) as process:
            while not list(tmp_path.iterdir()):  # the file is there long before the reactor is
                assert process.poll() is None
            process.send_signal(number)
            assert process.wait(PATIENCE) == 128 + number
            assert process.stderr is not None
            assert b"Traceback" not in process.stderr.read()
        assert list(tmp_path.iterdir()) == []

    def test_a_stalled_reader_does_not_keep_it_from_ending(self) -> None:
        read, write = os.pipe()
        fcntl.fcntl(read, fcntl.F_SETPIPE_SZ, 4096)  # less than is ever written at once: then writing is stuck
        with (
            open(read, "rb", buffering=0) as reader,
            open(write, "wb") as writer,
            Program([*MCM, *ENDLESS], stdout=writer, stderr=subprocess.PIPE) as process,
        ):
            assert process.stderr is not None
            assert reader.read(8) == b"\x89PNG\r\n\x1a\n"
            process.send_signal(signal.SIGINT)
            assert some(process.stderr.fileno()) == b""  # nobody is left who could write there
            assert process.wait(PATIENCE) == 130

    def test_a_reader_that_goes_away_ends_it_quietly(self) -> None:
        with Program([*MCM, *ENDLESS], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.read(8)
            process.stdout.close()
            assert some(process.stderr.fileno()) == b""
            assert process.wait(PATIENCE) == 128 + signal.SIGPIPE

    def test_a_full_disk_is_one_line_and_status_1(self) -> None:
        done = subprocess.run([*MCM, "-o", "/dev/full", *SMALL], capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 1
        assert done.stderr == "mcm: cannot write the picture: No space left on device\n"

    def test_signals_ignored_from_the_start_stay_ignored(self, tmp_path: Path) -> None:
        file = tmp_path / "m.png"
        with Terminal(["sh", "-c", "trap '' INT HUP; exec \"$@\"", "sh", *MCM, "-o", str(file), *SMALL]) as terminal:
            terminal.readUntil(rb"starting")
            terminal.interrupt(signal.SIGINT, group=True)
            terminal.interrupt(signal.SIGHUP, group=True)
            terminal.readToTheEnd()
        assert terminal.status == 0
        assert file.exists()


class TestServing:
    @pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_it_says_where_it_is_and_a_signal_ends_it(self, number: int, status: int) -> None:
        command = [*MCM, "serve", "--port", "0", "-w", "1"]
        with Program(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert select.select([process.stdout], [], [], PATIENCE)[0]
            said = re.fullmatch(rb"(http://127.0.0.1:\d+/) with 1 worker; Ctrl-C ends it\n", process.stdout.readline())
            assert said
            url = said[1].decode()
            with urlopen(f"{url}tile/0/-1/0?limit=100") as tile, urlopen(f"{url}events") as events:
                assert tile.status == 200
                assert events.readline().startswith(b"data: {")
                process.send_signal(number)
                assert some(process.stderr.fileno()) == b""  # nobody is left who could write there
            assert process.wait(PATIENCE) == status

    def test_a_port_that_is_taken_is_one_line_and_status_1(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            command = [*MCM, "serve", "--port", str(port), "-w", "1"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 1
        assert done.stderr == f"mcm: cannot listen at port {port} of 127.0.0.1: Address already in use\n"
        assert done.stdout == ""


@contextmanager
def lending(key: Path, place: str, scratch: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """An `mcm worker` at PLACE; one that is to be killed leaves behind what it has in the directory SCRATCH."""
    environment = os.environ if scratch is None else {**os.environ, "TMPDIR": str(scratch)}
    command = [*MCM, "worker", "-w", "1", "-k", str(key), place]
    with Program(command, stdout=subprocess.PIPE, env=environment) as machine:
        assert machine.stdout is not None
        assert select.select([machine.stdout], [], [], PATIENCE)[0]
        assert machine.stdout.readline().startswith(b"1 worker at unix:")
        yield machine
        machine.send_signal(signal.SIGINT)


class TestOtherMachines:
    @pytest.fixture
    def key(self, tmp_path: Path) -> Path:
        path = tmp_path / "wire.key"
        path.write_text("what the machines have")
        path.chmod(0o600)
        return path

    def test_two_share_the_rows_of_one_picture(self, key: Path, tmp_path: Path) -> None:
        sockets = [f"unix:{tmp_path / name}" for name in ("one", "two")]
        command = [*MCM, "worker", "-w", "1", "-k", str(key)]
        with ExitStack() as stack:
            machines = [stack.enter_context(Program([*command, place], stdout=subprocess.PIPE)) for place in sockets]
            for machine in machines:
                assert machine.stdout is not None
                assert select.select([machine.stdout], [], [], PATIENCE)[0]
                assert machine.stdout.readline().startswith(b"1 worker at unix:")
            file = tmp_path / "m.png"
            places: list[str] = [word for place in sockets for word in ("-d", place)]
            done = subprocess.run(
                [*MCM, *places, "-k", str(key), "-o", str(file), *SMALL[2:]],
                capture_output=True,
                text=True,
                timeout=PATIENCE,
            )
            for machine in machines:
                machine.send_signal(signal.SIGINT)
        assert done.returncode == 0, done.stderr
        assert "with 2 workers" in done.stderr
        assert decoded(file.read_bytes()) == expected(Picture(View.around(60, -0.63, 0.0, 1.4, 1.2)))
        assert [machine.returncode for machine in machines] == [130, 130]

    def test_one_that_cannot_be_reached_is_named_and_the_other_draws(self, key: Path, tmp_path: Path) -> None:
        there, nobody = f"unix:{tmp_path / 'one'}", f"unix:{tmp_path / 'nobody'}"
        with lending(key, there):
            done = subprocess.run(
                [*MCM, "-d", nobody, "-d", there, "-k", str(key), *SMALL[2:]], capture_output=True, timeout=PATIENCE
            )
        assert done.returncode == 0, done.stderr
        assert decoded(done.stdout) == expected(Picture(View.around(60, -0.63, 0.0, 1.4, 1.2)))
        assert re.fullmatch(rf"mcm: {nobody} cannot be reached: .*; another continues\n".encode(), done.stderr)

    @pytest.mark.parametrize("number", [1, 2])
    def test_one_that_is_lost_is_named_and_the_others_draw_if_there_are_any(
        self, key: Path, tmp_path: Path, number: int
    ) -> None:
        places = [f"unix:{tmp_path / str(n)}" for n in range(number)]
        with ExitStack() as stack:
            machines = [stack.enter_context(lending(key, place, scratch=tmp_path)) for place in places]
            named: list[str] = [word for place in places for word in ("-d", place)]
            command = [*MCM, *named, "-k", str(key), "-N", "100", "1000", "-0.63", "0", "1.4", "1.2"]
            with Program(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as drawing:
                assert drawing.stdout is not None
                assert drawing.stderr is not None
                begun = drawing.stdout.read(1000)  # the rest has no room in the pipe
                machines[0].kill()
                rest = drawing.stdout.read()
                said = drawing.stderr.read().decode()
        lost = f"the connection to {places[0]} was lost"
        if number == 1:
            assert drawing.returncode == 1
            assert said == f"mcm: cannot draw the picture: {lost}\n"
        else:
            assert (drawing.returncode, said) == (0, f"mcm: {lost}; another continues\n")
            assert decoded(begun + rest) == expected(Picture(View.around(1000, -0.63, 0.0, 1.4, 1.2), 100))

    def test_they_draw_the_tiles_of_an_explorer(self, key: Path, tmp_path: Path) -> None:
        place = f"unix:{tmp_path / 'one'}"
        environment = {**os.environ, "ASYNQUEUE_WIRE_KEY": key.read_text()}
        with Program([*MCM, "worker", "-w", "1", "-k", str(key), place], stdout=subprocess.PIPE) as machine:
            assert machine.stdout is not None
            assert select.select([machine.stdout], [], [], PATIENCE)[0]
            command = [*MCM, "serve", "--port", "0", "-d", place]
            with Program(command, stdout=subprocess.PIPE, env=environment) as server:
                assert server.stdout is not None
                assert select.select([server.stdout], [], [], PATIENCE)[0]
                said = re.fullmatch(
                    rb"(http://.*/) with 1 worker on 1 machine; Ctrl-C ends it\n", server.stdout.readline()
                )
                assert said
                with urlopen(f"{said[1].decode()}tile/0/-1/0?limit=100") as tile:
                    assert tile.status == 200
                server.send_signal(signal.SIGINT)
            machine.send_signal(signal.SIGINT)
        assert (server.returncode, machine.returncode) == (130, 130)

    def test_an_explorer_without_its_machine_is_one_line_and_status_1(self, key: Path, tmp_path: Path) -> None:
        place = f"unix:{tmp_path / 'nobody'}"
        command = [*MCM, "serve", "--port", "0", "-d", place, "-k", str(key)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.splitlines()[-1].startswith(f"mcm: cannot draw: {place} cannot be reached")

    def test_one_that_cannot_be_reached_is_one_line_and_status_1(self, key: Path, tmp_path: Path) -> None:
        place = f"unix:{tmp_path / 'nobody'}"
        file = tmp_path / "m.png"
        command = [*MCM, "-d", place, "-k", str(key), "-o", str(file), *SMALL[2:]]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith(f"mcm: cannot draw the picture: {place} cannot be reached")
        assert not file.exists()

    def test_a_worker_without_a_key_is_one_line_and_status_1(self, tmp_path: Path) -> None:
        command = [*MCM, "worker", f"unix:{tmp_path / 'socket'}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "mcm: there is no key: use -k FILE, or set ASYNQUEUE_WIRE_KEY_FILE\n"
