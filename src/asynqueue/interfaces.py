"""What the parts of AsynQueue, and anybody's own parts, owe each other: protocols that a type checker checks.

A class satisfies a protocol by having what it names; there is nothing to inherit from. To write a worker of
one's own is to write a class that satisfies `Worker`; `asynqueue.base.TaskQueue.attachWorker` says what is
missing from one that does not.
"""

# pyright: reportReturnType=false
# The methods of a protocol have docstrings for bodies.

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

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

D = TypeVar("D", bound="Deferred[Any]")  # any Deferred at all: a tracker hands it back as it was


class Resignator(Protocol):
    """What a worker calls when it resigns, restarts, disconnects or reconnects."""

    def __call__(self, why: Resignation = Departed(), /) -> None:  # noqa: B008  # it is frozen
        """Tell the queue that the worker resigns.

        Args:
            why: `Departed` (with the cause, if there is an error), `Restarted`, `Disconnected` or `Reconnected`.

        A worker that has `Restarted` takes nothing until this call returns. A queue that shuts down does not wait for a
        worker that is `Disconnected`.
        """


@runtime_checkable
class Worker(Protocol):
    """Runs tasks, one Deferred a task, for one queue.

    Every Deferred that `run` gives has to fire once, with one of `Returned`, `Raised`, `Iterating`, `Recalled`
    (given back, not started), `Lost` (died under it) or `Interrupted` (let go because the Deferred was
    cancelled, which asks the worker to be free of the task at once). It never fails.
    """

    @property
    def qualifications(self) -> Collection[Hashable]:
        """The series it may run, besides tasks of no series. (0.9's `cQualified` and `iQualified` do as well.)"""

    @property
    def window(self) -> Window:
        """How many tasks it runs at once, and the most unfinished ones it may be given."""

    def run(self, task: Task) -> Deferred[RunOutcome]:
        """Run TASK after those it was given before. It is never given more than `window.most`."""

    def stop(self) -> Deferred[None]:
        """Finish what was given, then leave nothing behind; fires when that is done. May be called again."""

    def crash(self) -> Sequence[Task]:
        """Leave at once; the tasks that were not finished, in the order given."""

    def setResignator(self, resign: Resignator) -> None:
        """A queue has taken the worker, and wants RESIGN called when it must go."""


@runtime_checkable
class Recaller(Protocol):
    """A worker that can give back what it has not started."""

    def recall(self) -> None:
        """Fire the Deferreds of all unstarted tasks with `Recalled`."""


class Resizer(Protocol):
    """What a worker calls when it runs more calls at once, or fewer, than it did."""

    def __call__(self, limits: Window | None) -> None:
        """The window is LIMITS from now on; with None, the worker is given nothing more until it says otherwise."""


@runtime_checkable
class Resizable(Protocol):
    """A worker whose window changes while it works."""

    def setResizer(self, resize: Resizer) -> None:
        """A queue is about to take the worker, and wants RESIZE called when its window changes."""


class Report(Protocol):
    """What a `Reporter` calls when tasks have ended."""

    def __call__(self, outcomes: Sequence[tuple[int, RunOutcome]], /) -> None:
        """OUTCOMES are those of tasks that it was given, each with the ticket under which it was."""


@runtime_checkable
class Reporter(Protocol):
    """A worker that reports the outcomes of many tasks at once, for which it takes no Deferred each.

    A queue gives to it what it gives to others with `Worker.run`. All that is said of `run` holds for `give`.
    """

    def setReport(self, report: Report) -> None:
        """A queue is about to take the worker, and wants REPORT called with the outcomes."""

    def give(self, runs: Sequence[tuple[int, Task]]) -> None:
        """Run the tasks of RUNS, in order and after those given before, and report each outcome under its ticket.

        If this raises, none of them is run. If the worker resigns meanwhile, RETURNING, it gives back the rest, which
        come again after the saved updates.
        """

    def interrupt(self, ticket: int) -> None:
        """Be free of the task of TICKET at once, if it has no outcome yet, and report that."""


class Consumer(Protocol):
    """What takes items as they come: the methods of `twisted.internet.interfaces.IConsumer`."""

    def registerProducer(self, producer: Any, streaming: bool) -> object:
        """PRODUCER is about to `write`; with STREAMING, it does so until it is paused."""

    def unregisterProducer(self) -> object:
        """There is nothing more to write."""

    def write(self, data: Any) -> object:
        """Take DATA, the next item, whatever it is."""


class Producer(Protocol):
    """What gives items as they come: the methods of `twisted.internet.interfaces.IPushProducer`."""

    def pauseProducing(self) -> object:
        """Write nothing until told to resume."""

    def resumeProducing(self) -> object:
        """Go on writing."""

    def stopProducing(self) -> object:
        """Write nothing more, ever."""


class ItemSink(Protocol):
    """The side of an iteration that wants the items."""

    def arrived(self, items: Sequence[Any], more: bool = False) -> None:
        """The next ITEMS, at most as many as were granted and have not come.

        With MORE, the iterator is known not to be exhausted yet: who looks ahead need not wait for the next item.
        """

    def over(self, error: BaseException | None) -> None:
        """There are no more; with ERROR, because the iterator raised it or was lost."""


@runtime_checkable
class ItemSource(Protocol):
    """The side of an iteration that has the iterator."""

    def begin(self, sink: ItemSink) -> None:
        """Send to SINK what is granted. Called once, before anything else."""

    def grant(self, items: int) -> None:
        """ITEMS more are wanted."""

    def close(self) -> None:
        """No more are wanted: run the iterator's ``finally``, then tell the sink that it is `over`."""


class ThreadCaller(Protocol):
    """What makes calls in a thread: a `asynqueue.threads.ThreadLooper`, say, or a `asynqueue.threads.ThreadQueue`."""

    def deferToThread(self, f: Callable[[], Any], /) -> Deferred[Any]:
        """A Deferred of what F gives, called in the thread."""


class Tracker(Protocol):
    """Waits for Deferreds without touching their chains."""

    def put(self, d: D) -> D:
        """Track D, and give it back."""

    def deferToAll(self, timeout: float | None = None) -> Deferred[bool]:
        """Fires True when none is left, False after TIMEOUT seconds."""

    def deferToAny(self, timeout: float | None = None) -> Deferred[bool]:
        """Fires True when one more has fired, False after TIMEOUT seconds."""

    def deferUntilFewer(self, N: int, timeout: float | None = None) -> Deferred[bool]:
        """Fires True when fewer than N are left, False after TIMEOUT seconds."""


class Serializer(Protocol):
    """Turns objects into bytes and back."""

    def dumps(self, obj: Any) -> bytes:
        """OBJ as bytes. Raises `asynqueue.errors.SerializationError`."""

    def loads(self, payload: bytes) -> Any:
        """The object in PAYLOAD. Raises `asynqueue.errors.SerializationError`."""


class DelayedCall(Protocol):
    """A call that a clock will make."""

    def cancel(self) -> None:
        """Do not make it."""

    def active(self) -> object:
        """Whether it will be made: it has been neither made nor cancelled."""


class Clock(Protocol):
    """What tells the time and calls later: a reactor, or `twisted.internet.task.Clock` in tests."""

    def seconds(self) -> float:
        """The time, in seconds since whenever."""

    def callLater(self, delay: float, callable: Callable[..., object], *args: object, **kw: object) -> DelayedCall:
        """Call CALLABLE in DELAY seconds."""
