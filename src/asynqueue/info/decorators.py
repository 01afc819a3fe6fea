"""Decorators that print calls and their results while a program is being written."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from functools import partial, wraps
from inspect import iscoroutinefunction
from itertools import count
from types import CoroutineType
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from asynqueue.core.records import CallSpec
from asynqueue.core.results import isA
from asynqueue.info.text import callText, currentThread, errorText, isMethodOf, shown

__all__ = ["showResult", "whichThread"]

P = ParamSpec("P")
T = TypeVar("T")

_numbers = count(1)
_MARK = "_asynqueueWhichThread"


def showResult(f: Callable[P, T]) -> Callable[P, T]:
    """Print each call of a function with its number and its result, or the error it raised.

    If the function returns a Deferred or a coroutine, its result is printed when it has one. Results, errors and
    signature stay the same.

    Args:
        f: The function to decorate.

    Returns:
        The decorated function.

    Example:
        >>> @showResult
        ... def halve(x: int) -> float:
        ...     return x / 2
        >>> half = halve(3)
        0...: halve(3) -> 1.5
    """
    return _showing(f)


def whichThread(f: Callable[P, T]) -> Callable[P, T]:
    """Make `showResult` print the thread of each call. Put it above or below `showResult`.

    Args:
        f: The function to decorate.

    Returns:
        The decorated function.

    Example:
        >>> @showResult
        ... @whichThread
        ... def halve(x: int) -> float:
        ...     return x / 2
        >>> half = halve(3)
        0...: halve(3) <Thread: MainThread> -> 1.5
    """
    try:
        setattr(f, _MARK, True)
    except (AttributeError, TypeError):  # a builtin or a bound method, which cannot have the attribute

        @wraps(f)
        def marked(*args: P.args, **kw: P.kwargs) -> T:
            return f(*args, **kw)

        setattr(marked, _MARK, True)
        return marked
    return f


def _showing(f: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate F, of any signature, for `showResult`.

    The wrapper is a coroutine function if F is one.
    """

    def started(args: tuple[Any, ...], kw: Mapping[str, Any]) -> str:
        thread = currentThread() if getattr(watched, _MARK, False) else None
        if args and isMethodOf(args[0], watched):
            return f"{next(_numbers):03d}: {callText(CallSpec(f, args[1:], kw), args[0], thread)}"
        return f"{next(_numbers):03d}: {callText(CallSpec(f, args, kw), None, thread)}"

    def following(call: str, result: Any) -> Any:
        if isA(result, Deferred):
            return result.addCallbacks(partial(_showReturned, call), partial(_showFailure, call))
        if isA(result, CoroutineType):
            return _awaited(call, result)
        return _showReturned(call, result)

    if iscoroutinefunction(f):

        @wraps(f)
        async def watchedAsync(*args: Any, **kw: Any) -> Any:
            return await _awaited(started(args, kw), f(*args, **kw))

        watched: Callable[..., Any] = watchedAsync
    else:

        @wraps(f)
        def watchedPlain(*args: Any, **kw: Any) -> Any:
            call = started(args, kw)
            try:
                result = f(*args, **kw)
            except BaseException as error:
                _showError(call, error)
                raise
            return following(call, result)

        watched = watchedPlain
    return watched


async def _awaited(call: str, coroutine: Coroutine[Any, Any, T]) -> T:
    try:
        result = await coroutine
    except BaseException as error:
        _showError(call, error)
        raise
    return _showReturned(call, result)


def _showReturned(call: str, result: T) -> T:
    _print(call, shown(result))
    return result


def _showFailure(call: str, failure: Failure) -> Failure:
    _showError(call, failure.value)
    return failure


def _showError(call: str, error: BaseException | None) -> None:
    _print(call, f"raised {errorText(error)}")


def _print(call: str, result: str) -> None:
    """Print in one write, so that threads do not print into each other's lines."""
    gap = "\n" if len(call) + len(result) > 70 else ""
    try:
        print(f"{call}{gap} -> {result}\n", end="")
    except (OSError, ValueError):  # without a terminal the call itself must still succeed
        pass
