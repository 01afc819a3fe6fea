"""Convert objects to bytes and back, and run calls elsewhere.

Importing this module installs no reactor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from time import perf_counter
from typing import Any, Literal, TypeAlias, TypeVar

from twisted.internet.threads import blockingCallFromThread
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
    """Return an object as bytes.

    Pickle is used, or cloudpickle for objects that pickle refuses, such as lambdas and names of ``__main__``.

    Args:
        obj: Any object.

    Returns:
        The bytes, for `p2o`.

    Raises:
        SerializationError: Neither can pickle the object. The message names the object and the reason.

    Example:
        >>> p2o(o2p({"a": [1, 2]}))
        {'a': [1, 2]}
    """
    try:
        return dumps(obj)
    except Exception as error:
        raise SerializationError(f"cannot pickle {_named(obj)}: {error}") from error


def p2o(pickledString: bytes, defaultObj: Any = None) -> Any:
    """Return the object that `o2p` converted to bytes.

    Unpickling runs code that the bytes name. Use it only for bytes from a trusted source.

    Args:
        pickledString: The bytes from `o2p`.
        defaultObj: The result for empty bytes. (AsynQueue 0.9 made empty bytes of an empty object.)

    Returns:
        The object.

    Raises:
        SerializationError: The bytes cannot be unpickled.
    """
    return loads(pickledString, "the pickled object") if pickledString else defaultObj


CallResult: TypeAlias = tuple[Literal["r"], T] | tuple[Literal["i"], Iterator[Any]] | tuple[Literal["e"], Failure]


class CallRunner:
    """Runs calls, each given as (f, args, kw), and returns how each ended, as (status, result).

    ====== ========================================================
    status result
    ====== ========================================================
    "r"    The value that `f` returned.
    "i"    The iterator that `f` returned. With `raw`: never.
    "e"    The Failure of `f`, which raised an `Exception`.
    ====== ========================================================

    Other exceptions, such as SystemExit, propagate.

    Args:
        raw: Treat an iterator like any other value.
        callStats: Append the time of each call, in seconds, to the list `callTimes`.
        reactor: With one, `f` runs in the reactor's thread, and a Deferred that it returns is waited for. The runner is
            then called in another thread, which blocks.

    Example:
        >>> run = CallRunner()
        >>> run((divmod, (7, 2), {}))
        ('r', (3, 1))
    """

    def __init__(self, raw: bool = False, callStats: bool = False, reactor: Any = None) -> None:
        self.raw = raw
        self.callStats = callStats
        self.callTimes: list[float] = []
        self._reactor = reactor

    def __call__(self, callTuple: tuple[Callable[..., T], Sequence[Any], Mapping[str, Any]]) -> CallResult[T]:
        """Run the call `callTuple`, which is (f, args, kw).

        Returns:
            The status and the result, as in the table above.
        """
        f, args, kw = callTuple
        begun = perf_counter()
        try:
            result: Any
            if self._reactor is None:
                result = f(*args, **kw)
            else:
                result = blockingCallFromThread(self._reactor, lambda: f(*args, **kw))
        except Exception:
            return "e", Failure()
        finally:
            if self.callStats:
                self.callTimes.append(perf_counter() - begun)
        if issubclass(type(result), Iterator) and not self.raw:
            return "i", result
        return "r", result


def _named(obj: object) -> str:
    """Return OBJ as text for an error message, even if its repr fails."""
    try:
        text = repr(obj)
    except Exception:
        return f"an unprintable {type(obj).__qualname__}"
    return text if len(text) <= 200 else f"{text[:200]}..."
