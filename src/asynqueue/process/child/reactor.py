"""The main loop of a worker process that runs a Twisted reactor of its own.

A call may use the reactor, and return a Deferred or a coroutine. As in other worker processes, one call runs at a time:
the next call starts when the Deferred of the last one has fired. Meanwhile the reactor runs. Connections and looping
calls that a call has left behind go on, and so do iterators, one time slice a turn.

Messages are written at once, not by the reactor. The parent therefore has the outcome of a call before the next one
starts, and the death of the process is never charged to a call that has ended.
"""

from __future__ import annotations

import socket
import sys
from time import perf_counter
from typing import Any

from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from asynqueue.core.protocol import messages as m
from asynqueue.core.results import isA
from asynqueue.process.child import main as child
from asynqueue.process.child.main import ProcessUniverse
from asynqueue.process.child.surroundings import Surroundings
from asynqueue.reactor.calling import make, whenFired
from asynqueue.reactor.failures import errorIn
from asynqueue.transport.errorcodec import dumpError


def main(
    stream: socket.socket,
    permits: socket.socket,
    inherited: tuple[int, ...] = (),
    channel: socket.socket | None = None,
    forked: bool = False,
    surroundings: Surroundings | None = None,
) -> None:
    """Run calls in this process, with a reactor, until the link ends. The parameters are those of `child.main`."""
    if "twisted.internet.reactor" in sys.modules:
        sys.exit("the fork server has imported a reactor, which its processes would share: do not preload one")
    child.main(stream, permits, inherited, channel, forked, surroundings, ReactorUniverse)


@implementer(IReadDescriptor)
class ReactorUniverse(ProcessUniverse):
    """Runs the calls that come over STREAM and have PERMITS, in a reactor."""

    def __init__(self, stream: socket.socket, permits: socket.socket, channel: socket.socket | None = None) -> None:
        super().__init__(stream, permits, channel)
        from twisted.internet import reactor

        self._reactor: Any = reactor  # Any: its declared type has not all its methods.
        self._running = False  # whether a call runs
        self._due = False  # whether a turn is scheduled

    def fileno(self) -> int:
        """Return the descriptor that the reactor watches."""
        return self._stream.fileno()

    def doRead(self) -> None:
        """Receive messages of the parent."""
        try:
            if not self._receive(wait=False):
                self._leave()
        except (BrokenPipeError, ConnectionResetError):
            self._leave()
        self._proceed()

    def connectionLost(self, reason: Failure) -> None:
        """Stop the reactor: the parent has closed the link, or the reactor stops."""
        self._leave()

    def logPrefix(self) -> str:
        """Return the name for the log of the reactor."""
        return "asynqueue"

    def _loop(self) -> None:
        self._reactor.addReader(self)
        self._reactor.run()  # Ctrl-C stays ignored: the reactor replaces only Python's default handler.

    def _leave(self) -> None:
        self._reactor.removeReader(self)
        try:
            self._reactor.stop()
        except ReactorNotRunning:
            pass  # A call has stopped it.

    def _proceed(self) -> None:
        """Schedule a turn if there is work for it. Stop if there is none and the parent sends no more."""
        idle = not (self._calls or self._running)
        if idle and self._leaving:
            self._leave()
        elif not self._due and ((self._calls and not self._running) or self._producing()):
            self._due = True
            self._reactor.callLater(0, self._turn)

    def _turn(self) -> None:
        self._due = False
        try:
            if self._calls and not self._running:
                self._run(self._calls.popleft())
            for number, iteration in self._producing():
                self._produce(number, iteration)
        except (BrokenPipeError, ConnectionResetError):
            self._leave()
        else:
            self._proceed()

    def _run(self, call: m.Call) -> None:
        if not self._permits.mayStart(call.id):
            self._callDecoder.drop(call.payload)
            return
        self._running = True
        started = perf_counter()
        whenFired(make(self._make, (call,), {}), self._fired, call, started)

    def _make(self, call: m.Call) -> Any:
        f, args, kw = self._called(call)
        return f(*args, **kw)

    def _fired(self, result: Any, call: m.Call, started: float) -> None:
        seconds = perf_counter() - started
        self._running = False
        try:
            if isA(result, Failure):
                self._raised(call, result, seconds)
            else:
                self._returned(call, result, seconds)
        except (BrokenPipeError, ConnectionResetError):
            self._leave()
        else:
            self._proceed()

    def _raised(self, call: m.Call, reason: Failure, seconds: float) -> None:
        error = errorIn(reason)
        if reason.tb is not None:
            error = BaseException.with_traceback(error, reason.tb)
        self._send(m.Raised(call.id, seconds, dumpError(self._namespace.explained(error))))
