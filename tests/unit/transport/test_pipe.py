"""The near end of a socket pair as a transport: what is written goes at once, and all of it arrives."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from asynqueue.transport.pipe import Pipe
from tests.support.calls import inLoop


class Listener(Protocol):
    """Keeps what it hears, until it is told that nothing more comes."""

    def __init__(self, expected: int = 1) -> None:
        self.expected = expected
        self.heard = b""
        self.enough: Deferred[None] = Deferred()
        self.gone: Deferred[type[BaseException] | None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.heard += data
        if len(self.heard) >= self.expected and not self.enough.called:
            self.enough.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.gone.callback(reason.type)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    with near, far:
        yield near, far


def join(end: socket.socket, listener: Listener) -> Pipe:
    """END as the transport of LISTENER."""
    from twisted.internet import reactor

    return Pipe(end, listener, reactor)


@inLoop
async def test_what_is_written_is_there_in_the_same_turn(ends: tuple[socket.socket, socket.socket]) -> None:
    listener = Listener()
    near, far = ends
    pipe = join(near, listener)
    pipe.write(b"now")
    assert far.recv(10, socket.MSG_DONTWAIT) == b"now"
    far.close()
    assert await listener.gone is ConnectionDone


@inLoop
async def test_what_the_socket_does_not_take_follows_in_order(ends: tuple[socket.socket, socket.socket]) -> None:
    listener, other = Listener(), Listener(3 << 20)
    near, far = ends
    pipe = join(near, listener)
    far.setblocking(False)
    sent = bytes(range(256)) * (3 << 12)
    half = len(sent) // 2
    pipe.write(sent[:half])
    pipe.write(sent[half:])
    back = join(far, other)
    await other.enough
    assert other.heard == sent
    back.abortConnection()
    assert await other.gone is ConnectionAborted
    assert await listener.gone is ConnectionDone


@inLoop
async def test_one_that_is_paused_reads_nothing_until_it_resumes(ends: tuple[socket.socket, socket.socket]) -> None:
    listener = Listener()
    near, far = ends
    pipe = join(near, listener)
    pipe.pauseProducing()
    far.send(b"later")
    pipe.resumeProducing()
    await listener.enough
    assert listener.heard == b"later"
    pipe.abortConnection()
    pipe.resumeProducing()
    assert await listener.gone is ConnectionAborted
    assert pipe.fileno() == -1


@inLoop
async def test_what_was_said_before_the_other_end_closed_is_heard_though_nothing_can_be_written(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    listener = Listener(4)
    near, far = ends
    pipe = join(near, listener)
    far.send(b"last")
    far.close()
    pipe.write(b"nobody reads this")
    await listener.enough
    assert await listener.gone is ConnectionDone
    pipe.write(b"nor this")
