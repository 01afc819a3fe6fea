"""Call a function now, and wait for what it returns: no object of a user's may stop the calls of others."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed

from asynqueue.core.results import Kind, kindOf
from asynqueue.reactor.failures import deliverable, delivered, failureOf, undeliverable


def make(f: Callable[..., Any], args: tuple[Any, ...], kw: Mapping[str, Any]) -> Deferred[Any]:
    """Return a Deferred of ``f(*args, **kw)``. F may return a Deferred or a coroutine.

    `maybeDeferred` has a parameter ``f`` of its own, and asks a result for its class, which may raise anything.
    """
    try:
        result = f(*args, **kw)
    except BaseException as error:  # SystemExit too: the call ends, and not the reactor
        return fail(failureOf(error))
    kind = kindOf(result)
    if kind is Kind.DEFERRED:
        deferred: Deferred[Any] = result
        return deferred
    if kind is Kind.COROUTINE:
        return run(result)
    return succeed(delivered(result))


def run(coroutine: Coroutine[Any, Any, Any]) -> Deferred[Any]:
    """Return a Deferred of what COROUTINE returns. It fires whatever that, or its error, is.

    `Deferred.fromCoroutine` raises an error, and its Deferred never fires, if it cannot look at the coroutine's.
    """
    return Deferred.fromCoroutine(_deliverable(coroutine))


async def _deliverable(coroutine: Coroutine[Any, Any, Any]) -> Any:
    try:
        result = await coroutine
    except BaseException as error:
        passed = deliverable(error)
        if passed is error:
            raise
    else:
        refusal = undeliverable(result)
        if refusal is None:
            return result
        passed = refusal
    raise passed


def whenFired(d: Deferred[Any], then: Callable[..., None], *args: object) -> None:
    """Call THEN with the result of D, or a Failure, and with ARGS, even if D has a result that it cannot look at."""
    try:
        d.addBoth(then, *args)
    except BaseException as error:  # A callback of D has returned that result, and D was called before.
        then(failureOf(error), *args)
