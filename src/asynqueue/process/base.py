"""Objects that live in the processes of a queue, and whose methods run there.

Worker processes import this module: it imports almost nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from asynqueue.errors import QueueRunError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    from twisted.internet.defer import Deferred

    from asynqueue.iteration.deferator import Deferator
    from asynqueue.queue.taskqueue import TaskQueue

__all__ = ["ProcessBase"]

P = ParamSpec("P")
T = TypeVar("T")


_data: dict[tuple[int, str, str], dict[str, Any]] = {}  # a forked process inherits that of its parent: hence the ID


class _replaceable(Generic[T]):
    """A property that an object may replace by an attribute of its own."""

    def __init__(self, get: Callable[[Any], T]) -> None:
        self._get = get
        self.__doc__ = get.__doc__

    def __get__(self, obj: Any, owner: type | None = None) -> Any:
        return self if obj is None else self._get(obj)


class _ParentOnly:
    """Attributes of an object that stay in the parent process: a pickled copy is empty."""

    __slots__ = ("queue",)

    def __init__(self) -> None:
        self.queue: TaskQueue | None = None

    def __reduce__(self) -> tuple[type[_ParentOnly], tuple[()]]:
        return _ParentOnly, ()


class ProcessBase:
    """The base of an object that lives in every process of a queue, where its methods run.

    After `attachQueue`, each process has one copy of the object, and keeps it between calls. Changes that a method
    makes stay in that process; the object in the parent process does not change. A process that starts later, or
    replaces another, gets a new copy, and the updates run on it again.

        class Reader(ProcessBase):
            def __init__(self, ignored=()):
                self.ignored = set(ignored)

            def startProcess(self):
                self.database = sqlite3.connect("known.db")    # which cannot be pickled

            def ignore(self, addresses):
                self.ignored.update(addresses)

            def read(self, path):
                ...

        reader = Reader()
        await reader.attachQueue(queue)
        await reader.updateProcesses(reader.ignore, ["192.0.2.1"])
        records = await reader.callInProcess(reader.read, "access.log")

    A subclass has to be picklable. It does not have to call ``__init__`` of the base. The queue to which it is attached
    is not pickled with it. Calls through the queue, as in ``queue.call(reader.read, path, niceness=10)``, are the same.
    """

    _attached: _ParentOnly | None = None

    def attachQueue(self, queue: TaskQueue) -> Deferred[None]:
        """Put a copy of the object into every process of a queue, present and future.

        Args:
            queue: A queue, such as a `ProcessQueue`.

        Returns:
            A Deferred that fires when `startProcess` has run in all present processes. It fails with the error that
            `startProcess` raises.

        Raises:
            QueueRunError: The queue is shut down.
        """
        started = queue.update(self.startProcess)
        self._attached = _ParentOnly()
        self._attached.queue = queue
        return started.addCallback(lambda _: None)

    @_replaceable
    def pid(self) -> int:
        """The ID of the process in which the object is used."""
        return os.getpid()

    @_replaceable
    def data(self) -> dict[str, Any]:
        """A dict of this class in this process. It stays from call to call, also without `attachQueue`."""
        return _data.setdefault((os.getpid(), type(self).__module__, type(self).__qualname__), {})

    def startProcess(self) -> None:
        """Prepare a process before its first call: open files, connect, fill caches.

        A subclass may override this. The base does nothing.
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
        """Call a method of this object in one of the processes.

        Args:
            method: A bound method of this object. All further arguments are its own.

        Returns:
            A Deferred of the result, with the same rules as `asynqueue.base.TaskQueue.call`.

        Raises:
            TypeError: `method` is not a method of this object.
            QueueRunError: The object is not attached to a queue, or its queue is shut down.
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
        """Call a method of this object in every process, present and future.

        Args:
            method: A bound method of this object.
            args: Its arguments.
            kw: Its keywords, and those of `asynqueue.base.TaskQueue.update`: `ephemeral` and `sequential`.

        Returns:
            A Deferred of the list of results of all present processes.

        Raises:
            TypeError: `method` is not a method of this object.
            QueueRunError: The object is not attached to a queue, or its queue is shut down.
        """
        return self._queueFor(method).update(method, *args, **kw)

    def _queueFor(self, method: Callable[..., object]) -> TaskQueue:
        owner: object = getattr(method, "__self__", None)
        if owner is not self:
            raise TypeError(f"only methods of this {type(self).__name__} run in its processes, got {method!r}")
        if self._attached is None or self._attached.queue is None:
            raise QueueRunError(f"this {type(self).__name__} is not attached to a queue: use attachQueue first")
        return self._attached.queue
