"""What a program with many Deferreds keeps reaching for: counting them, locking with them, waiting for one.

`DeferredTracker` waits for all, any or enough of the Deferreds put into it. `DeferredLock` is Twisted's with a line
for VIPs and an end. `callAfterDeferred` and `killProcess` wait for one event. `o2p`, `p2o` and `CallRunner` are what
carries and runs a call somewhere else.

Importing this module installs no reactor. Where none is given, the installed one is asked for when it is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from time import perf_counter
from typing import Any, Literal, TypeAlias, TypeVar

from twisted.python.failure import Failure

from asynqueue.errors import SerializationError
from asynqueue.transport.pickler import dumps
from asynqueue.transport.serialization import loads
from asynqueue.util.callbacks import callAfterDeferred
from asynqueue.util.killprocess import killProcess
from asynqueue.util.lock import DeferredLock
from asynqueue.util.tracker import DeferredTracker

__all__ = ["CallRunner", "DeferredLock", "DeferredTracker", "callAfterDeferred", "killProcess", "o2p", "p2o"]

T = TypeVar("T")


def o2p(obj: object) -> bytes:
    """OBJ as bytes: by pickle, or by cloudpickle what pickle refuses, such as a lambda, or a name of `__main__`.

    What neither can carry is a `SerializationError` that says which object and why.

    >>> p2o(o2p({"a": [1, 2]}))
    {'a': [1, 2]}
    """
    try:
        return dumps(obj)
    except Exception as error:
        raise SerializationError(f"cannot pickle {_named(obj)}: {error}") from error


def p2o(pickled: bytes, defaultObj: Any = None) -> Any:
    """The object of which `o2p` made PICKLED; DEFAULTOBJ for no bytes, which 0.9 made of an empty object.

    What does not come out is a `SerializationError`. Only for bytes from somebody you trust: unpickling runs
    what they say.
    """
    return loads(pickled, "the pickled object") if pickled else defaultObj


CallResult: TypeAlias = tuple[Literal["r"], T] | tuple[Literal["i"], Iterator[Any]] | tuple[Literal["e"], Failure]


class CallRunner:
    """Runs calls, each given as (f, args, kw), and says how each ended as (status, result).

        status  result
        "r"     what f returned
        "i"     the iterator that f returned; never with RAW, which makes an iterator a result like any other
        "e"     the Failure of f, which raised an `Exception`; anything else it raises goes through

    With CALLSTATS, `callTimes` gets the seconds that each call took.

    >>> run = CallRunner()
    >>> run((divmod, (7, 2), {}))
    ('r', (3, 1))
    """

    def __init__(self, raw: bool = False, callStats: bool = False) -> None:
        self.raw = raw
        self.callStats = callStats
        self.callTimes: list[float] = []

    def __call__(self, callTuple: tuple[Callable[..., T], Sequence[Any], Mapping[str, Any]]) -> CallResult[T]:
        """Run the call that CALLTUPLE, (f, args, kw), says. Never raises an `Exception`."""
        f, args, kw = callTuple
        begun = perf_counter()
        try:
            result = f(*args, **kw)
        except Exception:
            return "e", Failure()
        finally:
            if self.callStats:
                self.callTimes.append(perf_counter() - begun)
        if isinstance(result, Iterator) and not self.raw:
            return "i", result
        return "r", result


def _named(obj: object) -> str:
    """OBJ for an error's message, whatever its repr does."""
    try:
        text = repr(obj)
    except Exception:
        return f"an unprintable {type(obj).__qualname__}"
    return text if len(text) <= 200 else f"{text[:200]}..."
