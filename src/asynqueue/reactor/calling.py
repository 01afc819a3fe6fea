"""A call, made now -> a Deferred of its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred


def make(f: Callable[..., Any], args: tuple[Any, ...], kw: Mapping[str, Any]) -> Deferred[Any]:
    """Call ``f(*args, **kw)``, whatever the keywords are called; F may give a Deferred or a coroutine.

    (`maybeDeferred` alone would take a keyword ``f`` for its own. And what F gives may be of any type: hence Any.)
    """
    return maybeDeferred(lambda: f(*args, **kw)) if kw else maybeDeferred(f, *args)
