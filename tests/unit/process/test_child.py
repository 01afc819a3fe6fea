"""How the far side of a process waits for what is said next: it looks out for it while a watch says so, then sleeps."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from asynqueue.core.protocol.spinning import SpinPolicy
from asynqueue.process.child.main import ProcessUniverse


class Scripted(SpinPolicy):
    """A watch that does what the test has for each time that it is asked whether to look again, if it is."""

    def __init__(self, *turns: Callable[[], bool]) -> None:
        super().__init__()
        self.turns = list(turns)

    def begin(self, now: float) -> bool:
        return bool(self.turns)

    def again(self, now: float) -> bool:
        return self.turns.pop(0)()


@pytest.fixture
def near() -> Iterator[tuple[socket.socket, ProcessUniverse]]:
    """The near end, and the universe that listens at the far one."""
    (near, far), (giving, taking) = socket.socketpair(), socket.socketpair()
    with near, far, giving, taking:
        yield near, ProcessUniverse(far, taking)


def test_it_hears_what_comes_while_it_looks_out(near: tuple[socket.socket, ProcessUniverse]) -> None:
    end, universe = near
    watch = universe._spinning = Scripted(lambda: True, lambda: end.send(b"said") > 0, lambda: pytest.fail("it came"))
    assert universe._readSpinning() == 4
    assert len(watch.turns) == 1


def test_then_it_sleeps_until_something_comes(near: tuple[socket.socket, ProcessUniverse]) -> None:
    end, universe = near
    universe._spinning = Scripted(lambda: not end.send(b"later"))
    assert universe._readSpinning() == 5


def test_where_it_rests_it_sleeps_at_once(
    near: tuple[socket.socket, ProcessUniverse], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, universe = near
    heard: list[int] = []

    class Stream:
        def recv_into(self, room: memoryview, size: int = 0, flags: int = 0) -> int:
            heard.append(flags)
            if flags:
                raise BlockingIOError
            return 4

    monkeypatch.setattr(universe, "_stream", Stream())
    universe._spinning = Scripted()
    assert universe._readSpinning() == 4
    assert heard == [0]
