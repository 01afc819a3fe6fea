"""What worker processes print: by lines, whole ones, and all of it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from asynqueue.process.child import stdio as output
from asynqueue.process.child.stdio import LineWriter


class TestLineWriter:
    @pytest.fixture
    def pipe(self) -> Iterator[tuple[int, LineWriter]]:
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        yield reading, LineWriter(writing)
        os.close(reading)
        os.close(writing)

    def read(self, descriptor: int) -> bytes:
        """What there is to read."""
        try:
            return os.read(descriptor, 1 << 20)
        except BlockingIOError:
            return b""

    def test_a_line_is_held_back_until_it_is_complete(self, pipe: tuple[int, LineWriter]) -> None:
        reading, writer = pipe
        assert writer.write(b"one") == 3
        assert self.read(reading) == b""
        assert writer.write(b", two\nthree\nfo") == 14
        assert self.read(reading) == b"one, two\nthree\n"
        writer.write(b"ur\n")
        assert self.read(reading) == b"four\n"

    def test_or_until_it_is_flushed(self, pipe: tuple[int, LineWriter]) -> None:
        reading, writer = pipe
        writer.write(b"50 %")
        writer.flush()
        assert self.read(reading) == b"50 %"
        writer.flush()
        assert self.read(reading) == b""

    def test_or_until_it_is_too_long(self, pipe: tuple[int, LineWriter], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(output, "LINE_LIMIT", 10)
        reading, writer = pipe
        writer.write(b"012345678")
        assert self.read(reading) == b""
        writer.write(b"9")
        assert self.read(reading) == b"0123456789"

    def test_each_thread_has_a_line_of_its_own(self, pipe: tuple[int, LineWriter]) -> None:
        reading, writer = pipe
        begun, end = threading.Event(), threading.Event()

        def printBoth() -> None:
            writer.write(b"the other ")
            begun.set()
            end.wait()
            writer.write(b"line\nand more")

        thread = threading.Thread(target=printBoth)
        thread.start()
        begun.wait()
        writer.write(b"one ")
        writer.flush()  # that of others is theirs to flush, as long as they are there
        writer.write(b"line\n")
        assert self.read(reading) == b"one line\n"
        end.set()
        thread.join()
        assert self.read(reading) == b"the other line\n"
        writer.flush()
        assert self.read(reading) == b"and more"

    def test_in_the_end_all_is_written(self, pipe: tuple[int, LineWriter]) -> None:
        reading, writer = pipe
        thread = threading.Thread(target=writer.write, args=(b"its",))
        thread.start()
        thread.join()
        writer.write(b"ours")
        writer.flushAll()
        assert self.read(reading) == b"itsours"

    def test_many_lines_go_in_pieces_that_stay_whole(
        self, pipe: tuple[int, LineWriter], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _, writer = pipe
        pieces: list[bytes] = []

        def write(_: int, piece: bytes) -> int:
            pieces.append(piece)
            return len(piece)

        monkeypatch.setattr(os, "write", write)
        long = b"x" * 5000 + b"\n"
        writer.write((b"y" * 999 + b"\n") * 9 + long + b"z\n")
        assert [len(piece) for piece in pieces] == [4000, 4000, 1000, 5001, 2]
        assert all(piece.endswith(b"\n") for piece in pieces)

    def test_where_nobody_blocks_it_waits_for_room(self, pipe: tuple[int, LineWriter]) -> None:
        reading, writer = pipe
        os.set_blocking(writer.fileno(), False)
        text = b"".join(b"line %d\n" % n for n in range(20_000))  # more than a pipe holds
        thread = threading.Thread(target=writer.write, args=(text,))
        thread.start()
        os.set_blocking(reading, True)
        got = b""
        while len(got) < len(text):
            got += os.read(reading, 1 << 16)
        thread.join()
        assert got == text


def program(folder: Path, code: str) -> tuple[str, str]:
    """What the program CODE, as a file in FOLDER, prints: its output and its errors."""
    (folder / "program.py").write_text(
        "from twisted.internet.task import react\nfrom twisted.internet.defer import gatherResults\n"
        "from asynqueue import ProcessQueue\n" + textwrap.dedent(code)
    )
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, str(folder / "program.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=buffered)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_lines_of_several_processes_stay_whole(tmp_path: Path) -> None:
    out, err = program(
        tmp_path,
        """
        import sys

        def write(n):
            for stream in (sys.stdout, sys.stderr):
                for k in range(40):
                    stream.write("first\\n" + "begun %d" % n)
                    print("", k, *range(300), "ended", n, file=stream)

        async def main(reactor):
            async with ProcessQueue(3) as queue:
                await gatherResults([queue.call(write, n) for n in range(12)])

        react(main)
        """,
    )
    numbers = " ".join(map(str, range(300)))
    expected = Counter({f"begun {n} {k} {numbers} ended {n}": 1 for n in range(12) for k in range(40)})
    expected["first"] = 480
    assert Counter(out.splitlines()) == expected
    assert Counter(err.splitlines()) == expected


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_what_was_begun_is_not_lost_when_a_process_exits(method: str, tmp_path: Path) -> None:
    out, err = program(
        tmp_path,
        f"""
        import ctypes, sys, threading

        def begin():
            print("no end", end="")
            sys.stderr.write("none here")
            ctypes.CDLL(None).printf(b"by C")
            thread = threading.Thread(target=print, args=(" by a thread",), kwargs={{"end": ""}})
            thread.start()
            thread.join()

        async def main(reactor):
            async with ProcessQueue(1, context="{method}") as queue:
                await queue.call(begin)

        react(main)
        """,
    )
    assert sorted(len(part) for part in ("no end", "by C", " by a thread") if part in out) == [4, 6, 12]
    assert len(out) == 22
    assert err == "none here"


def test_what_is_flushed_is_seen_at_once(tmp_path: Path) -> None:
    out, _ = program(
        tmp_path,
        """
        import os

        def die():
            print("a line")
            print("a part", end="", flush=True)
            print("lost", end="")
            os._exit(1)

        async def main(reactor):
            async with ProcessQueue(1) as queue:
                await queue.call(die, retries=0).addErrback(lambda reason: None)

        react(main)
        """,
    )
    assert out == "a line\na part"


def test_a_program_that_closed_its_output_has_workers_all_the_same(tmp_path: Path) -> None:
    program(
        tmp_path,
        """
        import os, sys

        async def main(reactor):
            async with ProcessQueue(1) as queue:
                await queue.call(print, "unheard")
                assert await queue.call(max, 1, 2) == 2

        sys.stdout.close()
        react(main)
        """,
    )
