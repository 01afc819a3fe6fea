"""Immutable records of calls and how they ended.

- A `CallSpec` is a call that has not been made.
- A `Task` is a call in a queue, with its options.
- An `Outcome` is how one run of a task ended (`RunOutcome`), or how the task was settled (`Settlement`). Both are
  closed unions, to be matched with ``isinstance`` and `typing_extensions.assert_never`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, Generic, NoReturn, TypeAlias, TypeVar

import attrs
from typing_extensions import ParamSpec

from asynqueue.core.frozen import record
from asynqueue.core.text import NO_KEYWORDS as NO_KEYWORDS
from asynqueue.core.text import describe
from asynqueue.errors import ImplementationError

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

NICENESS_MIN, NICENESS_MAX = -20, 20
"""The most favoured and the least favoured niceness of a call."""


@attrs.frozen(eq=False)
class CallSpec(Generic[T_co]):
    """A call that has not been made: F with ARGS and KW.

    Use `CallSpec.of` to make one. Type checkers then check the arguments against the signature of F:

    >>> spec = CallSpec.of(round, 2.5001, ndigits=2)
    >>> str(spec)
    'round(2.5001, ndigits=2)'
    """

    # Any, because the callable may have any parameters.
    f: Callable[..., T_co]
    args: tuple[Any, ...] = ()
    kw: Mapping[str, Any] = NO_KEYWORDS

    @staticmethod
    def of(f: Callable[P, T], /, *args: P.args, **kw: P.kwargs) -> CallSpec[T]:
        """Return the call ``f(*args, **kw)``.

        Args:
            f: Any callable.
            args: Its positional arguments.
            kw: Its keyword arguments.

        Returns:
            The call. A type checker checks each argument against the signature of `f`.
        """
        return CallSpec(f, args, kw)

    def __str__(self) -> str:
        return describe(self.f, self.args, self.kw)


@attrs.frozen
class Method:
    """The name of a method, for a client that does not have the class of the universe.

    ``queue.call("total", [1, 2, 3])`` is the same as the following call, for the workers of wires only.

    Args:
        name: The name of a public method.

    >>> d = queue.call(Method("total"), [1, 2, 3])          # doctest: +SKIP
    """

    name: str

    def __call__(self, *args: Any, **kw: Any) -> NoReturn:
        """Raise `asynqueue.errors.ImplementationError`: only a `WireWorker` can call the method."""
        raise ImplementationError(f"the method {self.name!r} is one of a WireServer, and only a WireWorker calls it")


@attrs.frozen(eq=False, weakref_slot=False)  # small, because a queue may hold a million tasks
class Task:
    """A call in a queue, with its options.

    Attributes:
        id: The number of the task in its queue, from 1 in the order of submission.
        call: The call.
        series: The series of the call. Only workers that are qualified for it run the task.
        niceness: From -20 (most favoured) to 20.
        doNext: The task goes before all others.
        doLast: The task goes after all others.
        timeout: The time limit in seconds, from when a worker can have started the call. None is no limit.
        retries: How often the call may start again after its worker died or its time limit passed.
        raw: Return an iterator as it is. None leaves that to the worker.
        attempt: How often the call has been started again so far.
        update: The task runs on one certain worker, and the object to which its callable is bound becomes resident
            there. A worker that stands for several machines runs it on each of them.
        ephemeral: The update does not run on machines that join later.
        context: The context of the caller, in which a worker of this process runs the call; None for none.
    """

    id: int
    call: CallSpec[Any]  # a queue holds calls of every result type
    series: Hashable = None
    niceness: int = 0
    doNext: bool = False
    doLast: bool = False
    timeout: float | None = None
    retries: int = 1
    raw: bool | None = None
    attempt: int = 0
    update: bool = False
    ephemeral: bool = False
    context: Any = None  # an adapter's object, which the core only passes on

    def again(self) -> Task:
        """Return this task for one more attempt."""
        return attrs.evolve(self, attempt=self.attempt + 1)

    @property
    def spent(self) -> bool:
        """True when the call may not start again."""
        return self.attempt > self.retries


@record
class Returned:
    """The call returned VALUE after running for SECONDS."""

    value: Any  # Any, because the user's callable may return anything
    seconds: float = 0.0


@attrs.frozen
class Raised:
    """The call raised ERROR after running for SECONDS."""

    error: BaseException
    seconds: float = 0.0


@attrs.frozen
class Iterating:
    """The call returned an iterator. SOURCE (an `asynqueue.interfaces.ItemSource`) provides its items."""

    source: Any  # an adapter's object, which the core only passes on
    seconds: float = 0.0


@attrs.frozen
class Recalled:
    """The worker returns the task and has not started it."""


@attrs.frozen
class Interrupted:
    """The worker cancelled the call on request. The call may have run in part."""


@attrs.frozen
class Lost:
    """The worker died while it ran the call. REASON describes how."""

    reason: str = "the worker died"


@attrs.frozen
class TimedOut:
    """The call exceeded its time limit of SECONDS, and no attempt is left."""

    seconds: float


@attrs.frozen
class Cancelled:
    """The Deferred of the call was cancelled, or its series was."""


@attrs.frozen
class Refused:
    """The queue cannot run the call. REASON describes why."""

    reason: str


RunOutcome: TypeAlias = Returned | Raised | Iterating | Recalled | Interrupted | Lost
"""How one run of a task ended, as its worker reports it."""

Settlement: TypeAlias = Returned | Raised | Iterating | Lost | TimedOut | Cancelled | Refused
"""How a task ended finally."""

Outcome: TypeAlias = RunOutcome | Settlement
