"""Call a function now, and return a Deferred of its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed

from asynqueue.core.results import Kind, kindOf
from asynqueue.reactor.failures import failureOf, undeliverable


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
        return Deferred.fromCoroutine(result)
    refusal = undeliverable(result)
    return succeed(result) if refusal is None else fail(failureOf(refusal))
