"""What is asked for and how it ended: immutable records, and no behaviour.

A `CallSpec` is a call that has not been made. A `Task` is a call under a queue's care, with what was asked for
it. An `Outcome` is how one run of a task on a worker ended, or how the task was settled: a closed union, to be
matched with ``isinstance`` and `typing_extensions.assert_never`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from itertools import islice
from reprlib import Repr
from types import MappingProxyType
from typing import Any, Generic, TypeAlias, TypeVar

import attrs
from typing_extensions import ParamSpec

from asynqueue.core.frozen import record

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

NICENESS_MIN, NICENESS_MAX = -20, 20
"""The most and the least favoured niceness a call can have."""

NO_KEYWORDS: Mapping[str, Any] = MappingProxyType({})


@attrs.frozen(eq=False)
class CallSpec(Generic[T_co]):
    """A call that has not been made: F is to be called with ARGS and KW.

    Make one with `CallSpec.of`, which type checkers hold to F's own signature:

    >>> spec = CallSpec.of(round, 2.5001, ndigits=2)
    >>> str(spec)
    'round(2.5001, ndigits=2)'
    """

    # What a user's callable takes cannot be known to a record that holds any callable: hence Any.
    f: Callable[..., T_co]
    args: tuple[Any, ...] = ()
    kw: Mapping[str, Any] = NO_KEYWORDS

    @staticmethod
    def of(f: Callable[P, T], /, *args: P.args, **kw: P.kwargs) -> CallSpec[T]:
        """The call ``f(*args, **kw)``, each argument checked against F's signature by a type checker."""
        return CallSpec(f, args, kw)

    def __str__(self) -> str:
        return describe(self.f, self.args, self.kw)


@attrs.frozen(eq=False, weakref_slot=False)  # a queue may hold a million of them
class Task:
    """A call under a queue's care.

    ID counts a queue's tasks from 1 in the order of submission. TIMEOUT is in seconds, from when a worker can
    have started the call. RETRIES is how often the call may be started again after its worker died or its time
    ran out under it; ATTEMPT how often that has happened. A task with UPDATE runs on one certain worker, and
    the object its callable is bound to becomes resident there. A worker that stands for several machines runs it on
    each of them and, unless EPHEMERAL, on those that come later.
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

    def again(self) -> Task:
        """This task after one more attempt."""
        return attrs.evolve(self, attempt=self.attempt + 1)

    @property
    def spent(self) -> bool:
        """True when it may not be started again."""
        return self.attempt > self.retries


@record
class Returned:
    """The call returned VALUE, after running for SECONDS."""

    value: Any  # whatever the user's callable returned
    seconds: float = 0.0


@attrs.frozen
class Raised:
    """The call raised ERROR, after running for SECONDS."""

    error: BaseException
    seconds: float = 0.0


@attrs.frozen
class Iterating:
    """The call returned an iterator, whose items come from SOURCE (an `asynqueue.interfaces.ItemSource`)."""

    source: Any  # an adapter's object, which core passes on and never touches
    seconds: float = 0.0


@attrs.frozen
class Recalled:
    """The worker gives the task back and has not started it."""


@attrs.frozen
class Interrupted:
    """The worker let go of the call because it was asked to; it may have run in part."""


@attrs.frozen
class Lost:
    """The worker died while it ran the call. REASON says how, for people."""

    reason: str = "the worker died"


@attrs.frozen
class TimedOut:
    """The call ran longer than its timeout of SECONDS, for the last time allowed."""

    seconds: float


@attrs.frozen
class Cancelled:
    """The call's Deferred was cancelled, or all calls of its series were."""


@attrs.frozen
class Refused:
    """The queue cannot run the call. REASON says why, for people."""

    reason: str


RunOutcome: TypeAlias = Returned | Raised | Iterating | Recalled | Interrupted | Lost
"""How one run of a task ended, as its worker tells it."""

Settlement: TypeAlias = Returned | Raised | Iterating | Lost | TimedOut | Cancelled | Refused
"""How a task ended, once and for all."""

Outcome: TypeAlias = RunOutcome | Settlement


_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = 60
_SHORT.maxlong = 40


def describe(f: object, args: tuple[object, ...] = (), kw: Mapping[str, object] = NO_KEYWORDS) -> str:
    """The call ``f(*args, **kw)`` as text of bounded length, whatever the arguments are."""
    parts = [_short(x) for x in args[:8]] + [f"{k[:60]}={_short(v)}" for k, v in islice(kw.items(), 8)]
    if len(args) > 8 or len(kw) > 8:
        parts.append("...")
    return f"{_name(f)}({', '.join(parts)})"


def _name(f: object) -> str:
    try:
        name = getattr(f, "__qualname__", None) or getattr(f, "__name__", None)
    except Exception:  # a user's __getattr__ may raise anything
        name = None
    return name[:200] if isinstance(name, str) else _short(f)


def _short(x: object) -> str:
    try:
        return _SHORT.repr(x)
    except Exception as error:  # a user's __repr__ may raise anything
        return f"<{type(x).__name__}: its repr raised {type(error).__name__}>"
