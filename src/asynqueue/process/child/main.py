"""What runs in a worker process: the far side of a link.

One thread does one thing at a time: hear what the near side says, run the next call, send the next items of an
iterator. A call's outcome is sent before the next call starts, so that a death is never charged to a call that had
finished. Calls start in order, each with a permit (see `asynqueue.transport.permits`); one whose permit was taken
back is dropped without a word.

This module imports next to nothing, above all neither Twisted nor attrs: a process is ready in little more than
the start of a bare interpreter.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from time import perf_counter
from types import CoroutineType
from typing import Any

from asynqueue.core.flow.iteration import Outflow
from asynqueue.core.flow.iterators import closeIterator, isIterator, takeSlice
from asynqueue.core.protocol import messages as m
from asynqueue.core.protocol.framing import Decoder, encode
from asynqueue.core.protocol.spinning import SpinPolicy
from asynqueue.errors import SerializationError
from asynqueue.process.child.stdio import finish, installLineWriters
from asynqueue.reactor.spinner import yieldProcessor
from asynqueue.transport.callcodec import CallDecoder
from asynqueue.transport.lifeline import dieWithPipe
from asynqueue.transport.permits import PermitHolder
from asynqueue.transport.serialization import INLINE, Codec, Resident, Undelivered, dumpError
from asynqueue.transport.sharedmemory import SharedMemoryChannel

_READ_SIZE = 1 << 18


class Iteration:
    """An iterator that a call returned, and how many of its items may be sent."""

    __slots__ = ("flow", "iterator", "produce")

    def __init__(self, iterator: Iterator[Any], codec: Codec[bytes]) -> None:
        self.iterator: Iterator[Any] = iterator
        self.produce: Callable[[], bytes] = lambda: codec.dumpItem(next(iterator))
        self.flow: Outflow = Outflow()

    def close(self) -> None:
        """Run the iterator's ``finally``, if it has one."""
        self.flow.end()
        closeIterator(self.iterator)


class ProcessUniverse:
    """Runs the calls that come over STREAM, for which there are PERMITS. What is large comes over CHANNEL, if any."""

    def __init__(self, stream: socket.socket, permits: socket.socket, channel: socket.socket | None = None) -> None:
        self._stream = stream
        self._permits = PermitHolder(permits)
        self._decoder = Decoder()
        self._room = memoryview(bytearray(_READ_SIZE))  # else each read would have the system find so much anew
        self._calls: deque[m.Call] = deque()
        self._iterations: dict[int, Iteration] = {}
        self._channel = None if channel is None else SharedMemoryChannel(channel)
        self._codec = INLINE if self._channel is None else Codec(self._channel.dumps)
        self._callDecoder = CallDecoder(self._channel)
        self._residents: dict[int, Any] = {}
        self._leaving = False
        self._watch = SpinPolicy()

    def serve(self) -> None:
        """Do what is asked for until told to leave, or until the near side is gone."""
        try:
            self._say(m.Ready(os.getpid()))
            self._loop()
        except (BrokenPipeError, ConnectionResetError):
            pass  # the near side is gone: so are we
        finally:
            for iteration in self._iterations.values():
                try:
                    iteration.close()
                except BaseException:  # of a user's iterator, whose items nobody hears of any more
                    traceback.print_exc()

    def _loop(self) -> None:
        while self._calls or not self._leaving:
            producing = self._producing()
            idle = not self._calls and not producing
            if (idle or self._iterations) and not self._listen(wait=idle):
                break
            if self._calls:
                self._run(self._calls.popleft())
            for number, iteration in producing:
                if iteration.flow.ready:
                    self._produce(number, iteration)

    def _producing(self) -> list[tuple[int, Iteration]]:
        """The iterators of which items may be sent."""
        return [i for i in self._iterations.items() if i[1].flow.ready]

    def _say(self, message: m.ToLocal) -> None:
        self._stream.sendall(encode(message))

    def _listen(self, wait: bool) -> bool:
        """Hear what was said; with WAIT, until something is. False when nobody is left to say anything."""
        try:
            size = self._receive() if wait else self._stream.recv_into(self._room, 0, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        for message in self._decoder.feed(bytes(self._room[:size])):
            if isinstance(message, m.Call):
                self._calls.append(message)
            elif isinstance(message, m.Grant):
                if message.id in self._iterations:
                    self._iterations[message.id].flow.granted(message.items)
            elif isinstance(message, m.Close):
                if message.id in self._iterations:
                    self._end(message.id)
            elif isinstance(message, m.Goodbye):
                self._leaving = True
            elif isinstance(message, m.Tidy) and self._channel is not None:
                self._channel.tidy()
        return size > 0

    def _receive(self) -> int:
        """Receive what is said next, however long that takes; how many bytes it is."""
        looking = self._watch.begin(perf_counter())
        while looking:
            try:
                return self._stream.recv_into(self._room, 0, socket.MSG_DONTWAIT)
            except BlockingIOError:
                yieldProcessor()
                looking = self._watch.again(perf_counter())
        return self._stream.recv_into(self._room)

    def _run(self, call: m.Call) -> None:
        if not self._permits.mayStart(call.id):
            self._callDecoder.drop(call.payload)
            return
        started = perf_counter()
        try:
            f, args, kw = self._called(call)
            started = perf_counter()
            result = f(*args, **kw)
        except BaseException as error:  # SystemExit too: it is the call that ends, not the worker
            self._say(m.Raised(call.id, perf_counter() - started, dumpError(error)))
        else:
            self._returned(call, result, perf_counter() - started)

    def _returned(self, call: m.Call, result: Any, seconds: float) -> None:
        """CALL gave RESULT after so many SECONDS."""
        try:
            if isAwaitable(result):
                kind = "coroutine" if isinstance(result, CoroutineType) else type(result).__name__
                raise TypeError(
                    f"the call returned a {kind}, which its process does not wait for: one with useReactor=True does"
                )
            if not call.raw and isIterator(result):
                self._iterations[call.id] = Iteration(result, self._codec)
                outcome: m.ToLocal = m.Opened(call.id, seconds)
            else:
                outcome = m.Returned(call.id, seconds, self._codec.dumpResult(result))
        except BaseException as error:
            outcome = m.Raised(call.id, seconds, dumpError(error))
        self._say(outcome)

    def _called(self, call: m.Call) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
        try:
            f, args, kw, objects = self._callDecoder.load(call.payload)
        except SerializationError as error:
            raise Undelivered(*error.args) from error.__cause__
        if isinstance(f, Resident):
            if objects:
                self._residents[f.key] = objects[0]
            if f.key not in self._residents:
                raise SerializationError("the object of this call is not here")
            f = self._residents[f.key] if f.name is None else getattr(self._residents[f.key], f.name)
        return f, args, kw

    def _produce(self, number: int, iteration: Iteration) -> None:
        """Send the items of one slice."""
        items, over, error = takeSlice(iteration.produce, iteration.flow, perf_counter)
        if items:
            iteration.flow.sent(len(items))
            self._say(m.Items(number, len(items), b"".join(items)))
        if over:
            self._end(number, m.Exhausted(number) if error is None else m.Failed(number, dumpError(error)))

    def _end(self, number: int, end: m.Exhausted | m.Failed | None = None) -> None:
        """Close an iterator and say how it ended."""
        try:
            self._iterations.pop(number).close()
        except BaseException as error:
            end = end or m.Failed(number, dumpError(error))
        self._say(end or m.Exhausted(number))


def isAwaitable(x: object) -> bool:
    """True for a Deferred, and for a coroutine, which is closed: it is not told of as forgotten."""
    if isinstance(x, CoroutineType):
        x.close()
        return True
    defer = sys.modules.get("twisted.internet.defer")  # which is not imported for this: then there is no Deferred
    return defer is not None and isinstance(x, defer.Deferred)


def main(
    stream: socket.socket,
    permits: socket.socket,
    inherited: tuple[int, ...] = (),
    channel: socket.socket | None = None,
    universe: type[ProcessUniverse] = ProcessUniverse,
) -> None:
    """Serve in this process, which was started for it, by a UNIVERSE. INHERITED are descriptors that are none of
    ours."""
    for descriptor in inherited:
        os.close(descriptor)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # and what came before that is forgotten
    _useBatchScheduling()
    _dieWithParent()
    installLineWriters()
    with stream:  # it ends here, though what a call left running may keep the process from exiting
        try:
            universe(stream, permits, channel).serve()
        finally:
            finish()


def _useBatchScheduling() -> None:
    """Have the kernel not put aside whoever wakes this process, which is its parent, to have it run at once.

    Its share of the processors is the same. But a parent that has just sent it a call goes on with what it was at.
    """
    if hasattr(os, "SCHED_BATCH"):
        try:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        except OSError:
            pass  # a sandbox that does not allow it: so it is as it was


def _dieWithParent() -> None:
    """Have the kernel end this process when its parent dies, however busy it is."""
    import multiprocessing

    parent = multiprocessing.parent_process()
    if parent is not None:
        dieWithPipe(parent.sentinel)
