"""Call a function now, and return a Deferred of its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred


def make(f: Callable[..., Any], args: tuple[Any, ...], kw: Mapping[str, Any]) -> Deferred[Any]:
    """Return a Deferred of ``f(*args, **kw)``. F may return a Deferred or a coroutine.

    Any keyword is allowed. (`maybeDeferred` has a parameter ``f`` of its own.)
    """
    return maybeDeferred(lambda: f(*args, **kw)) if kw else maybeDeferred(f, *args)
