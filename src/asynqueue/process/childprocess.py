"""The child process of a worker, and the link to it.

`multiprocessing` starts the process, which runs `asynqueue.process.child.main.main`. The process does not import the
``__main__`` of the program, but has a namespace for it: see `asynqueue.transport.script`.

When the process ends, two events come in any order: the end of the link, and the exit. The exit counts. All messages of
the process are in the socket by then, so they are received, and the link is closed. The link may not end by itself: a
child of the process may hold its other end open.
"""

from __future__ import annotations

import atexit
import mmap
import os
import signal
import socket
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from multiprocessing.context import BaseContext
from typing import Any, Protocol

from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from asynqueue.capabilities import has, openPidfd, proc
from asynqueue.core.protocol import bufferpool
from asynqueue.core.protocol import messages as m
from asynqueue.core.records import RunOutcome
from asynqueue.process import internals
from asynqueue.process.child import main as child
from asynqueue.process.child import reactor as reactorchild
from asynqueue.process.child.surroundings import present
from asynqueue.process.forkserver import prepareServer
from asynqueue.reactor import forks, watchdog
from asynqueue.reactor.spinner import Spinner
from asynqueue.reactor.waiters import Waiters
from asynqueue.transport.lifeline import disown
from asynqueue.transport.link import Link
from asynqueue.transport.permits import PermitIssuer
from asynqueue.transport.pipe import Pipe
from asynqueue.transport.sharedmemory import SharedMemoryChannel, pair

_EXIT_GRACE = 0.5
"""Seconds that a process has to exit after it has closed its end of the link. Its exit is reported a little later."""

_NOT_REPORTED = 255  # the exit status that `multiprocessing` makes up when the fork server has died

_numbers = count(1)
_living: weakref.WeakSet[WorkerProcess] = weakref.WeakSet()


class Owner(Protocol):
    """The worker that a process serves."""

    def ended(self, process: WorkerProcess, outcomes: Sequence[tuple[int, RunOutcome]]) -> None:
        """Act on the outcomes of tasks of PROCESS, each with its ticket."""

    def replace(self, process: WorkerProcess) -> None:
        """Replace PROCESS, which is about to be killed."""

    def lost(self, process: WorkerProcess) -> None:
        """Replace PROCESS, whose link has ended."""

    def exited(self, process: WorkerProcess) -> None:
        """Note that PROCESS has exited: its exit status is known."""


class WorkerProcess:
    """A child process that serves OWNER, and the link to it, until both have ended. `gone` is fired then.

    With USEREACTOR, the process runs a Twisted reactor of its own. With FINISHCANCELLED, a running call that is
    cancelled goes on to its end; without, the process is killed.
    """

    def __init__(
        self,
        context: BaseContext,
        reactor: Any,
        owner: Owner,
        useReactor: bool = False,
        finishCancelled: bool = False,
    ) -> None:
        self.gone: Waiters[None] = Waiters()
        self._reactor = reactor
        self._owner = owner
        self._useReactor = useReactor
        self._isForked = context.get_start_method() == "forkserver"
        self._exitcode: int | None = None
        self._exited = False
        self._killed = False  # by this program
        self._disconnected = False
        self._stopping = False
        self._grace: Any = None
        self._tidying: Any = None
        self._tidied = True  # False once shared memory was used since
        self._permits = PermitIssuer()
        ends = pair()
        self._channel: SharedMemoryChannel | None = (
            None if ends is None else SharedMemoryChannel(ends[0], self._memoryUsed)
        )
        self._childChannel: socket.socket | None = None if ends is None else ends[1]
        report = partial(owner.ended, self)
        self.link: Link = Link(self._permits, self._linkLost, self._interrupt, report, self._channel)
        self.link.closeWatchdog = watchdog.CloseWatchdog(self.link, reactor)
        self.link.spinner = Spinner(reactor, self.link.poll)
        if finishCancelled:
            self.link.finishCancelled = reactor.seconds
        try:
            ours, theirs = socket.socketpair()
            with theirs:
                try:
                    self._process = self._begin(context, ours, theirs)
                    self._sentinel = _Sentinel(_sentinelOf(self._process, context), self._hasExited)
                    Pipe(ours, self.link, reactor)
                except BaseException:
                    ours.close()
                    raise
        except BaseException:
            if self._channel is not None:
                self._channel.close()
            self._permits.close()  # A process that has started finds its link closed, and exits.
            raise
        finally:
            if self._childChannel is not None:
                self._childChannel.close()
        self.pid: int = self._process.pid
        reactor.addReader(self._sentinel)
        _living.add(self)

    def _begin(self, context: BaseContext, ours: socket.socket, theirs: socket.socket) -> Any:
        """Start a process of CONTEXT with THEIRS as its link. (Each context has its own process class: hence Any.)"""
        inherited: list[int] = []
        method = context.get_start_method()
        if method == "fork":  # The child closes this end of its own link. Those of others it has disowned already.
            inherited = [ours.fileno(), self._permits.giving.fileno()]
            inherited += [] if self._channel is None else [self._channel.fileno()]
        elif method == "forkserver":
            prepareServer()
        with internals.startOfWorker(), _signalsForStart(context):
            process = context.Process(  # type: ignore[attr-defined]  # every context but the base has it
                target=reactorchild.main if self._useReactor else child.main,
                args=(
                    theirs,
                    self._permits.taking,
                    tuple(inherited),
                    self._childChannel,
                    method != "spawn",
                    None if method == "fork" else present(),
                ),
                name=f"asynqueue-process-{next(_numbers)}",
            )
            process.start()
        internals.endWithProgram(process)
        return process

    def is_alive(self) -> bool:
        """Return True until the process has exited."""
        return not self._exited

    @property
    def exitcode(self) -> int | None:
        """None until the process has exited; then its exit status, or minus the number of the signal that killed it."""
        return self._exitcode

    @property
    def lostForkServer(self) -> bool:
        """True if the process counts as exited because the fork server, which would report that, has died."""
        return self._isForked and self._exitcode == _NOT_REPORTED

    def rest(self) -> None:
        """Leave nothing in the reactor until `wake`, while the process has no calls. If it dies, that is noticed then.

        Memory that is kept for large values is freed at once if the reactor does not run, as between the tests of
        trial, and after a while otherwise.
        """
        if self._exited or self._disconnected or self._grace is not None:
            return
        self._reactor.removeReader(self._sentinel)
        self._reactor.removeReader(self.link.transport)
        if self._tidying is not None and not self._reactor.running:
            self._tidying.cancel()
            self._tidy()
            if self._tidying is not None:
                self._tidying.cancel()
                self._tidying = None

    def wake(self) -> None:
        """End a `rest`."""
        if self._exited:
            return
        self._reactor.addReader(self._sentinel)
        if not self._disconnected:
            self._reactor.addReader(self.link.transport)
            if self._tidying is None and self._channel is not None and self._channel.any:
                self._memoryUsed()

    def stop(self) -> None:
        """Ask the process to exit when it has ended all calls. From then on it has `STOP_GRACE` seconds for that."""
        if not self._stopping and not self._exited:
            self._stopping = True
            self.link.goodbye()
            self.link.whenIdle(self._startGrace)

    def stopWhenIdle(self) -> None:
        """Stop the process when all its calls and iterations have ended."""
        self.link.whenIdle(self.stop)

    def memUsage(self) -> int | None:
        """Return the resident memory in kB, with shared pages; None if it has exited, or is not reported."""
        return None if self._exited else residentMemory(self.pid)

    def kill(self) -> None:
        """Kill the process."""
        if not self._exited:
            self._killed = True
            self._process.kill()

    def disown(self) -> list[int]:
        """Leave the process alone: this is a fork of its program. Return the descriptors that belong to it."""
        self._exited = self._disconnected = True
        internals.disownProcess(self._process)
        forks.keep(self)
        transport: Any = self.link.transport
        numbers = [transport.fileno(), self._permits.giving.fileno(), self._permits.taking.fileno()]
        numbers += [] if self._channel is None else [self._channel.fileno()]
        numbers += internals.pipesOf(self._process)
        return [number for number in [*numbers, self._sentinel.fileno()] if number >= 0]

    def _interrupt(self) -> None:
        self._owner.replace(self)
        self.kill()

    def _linkLost(self) -> None:
        """Notify the owner: the process has closed its end of the link, or has exited and we have closed ours."""
        self._disconnected = True
        self._owner.lost(self)
        if self._tidying is not None:
            self._tidying.cancel()
            self._tidying = None
        self._startGrace()
        self._endIfOver()

    def _memoryUsed(self) -> None:
        """Note that shared memory was used, which may have to be freed."""
        self._tidied = False
        if self._tidying is not None:
            self._tidying.reset(bufferpool.KEEP)
        elif not self._disconnected:
            self._tidying = self._reactor.callLater(bufferpool.KEEP, self._tidy)

    def _tidy(self) -> None:
        """Free the shared memory that is kept on both sides. Repeat that until none is left: some may be in use."""
        self._tidying = None
        assert self._channel is not None  # It was used.
        if self._channel.tidy() or not self._tidied:
            self._tidied = True
            self.link.send(m.Tidy())
        if self._channel.any and not self._disconnected:
            self._tidying = self._reactor.callLater(bufferpool.KEEP, self._tidy)

    def _startGrace(self) -> None:
        if self._grace is None and not self._exited:
            self._grace = self._reactor.callLater(watchdog.STOP_GRACE if self._stopping else _EXIT_GRACE, self.kill)

    def _hasExited(self) -> None:
        if self._exited:
            return
        if self._process.is_alive():  # It is about to exit: its sentinel has ended.
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
        """Fire `gone` if the process has exited and the link has ended."""
        if self._exited and self._disconnected:
            self.link.conclude(f"process {self.pid} {self._ended()}")  # not before: the exit status is the reason
            if self._channel is not None:
                self._channel.close()
            if self._grace is not None and self._grace.active():
                self._grace.cancel()
            _living.discard(self)
            self.gone.fire(None)

    def _ended(self) -> str:
        """Return how the process has ended, as text that follows its name."""
        code = self._exitcode
        if code is None or self.lostForkServer:
            return "died, and its exit status is not known"
        if code >= 0:
            return f"exited with status {code}"
        if self._killed:
            return "was killed, because it had closed its connection or its call was ended"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return f"was killed by {name}" + (" (out of memory?)" if -code == signal.SIGKILL else "")


def residentMemory(pid: int) -> int | None:
    """Return the resident memory of process PID in kB; None if the system does not report it."""
    try:
        with open(proc(f"{pid}/statm"), "rb") as sizes:
            pages = int(sizes.read().split()[1])
    except (OSError, IndexError, ValueError):
        return None
    return pages * mmap.PAGESIZE // 1024 or None  # A zombie uses none.


def _sentinelOf(process: Any, context: BaseContext) -> int:
    """Return a new descriptor that becomes readable when PROCESS has exited.

    The fork server reports the exit of its children. For children of this program, the sentinel of `multiprocessing`
    is a pipe that a grandchild may hold open. A pidfd of the kernel does not depend on that.
    """
    own = None if context.get_start_method() == "forkserver" else openPidfd(process.pid)
    return os.dup(process.sentinel) if own is None else own


@implementer(IReadDescriptor)
class _Sentinel:
    """Calls ONEXIT when a process has exited: DESCRIPTOR, which it owns, becomes readable."""

    def __init__(self, descriptor: int, onExit: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._onExit = onExit

    def fileno(self) -> int:
        """Return the descriptor that the reactor watches."""
        return self._descriptor

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._descriptor)
        self._descriptor = -1

    def doRead(self) -> None:
        """Call ONEXIT."""
        self._onExit()

    def connectionLost(self, reason: Failure) -> None:
        """Report the exit too: the descriptor is at its end, or the reactor stops."""
        self._onExit()

    def logPrefix(self) -> str:
        """Return the name for the log of the reactor."""
        return "asynqueue"


@contextmanager
def _signalsForStart(context: BaseContext) -> Iterator[None]:
    """Block SIGINT while a process starts that is a child of this program. The child unblocks it itself.

    Signals for this program are delayed meanwhile. Children of the fork server inherit nothing from this program. But
    the fork server itself does, and it needs SIGCHLD to notice that they exit.
    """
    if not has("pthread_sigmask"):
        yield
        return
    if context.get_start_method() == "forkserver":
        how, number = signal.SIG_UNBLOCK, signal.SIGCHLD
    else:
        how, number = signal.SIG_BLOCK, signal.SIGINT
    if context.get_start_method() == "spawn":
        internals.ensureTracker()  # `spawn` would start it, and that unblocks signals.
    before = signal.pthread_sigmask(how, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@atexit.register
def _killAll() -> None:
    """Kill all processes when the interpreter exits."""
    for process in list(_living):
        process.kill()


def _disownAll() -> None:
    """Forget all processes, in a fork of the program: they are the program's, and end with it and not with this."""
    descriptors = [descriptor for process in _living for descriptor in process.disown()]
    alive = internals.serverDescriptor()
    if alive is not None:
        descriptors.append(alive)
    if descriptors:
        disown(*descriptors)
    _living.clear()


if has("register_at_fork"):
    os.register_at_fork(after_in_child=_disownAll)
