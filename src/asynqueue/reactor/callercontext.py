"""Carry the context of a caller to the place where its call runs.

A call in the main loop or in a thread runs in a copy of its caller's `contextvars` context, as by `asyncio.to_thread`.
In a thread it also runs in its caller's `twisted.python.context`, as by Twisted's own `deferToThread`. Without this, a
call would run as another caller: the one in whose turn of the reactor the queue was served.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any, TypeVar

from twisted.python import context as twistedContext

T = TypeVar("T")

Runner = Callable[..., Any]
"""Calls its first argument with the others, in a context. (Any: the type of the result is that of the callable.)"""


class CallerContext:
    """The context variables of a caller, and its `twisted.python.context`. One of them at least is not the default."""

    __slots__ = ("_twisted", "_variables")

    def __init__(self, variables: Context, twisted: dict[Any, Any]) -> None:
        self._variables = variables
        self._twisted = twisted

    def inLoop(self) -> Runner:
        """Return a function that calls another in a fresh copy of the context variables."""
        return self._variables.copy().run

    def inThread(self) -> Runner:
        """Return a function that calls another in a fresh copy of the variables, and in Twisted's context."""
        variables, twisted = self._variables.copy(), self._twisted

        def run(f: Callable[..., T], /, *args: Any, **kw: Any) -> T:
            def inTwisted() -> T:  # any keyword is allowed: `twistedContext.call` has parameters of its own
                return f(*args, **kw)

            result: T = variables.run(twistedContext.call, twisted, inTwisted)
            return result

        return run


def callerContext() -> CallerContext | None:
    """Return the context of the code that calls this, or None if there is nothing to carry."""
    variables = copy_context()
    twisted: dict[Any, Any] = twistedContext.theContextTracker.currentContext().contexts[-1]
    if not len(variables) and twisted is twistedContext.defaultContextDict:
        return None
    return CallerContext(variables, twisted)
