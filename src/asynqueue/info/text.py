"""Calls, values and errors as text for people: made without an error whatever they are, and short."""

from __future__ import annotations

import threading
import traceback
from functools import partial
from inspect import getattr_static
from pathlib import PurePath
from types import FunctionType, MethodType, SimpleNamespace
from typing import Any

from asynqueue.core.records import CallSpec, describe

CALL_LENGTH, MESSAGE_LENGTH, TRACEBACK_LENGTH = 2_000, 1_000, 20_000
"""The most characters of a call, of an error's message in a heading, and of a traceback; more are left out inside."""


def callText(spec: CallSpec[Any], instance: object = None, thread: str | None = None) -> str:
    """The call SPEC, of a method of INSTANCE, in THREAD."""
    f: Any = spec.f  # whatever is to be called
    args, kw = spec.args, spec.kw
    for _ in range(100):  # one made by hand may be a partial of itself
        if not isA(f, partial):
            break
        f, args, kw = f.func, (*f.args, *args), {**f.keywords, **kw}
    text = _cut(describe(_subject(f, instance), args, kw), CALL_LENGTH)
    return text if thread is None else f"{text} <Thread: {thread}>"


def currentThread() -> str:
    """The name of the thread that this is called in."""
    return threading.current_thread().name


def isA(x: object, *kinds: type) -> bool:
    """`isinstance`, but that X is not asked itself: it may raise anything."""
    return issubclass(type(x), kinds)


def shown(x: object) -> str:
    """X as an argument is shown."""
    return _cut(describe(_named("x"), (x,))[len("x(") : -len(")")], CALL_LENGTH)


def attribute(x: object, name: str) -> str | None:
    """The text that X has as its attribute NAME, if it has one."""
    value = getattr(x, name, None)
    return value if isinstance(value, str) else None


def qualname(x: object) -> str | None:
    """X's own qualified name, or a bound method's by the class that it is bound to."""
    if isinstance(x, MethodType) and isinstance(x.__self__, type):
        return f"{x.__self__.__qualname__}.{attribute(x, '__name__')}"
    return attribute(x, "__qualname__")


def isMethodOf(x: object, f: object) -> bool:
    """Whether F, taken from the class of X, is one of its methods."""
    name = attribute(f, "__name__")
    return name is not None and any(getattr_static(kind, name, None) is f for kind in type(x).__mro__)


def report(what: str, error: BaseException | None, where: Any, call: str | None) -> str:
    """What happened, ERROR, doing CALL: a heading and the traceback.

    WHERE is a traceback, or what a Failure that was sent has for one.
    """
    heading = f"{what} '{errorText(error)}'" + ("" if call is None else f" doing call '{call}'") + ":"
    try:
        lines = "".join(traceback.format_exception(None if error is None else type(error), error, where))
    except Exception as refusal:  # a user's exception may raise anything for being looked at
        lines = f"(no traceback: looking at it raised {type(refusal).__name__})"
    divider = "-" * min(len(heading), 79)
    return "\n".join((heading, divider, _cut(lines.rstrip(), TRACEBACK_LENGTH, "\n")))


def errorText(error: BaseException | None) -> str:
    """The kind of ERROR and its message."""
    try:
        message = str(error)
    except Exception as refusal:  # a user's __str__ may raise anything
        message = f"(its str raised {type(refusal).__name__})"
    name = type(error).__qualname__
    return _cut(f"{name}: {message}" if message else name, MESSAGE_LENGTH)


def _subject(f: object, instance: object) -> object:
    """F, or where its own name would mislead, what `describe` gives a better one for."""
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
    except Exception:  # a user's class may raise anything for being looked at
        pass
    return f


def _named(name: str) -> object:
    return SimpleNamespace(__qualname__=name or '""')


def _cut(text: str, length: int, gap: str = " ") -> str:
    """TEXT, or its two ends if it is longer than LENGTH: an error's origin and the error are there."""
    if len(text) <= length:
        return text
    half = length // 2
    return f"{text[:half]}{gap}... {len(text) - 2 * half} characters ...{gap}{text[-half:]}"
