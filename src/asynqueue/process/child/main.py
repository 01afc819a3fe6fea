"""The main loop of a worker process: the child's end of a link.

One thread does one thing at a time:

- receive messages of the parent;
- run the next call;
- send the next items of an iterator.

The outcome of a call is sent before the next call starts, so that the death of the process is never charged to a call
that has ended. Calls start in order, each with a permit (see `asynqueue.transport.permits`). A call whose permit was
revoked is dropped without an answer.

This module imports almost nothing, and neither Twisted nor attrs. A process is therefore ready in little more time than
an interpreter needs to start.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any, NoReturn

from asynqueue.capabilities import has
from asynqueue.core.flow.iteration import Outflow
from asynqueue.core.flow.iterators import closeIterator, takeSlice
from asynqueue.core.protocol import messages as m
from asynqueue.core.protocol.framing import Decoder, encode
from asynqueue.core.protocol.spinning import SpinPolicy
from asynqueue.core.results import Kind, kindOf
from asynqueue.core.text import className
from asynqueue.errors import SerializationError
from asynqueue.process.child.stdio import finish, installLineWriters
from asynqueue.process.child.surroundings import Surroundings, adopt
from asynqueue.reactor.spinner import yieldProcessor
from asynqueue.transport.callcodec import CallDecoder
from asynqueue.transport.errorcodec import dumpError, tracebackText
from asynqueue.transport.lifeline import dieWithPipe, disown
from asynqueue.transport.permits import PermitHolder
from asynqueue.transport.script.namespace import Namespace, settle, settled
from asynqueue.transport.serialization import INLINE, Codec, Resident, Undelivered
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
    """Runs the calls that come over STREAM and have PERMITS. Large values go over CHANNEL, if there is one."""

    def __init__(self, stream: socket.socket, permits: socket.socket, channel: socket.socket | None = None) -> None:
        self._namespace = settled() or Namespace()
        self._stream = stream
        self._permits = PermitHolder(permits)
        self._decoder = Decoder()
        self._room = memoryview(bytearray(_READ_SIZE))  # Allocated once: a new buffer for each read is slow.
        self._calls: deque[m.Call] = deque()
        self._iterations: dict[int, Iteration] = {}
        self._channel = None if channel is None else SharedMemoryChannel(channel)
        self._codec = INLINE if self._channel is None else Codec(self._channel.dumps)
        self._callDecoder = CallDecoder(self._channel, self._namespace)
        self._residents: dict[int, Any] = {}
        self._leaving = False
        self._forked = False
        self._spinning = SpinPolicy()

    def serve(self) -> None:
        """Run calls until the parent sends `Goodbye` or closes the link."""
        try:
            self._send(m.Ready(os.getpid()))
            self._loop()
        except (BrokenPipeError, ConnectionResetError):
            pass  # The parent has closed the link.
        finally:
            for iteration in self._iterations.values():
                try:
                    iteration.close()
                except BaseException as error:  # User code may raise anything. The parent does not receive it.
                    print(tracebackText(error), end="", file=sys.stderr)

    def _loop(self) -> None:
        while self._calls or not self._leaving:
            producing = self._producing()
            idle = not self._calls and not producing
            if (idle or self._iterations) and not self._receive(wait=idle):
                break
            if self._calls:
                self._run(self._calls.popleft())
            for number, iteration in producing:
                if iteration.flow.ready:
                    self._produce(number, iteration)

    def _producing(self) -> list[tuple[int, Iteration]]:
        """Return the iterators of which items may be sent."""
        return [i for i in self._iterations.items() if i[1].flow.ready]

    def _send(self, message: m.ToLocal) -> None:
        if self._forked:
            self._exitFork(message)
        self._stream.sendall(encode(message))

    def disown(self) -> None:
        """Give the link up: this is a fork of the worker process, which a call has made, and runs no calls."""
        self._forked = True
        channel = () if self._channel is None else (self._channel.fileno(),)
        disown(*(each for each in (self._stream.fileno(), self._permits.fileno(), *channel) if each >= 0))

    def _exitFork(self, message: m.ToLocal) -> NoReturn:
        """Exit this fork, where the call has ended as MESSAGE says. The worker process answers for the call."""
        try:
            finish()
        finally:
            os._exit(isinstance(message, m.Raised))

    def _receive(self, wait: bool) -> bool:
        """Act on all messages that have come; with WAIT, wait for some. Return False if the link is closed."""
        try:
            size = self._readSpinning() if wait else self._stream.recv_into(self._room, 0, socket.MSG_DONTWAIT)
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

    def _readSpinning(self) -> int:
        """Wait for data, spinning at first, and read it. Return its length in bytes."""
        spinning = self._spinning.begin(perf_counter())
        while spinning:
            try:
                return self._stream.recv_into(self._room, 0, socket.MSG_DONTWAIT)
            except BlockingIOError:
                yieldProcessor()
                spinning = self._spinning.again(perf_counter())
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
        except BaseException as error:  # SystemExit too: it ends the call, and not the process.
            seconds = perf_counter() - started
            self._send(m.Raised(call.id, seconds, dumpError(self._namespace.explained(error))))
        else:
            self._returned(call, result, perf_counter() - started)

    def _returned(self, call: m.Call, result: Any, seconds: float) -> None:
        """Send the RESULT of CALL, which took so many SECONDS."""
        try:
            kind = kindOf(result)
            if kind is Kind.COROUTINE or kind is Kind.DEFERRED:
                if kind is Kind.COROUTINE:
                    result.close()  # else Python warns that it was never awaited
                raise TypeError(
                    f"the call returned a {className(result)}, which its process does not wait for: "
                    "one with useReactor=True does"
                )
            if kind is Kind.ITERATOR and not call.raw:
                self._iterations[call.id] = Iteration(result, self._codec)
                outcome: m.ToLocal = m.Opened(call.id, seconds)
            else:
                outcome = m.Returned(call.id, seconds, self._codec.dumpResult(result))
        except BaseException as error:
            outcome = m.Raised(call.id, seconds, dumpError(error))
        self._send(outcome)

    def _called(self, call: m.Call) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
        try:
            f, args, kw, objects = self._callDecoder.load(call.payload)
        except SerializationError as error:
            raise Undelivered(*error.args) from error.__cause__
        if type(f) is Resident:
            if objects:
                self._residents[f.key] = objects[0]
            if f.key not in self._residents:
                raise SerializationError("the object of this call is not in this process: its update has failed")
            f = self._residents[f.key] if f.name is None else getattr(self._residents[f.key], f.name)
        return f, args, kw

    def _produce(self, number: int, iteration: Iteration) -> None:
        """Send the items of one time slice."""
        items, over, error = takeSlice(iteration.produce, iteration.flow, perf_counter)
        if items:
            iteration.flow.sent(len(items))
            self._send(m.Items(number, len(items), b"".join(items)))
        if over:
            self._end(number, m.Exhausted(number) if error is None else m.Failed(number, dumpError(error)))

    def _end(self, number: int, end: m.Exhausted | m.Failed | None = None) -> None:
        """Close an iterator, and send how it ended."""
        try:
            self._iterations.pop(number).close()
        except BaseException as error:
            end = end or m.Failed(number, dumpError(error))
        self._send(end or m.Exhausted(number))


def main(
    stream: socket.socket,
    permits: socket.socket,
    inherited: tuple[int, ...] = (),
    channel: socket.socket | None = None,
    forked: bool = False,
    surroundings: Surroundings | None = None,
    universe: type[ProcessUniverse] = ProcessUniverse,
) -> None:
    """Run calls in this process, with a UNIVERSE, until the link ends.

    INHERITED are descriptors of other links, which are closed. A process that is FORKED, from a fork server or from the
    program, exits without its `atexit` functions: so they are called here. SURROUNDINGS are those of the program.
    """
    settle()
    if surroundings is not None:
        adopt(surroundings)
    if forked:
        atexit._clear()  # Those that are there now are for the other process.
    for descriptor in inherited:
        os.close(descriptor)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    _leaveInterruptsToParent()
    if has("pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # One that came before has no effect.
    _useBatchScheduling()
    _dieWithParent()
    installLineWriters()
    with stream:  # It is closed here, because a thread that a call has left may delay the exit.
        try:
            runs = universe(stream, permits, channel)
            if has("register_at_fork"):
                os.register_at_fork(after_in_child=runs.disown)
            runs.serve()
            if forked:
                _runExitFunctions()
        finally:
            finish()


def _leaveInterruptsToParent() -> None:
    """Have Ctrl-C no effect here. A program that a call starts does not ignore it, unless the parent does already.

    An ignored signal stays ignored in another program, and one with a handler does not.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda number, frame: None)
        signal.siginterrupt(signal.SIGINT, False)  # System calls of C libraries go on, as if it were ignored.


def _runExitFunctions() -> None:
    """Call what calls have registered with `atexit`. An error is printed, as at the exit of any interpreter."""
    try:
        atexit._run_exitfuncs()
    except BaseException as error:  # SystemExit too: the process ends in any case.
        print(tracebackText(error), end="", file=sys.stderr)


def _useBatchScheduling() -> None:
    """Use SCHED_BATCH: waking this process must not preempt the parent that has just sent it a call.

    The share of processor time is the same.
    """
    if has("SCHED_BATCH"):
        try:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        except OSError:
            pass  # A sandbox may forbid it. Then the scheduling stays the default.


def _dieWithParent() -> None:
    """Let the kernel end this process when its parent dies, even if it is busy."""
    import multiprocessing

    parent = multiprocessing.parent_process()
    if parent is not None:
        dieWithPipe(parent.sentinel)
