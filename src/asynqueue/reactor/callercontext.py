"""Carry the context of a caller to the place where its call runs.

A call in the main loop or in a thread runs in a copy of its caller's `contextvars` context, as by `asyncio.to_thread`.
In a thread it also runs in its caller's `twisted.python.context`, as by Twisted's own `deferToThread`. Without this, a
call would run as another caller: the one in whose turn of the reactor the queue was served.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any, TypeVar
from weakref import ref

from twisted.python import context as twistedContext

T = TypeVar("T")

Runner = Callable[..., Any]
"""Calls its first argument with the others, in a context. (Any: the type of the result is that of the callable.)"""


class CallerContext:
    """The context variables of a caller, and its `twisted.python.context`. One of them at least is not the default."""

    __slots__ = ("__weakref__", "_variables", "twisted")

    def __init__(self, variables: Context, twisted: dict[Any, Any]) -> None:
        self._variables = variables
        self.twisted: dict[Any, Any] = twisted

    def inLoop(self) -> Runner:
        """Return a function that calls another in a fresh copy of the context variables."""
        return self._variables.copy().run

    def inThread(self) -> Runner:
        """Return a function that calls another in a fresh copy of the variables, and in Twisted's context."""
        variables, twisted = self._variables.copy(), self.twisted

        def run(f: Callable[..., T], /, *args: Any, **kw: Any) -> T:
            def inTwisted() -> T:  # any keyword is allowed: `twistedContext.call` has parameters of its own
                return f(*args, **kw)

            result: T = variables.run(twistedContext.call, twisted, inTwisted)
            return result

        return run


_recent: ref[CallerContext] | None = None  # the last one without context variables


def callerContext() -> CallerContext | None:
    """Return the context of the code that calls this, or None if there is nothing to carry.

    Callers without context variables share one record as long as Twisted's context is the same: usually, one turn of
    the reactor.
    """
    global _recent
    variables = copy_context()
    twisted: dict[Any, Any] = twistedContext.theContextTracker.currentContext().contexts[-1]
    if len(variables):
        return CallerContext(variables, twisted)
    if twisted is twistedContext.defaultContextDict:
        return None
    recent = None if _recent is None else _recent()
    if recent is None or recent.twisted is not twisted:
        recent = CallerContext(variables, twisted)
        _recent = ref(recent)
    return recent
