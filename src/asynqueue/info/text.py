"""Describe calls, values and errors as short text. Making the text never fails."""

from __future__ import annotations

import threading
import traceback
from functools import partial
from inspect import getattr_static
from pathlib import PurePath
from types import FunctionType, MethodType, SimpleNamespace
from typing import Any

from asynqueue.core.records import CallSpec
from asynqueue.core.results import isA
from asynqueue.core.text import cut, describe, valueText

CALL_LENGTH, MESSAGE_LENGTH, TRACEBACK_LENGTH = 2_000, 1_000, 20_000
"""The maximum length of a call, of an error's message in a heading, and of a traceback, in characters.

Longer texts are shortened in the middle.
"""


def callText(spec: CallSpec[Any], instance: object = None, thread: str | None = None) -> str:
    """Return the call SPEC of a method of INSTANCE, in THREAD, as text."""
    f: Any = spec.f  # Any, because any object may be set as the callable
    args, kw = spec.args, spec.kw
    for _ in range(100):  # limited, because a partial may contain itself
        if not isA(f, partial):
            break
        f, args, kw = f.func, (*f.args, *args), {**f.keywords, **kw}
    text = cut(describe(_subject(f, instance), args, kw), CALL_LENGTH)
    return text if thread is None else f"{text} <Thread: {thread}>"


def currentThread() -> str:
    """Return the name of the current thread."""
    return threading.current_thread().name


def shown(x: object) -> str:
    """Return X as text, as an argument is shown."""
    return valueText(x)


def attribute(x: object, name: str) -> str | None:
    """Return the attribute NAME of X if it is a string, else None."""
    value = getattr(x, name, None)
    return value if isinstance(value, str) else None


def qualname(x: object) -> str | None:
    """Return the qualified name of X. A bound class method is named by the class that it is bound to."""
    if isinstance(x, MethodType) and isinstance(x.__self__, type):
        return f"{x.__self__.__qualname__}.{attribute(x, '__name__')}"
    return attribute(x, "__qualname__")


def isMethodOf(x: object, f: object) -> bool:
    """Return whether F, taken from the class of X, is one of its methods."""
    name = attribute(f, "__name__")
    return name is not None and any(getattr_static(kind, name, None) is f for kind in type(x).__mro__)


def report(what: str, error: BaseException | None, where: Any, call: str | None) -> str:
    """Return a heading and the traceback for ERROR, which happened during CALL.

    WHERE is a traceback, or what a Failure that was sent has instead.
    """
    heading = f"{what} '{errorText(error)}'" + ("" if call is None else f" doing call '{call}'") + ":"
    try:
        lines = "".join(traceback.format_exception(None if error is None else type(error), error, where))
    except Exception as refusal:  # a user's exception may raise anything when it is formatted
        lines = f"(no traceback: formatting it raised {type(refusal).__name__})"
    divider = "-" * min(len(heading), 79)
    return "\n".join((heading, divider, cut(lines.rstrip(), TRACEBACK_LENGTH, "\n")))


def errorText(error: BaseException | None) -> str:
    """Return the class of ERROR and its message."""
    try:
        message = str(error)
    except Exception as refusal:  # a user's __str__ may raise anything
        message = f"(its str raised {type(refusal).__name__})"
    name = type(error).__qualname__
    return cut(f"{name}: {message}" if message else name, MESSAGE_LENGTH)


def _subject(f: object, instance: object) -> object:
    """Return F, or a stand-in with a better name for `describe` if its own name would mislead."""
    try:
        if isinstance(f, str):
            return _named(f)
        if not callable(f):
            return _named(f"{shown(f)}[Not Callable!]")
        name = attribute(f, "__name__")
        owner = f.__self__ if instance is None and isinstance(f, MethodType) else instance
        if owner is not None and name is not None:
            return _named(f"{(owner if isinstance(owner, type) else type(owner)).__qualname__}.{name}")
        if isinstance(f, FunctionType) and name == "<lambda>":
            place = f"<lambda at {PurePath(f.__code__.co_filename).name}:{f.__code__.co_firstlineno}>"
            return _named(f.__qualname__.removesuffix("<lambda>") + place)
        if name is None and type(f).__repr__ is object.__repr__:
            return _named(f"<{type(f).__qualname__} object>")
    except Exception:  # a user's class may raise anything when an attribute is read
        pass
    return f


def _named(name: str) -> object:
    return SimpleNamespace(__qualname__=name or '""')
