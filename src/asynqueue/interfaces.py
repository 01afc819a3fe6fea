"""The protocols by which the parts of AsynQueue, and your own workers and consumers, work together.

A class satisfies a protocol if it has the protocol's members; it need not inherit. A type checker checks that. To
write a worker is to write a class that satisfies `Worker`: `asynqueue.base.TaskQueue.attachWorker` says what one
lacks.
"""

# pyright: reportReturnType=false
# The methods of a protocol have docstrings for bodies.

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from zope.interface import Attribute, Interface

from asynqueue.core.records import RunOutcome, Task
from asynqueue.core.scheduling.states import Departed, Disconnected, Reconnected, Resignation, Restarted
from asynqueue.core.scheduling.window import Window

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

__all__ = [
    "Clock",
    "Consumer",
    "DelayedCall",
    "Departed",
    "Disconnected",
    "IWorker",
    "ItemSink",
    "ItemSource",
    "Producer",
    "Recaller",
    "Reconnected",
    "Report",
    "Reporter",
    "Resignation",
    "Resignator",
    "Resizable",
    "Resizer",
    "Restarted",
    "Serializer",
    "ThreadCaller",
    "Tracker",
    "Window",
    "Worker",
]

D = TypeVar("D", bound="Deferred[Any]")  # any Deferred: a tracker returns it as it was


class Resignator(Protocol):
    """The function that a worker calls when it resigns, restarts, disconnects or reconnects."""

    def __call__(self, why: Resignation = Departed(), /) -> None:  # noqa: B008  # it is frozen
        """Notify the queue that the worker resigns.

        Args:
            why: `Departed` (with the cause, if there is an error), `Restarted`, `Disconnected` or `Reconnected`.

        A worker that has `Restarted` takes nothing until this call returns. A queue that shuts down does not wait for a
        worker that is `Disconnected`.
        """


@runtime_checkable
class Worker(Protocol):
    """Runs tasks for one queue, with one Deferred a task.

    Every Deferred that `run` returns fires once, with one of these outcomes. It never fails.

    - `Returned`, `Raised` or `Iterating`: the call has ended.
    - `Recalled`: the call is given back and has not started.
    - `Lost`: the worker died while it ran the call.
    - `Interrupted`: the Deferred was cancelled, and the worker has ended the call at once.
    """

    @property
    def qualifications(self) -> Collection[Hashable]:
        """The series that it may run, besides tasks without a series. (0.9's `cQualified` and `iQualified` serve as
        well.)
        """

    @property
    def window(self) -> Window:
        """The number of tasks that it runs at once, and the largest number of unfinished tasks that it may hold."""

    def run(self, task: Task, /) -> Deferred[RunOutcome]:
        """Run `task` after the tasks before it.

        Args:
            task: The task. The worker never holds more than `window.most`.

        Returns:
            A Deferred of the outcome.
        """

    def stop(self) -> Deferred[None]:
        """Finish what was given, then leave nothing behind. It may be called again.

        Returns:
            A Deferred that fires when that is done.
        """

    def crash(self) -> Sequence[Task]:
        """Leave at once.

        Returns:
            The tasks that were not finished, in the order in which they were given.
        """

    def setResignator(self, resign: Resignator, /) -> None:
        """Note that a queue has taken the worker.

        Args:
            resign: To be called when the worker resigns, restarts, disconnects or reconnects.
        """


class IWorker(Interface):
    """A worker, as 0.9 declares it: the workers of AsynQueue provide this interface, and satisfy `Worker`.

    A class that was written for 0.9 may implement it instead of `Worker`. It has `cQualified` or `iQualified` and no
    `qualifications`. Its `run` is given an `asynqueue.tasks.Task`, and ends by ``task.callback((status, result))``. A
    queue gives such a worker one task at a time.
    """

    cQualified: Any = Attribute("The series for which all workers of the class are qualified.")
    iQualified: Any = Attribute("The further series for which this worker is qualified.")

    def setResignator(callableObject: Any) -> Any:
        """Note that a queue has taken the worker, which calls `callableObject` when it must go."""

    def run(task: Any) -> Any:
        """Run `task`."""

    def stop() -> Any:
        """Finish what was given, then stop. Return a Deferred."""

    def crash() -> Any:
        """Leave at once. Return the tasks that were not finished."""


@runtime_checkable
class Recaller(Protocol):
    """A worker that can give back what it has not started."""

    def recall(self) -> None:
        """Report `Recalled` for every task that has not started."""


class Resizer(Protocol):
    """The function that a worker calls when its window changes."""

    def __call__(self, limits: Window | None, /) -> None:
        """Notify the queue of the new window.

        Args:
            limits: The window from now on. With None, the worker is given nothing until the next such call.
        """


@runtime_checkable
class Resizable(Protocol):
    """A worker whose window changes while it works."""

    def setResizer(self, resize: Resizer, /) -> None:
        """Note that a queue is about to take the worker.

        Args:
            resize: To be called when the window changes.
        """


class Report(Protocol):
    """The function that a `Reporter` calls when tasks have ended."""

    def __call__(self, outcomes: Sequence[tuple[int, RunOutcome]], /) -> None:
        """Report outcomes to the queue.

        Args:
            outcomes: Pairs of a ticket and the outcome of the task that was given under it.
        """


@runtime_checkable
class Reporter(Protocol):
    """A worker that takes tasks, and reports their outcomes, several at once.

    A queue uses `give` in place of `Worker.run`. What `Worker.run` owes, `give` owes too.
    """

    def setReport(self, report: Report, /) -> None:
        """Note that a queue is about to take the worker.

        Args:
            report: To be called with the outcomes.
        """

    def give(self, runs: Sequence[tuple[int, Task]], /) -> None:
        """Run tasks in order, after those before them, and report each outcome under its ticket.

        If this raises, no task of `runs` is run. A worker that restarts meanwhile gives back the rest: the queue
        gives them again after the saved updates.

        Args:
            runs: Pairs of a ticket and a task.
        """

    def interrupt(self, ticket: int, /) -> None:
        """End a task at once, if it has no outcome yet, and report that.

        Args:
            ticket: The ticket under which it was given.
        """


class Consumer(Protocol):
    """Takes items as they come: the methods of `twisted.internet.interfaces.IConsumer`."""

    def registerProducer(self, producer: Any, streaming: bool, /) -> object:
        """Note that a producer is about to `write`.

        Args:
            producer: The producer.
            streaming: With True, it writes until it is paused. Else it writes once for each `resumeProducing`.
        """

    def unregisterProducer(self) -> object:
        """Note that the producer has nothing more to write."""

    def write(self, data: Any, /) -> object:
        """Take the next item.

        Args:
            data: The item, of any type.
        """


class Producer(Protocol):
    """Writes items as they come: the methods of `twisted.internet.interfaces.IPushProducer`."""

    def pauseProducing(self) -> object:
        """Write nothing until `resumeProducing`."""

    def resumeProducing(self) -> object:
        """Go on writing."""

    def stopProducing(self) -> object:
        """Write nothing more."""


class ItemSink(Protocol):
    """The side of an iteration that takes the items."""

    def arrived(self, items: Sequence[Any], /, more: bool = False) -> None:
        """Take the next items.

        Args:
            items: At most as many as were granted and have not come.
            more: With True, the iterator is known to have another item.
        """

    def over(self, error: BaseException | None, /) -> None:
        """Note that there are no more items.

        Args:
            error: The error that the iterator raised, or that says how it was lost; None if it is exhausted or closed.
        """


@runtime_checkable
class ItemSource(Protocol):
    """The side of an iteration that has the iterator."""

    def begin(self, sink: ItemSink, /) -> None:
        """Send items to `sink` from now on, as many as are granted. It is called before any `grant`, and once at most.

        A source that nobody wants is closed without it.
        """

    def grant(self, items: int, /) -> None:
        """Grant credit: so many more items may be sent."""

    def close(self) -> None:
        """Run the iterator's ``finally``, then call the sink's `over`: no more items are wanted."""


class ThreadCaller(Protocol):
    """Makes calls in threads of its own, one or several.

    An `asynqueue.threads.ThreadLooper` has one, and an `asynqueue.threads.ThreadQueue` may have more.
    """

    def deferToThread(self, f: Callable[[], Any], /) -> Deferred[Any]:
        """Return a Deferred of the result of `f`, called in one of these threads."""


class Tracker(Protocol):
    """Waits for Deferreds without touching their chains."""

    def put(self, d: D, /) -> D:
        """Track the Deferred `d`, and return it."""

    def deferToAll(self, timeout: float | None = None) -> Deferred[bool]:
        """Return a Deferred that fires with True when no tracked Deferred is left, or with False after `timeout`
        seconds.
        """

    def deferToAny(self, timeout: float | None = None) -> Deferred[bool]:
        """Return a Deferred that fires with True when one more has fired, or with False after `timeout` seconds."""

    def deferUntilFewer(self, N: int, timeout: float | None = None) -> Deferred[bool]:
        """Return a Deferred: it fires with True when fewer than `N` are left, with False after `timeout` seconds."""


class Serializer(Protocol):
    """Turns objects into bytes and back."""

    def dumps(self, obj: Any, /) -> bytes:
        """Return `obj` as bytes.

        Raises:
            asynqueue.errors.SerializationError: The object cannot be pickled.
        """

    def loads(self, payload: bytes, /) -> Any:
        """Return the object in `payload`.

        Raises:
            asynqueue.errors.SerializationError: The payload cannot be unpickled.
        """


class DelayedCall(Protocol):
    """A call that a clock will make."""

    def cancel(self) -> None:
        """Do not make the call."""

    def active(self) -> object:
        """Return whether the call has been neither made nor cancelled."""


class Clock(Protocol):
    """Tells the time and makes calls later: a reactor, or `twisted.internet.task.Clock` in tests."""

    def seconds(self) -> float:
        """Return the time in seconds, from any origin."""

    def callLater(self, delay: float, callable: Callable[..., object], *args: object, **kw: object) -> DelayedCall:
        """Call `callable` after `delay` seconds."""
