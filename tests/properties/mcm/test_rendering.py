"""What a drawing promises of its bands, in whatever order they are drawn, and however it ends."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from itertools import accumulate
from queue import SimpleQueue
from typing import Any

import png
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from mcmandelbrot.fractal.picture import Band, Picture, View
from mcmandelbrot.fractal.png import compressed, writePicture
from mcmandelbrot.fractal.rendering import Drawing
from mcmandelbrot.fractal.worker import Rows


class Loop(Clock):
    """A main loop for a test: it does what threads ask for when the test says so. Its time stands still."""

    def __init__(self) -> None:
        super().__init__()
        self._asked: SimpleQueue[Callable[[], Any]] = SimpleQueue()

    def callFromThread(self, callable: Callable[..., Any], *args: object, **kwargs: object) -> None:
        self._asked.put(lambda: callable(*args, **kwargs))

    def addSystemEventTrigger(self, phase: str, event: str, f: Callable[..., object], *args: object) -> object:
        return None  # it never stops

    def turn(self) -> None:
        """Wait until a thread asks for something, and do it."""
        self._asked.get(timeout=60)()


class HeldQueue:
    """A queue whose calls stay open until the test answers them."""

    def __init__(self) -> None:
        self.open: dict[int, Deferred[Rows]] = {}
        self.bands: list[Band] = []
        self.cancelled: list[int] = []

    @property
    def called(self) -> int:
        return len(self.bands)

    def call(self, f: Callable[[Band], Rows], band: Band, /) -> Deferred[Rows]:
        number = len(self.bands)
        self.bands.append(band)
        d: Deferred[Rows] = Deferred(lambda _: self.cancelled.append(number))
        self.open[number] = d
        return d

    def answer(self, number: int) -> None:
        band = self.bands[number]
        rows = range(band.first, band.first + band.rows)
        drawn = compressed((b"\0" + pixels(row, band.picture.view.width) for row in rows), level=1)
        self.open.pop(number).callback(Rows(drawn, 1, 0.5))


class KeptFile(io.BytesIO):
    """A file whose bytes outlive its closing; with ROOM, it is full after so many bytes."""

    def __init__(self, room: int | None = None) -> None:
        super().__init__()
        self.content = b""
        self._going = threading.Event()
        self.go()
        self._room = room

    def stick(self) -> None:
        """Let whoever writes wait."""
        self._going.clear()

    def go(self) -> None:
        self._going.set()

    def write(self, some: Any, /) -> int:
        assert self._going.wait(60)
        self.content += bytes(some)
        if self._room is not None and len(self.content) > self._room:
            raise OSError(28, "No space left on device")
        return len(some)


def pixels(row: int, width: int) -> bytes:
    return bytes((row * 7 + i) % 256 for i in range(3 * width))


class Setting:
    """A drawing of pixels, WIDTH across, in bands of so many rows EACH, with all that surrounds it."""

    def __init__(self, width: int, each: list[int], ahead: int, room: int | None = None) -> None:
        self.loop, self.queue, self.file = Loop(), HeldQueue(), KeptFile(room)
        self.drawn: list[Band] = []
        picture = Picture(View(width, sum(each), 0.0, 0.0, 0.1))
        bands = [Band(picture, first, rows) for first, rows in zip(accumulate(each, initial=0), each, strict=False)]
        self.done: list[Any] = []
        drawing = Drawing(bands, self.queue, self.file, ahead=ahead, drawn=self._note, reactor=self.loop)
        self.deferred = drawing.start()
        self.deferred.addBoth(self.done.append)

    def __enter__(self) -> Setting:
        return self

    def __exit__(self, *exception: object) -> None:
        """Let the writer's thread end, also when Hypothesis gives an example up in the middle."""
        self.deferred.cancel()
        while not self.file.closed:
            self.loop.turn()

    def finish(self) -> None:
        while not self.done:
            self.loop.turn()

    def answer(self, number: int) -> None:
        self.queue.answer(number)

    def _note(self, band: Band, rows: Rows) -> None:
        assert rows.piece.length == band.rows * (1 + 3 * band.picture.view.width)
        self.drawn.append(band)


sizes = st.integers(1, 30)
heights = st.lists(st.integers(1, 4), min_size=1, max_size=30)


@given(sizes, heights, sizes, st.data())
def test_rows_are_written_in_order_with_limited_bands_under_way(
    width: int, each: list[int], ahead: int, data: st.DataObject
) -> None:
    with Setting(width, each, ahead) as setting:
        queue = setting.queue
        answered: set[int] = set()
        order: list[Band] = []
        while len(answered) < len(each):
            while not queue.open:
                setting.loop.turn()
            there = sorted(queue.open)  # which depends on how far the writer is: what is drawn may not
            number = there[data.draw(st.integers(0, 1000)) % len(there)]
            setting.answer(number)
            answered.add(number)
            order.append(queue.bands[number])
            unbroken = min(set(range(len(each) + 1)) - answered)
            assert queue.called <= unbroken + ahead
        setting.finish()
        assert setting.done == [None]
        assert setting.drawn == order
        assert setting.file.closed
        gotWidth, gotHeight, rows, _ = png.Reader(bytes=setting.file.content).read()
        assert (gotWidth, gotHeight) == (width, sum(each))
        assert [bytes(row) for row in rows] == [pixels(row, width) for row in range(sum(each))]


@given(heights, sizes, st.data())
def test_nothing_is_under_way_after_a_band_failed(each: list[int], ahead: int, data: st.DataObject) -> None:
    with Setting(3, each, ahead) as setting:
        failing = data.draw(st.sampled_from(sorted(setting.queue.open)))
        setting.queue.open.pop(failing).errback(ZeroDivisionError())
        assert setting.done.pop().check(ZeroDivisionError)
        assert setting.queue.cancelled == sorted(setting.queue.open, reverse=True)
        called = setting.queue.called
        while not setting.file.closed:
            setting.loop.turn()  # the writer's thread ends
        assert setting.queue.called == called


@given(heights, sizes, st.data())
def test_nothing_is_under_way_after_a_cancel(each: list[int], ahead: int, data: st.DataObject) -> None:
    with Setting(3, each, ahead) as setting:
        there = st.sampled_from(sorted(setting.queue.open))
        for number in data.draw(st.lists(there, unique=True, max_size=len(each) - 1)):
            setting.answer(number)
        unanswered = sorted(setting.queue.open, reverse=True)
        setting.deferred.cancel()
        assert setting.done.pop().check(CancelledError)
        assert setting.queue.cancelled == unanswered


@given(heights, st.integers(1, 12), st.data())
def test_no_more_than_allowed_wait_for_a_writer_that_is_stuck(each: list[int], ahead: int, data: st.DataObject) -> None:
    with Setting(3, each, ahead) as setting:
        setting.file.stick()
        try:
            while setting.queue.open:
                setting.answer(data.draw(st.sampled_from(sorted(setting.queue.open))))
            assert setting.queue.called <= ahead + 2 * max(1, ahead // 4) + 1
            assert setting.done == []
            setting.deferred.cancel()
            assert setting.done.pop().check(CancelledError), "nor does it keep the drawing from ending"
        finally:
            setting.file.go()


@pytest.mark.parametrize("room", [0, 40, 60])
def test_a_full_disk_ends_the_drawing(room: int) -> None:
    with Setting(3, [1] * 5, 2, room) as setting:
        while not setting.done:
            for number in sorted(setting.queue.open):
                if number not in setting.queue.cancelled:  # it may have been while those before it were answered
                    setting.answer(number)
            if not setting.done:
                setting.loop.turn()
        assert setting.done.pop().check(OSError)
        assert setting.file.closed
        assert len(setting.queue.open) == len(setting.queue.cancelled)


@pytest.mark.parametrize("bands", [0, 1, 2])
def test_a_file_is_complete_when_all_bands_are_there_and_not_before(bands: int) -> None:
    file = KeptFile()
    piece = compressed((b"\0" + pixels(row, 3) for row in range(2)), level=1)
    writePicture(iter(bands * [piece]), View(3, 4, 0.0, 0.0, 0.1), file)
    assert file.closed
    assert (b"IEND" in file.content) is (bands == 2)
