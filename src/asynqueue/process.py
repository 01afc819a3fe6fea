"""Work in processes: one process a worker, over a link of its own.

A process is started by `multiprocessing`, by its fork server where there is one, and runs
`asynqueue.universe.main`. It is not made to import the program's ``__main__``: what belongs to that module goes
to it by value. One that dies, or has to be killed to end a call, is replaced at once; its worker then `resigns` as
one that returns, and runs the saved updates again.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import socket
import sys
import time
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from multiprocessing.context import BaseContext
from types import ModuleType
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReadDescriptor
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure
from typing_extensions import Unpack
from zope.interface import implementer

from asynqueue import universe
from asynqueue.base import TaskQueue
from asynqueue.core import messages as m
from asynqueue.core.records import RunOutcome, Task
from asynqueue.core.window import Window
from asynqueue.delay import installedReactor
from asynqueue.errors import ProcessError
from asynqueue.interfaces import Resignator
from asynqueue.link import Link
from asynqueue.options import QueueOptions
from asynqueue.permits import PermitOffice
from asynqueue.universe import ProcessUniverse

__all__ = ["ProcessQueue", "ProcessUniverse", "ProcessWorker", "cores"]

STOP_GRACE = 5.0
"""Seconds that a process has to exit after it was told to; then it is killed."""

HANG_UP_GRACE = 1.0
"""Seconds for which what a process said before it exited is waited for, if something keeps its end open."""

START_ATTEMPTS = 3
"""How many processes in a row may die before they speak, other than killed from outside; then a worker gives up.
So it does when as many in a row cannot be started at all."""

START_PAUSE = 0.01
"""Seconds between one process that could not be started and the next."""

T = TypeVar("T")

_numbers = count(1)
_living: weakref.WeakSet[WorkerProcess] = weakref.WeakSet()


def cores() -> int:
    """How many CPU cores this process may use: its affinity, and its control group's quota rounded up.

    >>> cores() >= 1
    True
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota()
    return usable if quota is None else max(1, min(usable, quota))


def _quota() -> int | None:
    """The cores that the control group allows, as cgroup v2 (``cpu.max``) or v1 tells."""
    try:
        with open("/proc/self/cgroup") as groups:
            own = [line.strip().split(":", 2) for line in groups]
    except OSError:
        return None
    limits: list[float] = []
    for _, controllers, path in own:
        if controllers == "":
            parts = path.strip("/").split("/") if path.strip("/") else []
            for depth in range(len(parts), -1, -1):
                text = _read(os.path.join("/sys/fs/cgroup", *parts[:depth], "cpu.max")).split()
                if len(text) == 2 and text[0] != "max":
                    limits.append(int(text[0]) / int(text[1]))
        elif "cpu" in controllers.split(","):
            folder = f"/sys/fs/cgroup/cpu/{path.strip('/')}"
            quota, period = (_read(f"{folder}/cpu.cfs_{name}_us") for name in ("quota", "period"))
            if quota and period and int(quota) > 0:
                limits.append(int(quota) / int(period))
    return max(1, -int(-min(limits) // 1)) if limits else None


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


class WorkerProcess:
    """A process that serves OWNER, and the link to it, until both are gone."""

    def __init__(self, context: BaseContext, reactor: Any, owner: ProcessWorker) -> None:
        self.gone: Deferred[None] = Deferred()
        self._reactor = reactor
        self._owner = owner
        self._exitcode: int | None = None
        self._exited = False
        self._saidGoodbye = False
        self._grace: Any = None
        self._permits = PermitOffice()
        self.link = Link(self._permits, self._linkLost, self._interrupt)
        try:
            near, far = socket.socketpair()
            with near, far:
                self._process = self._begin(context, near, far)
                reactor.adoptStreamConnection(near.fileno(), socket.AF_UNIX, _LinkFactory(self.link))
        except BaseException:
            self._permits.close()  # what has begun finds nobody to speak to, and exits
            raise
        self.pid: int = self._process.pid
        self._sentinel = _Sentinel(self._process.sentinel, self._hasExited)
        reactor.addReader(self._sentinel)
        _living.add(self)

    def _begin(self, context: BaseContext, near: socket.socket, far: socket.socket) -> Any:
        """A process, by CONTEXT, to which FAR belongs. (Each context has its own class of processes: hence Any.)"""
        inherited: list[int] = []
        if context.get_start_method() == "fork":  # the child has all that is open here: the other links, above all
            inherited = [near.fileno(), self._permits.giving.fileno()]
            inherited += [descriptor for process in _living for descriptor in process.filenos()]
        process = context.Process(  # type: ignore[attr-defined]  # every context but the base has it
            target=universe.main,
            args=(far, self._permits.taking, tuple(inherited)),
            name=f"asynqueue-process-{next(_numbers)}",
        )
        with _withoutMain():
            process.start()
        return process

    def is_alive(self) -> bool:
        """True until it has exited."""
        return not self._exited

    @property
    def exitcode(self) -> int | None:
        """None until it has exited; then its exit status, or minus the number of the signal that killed it."""
        return self._exitcode

    def goodbye(self) -> None:
        """Have it exit when it has done what it was asked for."""
        if not self._saidGoodbye and not self._exited:
            self._saidGoodbye = True
            self.link.say(m.Goodbye())

    def kill(self) -> None:
        """Have it exit now, whatever it does."""
        if not self._exited:
            self._process.kill()

    def filenos(self) -> list[int]:
        """The descriptors that this side has for it, if they are open."""
        transport: Any = self.link.transport
        numbers = [transport.fileno(), self._permits.giving.fileno(), self._permits.taking.fileno()]
        return [number for number in numbers if number >= 0]

    def _interrupt(self) -> None:
        self._owner.replace(self)
        self.kill()

    def _linkLost(self) -> None:
        """It has closed its end, being dead or about to exit."""
        self._owner.lost(self)
        self.link.conclude(f"process {self.pid} died")
        self._expect(self.kill, STOP_GRACE if self._saidGoodbye else 0)

    def _hasExited(self) -> None:
        if self._exited:
            return
        if self._process.is_alive():  # its sentinel is hung up: it is exiting, or is as good as dead
            self._process.kill()
        self._reactor.removeReader(self._sentinel)
        self._process.join()
        self._exitcode = self._process.exitcode
        self._exited = True
        self._process.close()
        self._owner.exited(self)
        # What it said before is heard out first; but a child of its own may keep its end open.
        self._expect(self.link.hangUp, HANG_UP_GRACE)

    def _expect(self, otherwise: Callable[[], None], grace: float) -> None:
        """One of exit and end of the link has come, and the other is due."""
        if self._grace is not None:
            if self._grace.active():
                self._grace.cancel()
            _living.discard(self)
            self.gone.callback(None)
        else:
            self._grace = self._reactor.callLater(grace, otherwise)


@implementer(IReadDescriptor)
class _Sentinel:
    """Tells when a process has exited: its sentinel becomes readable."""

    def __init__(self, descriptor: int, onExit: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._onExit = onExit

    def fileno(self) -> int:
        """The descriptor that the reactor watches."""
        return self._descriptor

    def doRead(self) -> None:
        """It is readable."""
        self._onExit()

    def connectionLost(self, reason: Failure) -> None:
        """It is hung up, having been read by `multiprocessing` already; or the reactor is done with it."""
        self._onExit()

    def logPrefix(self) -> str:
        """What the reactor's log calls it."""
        return "asynqueue"


class _LinkFactory(Factory):
    noisy = False

    def __init__(self, link: Link) -> None:
        self._link = link

    def buildProtocol(self, addr: IAddress | None) -> Link:
        return self._link


@contextmanager
def _withoutMain() -> Iterator[None]:
    """Keep `multiprocessing` from having a new process import the program's ``__main__``."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@atexit.register
def _killAll() -> None:
    """Leave no process behind when the interpreter exits."""
    for process in list(_living):
        process.kill()


class ProcessWorker:
    """Runs calls in one process of its own, one after another.

    It is qualified for the series ``process`` and ``local``, and those in SERIES. With RAW, an iterator is a result
    like any other (and will not cross the link). CONTEXT is a start method of `multiprocessing` or a context from
    there; the fork server is the default where there is one, else ``spawn``. The process starts when a queue takes
    the worker. It ignores Ctrl-C, which is the parent's business, and dies with its parent.
    """

    cQualified = ("process", "local")
    window = Window(1, 64)
    _log = Logger(namespace="asynqueue")

    def __init__(
        self,
        series: Iterable[Hashable] = (),
        raw: bool = False,
        context: str | BaseContext | None = None,
        *,
        reactor: Any = None,
    ) -> None:
        self.qualifications = frozenset(self.cQualified) | frozenset(series)
        self._raw = raw
        self._context = _contextFor(context)
        self._reactor = reactor
        self._process: WorkerProcess | None = None
        self._processes: dict[WorkerProcess, None] = {}  # those not gone: the replaced ones too
        self._stopping = False
        self._failedStarts = 0
        self._resign: Resignator | None = None

    @property
    def process(self) -> WorkerProcess:
        """The process, which has a `pid` and `is_alive()`; started, if it was not."""
        if self._process is None:
            self._process = self._start()
        return self._process

    def setResignator(self, resign: Resignator) -> None:
        """RESIGN is called when the process has been replaced, or cannot be."""
        self._resign = resign
        self.process  # noqa: B018  # it starts

    def run(self, task: Task) -> Deferred[RunOutcome]:
        """Have the process make the call of TASK."""
        return self.process.link.call(task, self._raw if task.raw is None else task.raw)

    def recall(self) -> None:
        """Give back what has not started."""
        for process in list(self._processes):
            process.link.recall()

    def stop(self) -> Deferred[None]:
        """Have the process exit when it has done what it was given; fires when it is gone."""
        self._stopping = True
        if self._process is not None:
            self._process.goodbye()
        return _allOf([process.gone for process in self._processes])

    def crash(self) -> Sequence[Task]:
        """Kill the process; the tasks without an outcome."""
        self._stopping = True
        for process in list(self._processes):
            process.kill()
            process.link.hearOut()
        return [task for process in self._processes for task in process.link.unfinished]

    def replace(self, process: WorkerProcess) -> None:
        """PROCESS is about to die: have another. (For the process itself.)"""
        if process is not self._process or self._stopping:
            return
        self._process = None
        try:
            self._process = self._start()
        except ProcessError as error:
            self._giveUp(str(error))
        else:
            if self._resign is not None:
                self._resign(returning=True)

    def lost(self, process: WorkerProcess) -> None:
        """PROCESS has died. (For the process itself.)"""
        self.replace(process)

    def exited(self, process: WorkerProcess) -> None:
        """PROCESS has exited. (For the process itself.)"""
        if process.link.ready or self._stopping:
            self._failedStarts = 0
        elif process.exitcode != -signal.SIGKILL:
            self._failedStarts += 1
            if self._failedStarts == START_ATTEMPTS:
                self._giveUp(f"{START_ATTEMPTS} processes in a row died before they were ready")

    def _giveUp(self, why: str) -> None:
        self._log.error("a process worker gives up: {why}", why=why)
        self.crash()
        if self._resign is not None:
            self._resign()

    def _start(self) -> WorkerProcess:
        if self._stopping:
            raise ProcessError("this worker was stopped")
        for attempt in count(1):
            try:
                process = WorkerProcess(self._context, installedReactor(self._reactor), self)
                break
            except (OSError, EOFError) as error:
                if attempt == START_ATTEMPTS:
                    raise ProcessError(f"no process could be started: {error!r}") from error
                time.sleep(START_PAUSE)  # a fork server that was killed is noticed, and replaced, when it is buried
        self._processes[process] = None
        process.gone.addCallback(lambda _: self._processes.pop(process))
        return process


class ProcessQueue(TaskQueue):
    """A queue with N processes of its own; as many as there are `cores` if N is not given.

    RAW, SERIES and CONTEXT are those of `ProcessWorker`, the other keywords those of
    `asynqueue.base.TaskQueue`.

    >>> queue = ProcessQueue(2)                              # doctest: +SKIP
    >>> d = queue.call(pow, 2, 1000)                         # doctest: +SKIP
    """

    def __init__(
        self,
        N: int | None = None,
        raw: bool = False,
        series: Iterable[Hashable] = (),
        context: str | BaseContext | None = None,
        **kw: Unpack[QueueOptions],
    ) -> None:
        if N is not None and (type(N) is not int or N < 1):
            raise ValueError(f"a ProcessQueue has at least one worker, got N={N!r}")
        super().__init__(**kw)
        series = list(series)
        try:
            for _ in range(cores() if N is None else N):
                self.hire(ProcessWorker(series, raw, context, reactor=kw.get("reactor")))
        except BaseException:
            for worker in self.workers():
                self.detachWorker(worker, crash=True)
            self.shutdown()
            raise

    def workerLeft(self) -> None:
        """With its last worker gone by itself, nothing would ever run: say so to all that wait."""
        if not self._scheduler.workers:
            self.strand("no worker process could be kept running")


def _contextFor(context: str | BaseContext | None) -> BaseContext:
    if isinstance(context, BaseContext):
        return context
    methods = multiprocessing.get_all_start_methods()
    if context is None:
        context = "forkserver" if "forkserver" in methods else "spawn"
    if context not in methods:
        raise ValueError(f"context must be one of {', '.join(methods)}, or a multiprocessing context; got {context!r}")
    return multiprocessing.get_context(context)


def _allOf(deferreds: list[Deferred[None]]) -> Deferred[None]:
    """Fires when all of DEFERREDS, none of which fails, have fired; they go on as they were."""
    all_: Deferred[None] = Deferred()
    left = len(deferreds)

    def one(result: T) -> T:
        nonlocal left
        left -= 1
        if not left:
            all_.callback(None)
        return result

    for d in deferreds:
        d.addCallback(one)
    if not deferreds:
        all_.callback(None)
    return all_
