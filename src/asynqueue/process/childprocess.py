"""One process that serves a worker, and the link to it.

It is started by `multiprocessing` and runs `asynqueue.process.child.main.main`. It is not made to import the program's
``__main__``: what belongs to that module goes to it by value.

Two things are due at its end, in either order: the link's end-of-file and its exit. The exit is what counts. All
that it ever said has been received by then, so it is heard out and the link is closed, though a child of its own
may hold the other end open for as long as it likes.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import socket
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from multiprocessing import resource_tracker
from multiprocessing.context import BaseContext
from types import ModuleType
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from asynqueue.core.protocol import bufferpool as shelf
from asynqueue.core.protocol import messages as m
from asynqueue.core.records import RunOutcome
from asynqueue.process.child import main as universe
from asynqueue.process.child import reactor as reactoruniverse
from asynqueue.process.forkserver import preloadChild
from asynqueue.reactor import watchdog as closings
from asynqueue.reactor.spinner import Spinner
from asynqueue.transport.link import Link
from asynqueue.transport.permits import PermitIssuer
from asynqueue.transport.pipe import Pipe
from asynqueue.transport.sharedmemory import SharedMemoryChannel, pair

_PAGE = os.sysconf("SC_PAGE_SIZE")

_NOT_REPORTED = 255  # the exit status that `multiprocessing` makes up when the fork server has died

_numbers = count(1)
_living: weakref.WeakSet[WorkerProcess] = weakref.WeakSet()


class Owner(Protocol):
    """Whom a process serves."""

    def reported(self, outcomes: Sequence[tuple[int, RunOutcome]]) -> None:
        """A process has answered what it was given under tickets."""

    def replace(self, process: WorkerProcess) -> None:
        """PROCESS is about to die."""

    def lost(self, process: WorkerProcess) -> None:
        """PROCESS has died."""

    def exited(self, process: WorkerProcess) -> None:
        """PROCESS has exited, and its exit status is known."""


class WorkerProcess:
    """A process that serves OWNER, and the link to it, until both are gone.

    With USEREACTOR, it runs a Twisted reactor of its own.
    """

    def __init__(self, context: BaseContext, reactor: Any, owner: Owner, useReactor: bool = False) -> None:
        self.gone: Deferred[None] = Deferred()
        self._reactor = reactor
        self._owner = owner
        self._useReactor = useReactor
        self._isForked = context.get_start_method() == "forkserver"
        self._exitcode: int | None = None
        self._exited = False
        self._hungUp = False
        self._saidGoodbye = False
        self._grace: Any = None
        self._tidying: Any = None
        self._tidied = True  # since something large has crossed
        self._permits = PermitIssuer()
        ends = pair()
        self._channel: SharedMemoryChannel | None = (
            None if ends is None else SharedMemoryChannel(ends[0], self._memoryUsed)
        )
        self._childChannel: socket.socket | None = None if ends is None else ends[1]
        self.link: Link = Link(self._permits, self._linkLost, self._interrupt, owner.reported, self._channel)
        self.link.closeWatchdog = closings.CloseWatchdog(self.link, reactor)
        self.link.spinner = Spinner(reactor, self.link.poll)
        try:
            near, far = socket.socketpair()
            with far:
                try:
                    self._process = self._begin(context, near, far)
                    Pipe(near, self.link, reactor)
                except BaseException:
                    near.close()
                    raise
        except BaseException:
            if self._channel is not None:
                self._channel.close()
            self._permits.close()  # what has begun finds nobody to speak to, and exits
            raise
        finally:
            if self._childChannel is not None:
                self._childChannel.close()
        self.pid: int = self._process.pid
        self._sentinel = _Sentinel(_sentinelOf(self._process, context), self._hasExited)
        reactor.addReader(self._sentinel)
        _living.add(self)

    def _begin(self, context: BaseContext, near: socket.socket, far: socket.socket) -> Any:
        """A process, by CONTEXT, to which FAR belongs. (Each context has its own class of processes: hence Any.)"""
        inherited: list[int] = []
        if context.get_start_method() == "fork":  # the child has all that is open here: the other links, above all
            inherited = [near.fileno(), self._permits.giving.fileno()]
            inherited += [] if self._channel is None else [self._channel.fileno()]
            inherited += [descriptor for process in _living for descriptor in process.filenos()]
        elif context.get_start_method() == "forkserver":
            preloadChild()
        process = context.Process(  # type: ignore[attr-defined]  # every context but the base has it
            target=reactoruniverse.main if self._useReactor else universe.main,
            args=(far, self._permits.taking, tuple(inherited), self._childChannel),
            name=f"asynqueue-process-{next(_numbers)}",
        )
        with _withoutMain(), _signalBlocked(signal.SIGINT, context):
            process.start()
        return process

    def is_alive(self) -> bool:
        """True until it has exited."""
        return not self._exited

    @property
    def exitcode(self) -> int | None:
        """None until it has exited; then its exit status, or minus the number of the signal that killed it."""
        return self._exitcode

    @property
    def lostForkServer(self) -> bool:
        """True if it counts as exited because the fork server that reports its exit has died."""
        return self._isForked and self._exitcode == _NOT_REPORTED

    def goodbye(self) -> None:
        """Have it exit when it has done what it was asked for; it has a grace for that from then on."""
        if not self._saidGoodbye and not self._exited:
            self._saidGoodbye = True
            self.link.goodbye()
            self.link.whenIdle(self._startGrace)

    def retire(self) -> None:
        """Have it exit when all that it was given has ended, its iterations too."""
        self.link.whenIdle(self.goodbye)

    def memUsage(self) -> int | None:
        """The kB of memory that it has in use, shared pages too; None if it is gone, or if the system does not tell."""
        return None if self._exited else residentMemory(self.pid)

    def kill(self) -> None:
        """Have it exit now, whatever it does."""
        if not self._exited:
            self._process.kill()

    def filenos(self) -> list[int]:
        """The descriptors that this side has for it, if they are open."""
        transport: Any = self.link.transport
        numbers = [transport.fileno(), self._permits.giving.fileno(), self._permits.taking.fileno()]
        numbers += [] if self._channel is None else [self._channel.fileno()]
        return [number for number in [*numbers, self._sentinel.fileno()] if number >= 0]

    def _interrupt(self) -> None:
        self._owner.replace(self)
        self.kill()

    def _linkLost(self) -> None:
        """It has closed its end, being dead or about to exit; or it has exited, and we have closed ours."""
        self._hungUp = True
        self._owner.lost(self)
        self.link.conclude(f"process {self.pid} died")
        if self._channel is not None:
            self._channel.close()
        if self._tidying is not None:
            self._tidying.cancel()
            self._tidying = None
        self._startGrace()
        self._endIfOver()

    def _memoryUsed(self) -> None:
        """Something large has crossed, for which memory may be kept."""
        self._tidied = False
        if self._tidying is not None:
            self._tidying.reset(shelf.KEEP)
        elif not self._hungUp:
            self._tidying = self._reactor.callLater(shelf.KEEP, self._tidy)

    def _tidy(self) -> None:
        """Give back what is kept, here and over there; again, until nothing is: what is in use is to be read yet."""
        self._tidying = None
        assert self._channel is not None  # which were used
        if self._channel.tidy() or not self._tidied:
            self._tidied = True
            self.link.send(m.Tidy())
        if self._channel.any and not self._hungUp:
            self._tidying = self._reactor.callLater(shelf.KEEP, self._tidy)

    def _startGrace(self) -> None:
        if self._grace is None and not self._exited:
            self._grace = self._reactor.callLater(closings.STOP_GRACE if self._saidGoodbye else 0, self.kill)

    def _hasExited(self) -> None:
        if self._exited:
            return
        if self._process.is_alive():  # its sentinel is hung up: it is exiting, or is as good as dead
            self._process.kill()
        self._reactor.removeReader(self._sentinel)
        self._process.join()
        self._exitcode = self._process.exitcode
        self._exited = True
        self._sentinel.close()
        self._process.close()
        self.link.drainInput()
        self._owner.exited(self)
        self.link.abort()
        self._endIfOver()

    def _endIfOver(self) -> None:
        """It is gone when it has exited and its link has ended."""
        if self._exited and self._hungUp:
            if self._grace is not None and self._grace.active():
                self._grace.cancel()
            _living.discard(self)
            self.gone.callback(None)


def contextFor(context: str | BaseContext | None) -> BaseContext:
    """The context of multiprocessing that CONTEXT names or is; with None, the fork server's, where there is one."""
    if isinstance(context, BaseContext):
        return context
    methods = multiprocessing.get_all_start_methods()
    if context is None:
        context = "forkserver" if "forkserver" in methods else "spawn"
    if context not in methods:
        raise ValueError(f"context must be one of {', '.join(methods)}, or a multiprocessing context; got {context!r}")
    return multiprocessing.get_context(context)


def residentMemory(pid: int) -> int | None:
    """The kB of main memory that process PID has in use; None where the system does not tell, or not of this one."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as sizes:
            pages = int(sizes.read().split()[1])
    except (OSError, IndexError, ValueError):
        return None
    return pages * _PAGE // 1024 or None  # a process that has exited and is not buried uses none


def _sentinelOf(process: Any, context: BaseContext) -> int:
    """A descriptor, ours to close, that is readable when PROCESS has exited.

    The fork server tells of the exit of its children. Of our own, the sentinel of `multiprocessing` is a pipe that
    a grandchild may hold open, as it may the link; the kernel's own word for a process does not depend on that.
    """
    if context.get_start_method() != "forkserver" and sys.platform == "linux":
        try:
            return os.pidfd_open(process.pid)
        except OSError:
            pass  # a kernel or a sandbox without it
    return os.dup(process.sentinel)


@implementer(IReadDescriptor)
class _Sentinel:
    """Tells when a process has exited: DESCRIPTOR, which it then owns, becomes readable."""

    def __init__(self, descriptor: int, onExit: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._onExit = onExit

    def fileno(self) -> int:
        """The descriptor that the reactor watches."""
        return self._descriptor

    def close(self) -> None:
        """Let go of the descriptor."""
        os.close(self._descriptor)
        self._descriptor = -1

    def doRead(self) -> None:
        """It is readable."""
        self._onExit()

    def connectionLost(self, reason: Failure) -> None:
        """It is hung up; or the reactor is done with it."""
        self._onExit()

    def logPrefix(self) -> str:
        """What the reactor's log calls it."""
        return "asynqueue"


@contextmanager
def _withoutMain() -> Iterator[None]:
    """Keep `multiprocessing` from having a new process import the program's ``__main__``."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextmanager
def _signalBlocked(number: signal.Signals, context: BaseContext) -> Iterator[None]:
    """Have a process that is our own child start with signal NUMBER blocked, until it has said what it does with it.

    What comes for us meanwhile comes a moment later. (The fork server's children are not ours to do that for.)
    """
    if context.get_start_method() == "forkserver":
        yield
        return
    if context.get_start_method() == "spawn":
        resource_tracker.ensure_running()  # which spawn does first, and which unblocks signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@atexit.register
def _killAll() -> None:
    """Leave no process behind when the interpreter exits."""
    for process in list(_living):
        process.kill()
