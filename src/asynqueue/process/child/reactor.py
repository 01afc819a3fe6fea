"""The far side of a link in a process that runs a Twisted reactor of its own.

A call may return a Deferred or a coroutine there, and use the reactor. As in any other worker process there is one
call at a time: the next one starts when what the last one returned has fired. Meanwhile the reactor runs, so what a
call left behind goes on (a connection, a looping call), and iterators go on, a slice a turn.

What is said is written at once, as if there was no reactor: a call's outcome is with the near side before the next
call starts, so that a death is never charged to one that had finished.
"""

from __future__ import annotations

import socket
import sys
from time import perf_counter
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from asynqueue.core.protocol import messages as m
from asynqueue.process.child import main as universe
from asynqueue.process.child.main import ProcessUniverse
from asynqueue.transport.serialization import dumpError


def main(
    stream: socket.socket,
    permits: socket.socket,
    inherited: tuple[int, ...] = (),
    channel: socket.socket | None = None,
) -> None:
    """Serve in this process, which was started for it, with a reactor. INHERITED are descriptors none of ours."""
    if "twisted.internet.reactor" in sys.modules:
        sys.exit("the fork server has a reactor already, which its processes would share: do not preload one")
    universe.main(stream, permits, inherited, channel, ReactorUniverse)


@implementer(IReadDescriptor)
class ReactorUniverse(ProcessUniverse):
    """Runs the calls that come over STREAM, for which there are PERMITS, beside a reactor."""

    def __init__(self, stream: socket.socket, permits: socket.socket, channel: socket.socket | None = None) -> None:
        super().__init__(stream, permits, channel)
        from twisted.internet import reactor

        self._reactor: Any = reactor  # whose type does not say all that it can do
        self._running = False  # a call is
        self._due = False  # a turn of ours is to come

    def fileno(self) -> int:
        """The descriptor that the reactor watches."""
        return self._stream.fileno()

    def doRead(self) -> None:
        """Something was said."""
        try:
            if not self._listen(wait=False):
                self._leave()
        except (BrokenPipeError, ConnectionResetError):
            self._leave()
        self._proceed()

    def connectionLost(self, reason: Failure) -> None:
        """The near side is gone; or the reactor is done with us."""
        self._leave()

    def logPrefix(self) -> str:
        """What the reactor's log calls it."""
        return "asynqueue"

    def _loop(self) -> None:
        self._reactor.addReader(self)
        self._reactor.run()  # Ctrl-C stays ignored: the reactor takes over what Python does by default, and no more

    def _leave(self) -> None:
        self._reactor.removeReader(self)
        try:
            self._reactor.stop()
        except ReactorNotRunning:
            pass  # somebody else has stopped it

    def _proceed(self) -> None:
        """Have a turn if there is something to do in it; leave if there is not and will not be."""
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
        maybeDeferred(self._make, call).addCallbacks(
            lambda result: self._returned(call, result, perf_counter() - started),
            lambda reason: self._raised(call, reason, perf_counter() - started),
        ).addBoth(self._ended)

    def _make(self, call: m.Call) -> Any:
        f, args, kw = self._called(call)
        return f(*args, **kw)

    def _raised(self, call: m.Call, reason: Failure, seconds: float) -> None:
        error = reason.value or Exception("no error")
        where: Any = reason.getTracebackObject()  # or what a Failure that was sent has for one
        self._say(m.Raised(call.id, seconds, dumpError(error.with_traceback(where))))

    def _ended(self, result: Failure | None) -> None:
        """The outcome of a call was said; or nobody was there to hear it."""
        self._running = False
        if isinstance(result, Failure):
            self._leave()
        else:
            self._proceed()
