"""Objects whose methods run in processes.

Worker processes read this module: it imports next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from asynqueue.errors import QueueRunError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    from twisted.internet.defer import Deferred

    from asynqueue.iteration.deferator import Deferator
    from asynqueue.queue.taskqueue import TaskQueue

__all__ = ["ProcessBase"]

P = ParamSpec("P")
T = TypeVar("T")


class _Near:
    """What an object has on the near side only: it crosses a link without it."""

    __slots__ = ("queue",)

    def __init__(self) -> None:
        self.queue: TaskQueue | None = None

    def __reduce__(self) -> tuple[type[_Near], tuple[()]]:
        return _Near, ()


class ProcessBase:
    """The base of an object that lives in every process of a queue, where its methods run.

    After `attachQueue`, each process has a copy of its own, made once, and keeps it between calls: what a method does
    to the copy stays with that process, and the object itself stays as it was. A process that is started later, or
    takes the place of one that died, gets a fresh copy, on which the updates are run again.

        class Reader(ProcessBase):
            def __init__(self, ignored=()):
                self.ignored = set(ignored)

            def startProcess(self):
                self.database = sqlite3.connect("known.db")    # which could not have crossed

            def ignore(self, addresses):
                self.ignored.update(addresses)

            def read(self, path):
                ...

        reader = Reader()
        await reader.attachQueue(queue)
        await reader.updateProcesses(reader.ignore, ["192.0.2.1"])
        records = await reader.callInProcess(reader.read, "access.log")

    A subclass has to be picklable, and need not call the base's ``__init__``. The queue it is attached to does not
    travel with it. The calls are the queue's own: ``queue.call(reader.read, path, niceness=10)`` does as well.
    """

    _near: _Near | None = None

    def attachQueue(self, queue: TaskQueue) -> Deferred[None]:
        """Live in every process of QUEUE, present and future; fires when `startProcess` has run in those present.

        Fails with what it raised. Raises `asynqueue.errors.QueueRunError` for a queue that has been shut down.
        """
        started = queue.update(self.startProcess)
        self._near = _Near()
        self._near.queue = queue
        return started.addCallback(lambda _: None)

    def startProcess(self) -> None:
        """Do, in each process, what has to be done before the first call there: open files, connect, warm up.

        To be overridden; it does nothing.
        """

    @overload
    def callInProcess(
        self, method: Callable[P, Iterator[T]], /, *args: P.args, **kw: P.kwargs
    ) -> Deferred[Deferator[T]]: ...
    @overload
    def callInProcess(
        self, method: Callable[P, Deferred[T] | Coroutine[Any, Any, T]], /, *args: P.args, **kw: P.kwargs
    ) -> Deferred[T]: ...
    @overload
    def callInProcess(self, method: Callable[P, T], /, *args: P.args, **kw: P.kwargs) -> Deferred[T]: ...
    def callInProcess(self, method: Callable[..., Any], /, *args: Any, **kw: Any) -> Deferred[Any]:
        """A Deferred of what METHOD, one of this object's, gives in one of the processes.

        It fires, fails and is cancelled as that of `asynqueue.base.TaskQueue.call`. Every argument is the method's.
        Raises TypeError for what is no method of this object, and `asynqueue.errors.QueueRunError` if it is not
        attached to a queue, or the queue has been shut down.
        """
        from asynqueue.core.records import CallSpec

        return self._queueFor(method).submit(CallSpec(method, args, kw), series="process")

    @overload
    def updateProcesses(
        self, method: Callable[..., Deferred[T] | Coroutine[Any, Any, T]], /, *args: Any, **kw: Any
    ) -> Deferred[list[T]]: ...
    @overload
    def updateProcesses(self, method: Callable[..., T], /, *args: Any, **kw: Any) -> Deferred[list[T]]: ...
    def updateProcesses(self, method: Callable[..., Any], /, *args: Any, **kw: Any) -> Deferred[list[Any]]:
        """Have METHOD, one of this object's, run in every process, present and future; the results from those present.

        It takes what `asynqueue.base.TaskQueue.update` takes, EPHEMERAL and SEQUENTIAL too. Raises what
        `callInProcess` raises.
        """
        return self._queueFor(method).update(method, *args, **kw)

    def _queueFor(self, method: Callable[..., object]) -> TaskQueue:
        owner: object = getattr(method, "__self__", None)
        if owner is not self:
            raise TypeError(f"what runs in its processes is a method of this {type(self).__name__}, not {method!r}")
        if self._near is None or self._near.queue is None:
            raise QueueRunError(f"this {type(self).__name__} is not attached to a queue: use attachQueue first")
        return self._near.queue
